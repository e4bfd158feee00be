"""What MLflow changes of models, tags, aliases and descriptions: the catalogue's own changes, asked for in MLflow's words.

Rules:
- A model that is made through MLflow gets the mode that the deployment says: `governed`, unless it was set to `open`.
- What is changed is changed by the catalogue's use cases, in one transaction with its event, under the caller's identity.
- Renaming and deleting are for open models. Of a governed one both are refused with a sentence that says what to do instead.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Protocol

from attestry.domain.catalogue import ModelSubject, VersionSubject, identity_of
from attestry.domain.errors import ModelExistsError
from attestry.domain.principal import Principal
from attestry.mlflow.entities import ShownModel, ShownVersion
from attestry.mlflow.errors import ALREADY_EXISTS, MlflowError
from attestry.mlflow.requests import CreateModel
from attestry.ports import MetaStore
from attestry.usecases import catalogue
from attestry.usecases.aliases import Aliases
from attestry.usecases.mlflow_latest import latest_of_stages
from attestry.usecases.mlflow_reading import Known, find
from attestry.usecases.read_ahead import ReadAhead


class Acts(Protocol):
    """What other functions of the registry do for the same caller, with their own checks of who may."""

    def deploy(self, model: str, number: int, reason: str) -> None:
        """Begin to put a version in place.

        Raises:
            AttestryError: the registry refuses.
        """

    def retire(self, model: str, number: int, reason: str) -> None:
        """Take a version out of use.

        Raises:
            AttestryError: the registry refuses.
        """

    def bring(self, model: str, body: dict[str, Any]) -> int:
        """Make a version of files that the caller uploaded, and return its number; the same again returns the same.

        Raises:
            AttestryError: the registry refuses.
        """


class Gate(Protocol):
    """Decides whether the caller may do what the request asks for to a model."""

    def __call__(self, model: str, action: str | None = None, **context: str) -> Principal:
        """Return the caller with the roles that count on the model; `action` is another one than the request's own.

        Raises:
            ForbiddenError: policies deny it.
        """


class Desk:
    """Where one request of MLflow is worked on.

    A request names its model by a name that may have been changed, so who may do what is decided once the model is found: nothing is
    shown or changed of a model that did not pass the gate.

    Args:
        meta: the table.
        acts: what other functions do.
        gate: decides.
        by: the authenticated caller.
        at: the time.
        mode: of models that are made here: `open` or `governed`.

    Attributes:
        by: the caller; once a model is found, with the roles that count on it.
    """

    def __init__(self, meta: MetaStore, acts: Acts, gate: Gate, by: Principal, at: datetime, mode: str) -> None:
        self.meta = meta
        self.acts = acts
        self.by = by
        self.at = at
        self.mode = mode
        self._gate = gate

    def enter(self, model: str, action: str | None = None, **context: str) -> None:
        """Have it decided whether the caller may do what is asked for, or another action, to a model, by its identity.

        Raises:
            ForbiddenError: policies deny it.
        """
        self.by = self._gate(model, action, **context)

    def find(self, name: str, number: int | None = None, **context: str) -> Known:
        """Return a model, and a version of it, on which the caller may do what is asked for.

        Raises:
            MlflowError: there is no such model or version.
            ForbiddenError: policies deny it.
        """
        known = find(self.meta, name, number)
        self.enter(known.model.model, **context)
        return known


def create_model(desk: Desk, asked: CreateModel) -> ShownModel:
    """Make a model.

    Raises:
        MlflowError: a model has the name; code RESOURCE_ALREADY_EXISTS, by which `register_model` goes on.
        InvalidInputError: a name or tag out of form.
    """
    desk.enter(identity_of(asked.name))
    try:
        made = catalogue.create_model(
            desk.meta, asked.name, description=asked.description, tags=asked.tags, mode=desk.mode, by=desk.by, at=desk.at
        )
    except ModelExistsError as error:
        raise MlflowError(ALREADY_EXISTS, f"Registered Model (name={asked.name}) already exists.") from error
    return Known(
        made, Aliases.from_item(made.model, None), last=0
    ).show()  # an alias comes later, and those of one that was deleted are gone


def describe_model(desk: Desk, name: str, description: str) -> ShownModel:
    """Change a model's description."""
    known = desk.find(name)
    catalogue.change_model(ahead(desk, known), known.model.model, description=description, by=desk.by, at=desk.at)
    return show_model(desk, name)


def rename_model(desk: Desk, name: str, new_name: str) -> ShownModel:
    """Give an open model another name, as somebody who might make a model of that name.

    Raises:
        MlflowError: another model has the name.
        ModelModeError: the model is governed.
        ForbiddenError: policies deny one or the other.
    """
    known = desk.find(name)
    by = desk.by
    desk.enter(identity_of(new_name))
    try:
        catalogue.rename_model(desk.meta, known.model.model, new_name, by=by, at=desk.at)
    except ModelExistsError as error:
        raise MlflowError(ALREADY_EXISTS, f"Registered Model (name={new_name}) already exists.") from error
    return show_model(desk, new_name)


def delete_model(desk: Desk, name: str) -> None:
    """Delete an open model from the catalogue; its events stay.

    Raises:
        ModelModeError: the model is governed.
        ConflictError: a version of it is in use.
    """
    catalogue.delete_model(desk.meta, desk.find(name).model.model, by=desk.by, at=desk.at)


def show_model(desk: Desk, name: str) -> ShownModel:
    """Return a model with the latest version of each stage."""
    known = desk.find(name)
    return known.show(latest_of_stages(desk.meta, known))


def describe_version(desk: Desk, name: str, number: int, description: str | None) -> ShownVersion:
    """Change a version's description; None takes it away, as MLflow has it."""
    known = desk.find(name, number)
    catalogue.change_labels(ahead(desk, known), known.model.model, number, description=description or "", by=desk.by, at=desk.at)
    return find(desk.meta, known.model.model, number).show_version()


def set_tag(desk: Desk, known: Known, key: str, value: str) -> None:
    """Set a tag of a model or, where `known` has one, of its version."""
    catalogue.set_tag(ahead(desk, known), _subject(known), key, value, by=desk.by, at=desk.at)


def delete_tag(desk: Desk, known: Known, key: str) -> None:
    """Take a tag away; one that is not there changes nothing."""
    catalogue.delete_tag(ahead(desk, known), _subject(known), key, by=desk.by, at=desk.at)


def set_alias(desk: Desk, known: Known, alias: str) -> None:
    """Let an alias name a version."""
    version, _ = known.require_version()
    catalogue.set_alias(ahead(desk, known), known.model.model, alias, version.number, by=desk.by, at=desk.at)


def delete_alias(desk: Desk, known: Known, alias: str) -> None:
    """Take an alias away; one that is not there changes nothing."""
    catalogue.delete_alias(ahead(desk, known), known.model.model, alias, by=desk.by, at=desk.at)


def ahead(desk: Desk, known: Known) -> MetaStore:
    """Return the table for a change of what was found: it need not read again what the gate was asked about."""
    return ReadAhead(desk.meta, known.read)


def _subject(known: Known) -> ModelSubject | VersionSubject:
    if known.version is None:
        return ModelSubject(known.model.model)
    return VersionSubject(known.model.model, known.version.number)
