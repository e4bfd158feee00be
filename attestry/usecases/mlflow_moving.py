"""What becomes of a version that MLflow registers, moves to a stage or deletes.

Rules:
- A version that arrives is brought as any import is: from the caller's own uploads, digested, frozen, signed; it awaits its approval.
- In an open model stages are labels, set freely and kept as a tag of the version. They deploy nothing.
- In a governed model a stage follows from the version's standing, so a transition is asked for, not made:
    Production  begins the deployment where the version is approved and the caller may deploy, else it is a request that people find
    Staging     is a request for approval; nothing goes back to it from Production
    Archived    retires the version
    None        is refused: nothing goes back to being a candidate
  The answer is the version as it stands, and its status message says what was done.
- Deleting retires a version of a governed model, and takes one of an open model out of the catalogue.
- Nothing here approves, and nothing here deploys by itself: both end in the use case that the same act has anywhere else.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from attestry.domain.catalogue import VersionSubject, check_tags
from attestry.domain.errors import ConflictError
from attestry.domain.events import timestamp
from attestry.domain.operations import ROLES_OF, Operation
from attestry.domain.stages import DEPLOYABLE, Standing
from attestry.domain.version import Version
from attestry.mlflow.entities import ShownVersion
from attestry.mlflow.requests import CreateVersion, MoveVersion
from attestry.mlflow.sources import Source
from attestry.mlflow.stages import ARCHIVED, NONE, PRODUCTION, STAGE_TAG, STAGING
from attestry.usecases import catalogue
from attestry.usecases.mlflow_changing import Desk, ahead
from attestry.usecases.mlflow_reading import (
    LINK_TAG,
    LOGGED_TAG,
    RUN_TAG,
    SOURCE_TAG,
    WANTED_TAG,
    Known,
    find,
    newest_versions,
)

ARCHIVED_AT_MOST: Final = 25


def create_version(desk: Desk, asked: CreateVersion, source: Source) -> ShownVersion:
    """Make a version of files that the caller uploaded; the same source again answers the same version.

    Args:
        desk: where it is worked on.
        asked: what the client says.
        source: the caller's own submission, checked.

    Raises:
        MlflowError: no such model.
        InvalidInputError: a version cannot have these tags, or so many.
        AttestryError: the import is refused.
    """
    model = desk.find(asked.name).model.model
    told = source.told or asked.source
    run = {"id": asked.run_id, "tags": {k: v for k, v in (("run_link", asked.run_link), ("model_id", asked.model_id)) if v}}
    facts = {SOURCE_TAG: told, RUN_TAG: asked.run_id, LINK_TAG: asked.run_link, LOGGED_TAG: asked.model_id}
    # What could not be said of the version is refused before there is one.
    tags = check_tags({**asked.tags, **{key: value for key, value in facts.items() if value}})
    body = {"submission": source.submission, "source": told, "run": run, "description": asked.description, "tags": dict(asked.tags)}
    number = desk.acts.bring(model, body)
    known = find(desk.meta, model, number)
    _, labels = known.require_version()
    # A retry after a crash between the two finds the version, and labels it now.
    if not labels.rev:
        labels = catalogue.change_labels(
            ahead(desk, known), model, number, description=asked.description, tags=tags, by=desk.by, at=desk.at
        )
    return replace(known, labels=labels).show_version()


def move_version(desk: Desk, asked: MoveVersion) -> ShownVersion:
    """Move a version to a stage, or ask for it.

    Raises:
        MlflowError: no such version.
        ConflictError: the stage cannot be reached from where the version stands.
        ForbiddenError: the caller may not retire versions, and Archived was asked for.
    """
    known = desk.find(asked.name, asked.number)
    if known.is_open:
        return _label(desk, known, asked)
    version, _ = known.require_version()
    shown = known.show_version()
    if shown.stage == asked.stage:
        return replace(shown, message=shown.message or f"{version.reference} is in {asked.stage} already; nothing was changed")
    if asked.stage == NONE:
        raise ConflictError(f"{version.reference} stands {version.standing}: nothing of a governed model goes back to being a candidate")
    if asked.stage == ARCHIVED:
        desk.acts.retire(version.model, version.number, "moved to Archived through MLflow")
        return find(desk.meta, known.model.model, asked.number).show_version()
    if version.standing in (Standing.RETIRED, Standing.REJECTED):
        raise ConflictError(f"{version.reference} stands {version.standing} and goes to no other stage")
    if asked.stage == STAGING and version.standing is Standing.DEPLOYED:
        raise ConflictError(f"{version.reference} stands deployed; it leaves Production when another version is deployed, or by a rollback")
    return _request(desk, known, version, asked.stage)


def delete_version(desk: Desk, name: str, number: int) -> str:
    """Delete a version of an open model, or retire one of a governed model.

    Returns:
        What was done, for the answer.

    Raises:
        MlflowError: no such version.
        ConflictError: it is in use.
        ForbiddenError: the caller may not retire versions of a governed model.
    """
    known = desk.find(name, number)
    version, _ = known.require_version()
    if known.is_open:
        desk.enter(version.model, "versions.delete")
        catalogue.delete_version(desk.meta, version.model, number, by=desk.by, at=desk.at)
        return f"{version.reference} was deleted; its events stay in the ledger"
    if version.standing is not Standing.RETIRED:
        desk.acts.retire(version.model, number, "deleted through MLflow")
    return f"{name} is governed: {version.reference} was retired, not deleted. It is Archived, and its files and records stay"


def _label(desk: Desk, known: Known, asked: MoveVersion) -> ShownVersion:
    """Set the stage of a version of an open model, after those that make room for it."""
    model = known.model.model
    if asked.archive:
        for other in newest_versions(desk.meta, known, ARCHIVED_AT_MOST):
            number = other.outline.number
            if number != asked.number and other.labels.tags.get(STAGE_TAG) == asked.stage:
                catalogue.set_tag(desk.meta, VersionSubject(model, number), STAGE_TAG, ARCHIVED, by=desk.by, at=desk.at)
    subject = VersionSubject(model, asked.number)
    labels = catalogue.tag_version(ahead(desk, known), subject, STAGE_TAG, asked.stage, by=desk.by, at=desk.at)
    return replace(known, labels=labels).show_version()


def _request(desk: Desk, known: Known, version: Version, stage: str) -> ShownVersion:
    """Note a request for a transition down, and begin the deployment where that is what is left to do and the caller may."""
    asked_before = str(known.labels.tags.get(WANTED_TAG, "")) if known.labels else ""
    if not asked_before.startswith(f"{stage} by "):
        wanted = f"{stage} by {desk.by.person or desk.by.login} at {timestamp(desk.at)}"
        catalogue.set_tag(desk.meta, VersionSubject(version.model, version.number), WANTED_TAG, wanted, by=desk.by, at=desk.at)
    begun = ""
    if stage == PRODUCTION and version.standing in DEPLOYABLE and set(desk.by.roles) & set(ROLES_OF[Operation.DEPLOY]):
        desk.acts.deploy(version.model, version.number, "moved to Production through MLflow")
        begun = f"the deployment of {version.reference} was begun; it is in Production once it stands DEPLOYED"
    shown = find(desk.meta, known.model.model, version.number).show_version()
    told = begun or f"{known.model.name} is governed, so nothing was moved: {shown.message or f'a transition to {stage} was requested'}"
    return replace(shown, message=told)
