"""Where an admin places a model: the tags, the project and the business unit that scopes of roles speak of.

They are kept apart from what a manifest and the catalogue say of a model, which is written by the people whose access it would widen.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from attestry.access.events import MODEL_PLACED, mark, placed_event_subject
from attestry.access.rows import PLACED, placement_key
from attestry.access.scopes import Placement
from attestry.domain.errors import ConditionFailedError, ConflictError, InvalidInputError
from attestry.domain.events import Event
from attestry.domain.names import ModelName
from attestry.domain.principal import Principal
from attestry.ports import ABSENT, MetaStore, Put, When
from attestry.usecases.records import outbox_put

MAX_CHANGES: Final = 5_000


def place_model(meta: MetaStore, model: str, placement: Placement, *, reason: str, by: Principal, at: datetime) -> dict[str, Any]:
    """Say where a model lies; the whole placement, which replaces the one before. The same again changes nothing.

    A model may be placed before its first version is there.

    Args:
        meta: the table.
        model: the model's name.
        placement: tags, project and business unit.
        reason: why, checked.
        by: the admin.
        at: the time.

    Raises:
        InvalidInputError: no model name, or the model was placed too often.
        ConflictError: somebody else places it at the same moment.
    """
    ModelName(model)
    row = meta.get(placement_key(model))
    if row and Placement.from_item(row) == placement:
        return show_placement(meta, model)
    earlier = list(row["changed"]) if row else []
    if len(earlier) >= MAX_CHANGES:
        raise InvalidInputError.of("model", "max_changes", f"{model} was placed {MAX_CHANGES} times, which is the limit")
    event = Event(MODEL_PLACED, placed_event_subject(model), len(earlier) + 1, at, by, {**placement.to_item(), "reason": reason})
    changed = [*earlier, mark(event)]
    item = {"model": model, **placement.to_item(), "changed": changed, "rev": len(changed), "gsi_pk": PLACED, "gsi_sk": model}
    when = When(exists=True, equals={"rev": row["rev"]}) if row else ABSENT
    try:
        meta.transact([Put(placement_key(model), item, when), outbox_put(event)])
    except ConditionFailedError as error:
        raise ConflictError(f"{model} was placed by somebody else at the same moment; look at it first") from error
    return {"model": model, **placement.to_item(), "scopes": list(placement.scopes_of(model))}


def show_placement(meta: MetaStore, model: str) -> dict[str, Any]:
    """Return where a model lies, and in which scopes that is.

    Raises:
        InvalidInputError: no model name.
    """
    ModelName(model)
    placement = Placement.from_item(meta.get(placement_key(model)))
    return {"model": model, **placement.to_item(), "scopes": list(placement.scopes_of(model))}
