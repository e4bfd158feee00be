"""By hand: a person asks for a new version, with data of their own or without, or for a version to be reproduced."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from attestry.domain.cause import CauseKind
from attestry.domain.errors import InvalidInputError, NotFoundError
from attestry.domain.names import check_relative_path
from attestry.domain.principal import Principal
from attestry.ports import Item, MetaStore, ObjectStore
from attestry.usecases.records import candidate_key, model_key
from attestry.usecases.refresh import Refreshed, Refresher, Trigger, refresh_key, version_in_force
from attestry.usecases.source_data import NewData, read_data
from attestry.usecases.upload import candidate_prefix

MAX_SKIPS: Final = 50
MAX_WAITING: Final = 200
_SUBMISSION = re.compile(r"[0-9a-f]{16,64}")
_REQUEST = re.compile(r"[A-Za-z0-9_=-]{1,64}")


def read_request_id(value: object, default: str) -> str:
    """Return what tells one request from another, so that a request that is sent twice is one.

    Raises:
        InvalidInputError: no short text.
    """
    if value in (None, ""):
        return default
    if not isinstance(value, str) or not _REQUEST.fullmatch(value):
        raise InvalidInputError.of("request", "pattern", "the request's ID is 1 to 64 letters, digits, '-', '_' or '='")
    return value


def read_number(value: object) -> int | None:
    """Return the number of the version to start from, None where the caller leaves it to the registry.

    Raises:
        InvalidInputError: no number of a version.
    """
    if value is None:
        return None
    if type(value) is not int or not 0 < value < 10**9:
        raise InvalidInputError.of("version", "number", "version is the number of a version")
    return value


def read_brought(store: ObjectStore, value: object, *, by: Principal) -> dict[str, NewData]:
    """Return the data that a request brings: source name to `{"submission", "name"}` of a file below the caller's own upload prefix.

    Raises:
        InvalidInputError: not of that form, or there is no such file.
    """
    if value in (None, {}):
        return {}
    if not isinstance(value, Mapping):
        raise InvalidInputError.of("data", "type", "a mapping of source names to uploaded files is needed")
    found: dict[str, NewData] = {}
    for source, place in value.items():
        field = f"data.{source}"[:100]
        if not isinstance(place, Mapping) or set(place) != {"submission", "name"} or not all(isinstance(v, str) for v in place.values()):
            raise InvalidInputError.of(field, "fields", "the file is told by 'submission' and 'name'")
        if not _SUBMISSION.fullmatch(place["submission"]):
            raise InvalidInputError.of(f"{field}.submission", "pattern", "the ID that POST /v1/uploads answered is needed")
        name = check_relative_path(place["name"], field=f"{field}.name")
        try:
            # Below the prefix of who calls, whatever the body says: nobody brings another one's upload.
            key = f"{candidate_prefix(by.user_id)}{place['submission']}/{name}"
            found[str(source)] = read_data(store, key, None, by=by.require_person("bring data"))
        except NotFoundError as error:
            raise InvalidInputError.of(f"{field}.name", "present", f"you have uploaded no {name} in {place['submission']}") from error
    return found


def refresh_by_hand(
    refresher: Refresher,
    model: str,
    *,
    number: int | None,
    data: Mapping[str, NewData],
    request: str,
    reason: str,
    by: Principal,
    at: datetime,
) -> Refreshed:
    """Make a version because a person asks for it; raises as `Refresher.refresh`."""
    return refresher.refresh(model, Trigger(CauseKind.MANUAL, by, reason, identity={"request": request}, data=data), at, parent=number)


def show_refreshes(meta: MetaStore, model: str) -> dict[str, Any]:
    """Return what is known of a model's refreshes: the last, when the next is due, which data wait, and what was skipped and why.

    Raises:
        NotFoundError: no such model.
    """
    if meta.get(model_key(model)) is None:
        raise NotFoundError(f"there is no model {model}")
    partition = refresh_key(model).partition
    skipped = meta.query(partition, prefix="SKIP#", newest_first=True, limit=MAX_SKIPS)
    return {
        "model": model,
        "last": dict((meta.get(refresh_key(model)) or {}).get("last") or {}),
        **_next(meta, model),
        "waiting": [{k: row[k] for k in ("source", "key", "came")} for row in meta.query(partition, prefix="DROP#", limit=MAX_WAITING)],
        "skipped": [{k: row[k] for k in ("kind", "reason", "at", "facts")} for row in skipped],
    }


def _next(meta: MetaStore, model: str) -> dict[str, Any]:
    try:
        in_force = version_in_force(meta, model)
    except NotFoundError:
        return {"in_force": None, "schedule": "", "due": ""}
    row: Item = meta.get(candidate_key(in_force.candidate)) or {}
    return {"in_force": in_force.number, "schedule": str(row.get("schedule") or ""), "due": str(row.get("due") or "")}
