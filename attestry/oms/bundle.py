"""The OMS bundle of a version: a Sigstore bundle over a DSSE envelope over an in-toto statement, all of it made by `model_signing`.

What is signed is the folder `frozen/` as it is downloaded: every file that the artifact manifest lists, and the artifact manifest itself.
The digests are those that the registry took while it wrote the files; nothing is read again here. Anybody who has the folder checks them:

    model_signing verify key frozen/ --signature model.sig --public_key key.pem --no-ignore-git-paths

Without the last option `model_signing` passes over `.git/`, `.github/`, `.gitattributes` and `.gitignore` at the top of the folder, so that
one of these could be added unseen.

The library's signer takes a private key from a file. Here it is given one that lies in KMS, so the bundle is the library's own, byte for
byte.
"""

from __future__ import annotations

import tempfile
from pathlib import Path, PurePosixPath
from typing import Final, cast

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from model_signing import manifest as oms
from model_signing._hashing.hashing import Digest
from model_signing._signing import sign_ec_key, signing
from model_signing._signing.sign_sigstore_pb import Signature

from attestry.domain.errors import IntegrityError, InvalidInputError
from attestry.evidence.artifact_manifest import ArtifactManifest
from attestry.evidence.version_urn import VersionUrn
from attestry.ports import Signer

ARTIFACT_MANIFEST: Final = "artifact-manifest.json"

_COORDINATE_BYTES: Final = 32
_SERIALIZATION: Final = {"method": "files", "hash_type": "sha256", "allow_symlinks": False}


class OmsSigner:
    """Makes and checks bundles by one key.

    Args:
        signer: an ECDSA P-256 key.
    """

    def __init__(self, signer: Signer) -> None:
        self._signer = signer

    def make(self, artifact: ArtifactManifest) -> bytes:
        """Return the bundle over the frozen folder that the artifact manifest closes.

        Raises:
            UnavailableError: the key's service did not answer.
            IntegrityError: what was signed does not verify by the key's own public half.
        """
        signature = _RemoteSigner(self._signer).sign(signing.Payload(_tree(artifact)))
        data = signature.bundle.to_json().encode()
        self.check(data, artifact)
        return data

    def check(self, data: bytes, artifact: ArtifactManifest) -> None:
        """Check that these bytes are a bundle by this key over exactly this folder.

        Raises:
            IntegrityError: they are not.
        """
        with tempfile.TemporaryDirectory() as folder:
            bundle, key = Path(folder, "model.sig"), Path(folder, "key.pem")
            bundle.write_bytes(data)
            key.write_bytes(_public_key(self._signer).public_bytes(*_PEM))
            try:
                signed = sign_ec_key.Verifier(key).verify(Signature.read(bundle))
            except InvalidSignature as error:
                raise IntegrityError("the artifact signature is not by the registry's key") from error
            except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
                raise IntegrityError(f"the artifact signature cannot be read: {error}") from error
        expected = _tree(artifact)
        if signed != expected or signed.serialization_type != expected.serialization_type or signed.model_name != expected.model_name:
            raise IntegrityError("the artifact signature is over other files than those of the artifact manifest")


_PEM: Final = (serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


class _RemoteSigner(sign_ec_key.Signer):
    """`model_signing`'s signer by elliptic-curve key, its private key held elsewhere."""

    def __init__(self, signer: Signer) -> None:
        # The parent's constructor reads a PEM file; of the key it uses these two methods.
        self._private_key = cast("ec.EllipticCurvePrivateKey", _RemoteKey(signer))

    def sign(self, payload: signing.Payload) -> Signature:
        """Return the signature over the payload."""
        signature = super().sign(payload)
        if not isinstance(signature, Signature):
            raise TypeError(f"model_signing made a {type(signature).__name__}")
        return signature


class _RemoteKey:
    """The part of `ec.EllipticCurvePrivateKey` that signing takes, over `attestry.ports.Signer`."""

    def __init__(self, signer: Signer) -> None:
        self._signer = signer

    def public_key(self) -> ec.EllipticCurvePublicKey:
        return _public_key(self._signer)

    def sign(self, data: bytes, algorithm: ec.ECDSA) -> bytes:
        """Return the signature in DER (RFC 3279 section 2.2.3)."""
        if not isinstance(algorithm.algorithm, hashes.SHA256):
            raise InvalidInputError.of("key", "es256", f"the key signs over SHA-256, not {algorithm.algorithm}")
        raw = self._signer.sign_es256(data)
        return encode_dss_signature(int.from_bytes(raw[:_COORDINATE_BYTES], "big"), int.from_bytes(raw[_COORDINATE_BYTES:], "big"))


def _public_key(signer: Signer) -> ec.EllipticCurvePublicKey:
    key = serialization.load_der_public_key(signer.public_key_der())
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise InvalidInputError.of("key", "es256", f"{signer.key_id} is no ECDSA P-256 key")
    return key


def _tree(artifact: ArtifactManifest) -> oms.Manifest:
    """Return the frozen folder in `model_signing`'s terms, with the digests that the registry recorded."""
    digest = artifact.version_digest
    files = {**{f.path: f.sha256 for f in artifact.files}, ARTIFACT_MANIFEST: digest}
    if len(files) != len(artifact.files) + 1:
        raise IntegrityError(f"the artifact manifest lists {ARTIFACT_MANIFEST}, which is itself")
    items = [oms.FileManifestItem(path=PurePosixPath(p), digest=Digest("sha256", bytes.fromhex(d))) for p, d in files.items()]
    name = str(VersionUrn(artifact.model, artifact.number, digest))
    return oms.Manifest(name, items, oms.SerializationType.from_args(dict(_SERIALIZATION)))
