"""npm `@sigstore/verify` and PyPI `securesystemslib` check attestations; the former checks artifact signatures as well."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import SSlibKey

from attestry.evidence.canonical import canonical_bytes
from attestry.evidence.dsse import sign_envelope
from attestry.oms.bundle import OmsSigner
from tests.fakes import LocalSigner
from tests.frozen import artifact_of
from tests.independent.nodetool import judge

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT = {
    "_type": "https://in-toto.io/Statement/v1",
    "subject": [{"name": "urn:attestry:credit-risk:3", "digest": {"sha256": "ab" * 32}}],
    "predicateType": "urn:attestry:predicate:approval:v1",
    "predicate": {"model": "credit-risk", "number": 3, "transition": 7, "reason": "größer"},
}


@pytest.fixture(scope="module")
def signer() -> LocalSigner:
    return LocalSigner("arn:aws:kms:eu-central-1:1:key/decide")


@pytest.fixture(scope="module")
def envelope(signer: LocalSigner) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(sign_envelope(canonical_bytes(STATEMENT), signer))
    return parsed


def pem_of(signer: LocalSigner) -> str:
    key = serialization.load_der_public_key(signer.public_key_der())
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()


def case_of(envelope: dict[str, Any], signer: LocalSigner) -> dict[str, Any]:
    """The envelope as a Sigstore bundle without certificate or log entry."""
    hint = envelope["signatures"][0]["keyid"]
    bundle = {
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": {"publicKey": {"hint": hint}, "tlogEntries": []},
        "dsseEnvelope": envelope,
    }
    return {"kind": "bundle", "bundle": bundle, "payloadType": PAYLOAD_TYPE, "hint": hint, "key": pem_of(signer)}


def by_securesystemslib(envelope: dict[str, Any], signer: LocalSigner) -> str:
    """Return why it does not verify, an empty text where it does."""
    public = serialization.load_der_public_key(signer.public_key_der())
    key = SSlibKey.from_crypto(public, keyid=envelope["signatures"][0]["keyid"])
    try:
        Envelope.from_dict(deepcopy(envelope)).verify([key], 1)
    except VerificationError as error:
        return str(error)
    return ""


def change_payload(envelope: dict[str, Any]) -> None:
    changed = base64.b64decode(envelope["payload"]).replace(b'"number":3', b'"number":4')
    envelope["payload"] = base64.b64encode(changed).decode()


def change_payload_type(envelope: dict[str, Any]) -> None:
    envelope["payloadType"] = "application/json"


def change_signature(envelope: dict[str, Any]) -> None:
    raw = bytearray(base64.b64decode(envelope["signatures"][0]["sig"]))
    raw[-1] ^= 1
    envelope["signatures"][0]["sig"] = base64.b64encode(raw).decode()


def sign_the_payload_alone(envelope: dict[str, Any], signer: LocalSigner) -> None:
    """A signature over the payload without its type, as another protocol may make one."""
    raw = signer.sign_es256(base64.b64decode(envelope["payload"]))
    der = encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
    envelope["signatures"][0]["sig"] = base64.b64encode(der).decode()


def test_an_attestation_verifies_by_both(envelope: dict[str, Any], signer: LocalSigner) -> None:
    assert judge([case_of(envelope, signer)]) == [""]
    assert by_securesystemslib(envelope, signer) == ""


@pytest.mark.parametrize("tamper", [change_payload, change_payload_type, change_signature])
def test_a_changed_attestation_is_refused_by_both(
    envelope: dict[str, Any], signer: LocalSigner, tamper: Callable[[dict[str, Any]], None]
) -> None:
    changed = deepcopy(envelope)
    tamper(changed)
    (reason,) = judge([case_of(changed, signer)])
    assert "signature verification failed" in reason
    assert by_securesystemslib(changed, signer)


def test_a_signature_over_the_payload_without_its_type_is_refused_by_both(envelope: dict[str, Any], signer: LocalSigner) -> None:
    changed = deepcopy(envelope)
    sign_the_payload_alone(changed, signer)
    (reason,) = judge([case_of(changed, signer)])
    assert "signature verification failed" in reason
    assert by_securesystemslib(changed, signer)


def test_an_attestation_by_another_key_is_refused_by_both(envelope: dict[str, Any], signer: LocalSigner) -> None:
    mallory = LocalSigner("mallory")
    (reason,) = judge([case_of(envelope, mallory)])
    assert "signature verification failed" in reason
    assert by_securesystemslib(envelope, mallory)
    forged = json.loads(sign_envelope(canonical_bytes(STATEMENT), mallory))
    trusted = case_of(envelope, signer)
    (reason,) = judge([{**case_of(forged, mallory), "hint": trusted["hint"], "key": trusted["key"]}])
    assert "signed by another key" in reason


def test_an_attestation_of_another_payload_type_is_refused(signer: LocalSigner) -> None:
    other = json.loads(sign_envelope(canonical_bytes(STATEMENT), signer, payload_type="application/vnd.other+json"))
    assert by_securesystemslib(other, signer) == ""
    (reason,) = judge([case_of(other, signer)])
    assert "of another type" in reason


def artifact_case(signer: LocalSigner) -> dict[str, Any]:
    bundle = json.loads(OmsSigner(signer).make(artifact_of()))
    hint = bundle["verificationMaterial"]["publicKey"]["hint"]
    return {"kind": "bundle", "bundle": bundle, "payloadType": PAYLOAD_TYPE, "hint": hint, "key": pem_of(signer)}


def test_an_artifact_signature_verifies_and_a_changed_one_is_refused(signer: LocalSigner) -> None:
    good = artifact_case(signer)
    changed, mallory = deepcopy(good), artifact_case(LocalSigner("mallory"))
    change_signature(changed["bundle"]["dsseEnvelope"])
    reasons = judge([good, changed, {**mallory, "hint": good["hint"], "key": good["key"]}])
    assert [reason == "" for reason in reasons] == [True, False, False]
