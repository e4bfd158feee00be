"""A frozen folder to sign and to check, as the registry would have frozen it."""

from __future__ import annotations

from attestry.evidence.artifact_manifest import ArtifactManifest, FrozenFile, ManifestEnvironment, SourceData
from attestry.evidence.digests import sha256_hex
from tests.fakes import MemoryObjectStore

EXECUTION = "credit-risk-3-1-0123456789ab"
FOLDER = f"models/credit-risk/3-{'0' * 40}-{EXECUTION}"
FILES = {
    "manifest.json": b'{"model":"credit-risk"}',
    "requirements.lock": b"numpy==2.3.4 --hash=sha256:00\n",
    "source.tar.gz": b"\x1f\x8bnot really",
    "model/weights.bin": bytes(range(10)),
    "model/parts/a b.txt": "größe".encode(),
}
"""Path below `frozen/` to content."""


def artifact_of(files: dict[str, bytes] | None = None, *, number: int = 3) -> ArtifactManifest:
    """The artifact manifest of these files."""
    files = FILES if files is None else files
    return ArtifactManifest(
        model="credit-risk",
        number=number,
        execution_id=EXECUTION,
        candidate="ab" * 32,
        source=(SourceData("loans.csv", "cd" * 32, 10),),
        training="ef" * 32,
        holdout="01" * 32,
        environment=ManifestEnvironment("env-1", "23" * 32, "45" * 32, "3.13"),
        files=tuple(FrozenFile(path, len(body), sha256_hex(body)) for path, body in files.items()),
    )


def freeze(store: MemoryObjectStore, files: dict[str, bytes] | None = None, *, folder: str = FOLDER, number: int = 3) -> ArtifactManifest:
    """Write a frozen folder and return its artifact manifest."""
    files = FILES if files is None else files
    artifact = artifact_of(files, number=number)
    for path, body in files.items():
        store.put_new(f"{folder}/frozen/{path}", body, retain=True)
    store.put_new(f"{folder}/frozen/artifact-manifest.json", artifact.to_bytes(), retain=True)
    return artifact
