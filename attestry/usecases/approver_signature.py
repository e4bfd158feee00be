"""A person's own signature: checked against the keys that are registered for them, and kept beside what they signed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from attestry.domain.approvals import Verdict
from attestry.domain.errors import ConflictError, ForbiddenError, IntegrityError, InvalidInputError
from attestry.domain.version import Version
from attestry.evidence.packet import signature_key
from attestry.evidence.ssh_signature import NAMESPACE, RECORD_NAMESPACE, signing_key, verify_approval
from attestry.ports import Check, MetaStore, ObjectStore, When, Write
from attestry.usecases.records import person_key


@dataclass(frozen=True)
class OwnSignature:
    """A person's signature over a packet, or over a validation record.

    Attributes:
        sha256: digest of the signature's file, hex.
        key: object key.
        version_id: S3 version ID.
        fingerprint: of the SSH key that made it.
        key_added: when that key was registered for the person, RFC 3339.
        person_rev: revision of the person's row at which the key was looked up.
    """

    sha256: str
    key: str
    version_id: str
    fingerprint: str
    key_added: str
    person_rev: int

    @property
    def facts(self) -> dict[str, Any]:
        """Return what the event says of it."""
        return {
            "sha256": self.sha256,
            "fingerprint": self.fingerprint,
            "key_added": self.key_added,
            "person_rev": self.person_rev,
        }

    def to_item(self) -> dict[str, Any]:
        """Return the signature as the decision's row holds it."""
        return {**self.facts, "key": self.key, "version_id": self.version_id}


def check_is_approval(verdict: Verdict) -> None:
    """Refuse a signature that comes with a rejection: in its namespace it says "approved", whatever stands beside it.

    Raises:
        InvalidInputError: the verdict is not to approve.
    """
    if verdict is not Verdict.APPROVE:
        raise InvalidInputError.of("signature", "approval_only", f"a signature in the namespace {NAMESPACE} approves; a rejection has none")


def take_signature(
    meta: MetaStore, store: ObjectStore, version: Version, person: str, packet_sha256: str, armored: bytes, *, place: str = ""
) -> tuple[OwnSignature, tuple[Write, ...]]:
    """Verify a person's signature over a packet of the version's, and keep it, write-once and retained.

    Args:
        meta: the table.
        store: the model store.
        version: the version.
        person: who signed.
        packet_sha256: digest of the packet.
        armored: the signature.
        place: name that it is kept under; by default that of the version's approval.

    Returns:
        The signature, and the condition under which it counts: the person's row is still the one whose keys were read.

    Raises:
        ForbiddenError: no SSH key is registered for the person, or the one that signed was withdrawn.
        InvalidInputError, IntegrityError: see `verify_approval`.
        ConflictError: another signature of the person over this packet is kept already.
    """
    return _take(meta, store, version, person, packet_sha256, armored, place or f"{person}{version.decided_under}", NAMESPACE)


def take_record_signature(
    meta: MetaStore, store: ObjectStore, version: Version, person: str, record_sha256: str, armored: bytes
) -> tuple[OwnSignature, tuple[Write, ...]]:
    """Verify a validator's signature over a record about the version, and keep it like one over the packet; see `take_signature`."""
    return _take(meta, store, version, person, record_sha256, armored, f"{person}#{record_sha256}", RECORD_NAMESPACE)


def _take(
    meta: MetaStore, store: ObjectStore, version: Version, person: str, sha256: str, armored: bytes, name: str, namespace: str
) -> tuple[OwnSignature, tuple[Write, ...]]:
    row = meta.get(person_key(person)) or {}
    keys: Mapping[str, Any] = row.get("ssh_keys_added") or {}
    if not row.get("ssh_keys"):
        raise ForbiddenError(
            f"no SSH key is registered for {person}; an admin adds it: attestry people add {person} --ssh-key ~/.ssh/id_ed25519.pub"
        )
    _refuse_withdrawn(person, row, armored)
    signer = verify_approval(armored, sha256, row["ssh_keys"], namespace=namespace)
    what = "packet" if namespace == NAMESPACE else "record"
    try:
        kept = store.put_new(
            signature_key(version.folder, name),
            armored,
            content_type="text/plain; charset=us-ascii",
            retain=True,
        )
    except IntegrityError as error:
        raise ConflictError(
            f"another signature of {person} over the {what} of {version.reference} is kept already; sign with the key of the first try"
        ) from error
    own = OwnSignature(kept.sha256, kept.key, kept.version_id, signer.fingerprint, str(keys.get(signer.fingerprint, "")), int(row["rev"]))
    return own, (Check(person_key(person), When(exists=True, equals={"rev": row["rev"]})),)


def _refuse_withdrawn(person: str, row: Mapping[str, Any], armored: bytes) -> None:
    """Say so where the key was theirs once: "not registered" would send its holder looking in the wrong place."""
    withdrawn: Mapping[str, Any] = row.get("ssh_keys_withdrawn") or {}
    fingerprint = signing_key(armored).fingerprint
    if fingerprint in withdrawn:
        raise ForbiddenError(f"the key {fingerprint} of {person} was withdrawn at {withdrawn[fingerprint]}; sign with another")
