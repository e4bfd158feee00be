"""SSH keys and signatures for tests: what `ssh-keygen -t ed25519` and `ssh-keygen -Y sign` make, in memory."""

from __future__ import annotations

import base64
import hashlib
import textwrap

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from attestry.evidence.ssh_signature import NAMESPACE


def field(data: bytes) -> bytes:
    """A string of the SSH wire format (RFC 4251 section 5)."""
    return len(data).to_bytes(4, "big") + data


def armor(blob: bytes, columns: int = 70) -> bytes:
    lines = textwrap.wrap(base64.b64encode(blob).decode(), columns)
    return "\n".join(["-----BEGIN SSH SIGNATURE-----", *lines, "-----END SSH SIGNATURE-----", ""]).encode()


def dearmor(armored: bytes) -> bytes:
    return base64.b64decode(b"".join(armored.split(b"\n")[1:-2]))


class SshPerson:
    """Who holds an Ed25519 key; the same seed gives the same key."""

    def __init__(self, seed: str) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(seed.encode()).digest())
        self.public = self._key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
        raw = self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self.blob = field(b"ssh-ed25519") + field(raw)

    def sign(self, packet_sha256: str, **changed: bytes) -> bytes:
        """The armored signature over a packet's digest; `changed` sets `namespace`, `message`, `hash` or `reserved` to something else."""
        namespace = changed.get("namespace", NAMESPACE.encode())
        message = changed.get("message", f"{packet_sha256}\n".encode())
        name, reserved = changed.get("hash", b"sha512"), changed.get("reserved", b"")
        digest = hashlib.new(name.decode(), message).digest()
        signed = b"SSHSIG" + field(namespace) + field(b"") + field(name) + field(digest)
        signature = field(b"ssh-ed25519") + field(self._key.sign(signed))
        blob = b"SSHSIG" + (1).to_bytes(4, "big") + field(self.blob) + field(namespace) + field(reserved) + field(name) + field(signature)
        return armor(blob)
