"""The command line of OpenSSF Model Signing checks a downloaded version."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from attestry.oms.bundle import OmsSigner
from attestry.usecases.sign_artifact import sign_artifact
from tests.fakes import LocalSigner, MemoryObjectStore
from tests.frozen import FOLDER, freeze


def pem_of(signer: LocalSigner) -> bytes:
    key = serialization.load_der_public_key(signer.public_key_der())
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


class Download:
    """What a person has after downloading a version: its frozen folder, the signature, and the key from the root of trust.

    Attributes:
        folder: where the files lie.
        signature: the bundle's file.
        key: the public key's file, PEM.
    """

    def __init__(self, place: Path) -> None:
        store, self.signer = MemoryObjectStore(), LocalSigner("artifact")
        self.artifact = freeze(store)
        sign_artifact(store, OmsSigner(self.signer), FOLDER, self.artifact.version_digest)
        self.folder, self.signature, self.key = place / "frozen", place / "model.sig", place / "key.pem"
        for name in store.versions:
            path = place / name.removeprefix(f"{FOLDER}/").removeprefix("evidence/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(store.read(name, max_bytes=1 << 20))
        self.key.write_bytes(pem_of(self.signer))

    def verify(self) -> subprocess.CompletedProcess[str]:
        files = ["--signature", str(self.signature), "--public_key", str(self.key)]
        command = [sys.executable, "-m", "model_signing", "verify", "key", str(self.folder), *files, "--no-ignore-git-paths"]
        return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "OTEL_SDK_DISABLED": "true"})


@pytest.fixture
def download(tmp_path: Path) -> Download:
    return Download(tmp_path)


def test_a_downloaded_version_verifies(download: Download) -> None:
    done = download.verify()
    assert done.returncode == 0, done.stderr
    assert "succeeded" in done.stdout.lower()


def flip_a_byte(d: Download) -> None:
    path = d.folder / "model" / "weights.bin"
    path.write_bytes(b"\xff" + path.read_bytes()[1:])


def add_a_file(d: Download) -> None:
    (d.folder / "model" / "extra.py").write_text("print('added')")


def add_a_git_file(d: Download) -> None:
    (d.folder / ".git").mkdir()
    (d.folder / ".git" / "config").write_text("added")


def remove_a_file(d: Download) -> None:
    (d.folder / "model" / "weights.bin").unlink()


def rename_a_file(d: Download) -> None:
    (d.folder / "model" / "weights.bin").rename(d.folder / "model" / "weights2.bin")


def swap_two_files(d: Download) -> None:
    one, two = d.folder / "model" / "weights.bin", d.folder / "requirements.lock"
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second)
    two.write_bytes(first)


def put_a_link_in_its_place(d: Download) -> None:
    path = d.folder / "model" / "weights.bin"
    path.rename(d.folder.parent / "elsewhere")
    path.symlink_to(d.folder.parent / "elsewhere")


def change_the_artifact_manifest(d: Download) -> None:
    path = d.folder / "artifact-manifest.json"
    path.write_bytes(path.read_bytes().replace(b'"number":3', b'"number":4'))


def change_the_signature(d: Download) -> None:
    text = d.signature.read_text()
    at = text.index('"sig"') + 20
    d.signature.write_text(text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :])


def sign_by_another_key(d: Download) -> None:
    d.signature.write_bytes(OmsSigner(LocalSigner("mallory")).make(d.artifact))


def trust_another_key(d: Download) -> None:
    d.key.write_bytes(pem_of(LocalSigner("mallory")))


@pytest.mark.parametrize(
    "tamper",
    [
        flip_a_byte,
        add_a_file,
        add_a_git_file,
        remove_a_file,
        rename_a_file,
        swap_two_files,
        put_a_link_in_its_place,
        change_the_artifact_manifest,
        change_the_signature,
        sign_by_another_key,
        trust_another_key,
    ],
)
def test_a_changed_download_does_not_verify(download: Download, tamper: Callable[[Download], None]) -> None:
    tamper(download)
    done = download.verify()
    assert done.returncode != 0, done.stdout
