"""Attacks on the evidence of single predictions: receipts, delegations, seals, and keys that somebody has stolen."""

from __future__ import annotations

import base64
import hmac
import io
import json
import time
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from attestry.domain.errors import IntegrityError
from attestry.evidence.bundle import read_bundle
from attestry.evidence.compact_jws import encode_segment
from attestry.evidence.delegation import Delegation, issue, jwk_of, read_unverified_delegation, verify_delegation
from attestry.evidence.receipt import EmittedReceipt, ReceiptWriter
from attestry.evidence.verdict import Verification
from attestry.evidence.verification import verify_prediction
from attestry.ports import Put, Update
from attestry.usecases.sign import open_key, receipt_key
from tests.attacks.conftest import Tell
from tests.attacks.scene import Scene, broken, claims_of
from tests.embedded.flows import Registry, refusal
from tests.evidence_world import rewrite
from tests.fakes import LocalSigner

pytest_plugins = ("tests.embedded.flows",)
pytestmark = [pytest.mark.embedded, pytest.mark.xdist_group("embedded")]

REQUEST, OUTPUT = b'{"instances":[{}]}', b'[{"malignant":0,"probability":0.1}]'


@dataclass(frozen=True)
class Stolen:
    """A signing key that was delegated to, in the hands of a thief.

    Attributes:
        private: the key.
        delegation: what the registry's delegator signed for it.
    """

    private: Ed25519PrivateKey
    delegation: Delegation

    def sign(self, sequence: int, at: float) -> EmittedReceipt:
        """A receipt that the registry never made, dated in seconds since 1970."""
        writer = ReceiptWriter(self.private.sign, kid=self.delegation.kid, version=self.delegation.grant.version)
        return writer.emit(sequence=sequence, time_ms=int(at * 1000), request=REQUEST, output=OUTPUT)


@pytest.fixture(scope="module")
def stolen(scene: Scene) -> Stolen:
    """A key of a thief who may invoke the delegator; with it three receipts were made durable, and sealed."""
    key = steal(scene)
    for number in (1, 2, 3):
        put_receipt(scene, key, number, key.sign(number, time.time()))
    scene.collect()
    return key


def steal(scene: Scene) -> Stolen:
    """Have a delegation issued to a key of one's own."""
    private = Ed25519PrivateKey.generate()
    answer = scene.delegate(jwk_of(private.public_key().public_bytes_raw()))
    return Stolen(private, read_unverified_delegation(str(answer["delegation"])))


def put_receipt(scene: Scene, key: Stolen, number: int, receipt: EmittedReceipt) -> None:
    """Write a receipt's row as the serving process does."""
    at = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    row = {"receipt": receipt.token, "salt": receipt.salt, "at": at, "captured": False, "rate": "1", "principal": None}
    scene.registry.meta.transact([Put(receipt_key(key.delegation.kid, number), {**row, "expires": int(time.time()) + 86_400})])


def alone(scene: Scene, receipt: str, delegation: str | None = None) -> Verification:
    """What `attestry verify --prediction` finds with the pinned root."""
    metadata = {n.removeprefix("root/"): b for n, b in read_bundle(scene.bundle).files.items() if n.startswith("root/")}
    return verify_prediction(receipt, delegation or scene.delegation(scene.kid), pin=scene.pin, metadata=metadata)


def forged_in_bundle(scene: Scene, receipt: str, **index: Any) -> Verification:
    """What a verification of the real bundle finds with another receipt in it."""
    return scene.verify(rewrite(scene.bundle, {"prediction/receipt.jws": receipt.encode()}, documents=bool(index), **index))


def segment(value: Mapping[str, Any]) -> str:
    """A header as base64url."""
    return encode_segment(json.dumps(value, separators=(",", ":")).encode()).decode()


def parts(token: str) -> tuple[dict[str, Any], str, str, str]:
    """Header, and the three segments."""
    header, payload, signature = token.split(".")
    return json.loads(base64.urlsafe_b64decode(header + "==")), header, payload, signature


def test_the_honest_receipt_is_proven(scene: Scene) -> None:
    assert scene.verify(scene.bundle).verdict == "PROVEN"
    assert alone(scene, str(scene.predictions[1]["receipt"])).verdict == "SIGNED-UNANCHORED"


def test_a_receipt_that_is_forged_by_another_key_is_refused(scene: Scene, tell: Tell) -> None:
    claims = claims_of(scene.predictions[1]["receipt"])
    mallory = Ed25519PrivateKey.generate()
    version = read_unverified_delegation(scene.delegation(scene.kid)).grant.version
    forged = ReceiptWriter(mallory.sign, kid=scene.kid, version=version).emit(
        sequence=claims["sequence"], time_ms=claims["time_ms"], request=REQUEST, output=OUTPUT
    )
    for verification in (alone(scene, forged.token), forged_in_bundle(scene, forged.token)):
        step, reason = broken(verification)
        assert (step, reason) == ("receipt", "the signature of the receipt does not hold")
    tell("verify BROKEN at `receipt`")


def test_a_receipt_that_is_altered_is_refused(scene: Scene, tell: Tell) -> None:
    token = str(scene.predictions[1]["receipt"])
    _, header, _, signature = parts(token)
    claims = claims_of(token)
    altered = segment({**claims, "output": claims["output"].replace("1", "0", 1)})
    step, _ = broken(forged_in_bundle(scene, f"{header}.{altered}.{signature}"))
    assert step == "receipt"
    tell("verify BROKEN at `receipt`")


def test_a_receipt_that_is_attributed_to_another_version_is_refused(scene: Scene, stolen: Stolen, tell: Tell) -> None:
    """A thief with a key for the deployed version signs in the name of the killed one; and an honest receipt is put beside another key."""
    other = read_unverified_delegation(scene.delegation(str(scene.by_first["prediction_id"]).rpartition("-")[0])).grant.version
    assert other != stolen.delegation.grant.version
    writer = ReceiptWriter(stolen.private.sign, kid=stolen.delegation.kid, version=other)
    receipt = writer.emit(sequence=9, time_ms=int(time.time() * 1000), request=REQUEST, output=OUTPUT)
    step, reason = broken(alone(scene, receipt.token, stolen.delegation.token))
    assert (step, "a version that its key may not sign for" in reason) == ("receipt", True), reason
    step, _ = broken(forged_in_bundle(scene, str(scene.by_first["receipt"])))
    assert step == "receipt"
    tell("verify BROKEN at `receipt`: the key's delegation names one version")


@pytest.mark.parametrize("algorithm", ["none", "None", "HS256", "EdDSA ", "ES256"])
def test_the_receipt_s_own_word_on_its_algorithm_counts_for_nothing(scene: Scene, tell: Tell, algorithm: str) -> None:
    header, _, payload, signature = parts(str(scene.predictions[1]["receipt"]))
    forged = [f"{segment({**header, 'alg': algorithm})}.{payload}.{signature}", f"{segment({**header, 'alg': algorithm})}.{payload}."]
    for token in forged:
        step, _ = broken(forged_in_bundle(scene, token))
        assert step == "receipt"
    tell(f"alg {algorithm!r}: verify BROKEN at `receipt`; one algorithm is accepted, by the verifier's choice")


def test_the_public_key_does_not_serve_as_a_secret_of_hs256(scene: Scene, tell: Tell) -> None:
    """The classic: HMAC with the public key, which everybody has, as the secret; for receipt and delegation."""
    delegation = scene.delegation(scene.kid)
    der = scene.root.trusted_root.delegator(read_unverified_delegation(delegation).grant.issuer, at(scene)).der
    header, _, _, _ = parts(delegation)
    forged = by_hmac({**header, "alg": "HS256"}, delegation, der)
    with pytest.raises(IntegrityError, match="protected header"):
        verify_delegation(forged, der)
    step, _ = broken(scene.verify(rewrite(scene.bundle, {"prediction/delegation.jwt": forged.encode()})))
    assert step == "delegation"
    public = read_unverified_delegation(delegation).grant.public_key
    token = str(scene.predictions[1]["receipt"])
    assert broken(forged_in_bundle(scene, by_hmac({**parts(token)[0], "alg": "HS256"}, token, public)))[0] == "receipt"
    tell("verify BROKEN at `delegation`, and at `receipt`")


def by_hmac(header: Mapping[str, Any], token: str, secret: bytes) -> str:
    """The token's claims under another header, with an HMAC; libraries refuse to take a public key as its secret, an attacker does not."""
    signing_input = f"{segment(header)}.{token.split('.')[1]}"
    return f"{signing_input}.{encode_segment(hmac.digest(secret, signing_input.encode(), 'sha256')).decode()}"


def test_a_token_of_one_type_does_not_pass_for_another(scene: Scene, tell: Tell) -> None:
    delegation, token = scene.delegation(scene.kid), str(scene.predictions[1]["receipt"])
    assert broken(forged_in_bundle(scene, delegation))[0] == "receipt"
    assert broken(scene.verify(rewrite(scene.bundle, {"prediction/delegation.jwt": token.encode()})))[0] == "delegation"
    header, _, payload, signature = parts(token)
    assert broken(forged_in_bundle(scene, f"{segment({**header, 'typ': 'JWT'})}.{payload}.{signature}"))[0] == "receipt"
    tell("verify BROKEN at `receipt` or `delegation`: `typ` is exact")


def test_a_delegation_that_somebody_signs_themselves_is_refused(scene: Scene, tell: Tell) -> None:
    honest = read_unverified_delegation(scene.delegation(scene.kid)).grant
    private = Ed25519PrivateKey.generate()
    made = issue(
        LocalSigner(honest.issuer),
        version=honest.version,
        environment=honest.environment,
        standing="DEPLOYED",
        public_key=private.public_key().public_bytes_raw(),
        now=datetime.now(UTC),
    )
    receipt = Stolen(private, made).sign(1, time.time())
    step, _ = broken(alone(scene, receipt.token, made.token))
    assert step == "delegation"
    tell("verify BROKEN at `delegation`")


def test_the_delegator_s_key_signs_for_the_delegator_alone(scene: Scene, tell: Tell) -> None:
    registry: Registry = scene.registry
    how = {"MessageType": "DIGEST", "SigningAlgorithm": "ECDSA_SHA_256", "Message": b"x" * 32}
    refused = {
        f: refusal(registry.aws("kms", registry.as_function(f)).sign, KeyId="alias/attestry-delegator", **how)
        for f in ("predict", "decide", "deploy", "operate", "registry")
    }
    assert set(refused.values()) == {"AccessDeniedException"}, refused
    admin = refusal(registry.aws("kms", "admin").sign, KeyId="alias/attestry-delegator", **how)
    assert admin == "AccessDeniedException"
    tell("KMS refuses: AccessDenied, for every function but the delegator, and for the registry's admin")


def test_a_receipt_that_is_dated_after_its_delegation_expired_is_refused(scene: Scene, stolen: Stolen, tell: Tell) -> None:
    for late in (stolen.delegation.grant.expires, stolen.delegation.grant.expires + 86_400):
        step, reason = broken(alone(scene, stolen.sign(4, late).token, stolen.delegation.token))
        assert (step, "outside the time" in reason) == ("receipt", True), reason
    tell("verify BROKEN at `receipt`: outside the time for which its key was delegated")


def test_a_receipt_that_is_dated_before_its_delegation_is_refused(scene: Scene, stolen: Stolen, tell: Tell) -> None:
    for early in (stolen.delegation.grant.not_before - 1, 0):
        step, reason = broken(alone(scene, stolen.sign(4, early).token, stolen.delegation.token))
        assert (step, "outside the time" in reason) == ("receipt", True), reason
    tell("verify BROKEN at `receipt`: outside the time for which its key was delegated")


def test_a_back_dated_receipt_by_a_stolen_key_is_never_proven_and_refused_once_the_key_is_closed(scene: Scene, tell: Tell) -> None:
    """The thief of a process's key signs what the process never did, dated within the hour. Its number is under no seal."""
    key = steal(scene)
    put_receipt(scene, key, 1, key.sign(1, time.time()))
    scene.collect()
    forged = key.sign(2, key.delegation.grant.not_before + 1)
    assert alone(scene, forged.token, key.delegation.token).verdict == "SIGNED-UNANCHORED"
    close(scene, key)
    bundle = scene.bundle_of(key.sign(1, time.time()).prediction_id, fresh=True)
    assert scene.verify(bundle).verdict == "PROVEN"
    without = {n: None for n in read_bundle(bundle).files if n == "prediction/proof.json"}
    told = scene.verify(rewrite(bundle, {"prediction/receipt.jws": forged.token.encode(), **without}, subject=forged.prediction_id))
    step, reason = broken(told)
    assert (step, "closed without this number" in reason) == ("seal", True), reason
    tell("SIGNED-UNANCHORED at best; once its key is closed BROKEN at `seal`: the key was closed without this number")


def close(scene: Scene, key: Stolen) -> None:
    """Let the hour of a key be over."""
    scene.registry.meta.transact([Update(open_key(key.delegation.kid), {"exp": int(time.time()) - 3600})])
    scene.collect()


def test_a_receipt_that_is_dropped_before_it_is_sealed_leaves_a_gap_for_ever(scene: Scene, tell: Tell) -> None:
    key = steal(scene)
    receipts = [key.sign(number, time.time()) for number in (1, 2, 3)]
    for number, receipt in enumerate(receipts, start=1):
        put_receipt(scene, key, number, receipt)
    scene.delete_row(receipt_key(key.delegation.kid, 2))
    done = scene.collect()
    assert done["gaps"] == 1
    close(scene, key)
    closed = next(leaf for leaf in leaves_of(scene, receipts[0].prediction_id) if leaf["kind"] == "key.closed")
    assert closed["data"]["gaps"] == [[2, 2]]
    bundle = scene.bundle_of(receipts[0].prediction_id, fresh=True)
    step, reason = broken(
        scene.verify(
            rewrite(
                bundle,
                {"prediction/receipt.jws": receipts[1].token.encode(), "prediction/proof.json": None},
                subject=receipts[1].prediction_id,
            )
        )
    )
    assert step == "seal", reason
    tell("counted as a gap by the collector (alarm), in the ledger with the key's closing; whoever holds the receipt is told: withheld")


def leaves_of(scene: Scene, prediction: str) -> list[dict[str, Any]]:
    """The events in the bundle of a prediction."""
    files = read_bundle(scene.bundle_of(prediction, fresh=True)).files
    return [json.loads(body)["event"] for name, body in files.items() if name.startswith("ledger/leaves/")]


def test_a_receipt_that_is_dropped_from_its_sealed_batch_is_found(scene: Scene, stolen: Stolen, tell: Tell) -> None:
    folder = f"{scene.head(scene.second).folder}/predictions/{stolen.delegation.kid}"
    key = f"{folder}/{1:012d}-{3:012d}.jsonl"
    lines = scene.read_object(key).splitlines(keepends=True)
    with scene.laid_over(key, b"".join([lines[0], lines[2]])):
        found = scene.findings()
    assert key in found["object.overwritten"]
    assert refusal(scene.registry.aws("s3").delete_object, Bucket=scene.registry.bucket, Key=key, VersionId=version_of(scene, key)) == (
        "AccessDenied"
    )
    tell("finding `object.overwritten`; the sealed bytes stay under Object Lock: AccessDenied")


def version_of(scene: Scene, key: str) -> str:
    """The latest S3 version of an object."""
    return str(scene.registry.aws("s3").head_object(Bucket=scene.registry.bucket, Key=key)["VersionId"])


def test_another_receipt_of_the_same_key_does_not_take_a_sealed_one_s_place(scene: Scene, stolen: Stolen, tell: Tell) -> None:
    """The thief signs number 2 once more, with another output, and puts it where the sealed one was."""
    honest = scene.bundle_of(stolen.sign(2, time.time()).prediction_id)
    assert scene.verify(honest).verdict == "PROVEN"
    other = stolen.sign(2, time.time())
    step, reason = broken(scene.verify(rewrite(honest, {"prediction/receipt.jws": other.token.encode()})))
    assert step == "seal", reason
    row = receipt_key(stolen.delegation.kid, 2)
    with scene.edited(row, receipt=other.token):
        remade = scene.bundle_of(other.prediction_id, fresh=True)
    # Whoever makes the bundle believes what was sealed, so the exchanged row is in nobody's hands.
    assert scene.verify(remade).verdict == "PROVEN"
    with zipfile.ZipFile(io.BytesIO(remade)) as bundle:
        assert bundle.read("prediction/receipt.jws").decode() != other.token
    tell("verify BROKEN at `seal`: it is not the leaf that was sealed; a bundle made from the exchanged row holds the sealed one")


def at(scene: Scene) -> str:
    """The time of the ledger."""
    return str(scene.verify(scene.bundle).facts["ledger_time"])
