"""Sign predictions: the life of a signing key in one process, and the rows that make its receipts durable.

Rules:
- A key is made in memory, for one version in one environment, and never leaves the process; its delegation comes from
  the delegator.
- It numbers its predictions 1, 2, 3, ...; a receipt is durable before the caller sees it, and receipts become durable
  in sequence.
- A key is used for 45 minutes at most, and not in the last 5 minutes (of a shorter delegation: twelfth) before its delegation expires.
- A key of which one receipt could not be written, or may or may not have been, is abandoned: it signs nothing any more.
- A key signs no more than its delegation allows, and a key of an earlier approval of the version is not used under a later one.
- Whether a prediction's payload is captured follows from its receipt, which holds random bytes, so no caller can steer
  it and anyone can recompute it.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Any, Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from attestry.domain.errors import (
    ApprovalLapsedError,
    ConditionFailedError,
    ConflictError,
    IntegrityError,
    InvalidInputError,
    NotFoundError,
    UnavailableError,
)
from attestry.domain.events import timestamp
from attestry.evidence.delegation import Delegation, jwk_of, read_unverified_delegation
from attestry.evidence.prediction_id import MAX_SEQUENCE
from attestry.evidence.receipt import ReceiptWriter
from attestry.evidence.version_urn import VersionUrn
from attestry.ports import ABSENT, Clock, Functions, Key, ObjectStore, Put

ROTATE_AFTER = timedelta(minutes=45)
ROTATE_BEFORE_EXPIRY = timedelta(minutes=5)
ACKNOWLEDGE_WITHIN = timedelta(minutes=1)
"""No receipt is acknowledged later than this after its delegation expired, so a key is complete at a known time."""

RECEIPT_ROW_DAYS = 35
RECEIPT_ROW_SECONDS = RECEIPT_ROW_DAYS * 86_400
MAX_PAYLOAD_IN_ROW = 100_000
"""Bytes of request and output together; larger captured payloads lie in the model store."""

OPEN_KEYS = "KEYS"
DEPLOYED = "DEPLOYED"


class Delegator(Protocol):
    """Where delegations come from."""

    def delegate(self, *, environment: str, version: VersionUrn, jwk: Mapping[str, str], standing: str = DEPLOYED) -> str:
        """Return the delegation (compact JWT) for a public key, for the version as what it stands there.

        Raises:
            ConflictError: the version does not stand there, or not any more.
            IntegrityError: what is recorded of its approvals was changed.
            UnavailableError: no answer.
        """


def delegation_key(kid: str) -> Key:
    """Return the key of the row that holds a delegation."""
    return Key(f"KEY#{kid}", "DELEGATION")


def receipt_key(kid: str, sequence: int) -> Key:
    """Return the key of the row that holds a receipt."""
    return Key(f"KEY#{kid}", f"R#{sequence:012d}")


def open_key(kid: str) -> Key:
    """Return the key of the row that says how far a signing key's receipts are collected."""
    return Key(OPEN_KEYS, kid)


def predictions_folder(folder: str) -> str:
    """Return the prefix, below a version's folder, of what is kept of its predictions."""
    return f"{folder.rstrip('/')}/predictions/"


class FunctionDelegator:
    """Asks the delegate function."""

    def __init__(self, functions: Functions, name: str) -> None:
        self._functions = functions
        self._name = name

    def delegate(self, *, environment: str, version: VersionUrn, jwk: Mapping[str, str], standing: str = DEPLOYED) -> str:
        """Return the delegation, see `Delegator`."""
        payload = {
            "model": version.model,
            "environment": environment,
            "version_digest": version.digest,
            "jwk": dict(jwk),
            "standing": standing,
        }
        answer = self._functions.call(self._name, payload)
        if isinstance(answer, Mapping) and isinstance(answer.get("delegation"), str):
            return str(answer["delegation"])
        error = answer.get("error") if isinstance(answer, Mapping) else None
        told = error if isinstance(error, Mapping) else {}
        message = str(told.get("message", "the delegate function gave no answer that is understood"))
        if told.get("code") == IntegrityError.code:
            raise IntegrityError(message)
        if told.get("code") == ApprovalLapsedError.code:
            raise ApprovalLapsedError(message)
        for kind in (ConflictError, NotFoundError, InvalidInputError):
            if told.get("code") == kind.code:
                raise ConflictError(message)
        raise UnavailableError(message)


@dataclass(frozen=True)
class SignedPrediction:
    """A signed prediction.

    Attributes:
        prediction_id: `<key ID>-<sequence>`.
        receipt: compact JWS.
        salt: hex; with it and the request's bytes anyone can check the receipt's `request_sha256`.
        kid: the key ID.
        sequence: number of the prediction under the key.
        at: when, UTC.
    """

    prediction_id: str
    receipt: str
    salt: str
    kid: str
    sequence: int
    at: datetime


class SigningKey:
    """A key of this process for one version in one environment. Not thread-safe: who shares it holds a lock."""

    def __init__(self, private_key: Ed25519PrivateKey, delegation: Delegation, clock: Clock) -> None:
        grant = delegation.grant
        self.kid = delegation.kid
        self.version = grant.version
        self.environment = grant.environment
        self.standing = grant.standing
        self._clock = clock
        self.segments = grant.segments
        self.approval = 0
        self._issued, self._expires = grant.issued, grant.expires
        self._most = min(MAX_SEQUENCE, grant.max_receipts or MAX_SEQUENCE)
        self._writer = ReceiptWriter(private_key.sign, kid=self.kid, version=grant.version)
        self._sequence = 0
        self._last_ms = grant.not_before * 1000
        self._abandoned = False

    @classmethod
    def obtain(cls, delegator: Delegator, *, environment: str, version: VersionUrn, clock: Clock, standing: str = DEPLOYED) -> SigningKey:
        """Make a key and have it delegated to.

        Raises:
            ConflictError: the version does not stand in the environment.
            UnavailableError: the delegator did not answer.
            IntegrityError: the delegation is for another key, version, standing or environment.
        """
        private_key = Ed25519PrivateKey.generate()
        public_key = private_key.public_key().public_bytes_raw()
        token = delegator.delegate(environment=environment, version=version, jwk=jwk_of(public_key), standing=standing)
        delegation = read_unverified_delegation(token)
        grant = delegation.grant
        if (grant.version, grant.environment, grant.standing, grant.public_key) != (version, environment, standing, public_key):
            raise IntegrityError(f"the delegation is not the one asked for: it names {grant.version.reference} as {grant.standing}")
        return cls(private_key, delegation, clock)

    def is_fresh(self) -> bool:
        """Return whether the key is the one to take for another prediction, with time left to make it."""
        now = self._clock.now().timestamp()
        age_limit = self._issued + ROTATE_AFTER.total_seconds()
        margin = self._expires - min(ROTATE_BEFORE_EXPIRY.total_seconds(), (self._expires - self._issued) / 12)
        return not self._abandoned and self.left > 0 and now < min(age_limit, margin)

    @property
    def left(self) -> int:
        """Return how many predictions the key may sign yet."""
        return self._most - self._sequence

    def sign(self, request: bytes, output: bytes) -> SignedPrediction:
        """Sign the next prediction; an output that is refused takes no number.

        Raises:
            UnavailableError: the key is abandoned or used up, or its delegation has expired.
            InvalidInputError: the output is no JSON, or holds NaN or an infinity.
        """
        at = self._clock.now()
        if self._abandoned or self.left < 1 or at.timestamp() >= self._expires:
            raise UnavailableError("the signing key ended while the prediction was made; ask again")
        self._last_ms = max(self._last_ms, int(at.timestamp() * 1000))
        number = self._sequence + 1
        emitted = self._writer.emit(sequence=number, time_ms=self._last_ms, request=request, output=output)
        self._sequence = number
        return SignedPrediction(emitted.prediction_id, emitted.token, emitted.salt, self.kid, number, at)

    def abandon(self) -> None:
        """Let the key sign nothing any more."""
        self._abandoned = True

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Surround what makes signed receipts durable: whatever goes wrong there, the key is abandoned.

        Raises:
            UnavailableError: the receipts may not be durable; they must not be shown to anyone.
        """
        try:
            yield
            late = self._clock.now().timestamp() > self._expires + ACKNOWLEDGE_WITHIN.total_seconds()
        except ConditionFailedError as error:
            self.abandon()
            raise UnavailableError("the receipt could not be written; ask again") from error
        except BaseException:
            self.abandon()
            raise
        if late:
            self.abandon()
            raise UnavailableError("the receipt was written too late to be acknowledged; ask again")


class SigningKeys:
    """The keys of this process, one per model, environment and standing there."""

    def __init__(self, delegator: Delegator, clock: Clock, *, limit: int = 64) -> None:
        """Prepare; nothing is asked for yet.

        Args:
            delegator: where delegations come from.
            clock: the time.
            limit: how many keys are kept; the least recently used is dropped.
        """
        self._delegator = delegator
        self._clock = clock
        self._limit = limit
        self._keys: OrderedDict[tuple[str, str, str], SigningKey] = OrderedDict()

    def now(self) -> datetime:
        """Return the time by which keys sign."""
        return self._clock.now()

    def key_for(self, version: VersionUrn, environment: str, standing: str = DEPLOYED, *, approval: int = 0) -> SigningKey:
        """Return a fresh key for exactly this version and standing; a key of another version, or of what it was before, is never returned.

        Args:
            version: the version.
            environment: where.
            standing: what it stands as there.
            approval: which opening of its approval it serves under, as the pointer's row says it.

        Raises:
            ConflictError, UnavailableError, IntegrityError: see `SigningKey.obtain`.
        """
        place = (version.model, environment, standing)
        key = self._keys.get(place)
        if key is not None and key.approval != approval:
            key = None
        if key is None or key.version != version or not key.is_fresh():
            key = SigningKey.obtain(self._delegator, environment=environment, version=version, clock=self._clock, standing=standing)
            key.approval = approval
            self._keys[place] = key
        self._keys.move_to_end(place)
        while len(self._keys) > self._limit:
            self._keys.popitem(last=False)
        return key


@dataclass(frozen=True)
class Capture:
    """How payloads are captured.

    Attributes:
        rate: share of the predictions, 0 to 1, as the pointer's row has it.
        folder: the version's folder in the model store.
        store: the model store, for payloads that are too large for a row; None where there is none.
    """

    rate: str
    folder: str
    store: ObjectStore | None


def is_captured(receipt: str, rate: str) -> bool:
    """Return whether the payload of a prediction is captured.

    It is when the first 8 bytes, big-endian, of SHA-256 over `capture`, a newline and the receipt are less than
    rate x 2^64.
    """
    place = int.from_bytes(hashlib.sha256(f"capture\n{receipt}".encode()).digest()[:8], "big")
    return place < _bound(rate)


@lru_cache(maxsize=64)
def _bound(rate: str) -> Decimal:
    """Return rate x 2^64, of which every request would otherwise compute the same."""
    return Decimal(rate) * 2**64


def receipt_put(signed: SignedPrediction, capture: Capture, *, request: bytes, output: bytes, principal: Mapping[str, Any] | None) -> Put:
    """Return the write that makes a receipt durable; a large captured payload is written to the model store first.

    Args:
        signed: the signed prediction.
        capture: how payloads are captured.
        request: the request's bytes.
        output: the output's bytes.
        principal: who asked, as `Principal.to_item` gives it; None where the serving process does not know.
    """
    captured = is_captured(signed.receipt, capture.rate)
    row: dict[str, Any] = {
        "receipt": signed.receipt,
        "salt": signed.salt,
        "at": timestamp(signed.at),
        "captured": captured,
        "rate": capture.rate,
        "principal": dict(principal) if principal is not None else None,
        "expires": int(signed.at.timestamp()) + RECEIPT_ROW_SECONDS,
    }
    if captured and len(request) + len(output) <= MAX_PAYLOAD_IN_ROW:
        row |= {"request": _text_or_bytes(request), "output": _text_or_bytes(output)}
    elif captured and capture.store is not None:
        folder = f"{predictions_folder(capture.folder)}payloads/{signed.kid}/{signed.sequence:012d}"
        row["payload"] = {
            "request": _place(capture.store, f"{folder}.request", request),
            "output": _place(capture.store, f"{folder}.output", output),
        }
    elif captured:
        row |= {"captured": False, "not_captured": "the payload is too large for a row, and the signer has no store"}
    return Put(receipt_key(signed.kid, signed.sequence), row, ABSENT)


def _place(store: ObjectStore, key: str, body: bytes) -> dict[str, Any]:
    stored = store.put_new(key, body)
    return {"key": stored.key, "version_id": stored.version_id, "size": stored.size, "sha256": stored.sha256}


def _text_or_bytes(data: bytes) -> str | bytes:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data
