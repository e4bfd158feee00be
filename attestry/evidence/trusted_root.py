"""The trusted root: which public key speaks for what, and from when to when.

One canonical document (RFC 8785) in the shape of Sigstore's `TrustedRoot`, `trusted_root.json`. It is the one target of the registry's TUF
metadata (`attestry.evidence.tuf_metadata`), which is how a verifier comes to believe it.

Rules:
- Each key has a window, `validFor`: from `start` on, and before `end` where it has one. It is judged at the ledger time of the leaf that a
  signature belongs to (`logged`), never at the verifier's clock: what an ended key signed before stays valid, what is logged after is
  refused. A rotation ends the old key some time after the switch, so that what it signed last is logged before; a revocation lays the end
  into the past.
- A key speaks for one thing alone: the same key twice in the document is refused, so that a function that signs attestations cannot pass
  for the delegator, or the ledger for its own witness.
- A signer speaks for the kinds of events that its function writes (`MAY_SIGN`), at the stages where it writes them, and for no other.
- A key that was published stays: `require_continues` refuses a successor that drops one, moves its start, or gives an ended key more time.
- `outside` says that a witness stands in an account that the registry's owner does not control. It is the word of those who sign the root,
  and cannot be computed from a key; a name that says the registry's own account (`attestry/<account>/...`) is refused.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from attestry.domain.errors import IntegrityError, InvalidInputError
from attestry.domain.promotion import DECIDED, WITHDRAWN
from attestry.domain.stages import AFTER_END, PROMOTION_LAPSED, PROMOTION_OPENED
from attestry.evidence.canonical import canonical_bytes, parse_canonical
from attestry.evidence.note import Algorithm, Verifier
from attestry.evidence.trusted_key import ED25519, ES256, NAME_FORM, TrustedKey, details_of, ed25519_der, thumbprint

__all__ = [
    "ED25519",
    "ES256",
    "MAY_SIGN",
    "MAY_SIGN_AT",
    "TrustedKey",
    "TrustedRoot",
    "details_of",
    "ed25519_der",
    "own_account",
    "require_may_sign",
    "thumbprint",
]

MEDIA_TYPE: Final = "application/vnd.attestry.trustedroot.v1+json"
MAX_KEYS: Final = 500

_SCRIPTS: Final = frozenset({"PROCESSING", "TRAINING", "VALIDATION"})
_APPROVAL: Final = frozenset({"APPROVAL"})
_DEPLOYMENT: Final = frozenset({"DEPLOYMENT"})
_REGISTERED: Final = frozenset({"REGISTERED"})
_IMPORTED: Final = frozenset({"IMPORTED"})
_REOPENED: Final = _REGISTERED | frozenset({"TRAINING"})
_ANY: Final = _REGISTERED | _IMPORTED | _SCRIPTS | _APPROVAL | _DEPLOYMENT

_ROLLOUTS: Final = {"rollout.advanced": _DEPLOYMENT, "rollout.halted": _DEPLOYMENT, "rollout.ended": _DEPLOYMENT}

_PLACED: Final = _APPROVAL | _DEPLOYMENT
"""Where a version is that stands deployed, or was approved anew since."""

_DECISIONS: Final = {
    "approval.given": _APPROVAL,
    "version.approved": _APPROVAL,
    "version.rejected": _APPROVAL,
    **dict.fromkeys(DECIDED, _PLACED),
}

_VALIDATED: Final = {"validation.recorded": frozenset({"TRAINING", "VALIDATION"}) | _IMPORTED | _APPROVAL | _DEPLOYMENT}
"""Of a version that has its digest."""

_CUSTODY: Final = dict.fromkeys(sorted(AFTER_END - {"version.killed"}), _ANY)

MAY_SIGN_AT: Final[Mapping[str, Mapping[str, frozenset[str]]]] = {
    "register": {"candidate.registered": _REGISTERED, "version.imported": _IMPORTED},
    "prepare_stage": {"stage.started": _SCRIPTS},
    # The pipeline's state `Record failure` writes the failure of every stage.
    "record_stage": {
        "stage.succeeded": _SCRIPTS | _IMPORTED,
        "stage.failed": _ANY - _REGISTERED,
        "version.rejected": _SCRIPTS,
        # Of the version whose recipe was run again, wherever it is by then.
        "version.reproduced": _ANY - _REGISTERED - _IMPORTED,
    },
    # version.approved by a policy, without a person.
    "gate": {"stage.started": _APPROVAL, "version.approved": _APPROVAL, PROMOTION_OPENED: _PLACED},
    "decide": {**_DECISIONS, **_VALIDATED},
    "console_decision": _DECISIONS,
    "custody": _CUSTODY,
    "deploy": {
        "stage.started": _DEPLOYMENT,
        "stage.succeeded": _DEPLOYMENT,
        "stage.failed": _DEPLOYMENT,
        "version.deployed": _DEPLOYMENT,
        "version.replaced": _DEPLOYMENT,
        "version.released": _DEPLOYMENT,
        "version.canaried": _DEPLOYMENT,
        "version.shadowed": _DEPLOYMENT,
        **_ROLLOUTS,
        # No move: a file whose rows the version in place has answered.
        "file.scored": _DEPLOYMENT,
    },
    "operate": {
        "stage.started": _DEPLOYMENT,
        # A rollback that finds its version in place already ends the deployment that somebody else began.
        "stage.succeeded": _DEPLOYMENT,
        "version.rolled_back": _DEPLOYMENT,
        # By hand: a canary or a shadow that is put in place, advanced or halted.
        "version.deployed": _DEPLOYMENT,
        **_ROLLOUTS,
        "version.replaced": _DEPLOYMENT,
        "version.released": _DEPLOYMENT,
        "version.killed": _ANY,
        "version.retired": _ANY,
        "retirement.scheduled": _ANY,
        "approval.lapsed": _APPROVAL,
        WITHDRAWN: _PLACED,
        PROMOTION_LAPSED: _DEPLOYMENT,
        "submission.claimed": _ANY,
        "stage.retried": _ANY - _REGISTERED - _IMPORTED,
        "version.held": _ANY,
        "version.resumed": _ANY,
        # The stage that the version goes back to: the one before that which is done again.
        "stage.reopened": _REOPENED,
    },
}
"""Function to the kinds of events that it may sign, and the stage (after the move) at which it may."""

MAY_SIGN: Final[Mapping[str, frozenset[str]]] = {function: frozenset(kinds) for function, kinds in MAY_SIGN_AT.items()}
"""Function to the kinds of events that it may sign."""


@dataclass(frozen=True)
class TrustedRoot:
    """Who speaks for a registry.

    Attributes:
        registry: origin of its ledger.
        demo: whether the keys of the root lie on a machine, unguarded.
        tlogs: keys of the ledger.
        witnesses: keys of its witnesses.
        delegators: keys that sign delegations.
        signers: keys that sign attestations, each of one function.
        artifact_signers: keys that sign the files of a version.

    Raises:
        InvalidInputError: on creation, when the parts contradict each other or a rule of the module.
    """

    registry: str
    demo: bool
    tlogs: tuple[TrustedKey, ...]
    witnesses: tuple[TrustedKey, ...]
    delegators: tuple[TrustedKey, ...]
    signers: tuple[TrustedKey, ...]
    artifact_signers: tuple[TrustedKey, ...] = ()

    def __post_init__(self) -> None:
        keys = self.keys
        if not NAME_FORM.fullmatch(self.registry):
            raise _invalid("registry", "the registry's name is no origin")
        if not self.tlogs or len(keys) > MAX_KEYS:
            raise _invalid("tlogs", f"a trusted root has a ledger, and at most {MAX_KEYS} keys")
        _require_distinct("publicKey", [k.der for k in keys])
        _require_distinct("keyId", [k.key_id for k in keys if k.key_id])
        for use, details in _DETAILS.items():
            for key in self._of(use):
                if key.details != details:
                    raise _invalid(use, f"a key of {use} is {details}")
                if key.outside and use != "witnesses":
                    raise _invalid(use, "only a witness is outside")
                if use in ("tlogs", "witnesses") and not key.name:
                    raise _invalid(use, "a key of a ledger or witness has a name")
                if (use in ("tlogs", "witnesses")) == bool(key.key_id):
                    raise _invalid(use, "a key that signs for a function has its ARN, and no other has")
        self._check_names()

    def _check_names(self) -> None:
        if any(t.name != self.registry for t in self.tlogs):
            raise _invalid("tlogs", "a ledger's name is the registry's origin")
        own = own_account(self.registry)
        for witness in self.witnesses:
            if witness.outside and f"{witness.name}/".startswith(own):
                raise _invalid("witnesses", f"{witness.name} stands in the registry's own account and is not outside")
        unknown = sorted({s.name for s in self.signers} - MAY_SIGN_AT.keys())
        if unknown:
            raise _invalid("signers", f"{unknown[0]!r} is no function that signs")
        if any(k.name for k in (*self.delegators, *self.artifact_signers)):
            raise _invalid("delegators", "only a signer names a function")

    def _of(self, use: str) -> tuple[TrustedKey, ...]:
        found: tuple[TrustedKey, ...] = getattr(self, _FIELDS[use])
        return found

    @property
    def keys(self) -> tuple[TrustedKey, ...]:
        """Return all keys."""
        return (*self.tlogs, *self.witnesses, *self.delegators, *self.signers, *self.artifact_signers)

    @property
    def sha256(self) -> str:
        """Return SHA-256 of the document."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    def ledger_keys(self, at: str | None = None) -> tuple[TrustedKey, ...]:
        """Return the keys that may sign a checkpoint; with `at`, those valid at that ledger time."""
        return _valid(self.tlogs, at)

    def witness_keys(self, at: str | None = None) -> tuple[TrustedKey, ...]:
        """Return the keys that may cosign a checkpoint; with `at`, those valid then."""
        return _valid(self.witnesses, at)

    def ledger_verifiers(self, at: str | None = None) -> tuple[Verifier, ...]:
        """Return what `note.open_note` checks a checkpoint with; see `ledger_keys`."""
        return tuple(Verifier.of(k.name, k.public_bytes) for k in self.ledger_keys(at))

    def witness_verifiers(self, at: str | None = None) -> tuple[Verifier, ...]:
        """Return what the cosignatures of a checkpoint are checked with; see `witness_keys`."""
        return tuple(Verifier.of(k.name, k.public_bytes, Algorithm.COSIGNATURE) for k in self.witness_keys(at))

    def witness(self, name: str, at: str) -> TrustedKey:
        """Return the key of a witness that was valid at a moment.

        Raises:
            IntegrityError: there is none.
        """
        named = [w for w in self.witnesses if w.name == name]
        return _one_valid(named, at, f"no witness is called {name}")

    def delegator(self, name: str, at: str) -> TrustedKey:
        """Return the key that signed a delegation.

        Args:
            name: ARN of the key (`iss`), or its RFC 7638 thumbprint (`kid`).
            at: ledger time.

        Raises:
            IntegrityError: no such delegator, or not valid then.
        """
        named = [d for d in self.delegators if name in (d.key_id, thumbprint(d))]
        return _one_valid(named, at, f"the trusted root names no delegator {name}")

    def signer(self, keyid: str, at: str) -> TrustedKey:
        """Return the key that signed an attestation; its `name` is the function.

        Args:
            keyid: key ID of the DSSE signature: SHA-256 of the DER in hex.
            at: ledger time of the leaf that names the attestation.

        Raises:
            IntegrityError: no such signer, or not valid then.
        """
        named = [s for s in self.signers if s.fingerprint == keyid]
        return _one_valid(named, at, f"the trusted root names no signer {keyid}")

    def artifact_signer(self, fingerprint: str, at: str) -> TrustedKey:
        """Return the key that signed the files of a version.

        Raises:
            IntegrityError: no such key, or not valid then.
        """
        named = [s for s in self.artifact_signers if s.fingerprint == fingerprint]
        return _one_valid(named, at, f"the trusted root names no artifact signer {fingerprint}")

    def require_continues(self, earlier: TrustedRoot) -> None:
        """Refuse to follow another root that is not this one's past.

        Raises:
            IntegrityError: another registry, a key that is gone or changed, or an ended key that is given more time.
        """
        if self.registry != earlier.registry:
            raise IntegrityError(f"the trusted root is of {self.registry}, not of {earlier.registry}")
        if earlier.demo and not self.demo:
            raise IntegrityError("a demo root never becomes one that is not: its keys lay unguarded; begin with new ones")
        for use in _FIELDS:
            have = {k.der: k for k in self._of(use)}
            for old in earlier._of(use):
                new = have.get(old.der)
                named = f"the key {old.fingerprint[:16]} of {use}"
                if new is None:
                    raise IntegrityError(f"{named} is gone; a key that ends keeps its place, so that what it signed stays verifiable")
                if (new.name, new.key_id, new.start, new.outside) != (old.name, old.key_id, old.start, old.outside):
                    raise IntegrityError(f"{named} was changed in more than its end")
                if old.end is not None and (new.end is None or new.end > old.end):
                    raise IntegrityError(f"{named} ended at {old.end} and is given more time")

    def to_bytes(self) -> bytes:
        """Return the canonical document."""
        return canonical_bytes(
            {
                "mediaType": MEDIA_TYPE,
                "registry": self.registry,
                "demo": self.demo,
                "tlogs": [_tlog(k) for k in self.tlogs],
                "witnesses": [{"name": k.name, "outside": k.outside, "publicKey": _public_key(k)} for k in self.witnesses],
                "delegators": [{"keyId": k.key_id, "publicKey": _public_key(k)} for k in self.delegators],
                "signers": [{"function": k.name, "keyId": k.key_id, "publicKey": _public_key(k)} for k in self.signers],
                "artifactSigners": [{"keyId": k.key_id, "publicKey": _public_key(k)} for k in self.artifact_signers],
            }
        )

    @classmethod
    def parse(cls, data: bytes) -> TrustedRoot:
        """Return the trusted root that a document says.

        Raises:
            InvalidInputError: not byte for byte what `to_bytes` writes of anything.
        """
        value = parse_canonical(data)
        try:
            root = cls(
                registry=_text(value["registry"]),
                demo=_flag(value["demo"]),
                tlogs=tuple(_read(e, name="baseUrl") for e in value["tlogs"]),
                witnesses=tuple(_read(e, name="name", outside=_flag(e["outside"])) for e in value["witnesses"]),
                delegators=tuple(_read(e, key_id="keyId") for e in value["delegators"]),
                signers=tuple(_read(e, name="function", key_id="keyId") for e in value["signers"]),
                artifact_signers=tuple(_read(e, key_id="keyId") for e in value["artifactSigners"]),
            )
        except (KeyError, TypeError, AttributeError, binascii.Error, ValueError) as error:
            raise _invalid("", f"not a trusted root: {type(error).__name__} {error}") from error
        if root.to_bytes() != data:
            raise _invalid("", "the document says more or other than a trusted root does")
        return root


_FIELDS: Final = {
    "tlogs": "tlogs",
    "witnesses": "witnesses",
    "delegators": "delegators",
    "signers": "signers",
    "artifactSigners": "artifact_signers",
}
_DETAILS: Final = {"tlogs": ED25519, "witnesses": ED25519, "delegators": ES256, "signers": ES256, "artifactSigners": ES256}
"""Which kind of key each use takes."""


def require_may_sign(function: str, kind: str, stage: str) -> None:
    """Refuse an event that the function never writes.

    Args:
        function: the signer's function.
        kind: kind of the event.
        stage: the stage after the move.

    Raises:
        IntegrityError: it may not.
    """
    if stage not in MAY_SIGN_AT.get(function, {}).get(kind, frozenset()):
        raise IntegrityError(f"{function} may not sign {kind} at {stage}", details={"function": function, "kind": kind, "stage": stage})


def own_account(registry: str) -> str:
    """Return how the names of all that stands in the registry's own account begin: `attestry/<account>/` of an origin."""
    return "/".join(registry.split("/")[:2]) + "/"


def _valid(keys: tuple[TrustedKey, ...], at: str | None) -> tuple[TrustedKey, ...]:
    return keys if at is None else tuple(k for k in keys if k.is_valid_at(at))


def _one_valid(named: list[TrustedKey], at: str, missing: str) -> TrustedKey:
    if not named:
        raise IntegrityError(missing)
    valid = [k for k in named if k.is_valid_at(at)]
    if not valid:
        named[-1].require_valid_at(at)
    return valid[-1]


def _public_key(key: TrustedKey) -> dict[str, Any]:
    window = {"start": key.start, **({"end": key.end} if key.end is not None else {})}
    return {"rawBytes": base64.b64encode(key.der).decode(), "keyDetails": key.details, "validFor": window}


def _tlog(key: TrustedKey) -> dict[str, Any]:
    log_id = {"keyId": base64.b64encode(hashlib.sha256(key.der).digest()).decode()}
    return {"baseUrl": key.name, "hashAlgorithm": "SHA2_256", "publicKey": _public_key(key), "logId": log_id}


def _read(entry: Mapping[str, Any], *, name: str = "", key_id: str = "", outside: bool = False) -> TrustedKey:
    public = entry["publicKey"]
    end = public["validFor"].get("end")
    return TrustedKey(
        name=_text(entry[name]) if name else "",
        key_id=_text(entry[key_id]) if key_id else "",
        details=_text(public["keyDetails"]),
        der=base64.b64decode(public["rawBytes"], validate=True),
        start=_text(public["validFor"]["start"]),
        end=None if end is None else _text(end),
        outside=outside,
    )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("a text is needed")
    return value


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError("true or false is needed")
    return value


def _require_distinct(what: str, values: list[Any]) -> None:
    if len(set(values)) != len(values):
        raise _invalid(what, "the same key stands there twice; a key speaks for one thing alone")


def _invalid(where: str, message: str) -> InvalidInputError:
    return InvalidInputError.of(where, "trusted_root", message)
