"""The pipeline's state `Build environment`: archives from lock files. The only function that reaches a package index."""

from __future__ import annotations

from typing import Any

from attestry.aws.logging import configure_logging
from attestry.aws.platform import current_platform
from attestry.aws.world import World
from attestry.usecases.build_environment import EnvironmentBuilder, Platform

world = World()
MARGIN_SECONDS = 180.0
"""For compiling, packing and uploading after the installation."""


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Build what is not there yet of `{"environments": [{"id", "lock_sha256"}, ...]}` and return the descriptions.

    Raises:
        AttestryError: an environment cannot be built; the pipeline records the sentence.
    """
    configure_logging(context)
    seconds = max(30.0, context.get_remaining_time_in_millis() / 1000 - MARGIN_SECONDS)
    builder = EnvironmentBuilder(world.store, Platform(*current_platform()), seconds=seconds)
    wanted = [{"id": str(item["id"]), "lock_sha256": str(item["lock_sha256"])} for item in event["environments"]]
    return {"environments": builder.build_all(wanted)}
