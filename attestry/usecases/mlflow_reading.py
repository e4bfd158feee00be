"""What MLflow is shown: rows of the catalogue, heads of versions and pointers, as models and versions of MLflow.

A model, its aliases, and of a version the labels and the head come in one round trip. Facts that a client told when it registered a
version (run, source) are tags of the version below `attestry.mlflow.`, so that a search finds them without opening a file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from attestry.domain.catalogue import Labels, Mode, RegisteredModel, identity_of
from attestry.domain.stages import Stage, Standing
from attestry.domain.stages import Status as StageStatus
from attestry.domain.version import Version
from attestry.mlflow.entities import ShownModel, ShownVersion, Status
from attestry.mlflow.errors import MlflowError, invalid, no_model, no_version
from attestry.mlflow.stages import shown_stage
from attestry.ports import Item, Key, MetaStore
from attestry.usecases.aliases import Aliases
from attestry.usecases.catalogue_rows import aliases_key, catalogue_key, labels_key, model_among, name_key
from attestry.usecases.mlflow_outline import Outline, load_outlines
from attestry.usecases.records import model_key, version_key

SOURCE_TAG: Final = "attestry.mlflow.source"
RUN_TAG: Final = "attestry.mlflow.run_id"
LINK_TAG: Final = "attestry.mlflow.run_link"
LOGGED_TAG: Final = "attestry.mlflow.model_id"
WANTED_TAG: Final = "attestry.mlflow.wanted_stage"
"""A transition that was requested: `<stage> by <who> at <time>`."""

ENVIRONMENT: Final = "production"
LATEST_OF: Final = 25
"""How many of the newest versions are looked at for the latest of each stage, besides what is deployed: a model may have thousands."""

APPROVED: Final = frozenset({Standing.APPROVED, Standing.SHADOW, Standing.CANARY, Standing.DEPLOYED, Standing.ROLLBACK})


@dataclass(frozen=True)
class Known:
    """A model and, where one was asked for, a version of it, as the rows tell.

    Attributes:
        model: the model.
        aliases: its aliases.
        last: the highest number of its versions; 0 for none.
        labels: of the version.
        version: its head.
        read: the rows that tell it, None for what was not there; for a change that follows at once (`attestry.usecases.read_ahead`).
    """

    model: RegisteredModel
    aliases: Aliases
    last: int
    labels: Labels | None = None
    version: Version | None = None
    read: Mapping[Key, Item | None] = field(default_factory=dict, repr=False, compare=False)

    @property
    def is_open(self) -> bool:
        """Return whether the model has MLflow's own semantics."""
        return self.model.mode == Mode.OPEN

    def require_version(self) -> tuple[Version, Labels]:
        """Return the version.

        Raises:
            MlflowError: none was asked for.
        """
        if self.version is None or self.labels is None:
            raise invalid("Missing value for required parameter 'version'.")
        return self.version, self.labels

    def show(self, latest: Sequence[ShownVersion] = ()) -> ShownModel:
        """Return the model as MLflow is shown it."""
        aliases = {alias: a.number for alias, a in self.aliases.by_alias.items()}
        model = self.model
        return ShownModel(model.name, model.created_at, model.updated_at, model.description, model.tags, aliases, tuple(latest))

    def show_version(self) -> ShownVersion:
        """Return the version as MLflow is shown it."""
        version, labels = self.require_version()
        return shown_version(self, Outline.of(version), labels)


@dataclass(frozen=True, slots=True)
class Found:
    """A version as far as MLflow is shown it.

    Attributes:
        known: its model.
        outline: of the version.
        labels: what people say about it.
    """

    known: Known
    outline: Outline
    labels: Labels

    def show_version(self) -> ShownVersion:
        """Return the version as MLflow is shown it."""
        return shown_version(self.known, self.outline, self.labels)


def find(meta: MetaStore, name: str, number: int | None = None) -> Known:
    """Return a model by its name in MLflow, and a version of it.

    Raises:
        MlflowError: there is no such model or version; code RESOURCE_DOES_NOT_EXIST.
        InvalidInputError: no name of the registry.
    """
    identity = identity_of(name)
    wanted = rows_named(name, number)
    rows = meta.get_many(wanted)
    led = rows.get(name_key(name))
    if led is not None and led.get("name") == name and led.get("model") != identity:
        identity = str(led["model"])
        wanted = _keys(identity, number)
        rows = meta.get_many(wanted)
    model = model_among(rows, identity)
    if model is None or model.deleted or name not in (model.name, model.model):
        raise no_model(name)
    head, read = rows.get(model_key(identity)), {key: rows.get(key) for key in wanted}
    known = Known(model, Aliases.from_item(identity, rows.get(aliases_key(identity))), int(head["next"]) - 1 if head else 0, read=read)
    if number is None:
        return known
    row = rows.get(version_key(identity, number))
    labels = Labels.from_item(identity, number, rows.get(labels_key(identity, number)))
    if row is None or labels.deleted:
        raise no_version(name, number)
    return replace(known, labels=labels, version=Version.from_item(row))


def rows_named(name: str, number: int | None = None) -> list[Key]:
    """Return the rows that a model and a version of it are found by.

    Raises:
        InvalidInputError: no name of the registry.
    """
    return _keys(identity_of(name), number, name)


def find_by_alias(meta: MetaStore, known: Known, alias: str) -> Known | Found:
    """Return the version that an alias names; `latest` is the one with the highest number.

    Raises:
        MlflowError: no such model (RESOURCE_DOES_NOT_EXIST) or alias (INVALID_PARAMETER_VALUE, as MLflow's own stores have it).
    """
    if alias.lower() == "latest":
        newest = newest_versions(meta, known, 1)
        if not newest:
            raise MlflowError("RESOURCE_DOES_NOT_EXIST", f"Latest version not found for model {known.model.name}.")
        return newest[0]
    named = known.aliases.by_alias.get(alias)
    if named is None:
        raise invalid(f"Registered model alias {alias} not found.")
    # By the identity: the gate was asked about this model, and its name may be another one's by now.
    return find(meta, known.model.model, named.number)


def newest_versions(meta: MetaStore, known: Known, limit: int) -> list[Found]:
    """Return up to `limit` of a model's versions, the newest first, that were not deleted, among the `LATEST_OF` newest."""
    numbers = range(known.last, max(0, known.last - LATEST_OF), -1)
    found = list(versions_of(meta, known, numbers))
    return found[:limit]


def versions_of(meta: MetaStore, known: Known, numbers: Iterable[int]) -> Iterable[Found]:
    """Yield those versions of a model that exist and were not deleted, in the order of the numbers."""
    return load_versions(meta, [(known, number) for number in numbers])


def load_versions(meta: MetaStore, wanted: Sequence[tuple[Known, int]]) -> Iterable[Found]:
    """Yield those versions, by model and number, that exist and were not deleted, in the order in which they are named."""
    subjects = [(known.model.model, number) for known, number in wanted]
    outlines = load_outlines(meta, subjects)
    return (Found(known, *outlines[subject]) for (known, _), subject in zip(wanted, subjects, strict=True) if subject in outlines)


def shown_version(known: Known, version: Outline, labels: Labels) -> ShownVersion:
    """Return a version as MLflow is shown it."""
    tags = labels.tags
    stage = shown_stage(version.standing, tags, open_model=known.is_open)
    return ShownVersion(
        name=known.model.name,
        number=version.number,
        created=version.created,
        updated=max(version.updated, labels.updated_at),
        user=version.user,
        stage=stage,
        description=labels.description,
        source=tags.get(SOURCE_TAG, ""),
        run_id=tags.get(RUN_TAG, ""),
        run_link=tags.get(LINK_TAG, ""),
        model_id=tags.get(LOGGED_TAG, ""),
        status=_status(version),
        message=_message(known, version, tags, stage),
        tags=tags,
        aliases=known.aliases.of_version(version.number),
    )


def _keys(identity: str, number: int | None, name: str = "") -> list[Key]:
    keys = [catalogue_key(identity), model_key(identity), aliases_key(identity)]
    if name:
        keys.append(name_key(name))
    if number is not None:
        keys += [version_key(identity, number), labels_key(identity, number)]
    return keys


def _status(version: Outline) -> Status:
    """Return whether a version's files are frozen, which is what makes it one that can be loaded."""
    if version.frozen:
        return "READY"
    return "FAILED_REGISTRATION" if version.status in (StageStatus.FAILED, StageStatus.REJECTED) else "PENDING_REGISTRATION"


def _message(known: Known, version: Outline, tags: Mapping[str, Any], stage: str) -> str:
    """Return what a person should know of the version that its stage does not tell."""
    if version.out_of_use:
        return f"{version.reference} was {version.out_of_use}"
    if version.error:
        return f"{version.stage} {version.status}: {version.error}"
    if known.is_open:
        return ""
    wanted = str(tags.get(WANTED_TAG, ""))
    told = [f"a transition to {wanted} was requested"] if wanted and not wanted.startswith(f"{stage} ") else []
    if version.stage is Stage.APPROVAL and version.status is StageStatus.RUNNING:
        told.append(f"{version.reference} waits for its approval: attestry approve {version.reference}")
    elif told and version.standing in APPROVED:
        told.append(f"{version.reference} is approved and waits for a deployer: attestry deploy {version.reference}")
    return "; ".join(told)
