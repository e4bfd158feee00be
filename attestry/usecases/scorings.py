"""Scorings: who asked that a file be scored, and what became of it. The work itself is `attestry.usecases.score_file`.

Rules:
- A scoring's ID follows from who asks, for which model and environment, the input's digest and the request's name: asking again is the
  same scoring, and no other caller can name it.
- The input lies in the scratch bucket, below the caller's own user ID, under a key that the registry makes up. The URL for it writes
  exactly the announced bytes, once.
- Asking again goes on: it tells where the input is to be put while it is not there, begins the execution once it is, and answers with what
  came of it. What has failed is tried again only where that is asked for; chunks that are done stay done.

SCORING#<id>/HEAD             the scoring: WAITING, RUNNING, DONE or FAILED
SCORING#<id>/CHUNK#<number>   a chunk whose rows are answered: where they lie, by digest
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from attestry.domain.errors import ConditionFailedError, ConflictError, InvalidInputError
from attestry.domain.events import timestamp
from attestry.domain.names import ModelName
from attestry.domain.principal import Principal
from attestry.evidence.canonical import canonical_bytes
from attestry.evidence.digests import is_sha256, sha256_hex
from attestry.ports import ABSENT, Item, Key, MetaStore, ObjectStore, Pipeline, Put, Update, When
from attestry.usecases.pointer import require_deployed
from attestry.usecases.records import pointer_key
from attestry.usecases.row_input import FORMATS, MAX_INPUT_BYTES

WAITING, RUNNING, DONE, FAILED = "WAITING", "RUNNING", "DONE", "FAILED"
URL_SECONDS: Final = 15 * 60
SECRET_BYTES: Final = 32
MAX_ENVIRONMENT: Final = 63
_FIELDS: Final = frozenset({"input", "environment", "request", "retry"})
_INPUT: Final = frozenset({"sha256", "size", "format"})
_REQUEST: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_LOST: Final = ("FAILED", "TIMED_OUT", "ABORTED")
_FOLDER: Final = "scoring/"
_TRIES: Final = 4


@dataclass(frozen=True)
class ScoringRequest:
    """What a caller asks for.

    Attributes:
        sha256: digest of the input file, hex.
        size: its bytes.
        format: `jsonl` or `csv`.
        environment: whose deployed version answers.
        request: a name of the caller's for the request; empty for the only one on this input.
        retry: whether what has failed is to be tried again.
    """

    sha256: str
    size: int
    format: str
    environment: str
    request: str = ""
    retry: bool = False

    def id_for(self, model: str, by: Principal) -> str:
        """Return the scoring's ID, 32 hexadecimal digits."""
        named = [by.user_id, by.subject, model, self.environment, self.sha256, self.size, self.format, self.request]
        return sha256_hex(canonical_bytes(named))[:32]


def read_scoring_request(body: Mapping[str, Any]) -> ScoringRequest:
    """Return what a request's body asks for: `{"input": {"sha256", "size", "format"}, "environment", "request", "retry"}`.

    Raises:
        InvalidInputError: something else; the error names the field.
    """
    unknown = sorted(set(body) - _FIELDS)
    if unknown:
        raise InvalidInputError.of(unknown[0][:80], "unknown_field", f"the fields are {', '.join(sorted(_FIELDS))}")
    given = body.get("input")
    if not isinstance(given, Mapping) or set(given) != _INPUT:
        raise InvalidInputError.of("input", "fields", f"the input is an object of {', '.join(sorted(_INPUT))}")
    if not is_sha256(given["sha256"]):
        raise InvalidInputError.of("input.sha256", "sha256", "64 lower-case hexadecimal digits are needed")
    if type(given["size"]) is not int or not 0 < given["size"] <= MAX_INPUT_BYTES:
        raise InvalidInputError.of("input.size", "size", f"a whole number of bytes from 1 to {MAX_INPUT_BYTES} is needed")
    if given["format"] not in FORMATS:
        raise InvalidInputError.of("input.format", "enum", f"the format is one of {', '.join(FORMATS)}")
    request, retry = body.get("request", ""), body.get("retry", False)
    if not isinstance(request, str) or (request and not _REQUEST.fullmatch(request)):
        raise InvalidInputError.of("request", "request", "the request's name is 1 to 64 of letters, digits, '.', '_' and '-'")
    if not isinstance(retry, bool):
        raise InvalidInputError.of("retry", "type", "retry is true or false")
    environment = body.get("environment", "production")
    if not isinstance(environment, str) or not 0 < len(environment) <= MAX_ENVIRONMENT:
        raise InvalidInputError.of("environment", "type", f"an environment is a text of 1 to {MAX_ENVIRONMENT} characters")
    return ScoringRequest(given["sha256"], given["size"], given["format"], environment, request, retry)


def scoring_key(scoring: str) -> Key:
    """Return the key of a scoring; its partition holds its chunks as well."""
    return Key(f"SCORING#{scoring}")


def chunk_key(scoring: str, number: int) -> Key:
    """Return the key of a chunk whose rows are answered."""
    return Key(f"SCORING#{scoring}", f"CHUNK#{number:06d}")


def folder_of(row: Mapping[str, Any]) -> str:
    """Return the folder of a scoring in the scratch bucket, with a slash at the end."""
    return f"{_FOLDER}{row['principal']['user_id']}/{row['id']}/"


def input_key(row: Mapping[str, Any]) -> str:
    """Return where the input of a scoring lies in the scratch bucket."""
    return f"{folder_of(row)}input.{row['input']['format']}"


def ask_scoring(
    meta: MetaStore,
    scratch: ObjectStore,
    store: ObjectStore,
    pipeline: Pipeline,
    request: ScoringRequest,
    *,
    model: str,
    by: Principal,
    at: datetime,
) -> dict[str, Any]:
    """Go on with a scoring as far as that is possible now, and tell where it stands.

    Args:
        meta: the table.
        scratch: the scratch bucket.
        store: the model store; the output's URL is of it.
        pipeline: the executions of the state machine that scores.
        request: what is asked for.
        model: the model's name.
        by: who asks.
        at: the time.

    Returns:
        `scoring`, `state`, `model`, `version`, `rows`, `error`; while the input is not there `upload` (`url`, `headers`); once it is done
        `output` (`url`, `sha256`, `size`), `attestation` and `event`, the texts of both.

    Raises:
        NotFoundError: nothing is deployed there.
        ConflictError: the row kept moving.
        UnavailableError: a service did not answer; asking again goes on.
    """
    ModelName(model)
    scoring = request.id_for(model, by)
    row = meta.get(scoring_key(scoring)) or _begin(meta, scoring, request, model, by, at)
    if row["state"] == FAILED and request.retry:
        row = _begin_again(meta, row, at)
    if row["state"] not in (WAITING, RUNNING):
        return _told(row, store)
    if "plan" not in row and scratch.stat(input_key(row)) is None:
        given = row["input"]
        url, headers = scratch.presign_put_new(input_key(row), sha256=given["sha256"], size=int(given["size"]), seconds=URL_SECONDS)
        return {**_told(row, store), "upload": {"url": url, "headers": headers}}
    execution = f"scoring-{scoring}-{int(row['attempt'])}"
    pipeline.start(execution, {"scoring": scoring})
    if pipeline.status(execution) in _LOST:
        end_scoring(meta, scoring, "its execution ended before the file was finished", at, attempt=int(row["attempt"]))
    return _told(meta.get(scoring_key(scoring)) or row, store)


def end_scoring(meta: MetaStore, scoring: str, error: str, at: datetime, *, attempt: int | None = None) -> None:
    """Say that a scoring has failed, where it is not done.

    Args:
        meta: the table.
        scoring: its ID.
        error: why, a sentence.
        at: the time.
        attempt: the attempt that has failed; another one is left alone. None for whichever it is.
    """
    for _ in range(_TRIES):
        row = meta.get(scoring_key(scoring))
        if row is None or row["state"] in (DONE, FAILED) or attempt not in (None, int(row["attempt"])):
            return
        same = When(exists=True, equals={name: row[name] for name in ("state", "attempt")})
        try:
            meta.transact([Update(scoring_key(scoring), {"state": FAILED, "error": error[:1000], "ended": timestamp(at)}, same)])
        except ConditionFailedError:
            continue
        return
    raise ConflictError(f"the scoring {scoring} keeps moving; try again")


def _begin(meta: MetaStore, scoring: str, request: ScoringRequest, model: str, by: Principal, at: datetime) -> Item:
    require_deployed(meta.get(pointer_key(model, request.environment)), model, request.environment)
    row = {
        "id": scoring,
        "model": model,
        "environment": request.environment,
        "input": {"sha256": request.sha256, "size": request.size, "format": request.format},
        "principal": by.to_item(),
        "secret": os.urandom(SECRET_BYTES),
        "state": WAITING,
        "attempt": 1,
        "begun": timestamp(at),
    }
    with suppress(ConditionFailedError):  # the same request, at the same time
        meta.transact([Put(scoring_key(scoring), row, ABSENT)])
    return meta.get(scoring_key(scoring)) or row


def _begin_again(meta: MetaStore, row: Item, at: datetime) -> Item:
    changes = {"state": RUNNING if "plan" in row else WAITING, "attempt": int(row["attempt"]) + 1, "error": None, "begun": timestamp(at)}
    same = When(exists=True, equals={name: row[name] for name in ("state", "attempt")})
    with suppress(ConditionFailedError):  # the same request, at the same time
        meta.transact([Update(scoring_key(row["id"]), changes, same)])
    return meta.get(scoring_key(row["id"])) or row


def _told(row: Mapping[str, Any], store: ObjectStore) -> dict[str, Any]:
    number, rows = row.get("number"), row.get("rows")
    told: dict[str, Any] = {
        "scoring": row["id"],
        "state": row["state"],
        "model": row["model"],
        "environment": row["environment"],
        "version": None if number is None else int(number),
        "rows": None if rows is None else int(rows),
        "error": row.get("error"),
        "upload": None,
        "output": None,
    }
    if row["state"] != DONE:
        return told
    output = row["output"]
    url = store.presign_get(output["key"], output["version_id"], seconds=URL_SECONDS)
    place = {"url": url, "sha256": output["sha256"], "size": int(output["size"])}
    return {**told, "output": place, "attestation": row["attestation"], "event": row["event"]}
