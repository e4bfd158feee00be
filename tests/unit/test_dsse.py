"""Statements and envelopes: what the writer would not have written byte for byte is refused, and others' tools read what we write."""

from __future__ import annotations

import base64
import json
import subprocess
import sys

import pytest
import securesystemslib.dsse
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import SSlibKey

from attestry.domain.errors import IntegrityError, InvalidInputError, UnavailableError
from attestry.evidence.canonical import canonical_bytes
from attestry.evidence.dsse import MAX_ENVELOPE_BYTES, key_id, read_envelope, sign_envelope, verify_envelope
from attestry.evidence.statement import PAYLOAD_TYPE, Statement, Subject
from tests.fakes import Faults, LocalSigner

SUBJECT = Subject("candidate", "ab" * 32)
STATEMENT = Statement((SUBJECT,), "urn:example:predicate", {"said": "a thing"})


@pytest.fixture
def signer() -> LocalSigner:
    return LocalSigner()


@pytest.fixture
def envelope(signer) -> bytes:
    return sign_envelope(STATEMENT.to_bytes(), signer)


def edited(envelope: bytes, edit) -> bytes:
    body = json.loads(envelope)
    edit(body)
    return canonical_bytes(body)


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


class TestEnvelope:
    def test_gives_back_the_payload_that_was_signed(self, envelope, signer):
        assert Statement.parse(verify_envelope(envelope, signer.public_key_der())) == STATEMENT

    def test_names_the_key_by_the_digest_of_its_public_half(self, envelope, signer):
        assert read_envelope(envelope).keyid == key_id(signer.public_key_der())

    def test_is_verified_by_securesystemslib_without_any_code_of_ours(self, envelope, signer):
        pem = serialization.load_der_public_key(signer.public_key_der()).public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        body = json.loads(envelope)
        key = SSlibKey(body["signatures"][0]["keyid"], "ecdsa", "ecdsa-sha2-nistp256", {"public": pem.decode()})
        assert list(securesystemslib.dsse.Envelope.from_dict(body).verify([key], 1)) == [key.keyid]
        altered = json.loads(edited(envelope, lambda b: b.update(payload=b64(STATEMENT.to_bytes().replace(b"a thing", b"b thing")))))
        with pytest.raises(VerificationError):
            securesystemslib.dsse.Envelope.from_dict(altered).verify([key], 1)

    def test_of_another_payload_type_is_refused(self, signer):
        other = sign_envelope(STATEMENT.to_bytes(), signer, payload_type="application/vnd.example+json")
        with pytest.raises(IntegrityError, match="payload of type"):
            verify_envelope(other, signer.public_key_der())

    def test_whose_payload_type_was_renamed_is_refused(self, signer):
        other = sign_envelope(STATEMENT.to_bytes(), signer, payload_type="application/vnd.example+json")
        renamed = edited(other, lambda b: b.update(payloadType=PAYLOAD_TYPE))
        with pytest.raises(IntegrityError, match="does not verify"):
            verify_envelope(renamed, signer.public_key_der())

    def test_with_an_altered_payload_is_refused(self, envelope, signer):
        altered = edited(envelope, lambda b: b.update(payload=b64(STATEMENT.to_bytes().replace(b"a thing", b"b thing"))))
        with pytest.raises(IntegrityError, match="does not verify"):
            verify_envelope(altered, signer.public_key_der())

    def test_by_a_foreign_key_is_refused(self, envelope):
        with pytest.raises(IntegrityError, match="not by"):
            verify_envelope(envelope, LocalSigner().public_key_der())

    def test_by_a_foreign_key_under_the_name_of_ours_is_refused(self, signer):
        foreign = sign_envelope(STATEMENT.to_bytes(), LocalSigner())
        renamed = edited(foreign, lambda b: b["signatures"][0].update(keyid=key_id(signer.public_key_der())))
        with pytest.raises(IntegrityError, match="does not verify"):
            verify_envelope(renamed, signer.public_key_der())

    def test_with_a_second_signature_is_refused(self, envelope, signer):
        other = json.loads(sign_envelope(STATEMENT.to_bytes(), LocalSigner()))["signatures"][0]
        for extra in (other, json.loads(envelope)["signatures"][0]):
            two = edited(envelope, lambda b, extra=extra: b["signatures"].append(extra))
            with pytest.raises(InvalidInputError, match="2 signatures"):
                verify_envelope(two, signer.public_key_der())

    def test_without_a_signature_is_refused(self, envelope, signer):
        with pytest.raises(InvalidInputError, match="0 signatures"):
            verify_envelope(edited(envelope, lambda b: b.update(signatures=[])), signer.public_key_der())

    @pytest.mark.parametrize(
        "edit",
        [
            lambda b: b.update(comment="x"),
            lambda b: b.pop("payloadType"),
            lambda b: b.update(payload=7),
            lambda b: b["signatures"][0].update(comment="x"),
            lambda b: b["signatures"][0].pop("keyid"),
            lambda b: b["signatures"][0].update(keyid="AB" * 32),
            lambda b: b["signatures"][0].update(sig="!"),
            lambda b: b["signatures"][0].update(sig=b64(b"not DER")),
            lambda b: b["signatures"][0].update(sig=b64(base64.b64decode(b["signatures"][0]["sig"]) + b"\0")),
            lambda b: b.update(payload=b["payload"].rstrip("=") + "\n"),
            lambda b: b.update(payload="QR=="),
            lambda b: b.update(signatures={}),
            lambda b: b.update(signatures=["x"]),
        ],
    )
    def test_that_nobody_wrote_like_this_is_refused(self, envelope, signer, edit):
        with pytest.raises(InvalidInputError):
            verify_envelope(edited(envelope, edit), signer.public_key_der())

    def test_spelled_in_another_way_is_refused_so_that_it_has_one_digest(self, envelope, signer):
        for other in (json.dumps(json.loads(envelope)).encode(), envelope + b"\n", b"[]", b"", b"\xff"):
            with pytest.raises(InvalidInputError):
                verify_envelope(other, signer.public_key_der())

    def test_that_is_too_large_is_refused_before_it_is_parsed(self, signer):
        with pytest.raises(InvalidInputError, match="the limit is"):
            verify_envelope(b" " * (MAX_ENVELOPE_BYTES + 1), signer.public_key_der())

    def test_is_checked_with_keys_on_p256_alone(self, envelope):
        curve = ec.generate_private_key(ec.SECP384R1()).public_key()
        edwards = ed25519.Ed25519PrivateKey.generate().public_key()
        for key in (curve, edwards):
            der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
            with pytest.raises(InvalidInputError, match="P-256"):
                verify_envelope(envelope, der)
        with pytest.raises(InvalidInputError, match="DER"):
            verify_envelope(envelope, b"no key")

    def test_is_not_given_out_when_the_key_is_not_the_one_that_it_names(self, signer):
        signer.public_key_der = LocalSigner().public_key_der
        with pytest.raises(IntegrityError, match="does not verify"):
            sign_envelope(b"{}", signer)

    def test_is_not_made_when_the_key_does_not_answer(self):
        faults = Faults()
        faults.fail_before(method="sign_es256")
        with pytest.raises(UnavailableError):
            sign_envelope(b"{}", LocalSigner(faults=faults))


class TestStatement:
    def test_is_canonical_and_reads_back(self):
        raw = STATEMENT.to_bytes()
        assert raw.startswith(b'{"_type":"https://in-toto.io/Statement/v1","predicate":')
        assert Statement.parse(raw) == STATEMENT

    @pytest.mark.parametrize(
        "edit",
        [
            lambda b: b.update(comment="x"),
            lambda b: b.pop("predicate"),
            lambda b: b.pop("subject"),
            lambda b: b.update(_type="https://in-toto.io/Statement/v0.1"),
            lambda b: b.update(subject=[]),
            lambda b: b.update(subject={}),
            lambda b: b["subject"].append(b["subject"][0]),
            lambda b: b["subject"][0].update(uri="x"),
            lambda b: b["subject"][0].update(name=""),
            lambda b: b["subject"][0].update(name=None),
            lambda b: b["subject"][0]["digest"].update(sha512="00"),
            lambda b: b["subject"][0].update(digest={"sha1": "ab" * 20}),
            lambda b: b["subject"][0].update(digest={"sha256": "AB" * 32}),
            lambda b: b.update(predicate=[]),
            lambda b: b.update(predicateType=1),
            lambda b: b.update(predicateType="words"),
        ],
    )
    def test_with_a_field_more_or_less_or_of_another_form_is_refused(self, edit):
        with pytest.raises(InvalidInputError):
            Statement.parse(edited(STATEMENT.to_bytes(), edit))

    def test_that_is_not_canonical_is_refused(self):
        for raw in (json.dumps(json.loads(STATEMENT.to_bytes())).encode(), b"[]", b"null", b'{"_type":1,"_type":2}'):
            with pytest.raises(InvalidInputError):
                Statement.parse(raw)


@pytest.mark.parametrize("handler", ["predict", "delegate", "collect", "registry"])
def test_functions_that_move_no_version_do_not_import_the_signing_library(handler):
    code = f"import sys, lambdas.{handler}; sys.exit(any(m.partition('.')[0] == 'securesystemslib' for m in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
