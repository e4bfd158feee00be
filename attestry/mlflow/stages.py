"""MLflow's four stages, and what they are here.

In a governed model the stage is no label that anybody sets: it is read from the version's standing. In an open model it is one, kept in
the version's tag `STAGE_TAG`, and says nothing about what is deployed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from attestry.domain.stages import Standing
from attestry.mlflow.errors import invalid

NONE: Final = "None"
STAGING: Final = "Staging"
PRODUCTION: Final = "Production"
ARCHIVED: Final = "Archived"
STAGES: Final = (NONE, STAGING, PRODUCTION, ARCHIVED)
ACTIVE: Final = (STAGING, PRODUCTION)
"""The stages of which `archive_existing_versions` archives others."""

STAGE_TAG: Final = "attestry.mlflow.stage"

OF_STANDING: Final[Mapping[Standing, str]] = {
    Standing.CANDIDATE: NONE,
    Standing.APPROVED: STAGING,
    Standing.SHADOW: STAGING,
    Standing.CANARY: STAGING,
    Standing.DEPLOYED: PRODUCTION,
    Standing.ROLLBACK: STAGING,
    Standing.RETIRED: ARCHIVED,
    Standing.REJECTED: ARCHIVED,
}
"""The stage that a version of a governed model shows: Production is what is deployed, Staging what is approved and may be."""


def check_stage(text: str) -> str:
    """Return the stage that a text names in whatever case.

    Raises:
        MlflowError: there is none such.
    """
    for stage in STAGES:
        if stage.lower() == text.lower():
            return stage
    raise invalid(f"Invalid Model Version stage: {text}. Value must be one of {', '.join(STAGES)}.")


def shown_stage(standing: Standing, tags: Mapping[str, str], *, open_model: bool) -> str:
    """Return the stage that MLflow is shown.

    Args:
        standing: the version's standing.
        tags: the version's tags, the registry's own among them.
        open_model: whether the model's policy is `open`.
    """
    return tagged_stage(tags) if open_model else OF_STANDING[standing]


def tagged_stage(tags: Mapping[str, str]) -> str:
    """Return the stage that a version's tags say, which is what counts in an open model."""
    stage = tags.get(STAGE_TAG, NONE)
    return stage if stage in STAGES else NONE
