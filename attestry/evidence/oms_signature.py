"""The part of a version's OMS bundle (`model.sig`, OpenSSF Model Signing) that can be checked without the files.

Signature, key and listed digests are checked here: that who signs artifacts has signed exactly the files that the
artifact manifest lists. That the files themselves have these digests is what `model_signing verify` shows on a download
(or `attestry verify --files`).

The bundle is a Sigstore bundle v0.3 over a DSSE envelope with one signature; its key is named by the SHA-256 of its PEM
in `verificationMaterial.publicKey.hint`.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable
from typing import Any, Final

from attestry.domain.errors import IntegrityError, InvalidInputError
from attestry.evidence.artifact_manifest import ArtifactManifest
from attestry.evidence.canonical import canonical_bytes, parse_strict
from attestry.evidence.dsse import key_id, verify_envelope
from attestry.evidence.trusted_key import TrustedKey
from attestry.evidence.version_urn import VersionUrn

MEDIA_TYPE: Final = "application/vnd.dev.sigstore.bundle.v0.3+json"
PREDICATE_TYPE: Final = "https://model_signing/signature/v1.0"
MANIFEST_NAME: Final = "artifact-manifest.json"
SERIALIZATION: Final = {"method": "files", "hash_type": "sha256", "allow_symlinks": False}


def check_signature(data: bytes, artifact: ArtifactManifest, keys: Iterable[TrustedKey]) -> TrustedKey:
    """Return the key that signed the files of a version.

    Args:
        data: the OMS bundle.
        artifact: the version's artifact manifest.
        keys: the keys that may sign artifacts.

    Raises:
        InvalidInputError: the bundle is not as `model_signing` writes it.
        IntegrityError: none of the keys signed it, or it is over other files.
    """
    body = parse_strict(data)
    if json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode() != data:
        raise _malformed("it is not JSON in the form in which it is written")
    try:
        envelope, hint = body["dsseEnvelope"], body["verificationMaterial"]["publicKey"]["hint"]
        expected = {
            "mediaType": MEDIA_TYPE,
            "verificationMaterial": {"publicKey": {"hint": hint}, "tlogEntries": []},
            "dsseEnvelope": {
                "payload": envelope["payload"],
                "payloadType": "application/vnd.in-toto+json",
                "signatures": [{"sig": envelope["signatures"][0]["sig"], "keyid": ""}],
            },
        }
        if body != expected:
            raise _malformed("it holds something else than one envelope with one signature and its key's name")
    except (KeyError, TypeError, IndexError) as error:
        raise _malformed("it lacks an envelope, a signature or its key's name") from error
    key = next((k for k in keys if key_hint(k.der) == hint), None)
    if key is None:
        raise IntegrityError("model.sig is signed by a key that the trusted root does not name for artifacts at that time")
    # The key's ID is no part of what DSSE signs; with ours in it the envelope has the form that is verified everywhere else.
    signed = {**envelope, "signatures": [{"keyid": key_id(key.der), "sig": envelope["signatures"][0]["sig"]}]}
    _check_statement(parse_strict(verify_envelope(canonical_bytes(signed), key.der)), artifact)
    return key


def _check_statement(statement: Any, artifact: ArtifactManifest) -> None:
    files = {**{f.path: f.sha256 for f in artifact.files}, MANIFEST_NAME: artifact.version_digest}
    resources = statement["predicate"]["resources"]
    listed = {r["name"]: r["digest"] for r in resources}
    if listed != files or len(listed) != len(resources) or any(r["algorithm"] != "sha256" for r in resources):
        raise IntegrityError("model.sig is over other files than those of the artifact manifest")
    root = hashlib.sha256(b"".join(bytes.fromhex(r["digest"]) for r in resources)).hexdigest()
    name = str(VersionUrn(artifact.model, artifact.number, artifact.version_digest))
    told = (statement["predicateType"], statement["subject"], statement["predicate"]["serialization"])
    if told != (PREDICATE_TYPE, [{"name": name, "digest": {"sha256": root}}], SERIALIZATION):
        raise IntegrityError("model.sig is about another version, or signs it in another way")


def key_hint(der: bytes) -> str:
    """Return what names a key in a bundle: SHA-256 of its PEM, hex."""
    text = base64.b64encode(der).decode()
    lines = [text[i : i + 64] for i in range(0, len(text), 64)]
    pem = "\n".join(["-----BEGIN PUBLIC KEY-----", *lines, "-----END PUBLIC KEY-----", ""])
    return hashlib.sha256(pem.encode()).hexdigest()


def _malformed(why: str) -> InvalidInputError:
    return InvalidInputError.of("model.sig", "oms", f"no OMS bundle as model_signing writes it: {why}")
