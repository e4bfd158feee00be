"""The pipeline's states `Evaluate ...`: reads what a script left, with the registry's own packages, and computes what gates judge.

Besides, it computes the trials of validation records for the function that takes them.
"""

from __future__ import annotations

from typing import Any

from attestry.aws.logging import configure_logging
from attestry.aws.platform import current_platform
from attestry.aws.world import World
from attestry.evaluation.environment import EvaluationEnvironment, own_environment
from attestry.evaluation.evaluate import evaluate, evaluate_record

world = World()
environment = EvaluationEnvironment()


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Evaluate the outputs, or the trial, that the event names; what is wrong with them is an answer, what is wrong here is raised."""
    configure_logging(context)
    trial = event.get("action") == "trial"
    own = own_environment(world.store, *current_platform()) if trial else event["environment"]
    environment.activate(world.store, str(own["id"]), str(own["archive_sha256"]))
    return evaluate_record(event) if trial else evaluate(event, world.store, world.scratch)
