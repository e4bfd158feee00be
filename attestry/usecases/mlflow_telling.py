"""Events of the registry as MLflow's webhooks tell them: names, tags and sources as MLflow's clients would be shown them at that moment.

Only the catalogue is read: who delivers makes requests to strangers, and sees no version.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from attestry.domain.catalogue import Labels, RegisteredModel
from attestry.domain.telling import Told
from attestry.mlflow.rules import OWN_TAGS
from attestry.mlflow.webhooks import KINDS
from attestry.ports import MetaStore
from attestry.usecases.catalogue_rows import catalogue_key, labels_key, model_among
from attestry.usecases.mlflow_reading import RUN_TAG, SOURCE_TAG

_VERSION = re.compile(r"model/([^/]+)/version/([1-9][0-9]{0,8})")
_EVENTS = {kind: event for event, kinds in KINDS.items() for kind in kinds}


def tell_mlflow(meta: MetaStore, told: Told) -> tuple[str, dict[str, Any]] | None:
    """Return MLflow's event and its payload; None where MLflow tells nothing of what happened.

    Args:
        meta: the table, for what the event does not say: the model's name in MLflow, tags and source of a version.
        told: the event.
    """
    event, data, subject = _EVENTS.get(told.kind), told.event["data"], str(told.event["subject"])
    if event is None:
        return None
    if event == "registered_model.created":
        return event, _model(meta, told)
    if event == "model_version.created":
        return event, _version(meta, told)
    if event.startswith("model_version_tag."):
        named = _VERSION.fullmatch(subject)
        if named is None or str(data["key"]).startswith(OWN_TAGS):
            return None  # A tag of a model, of which MLflow tells nothing, or one of the registry's own.
        tag = {"name": _name(meta, named[1]), "version": named[2], "key": data["key"]}
        # The ledger names a long value by its digest.
        value = {"value": data.get("value", f"sha256:{data.get('value_sha256', '')}")} if event.endswith(".set") else {}
        return event, {**tag, **value}
    if "alias" not in data:
        return None  # Aliases that went with a version or a model.
    number = {"version": str(data["number"])} if event.endswith(".created") else {}
    return event, {"name": _name(meta, told.model), "alias": data["alias"], **number}


def _model(meta: MetaStore, told: Told) -> dict[str, Any]:
    known = _known(meta, told.model)[0]
    if known is None:
        return {"name": str(told.event["data"].get("name") or told.model), "tags": {}, "description": None}
    return {"name": known.name, "tags": _shown(known.tags), "description": known.description or None}


def _version(meta: MetaStore, told: Told) -> dict[str, Any]:
    model, _, number = str(told.event["subject"]).partition("@")
    known, labels = _known(meta, model, int(number))
    return {
        "name": known.name if known else model,
        "version": number,
        "source": labels.tags.get(SOURCE_TAG, ""),
        "run_id": labels.tags.get(RUN_TAG) or None,
        "tags": _shown(labels.tags),
        "description": labels.description or None,
    }


def _name(meta: MetaStore, model: str) -> str:
    known = _known(meta, model)[0]
    return known.name if known else model


def _known(meta: MetaStore, model: str, number: int = 0) -> tuple[RegisteredModel | None, Labels]:
    """Return what people say of a model, None where it is gone, and of a version of it."""
    rows = meta.get_many([catalogue_key(model), labels_key(model, number)])
    return model_among(rows, model), Labels.from_item(model, number, rows.get(labels_key(model, number)))


def _shown(tags: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in tags.items() if not key.startswith(OWN_TAGS)}
