"""A registry's keys and a signed root of trust, for tests: what a key ceremony makes, without files."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from securesystemslib.signer import CryptoSigner

from attestry.client.ceremony import Files, first_metadata, seal, sign
from attestry.client.key_changes import first_root, read_deployed
from attestry.evidence.trusted_root import MAY_SIGN, TrustedRoot

REGISTRY = "attestry/123456789012/eu-central-1/attestry"
WITNESS = f"{REGISTRY}/witness"
START = "2026-01-01T00:00:00.000000Z"
NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def moment(days: float) -> str:
    """A ledger time so many days after the start of the keys."""
    return (datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=days)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def p256() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def ed() -> bytes:
    key = ed25519.Ed25519PrivateKey.generate().public_key()
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def entry(use: str, name: str = "", der: bytes | None = None, *, outside: bool = False, key_id: str | None = None) -> dict[str, Any]:
    """A key as the registry tells it."""
    der = der or (ed() if use in ("tlogs", "witnesses") else p256())
    arn = "" if use in ("tlogs", "witnesses") else f"arn:aws:kms:eu-central-1:123456789012:key/{der[-16:].hex()}"
    told = {"use": use, "name": name, "key_id": arn if key_id is None else key_id, "outside": outside}
    return {**told, "der": base64.b64encode(der).decode(), "fingerprint": ""}


def deployment() -> list[dict[str, Any]]:
    """All keys of a fresh deployment."""
    return [
        entry("tlogs", REGISTRY),
        entry("witnesses", WITNESS),
        entry("witnesses", "witness.example/one", outside=True),
        entry("delegators"),
        *(entry("signers", function) for function in sorted(MAY_SIGN)),
        entry("artifactSigners"),
    ]


def a_trusted_root(deployed: list[dict[str, Any]] | None = None, *, demo: bool = False, start: str = START) -> TrustedRoot:
    return first_root(REGISTRY, read_deployed(deployed or deployment(), start), demo=demo)


@dataclass
class People:
    """Those who hold the keys of a root.

    Attributes:
        holders: they sign root and targets.
        sealer: signs snapshot and timestamp.
    """

    holders: list[CryptoSigner] = field(default_factory=lambda: [CryptoSigner.generate_ed25519() for _ in range(3)])
    sealer: CryptoSigner = field(default_factory=CryptoSigner.generate_ed25519)

    def begin(self, trusted_root: TrustedRoot, *, threshold: int = 2, at: datetime = NOW) -> dict[str, bytes]:
        """A first root that is complete."""
        publics = [h.public_key for h in self.holders]
        files = first_metadata(trusted_root, publics, threshold=threshold, sealer=self.sealer.public_key, at=at)
        return self.finish(files, count=threshold, at=at)

    def finish(self, files: Files, *, count: int = 2, at: datetime = NOW) -> dict[str, bytes]:
        for holder in self.holders[:count]:
            sign(files, holder)
        seal(files, self.sealer, at=at)
        return dict(files)
