"""Sign a version's frozen folder, so that a download can be checked with OpenSSF Model Signing and nothing of ours.

The function that signs is not the one that freezes. It reads the folder's listing and the artifact manifest itself, and signs when both
say the same: no file more, none less, each of its size and written once. The digests it takes over from the artifact manifest, which the
freezing function took while it wrote the files, so that nothing of gigabytes is read twice; a file whose bytes differ fails where the
signature is checked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from attestry.domain.errors import IntegrityError, InvalidInputError, UnavailableError
from attestry.evidence.artifact_manifest import ArtifactManifest
from attestry.evidence.digests import is_sha256, sha256_hex
from attestry.ports import Functions, ListedVersion, ObjectStore, StoredObject

MAX_ARTIFACT_MANIFEST_BYTES: Final = 4 * 1024 * 1024
MAX_BUNDLE_BYTES: Final = 4 * 1024 * 1024
MEDIA_TYPE: Final = "application/vnd.dev.sigstore.bundle.v0.3+json"

_ARTIFACT_MANIFEST: Final = "artifact-manifest.json"


class BundleMaker(Protocol):
    """Makes and checks artifact signatures by one key; see `attestry.oms.bundle`."""

    def make(self, artifact: ArtifactManifest) -> bytes:
        """Return the bundle over the folder that the artifact manifest closes."""

    def check(self, data: bytes, artifact: ArtifactManifest) -> None:
        """Raise IntegrityError unless these bytes are a bundle by this key over exactly this folder."""


@dataclass(frozen=True)
class ArtifactSignature:
    """Where a version's artifact signature lies: SHA-256 (hex), key and version of the object."""

    sha256: str
    key: str
    version_id: str

    def to_item(self) -> dict[str, str]:
        """Return the signature as it is answered and stored."""
        return dict(vars(self))


def sign_artifact(store: ObjectStore, bundles: BundleMaker, folder: str, version_digest: str) -> ArtifactSignature:
    """Sign the frozen folder and keep the bundle, written once and retained, at `<folder>/evidence/model.sig`.

    A retry finds the bundle of the first try and answers it, since a second signature over the same files has other bytes.

    Args:
        store: the model store.
        bundles: the signing key.
        folder: the version's folder, without a slash at its end.
        version_digest: SHA-256 (hex) of the artifact manifest.

    Raises:
        InvalidInputError: the digest is none.
        IntegrityError: the folder is not what the artifact manifest says, or a bundle is there that does not hold.
        UnavailableError: a service did not answer.
    """
    if not is_sha256(version_digest):
        raise InvalidInputError.of("version_digest", "sha256", "is no SHA-256 in lower-case hex")
    artifact = _read_frozen(store, folder, version_digest)
    key = f"{folder}/evidence/model.sig"
    there = store.stat(key)
    if there is None:
        try:
            kept = store.put_new(key, bundles.make(artifact), content_type=MEDIA_TYPE, retain=True)
            return ArtifactSignature(kept.sha256, kept.key, kept.version_id)
        except IntegrityError:
            # Another try wrote its own between the look and the write.
            there = store.stat(key)
            if there is None:
                raise
    return _checked(store, bundles, there, artifact)


def request_artifact_signature(functions: Functions, function: str, folder: str, version_digest: str) -> ArtifactSignature:
    """Have the signing function sign, and return where the signature lies.

    Raises:
        IntegrityError: the function refused the folder.
        UnavailableError: the function failed or answered something else.
    """
    answer = functions.call(function, {"folder": folder, "version_digest": version_digest})
    if not isinstance(answer, dict):
        raise UnavailableError(f"the function {function} answered no object")
    error = answer.get("error")
    if isinstance(error, dict):
        message = f"the artifact was not signed: {error.get('message', '')}"
        raise IntegrityError(message) if error.get("code") == IntegrityError.code else UnavailableError(message)
    sha256, key, version_id = (answer.get(name) for name in ("sha256", "key", "version_id"))
    if not (is_sha256(sha256) and key == f"{folder}/evidence/model.sig" and isinstance(version_id, str) and version_id):
        raise UnavailableError(f"the function {function} answered no artifact signature")
    return ArtifactSignature(str(sha256), str(key), version_id)


def _read_frozen(store: ObjectStore, folder: str, version_digest: str) -> ArtifactManifest:
    """Return the artifact manifest of a folder that holds exactly what it lists."""
    base = f"{folder}/frozen/"
    listed = _written_once(store, base)
    own = listed.pop(_ARTIFACT_MANIFEST, None)
    if own is None:
        raise IntegrityError(f"{folder} was not closed by an artifact manifest")
    data = store.read(f"{base}{_ARTIFACT_MANIFEST}", own.version_id, max_bytes=MAX_ARTIFACT_MANIFEST_BYTES)
    if sha256_hex(data) != version_digest:
        raise IntegrityError(f"the artifact manifest of {folder} has another digest than the version")
    artifact = ArtifactManifest.from_bytes(data)
    if not folder.startswith(f"models/{artifact.model}/{artifact.number}-"):
        raise IntegrityError(f"the artifact manifest in {folder} is that of {artifact.model}@{artifact.number}")
    sizes = {f.path: f.size for f in artifact.files}
    if {path: entry.size for path, entry in listed.items()} != sizes:
        wrong = sorted(p for p in {*sizes, *listed} if p not in listed or listed[p].size != sizes.get(p))
        raise IntegrityError(f"{base} does not hold what its artifact manifest lists", details={"paths": wrong[:20]})
    return artifact


def _written_once(store: ObjectStore, base: str) -> dict[str, ListedVersion]:
    found: dict[str, ListedVersion] = {}
    for entry in store.list_versions(base):
        path = entry.key.removeprefix(base)
        if path in found or entry.is_delete_marker:
            raise IntegrityError(f"{entry.key} was written or deleted after it was frozen")
        found[path] = entry
    return found


def _checked(store: ObjectStore, bundles: BundleMaker, there: StoredObject, artifact: ArtifactManifest) -> ArtifactSignature:
    data = store.read(there.key, there.version_id, max_bytes=MAX_BUNDLE_BYTES)
    bundles.check(data, artifact)
    return ArtifactSignature(sha256_hex(data), there.key, there.version_id)
