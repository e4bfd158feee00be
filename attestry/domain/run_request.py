"""What a body says of a development run, checked: its start, and what is said of it later on.

Rules:
- What a client says is closed: a field that nobody knows is refused. There is none for the owner, who is whoever was authenticated.
- An error names the field and the rule.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from attestry.domain.catalogue import check_name
from attestry.domain.errors import InvalidInputError
from attestry.domain.runs import (
    ENDS,
    MAX_ENVIRONMENT_BYTES,
    MAX_ERROR,
    MAX_NAME,
    MAX_PACKAGES,
    Change,
    RunState,
    Start,
    check_entry_name,
    check_size,
    check_text,
    check_texts,
    check_time,
    is_run_id,
)

START_FIELDS: Final = ("run", "experiment", "begun", "parameters", "tags", "environment", "source")
CHANGE_FIELDS: Final = ("parameters", "tags", "files", "state", "error", "ended")
MAX_FILE_BYTES: Final = 2**53 - 1
_SHA256 = re.compile(r"[0-9a-f]{64}")
_ENVIRONMENT = {"python": str, "platform": str, "cpu_count": int, "packages": dict}
_SOURCE = {"script": str, "revision": str, "changed": bool}


def read_start(body: Mapping[str, Any]) -> Start:
    """Return the start of a run that a body tells of.

    Raises:
        InvalidInputError: naming the field and the rule.
    """
    run = body.get("run")
    if not isinstance(run, str) or not is_run_id(run):
        raise InvalidInputError.of("run", "run_id", "the ID of a run is 32 hex digits in lower case, made by the client")
    environment = _read_part("environment", body.get("environment"), _ENVIRONMENT)
    packages = environment.get("packages", {})
    check_texts("environment.packages", packages, most=MAX_PACKAGES, most_bytes=MAX_ENVIRONMENT_BYTES)
    return Start(
        run,
        _read_experiment(body.get("experiment")),
        _read_time("begun", body.get("begun")),
        check_texts("parameters", body.get("parameters", {})),
        check_texts("tags", body.get("tags", {})),
        environment,
        _read_part("source", body.get("source"), _SOURCE),
    )


def read_change(body: Mapping[str, Any]) -> Change:
    """Return the change of a run that a body tells of.

    Raises:
        InvalidInputError: naming the field and the rule.
    """
    state, error = body.get("state"), body.get("error", "")
    if state is not None and state not in ENDS:
        raise InvalidInputError.of("state", "enum", f"a run ends as {' or '.join(ENDS)}; while it runs the state is not said")
    if state is None and ("error" in body or "ended" in body):
        raise InvalidInputError.of("state", "required", "`error` and `ended` come with the state in which the run ends")
    check_text("error", error, MAX_ERROR)
    return Change(
        check_texts("parameters", body.get("parameters", {})),
        check_texts("tags", body.get("tags", {})),
        _read_files(body.get("files", {})),
        RunState(state) if state is not None else None,
        error,
        _read_time("ended", body.get("ended")),
    )


def _read_time(what: str, value: Any) -> str:
    return "" if value is None else check_time(what, value)


def _read_experiment(value: Any) -> str:
    try:
        return check_name(value)
    except InvalidInputError as error:
        raise InvalidInputError.of("experiment", "name", error.problems[0].message) from error


def _read_part(what: str, value: Any, fields: Mapping[str, type]) -> dict[str, Any]:
    """Return what is said of the environment or the source: known fields alone, of their types; what is null is left out."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InvalidInputError.of(what, "type", "an object is needed")
    for name, one in value.items():
        if name not in fields:
            raise InvalidInputError.of(
                f"{what}.{name[:80]}", "unknown_field", f"there is no such field here; the fields are {', '.join(fields)}"
            )
        if one is not None and type(one) is not fields[name]:
            raise InvalidInputError.of(f"{what}.{name}", "type", f"a {fields[name].__name__} is needed")
        if isinstance(one, str):
            check_text(f"{what}.{name}", one, MAX_NAME)
        if type(one) is int and not 0 <= one < 2**31:
            raise InvalidInputError.of(f"{what}.{name}", "range", "a number from 0 is needed")
    return {name: one for name, one in value.items() if one is not None}


def _read_files(value: Any) -> dict[str, dict[str, Any]]:
    if not isinstance(value, Mapping):
        raise InvalidInputError.of("files", "type", "a mapping of names to `sha256` and `size` is needed")
    for name, file in value.items():
        check_entry_name("files", name)
        where = f"files.{name[:80]}"
        if not isinstance(file, Mapping) or set(file) != {"sha256", "size"}:
            raise InvalidInputError.of(where, "type", "a file is told by its `sha256` and `size`")
        if not isinstance(file["sha256"], str) or not _SHA256.fullmatch(file["sha256"]):
            raise InvalidInputError.of(f"{where}.sha256", "sha256", "64 hex digits in lower case are needed")
        if type(file["size"]) is not int or not 0 <= file["size"] <= MAX_FILE_BYTES:
            raise InvalidInputError.of(f"{where}.size", "range", "a size in bytes is needed")
    files = {str(name): dict(file) for name, file in value.items()}
    check_size("files", files)
    return files
