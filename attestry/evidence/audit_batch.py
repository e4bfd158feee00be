"""Batches of audited acts: what the object of one holds.

A batch is an object of lines, each the canonical JSON (RFC 8785) of one audited act; the event `audit.batch` names its SHA-256.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final

from attestry.domain.errors import IntegrityError
from attestry.evidence.canonical import parse_canonical

KIND: Final = "audit.batch"
SUBJECT: Final = "audit"


def read_batch(data: bytes, sha256: str) -> list[dict[str, Any]]:
    """Return the acts in the object of a batch.

    Raises:
        IntegrityError: it is not the object with this digest.
        InvalidInputError: a line that is not canonical JSON.
    """
    if hashlib.sha256(data).hexdigest() != sha256:
        raise IntegrityError("the audited acts are not those that the event names")
    return [parse_canonical(line) for line in data.splitlines()]


def read_named_batch(data: bytes, facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the acts in the object of a batch, which is as its event tells: digest, count, first and last minute.

    Raises:
        IntegrityError: it is another.
        InvalidInputError: a line that is not canonical JSON.
    """
    acts = read_batch(data, str(facts["sha256"]))
    minutes = [str(act["sk"])[:16] for act in acts]
    if not acts or (len(acts), minutes[0], minutes[-1]) != (facts["count"], facts["from"], facts["to"]):
        raise IntegrityError("count or minutes of the audited acts are not those that the event tells")
    return acts
