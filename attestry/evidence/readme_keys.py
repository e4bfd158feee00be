"""Which keys of the trusted root the commands in a bundle's README name: those that were valid at the ledger time of what they verify.

A trusted root names keys of years. The ledger's key is the one that the checkpoint's signature line names, valid at the checkpoint's
time; the delegator the one that the delegation names, valid when its event was logged; the artifact signer the one that `model.sig` names,
valid when the success of TRAINING, or of an import, was logged. Nothing is verified here: that is what the commands are for.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from attestry.domain.errors import AttestryError
from attestry.domain.events import timestamp
from attestry.evidence.delegation import read_unverified_delegation
from attestry.evidence.note import Algorithm, Verifier, parse_note
from attestry.evidence.oms_signature import key_hint
from attestry.evidence.trusted_key import TrustedKey
from attestry.evidence.trusted_root import TrustedRoot

NO_KEY: Final = "no-key-was-valid"
"""Stands where a key ought to be named, so that the command fails, where the trusted root has none for that time."""

Found = TypeVar("Found")

_STUMBLES = (AttestryError, LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError)


@dataclass(frozen=True)
class NamedKey:
    """A key and the ledger time at which it was looked for; the key is None where none was valid then."""

    key: TrustedKey | None = None
    at: str = ""

    @property
    def fingerprint(self) -> str:
        """Return SHA-256 of the DER in hex, which is the name of the key's PEM file."""
        return self.key.fingerprint if self.key else NO_KEY

    @property
    def window(self) -> str:
        """Return the key's validity and what it was looked for, for a person."""
        if self.key is None:
            return "the trusted root names no key that was valid for it"
        return f"valid from {self.key.start}{f' to {self.key.end}' if self.key.end else ''}, needed at {self.at}"


@dataclass(frozen=True)
class NamedKeys:
    """The keys of a bundle's ledger head, delegation and artifact signature."""

    ledger: NamedKey = NamedKey()
    delegator: NamedKey = NamedKey()
    artifact: NamedKey = NamedKey()


def name_keys(files: Mapping[str, bytes]) -> NamedKeys:
    """Return the keys that the files of a bundle are to be checked with; what cannot be read names none."""
    root = _try(lambda: TrustedRoot.parse(files["root/trusted_root.json"]))
    if root is None:
        return NamedKeys()
    events = _try(lambda: _events(files)) or []
    return NamedKeys(
        ledger=_try(lambda: _ledger(root, files["ledger/checkpoint"], [at for logged, at, _ in events if logged])) or NamedKey(),
        delegator=_try(lambda: _delegator(root, files["prediction/delegation.jwt"].decode(), events)) or NamedKey(),
        artifact=_try(lambda: _artifact(root, files["version/model.sig"], events)) or NamedKey(),
    )


def _ledger(root: TrustedRoot, note: bytes, logged: list[str]) -> NamedKey:
    _, signatures = parse_note(note)
    witnesses = [Verifier.of(k.name, k.public_bytes, Algorithm.COSIGNATURE) for k in root.witness_keys()]
    cosigned = [s.timestamp for s in signatures if s.timestamp is not None and any(s.is_by(w) for w in witnesses)]
    at = max([*logged, *(timestamp(datetime.fromtimestamp(seconds, UTC)) for seconds in cosigned)])
    signed = [k for k in root.ledger_keys(at) if any(s.is_by(Verifier.of(k.name, k.public_bytes)) for s in signatures)]
    return NamedKey(signed[-1] if signed else None, at)


def _delegator(root: TrustedRoot, token: str, events: list[tuple[bool, str, Mapping[str, Any]]]) -> NamedKey:
    grant = read_unverified_delegation(token).grant
    logged = [at for _, at, event in events if event["kind"] == "key.delegated"]
    at = logged[0] if logged else timestamp(datetime.fromtimestamp(grant.issued, UTC))
    return NamedKey(_try(lambda: root.delegator(grant.issuer, at)), at)


def _artifact(root: TrustedRoot, signature: bytes, events: list[tuple[bool, str, Mapping[str, Any]]]) -> NamedKey:
    hint = json.loads(signature)["verificationMaterial"]["publicKey"]["hint"]
    at = [at for _, at, e in events if e["kind"] == "stage.succeeded" and e["data"]["to"]["stage"] in ("TRAINING", "IMPORTED")][-1]
    named = [k for k in root.artifact_signers if key_hint(k.der) == hint and k.is_valid_at(at)]
    return NamedKey(named[-1] if named else None, at)


def _events(files: Mapping[str, bytes]) -> list[tuple[bool, str, Mapping[str, Any]]]:
    """Return, for every event, whether it is in the ledger, the time that counts for it, and the event."""
    leaves = [json.loads(files[name]) for name in sorted(files) if name.startswith("ledger/leaves/")]
    waiting = [json.loads(files[name]) for name in sorted(files) if name.startswith("ledger/pending/")]
    return [(True, str(leaf["logged"]), leaf["event"]) for leaf in leaves] + [(False, str(event["at"]), event) for event in waiting]


def _try(find: Callable[[], Found]) -> Found | None:
    """Return what is found; None where a file is missing or forged, which is for the commands to show."""
    try:
        return find()
    except _STUMBLES:
        return None
