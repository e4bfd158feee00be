"""The pipeline's states `Evaluate ...`: reads what a script left, with the registry's own packages, and computes what gates judge."""

from __future__ import annotations

from typing import Any

from attestry.aws.logging import configure_logging
from attestry.aws.world import World
from attestry.evaluation.environment import EvaluationEnvironment
from attestry.evaluation.evaluate import evaluate

world = World()
environment = EvaluationEnvironment()


def handler(event: dict[str, Any], context: Any) -> dict[str, str]:
    """Evaluate the outputs that the event names; what is wrong with them is an answer, what is wrong here is raised."""
    configure_logging(context)
    own = event["environment"]
    environment.activate(world.store, str(own["id"]), str(own["archive_sha256"]))
    return evaluate(event, world.store, world.scratch)
