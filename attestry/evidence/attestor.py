"""The attestor: signs a statement with the function's own key, and keeps the envelope where nobody can change it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from attestry.domain.errors import IntegrityError
from attestry.domain.version import Version
from attestry.evidence.statement import Statement
from attestry.ports import ObjectStore, Signer

MAX_ENVELOPE_BYTES = 256 * 1024


@dataclass(frozen=True)
class AttestationRef:
    """Where an attestation is, exactly.

    Attributes:
        sha256: digest of the envelope's file, hex; its name.
        key: object key.
        version_id: S3 version ID.
    """

    sha256: str
    key: str
    version_id: str

    def to_item(self) -> dict[str, str]:
        """Return the reference as rows hold it."""
        return {"sha256": self.sha256, "key": self.key, "version_id": self.version_id}


def attestation_key(folder: str, sha256: str) -> str:
    """Return the key of an attestation in a version's folder (without a slash at the end)."""
    return f"{folder}/evidence/attestations/{sha256}.json"


class Attestor:
    """Makes attestations."""

    def __init__(self, signer: Signer, store: ObjectStore) -> None:
        """Take the key of the acting function and the model store."""
        self._signer = signer
        self._store = store

    def attest(self, version: Version, statement: Statement) -> AttestationRef:
        """Sign the statement and keep its envelope, write-once and retained, in the version's folder under its digest.

        ECDSA is randomised, so the same statement signed again is another object: an act that is tried again after this step leaves an
        attestation that no event names. It is harmless, since an attestation counts only where an event of the ledger names its digest.

        Raises:
            UnavailableError: the key or the store could not be used; nothing counts yet.
            IntegrityError: the key is not the one that it was.
        """
        # Imported late: what moves no version (predictions, delegations, reads) has no use for the library behind it.
        from attestry.evidence.dsse import sign_envelope

        envelope = sign_envelope(statement.to_bytes(), self._signer)
        sha256 = hashlib.sha256(envelope).hexdigest()
        key = attestation_key(version.folder, sha256)
        kept = self._store.put_new(key, envelope, content_type="application/json", retain=True)
        return AttestationRef(sha256, kept.key, kept.version_id)

    def open_own(self, sha256: str, key: str, version_id: str) -> Statement:
        """Return the statement of an attestation that this function itself has signed, whatever the rows around it say.

        Raises:
            NotFoundError: it is not there.
            IntegrityError: another key signed it, or it is not what its digest says.
        """
        from attestry.evidence.dsse import verify_envelope

        data = self._store.read(key, version_id, max_bytes=MAX_ENVELOPE_BYTES)
        if hashlib.sha256(data).hexdigest() != sha256:
            raise IntegrityError(f"{key} has another digest than {sha256}")
        return Statement.parse(verify_envelope(data, self._signer.public_key_der()))
