"""openssl checks the signatures of receipts, delegations and checkpoints, from the bytes that they are said to be over."""

from __future__ import annotations

import base64
import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from attestry.evidence.compact_jws import decode_segment
from attestry.evidence.note import Checkpoint, cosign, sign_note
from attestry.evidence.tlog import leaf_hash
from tests.fakes import LocalNoteSigner
from tests.independent.test_jose import make_evidence

ORIGIN = "attestry/123456789012/eu-central-1/attestry"


def _is_openssl() -> bool:
    """LibreSSL has a command of the same name, which verifies no Ed25519."""
    found = shutil.which("openssl")
    return found is not None and subprocess.run([found, "version"], capture_output=True, check=False).stdout.startswith(b"OpenSSL")


pytestmark = pytest.mark.skipif(not _is_openssl(), reason="openssl is not installed")


class OpenSsl:
    """The command line, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def accepts_ed25519(self, public_key: bytes, message: bytes, signature: bytes) -> bool:
        pem = Ed25519PublicKey.from_public_bytes(public_key).public_bytes(*PEM)
        files = self._write(pem, message, signature)
        return self._run("pkeyutl", "-verify", "-pubin", "-rawin", "-inkey", files[0], "-in", files[1], "-sigfile", files[2])

    def accepts_es256(self, public_key_der: bytes, message: bytes, signature: bytes) -> bool:
        pem = serialization.load_der_public_key(public_key_der).public_bytes(*PEM)
        der = encode_dss_signature(int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big"))
        files = self._write(pem, message, der)
        return self._run("dgst", "-sha256", "-verify", files[0], "-signature", files[2], files[1])

    def _write(self, *contents: bytes) -> list[str]:
        paths = [self.folder / name for name in ("key.pem", "message", "signature")]
        for path, content in zip(paths, contents, strict=True):
            path.write_bytes(content)
        return [str(path) for path in paths]

    def _run(self, *arguments: str) -> bool:
        done = subprocess.run(["openssl", *arguments], capture_output=True, text=True, check=False)
        verified = "Verified" in done.stdout
        assert done.returncode == 0 if verified else "ailure" in done.stdout + done.stderr, done.stderr
        return verified


PEM = (serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


@pytest.fixture
def openssl(tmp_path: Path) -> OpenSsl:
    return OpenSsl(tmp_path)


def test_a_receipts_signature_is_over_its_first_two_segments(openssl: OpenSsl) -> None:
    evidence = make_evidence()
    public = evidence.delegation.grant.public_key
    message, _, signature = evidence.receipt.rpartition(".")
    raw = decode_segment(signature)
    assert openssl.accepts_ed25519(public, message.encode(), raw)
    assert not openssl.accepts_ed25519(public, message.encode()[:-1] + b"x", raw)
    assert not openssl.accepts_ed25519(public, message.encode(), raw[:-1] + bytes([raw[-1] ^ 1]))
    assert not openssl.accepts_ed25519(make_evidence().delegation.grant.public_key, message.encode(), raw)


def test_a_delegations_signature_is_over_its_first_two_segments(openssl: OpenSsl) -> None:
    evidence = make_evidence()
    key = evidence.delegator.public_key_der()
    message, _, signature = evidence.delegation.token.rpartition(".")
    raw = decode_segment(signature)
    assert openssl.accepts_es256(key, message.encode(), raw)
    assert not openssl.accepts_es256(key, message.encode()[:-1] + b"x", raw)


def test_a_checkpoints_signature_is_over_the_text_up_to_the_empty_line(openssl: OpenSsl) -> None:
    log = LocalNoteSigner("log")
    text = Checkpoint(ORIGIN, 1, leaf_hash(b"leaf")).to_text()
    note = sign_note(text, ORIGIN, log.public_key(), log.sign_ed25519).decode()
    body, _, line = note.rpartition("\n\n")
    raw = base64.b64decode(line.split(" ")[2])[4:]
    signed = f"{body}\n".encode()
    assert openssl.accepts_ed25519(log.public_key(), signed, raw)
    assert not openssl.accepts_ed25519(log.public_key(), signed.replace(b"\n1\n", b"\n2\n"), raw)
    assert not openssl.accepts_ed25519(LocalNoteSigner("mallory").public_key(), signed, raw)


def test_a_cosignature_is_over_its_time_and_the_checkpoint(openssl: OpenSsl) -> None:
    witness = LocalNoteSigner("witness")
    text = Checkpoint(ORIGIN, 1, leaf_hash(b"leaf")).to_text()
    signature = cosign(text, 1767323045, "witness", witness.public_key(), witness.sign_ed25519)
    signed = f"cosignature/v1\ntime 1767323045\n{text}".encode()
    assert openssl.accepts_ed25519(witness.public_key(), signed, signature.raw[8:])
    assert not openssl.accepts_ed25519(witness.public_key(), signed.replace(b"3045", b"3044"), signature.raw[8:])
