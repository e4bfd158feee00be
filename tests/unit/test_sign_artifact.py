"""The artifact signature: what the signing function signs, and what it refuses to sign."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from attestry.aws.object_store import S3ObjectStore
from attestry.domain.errors import IntegrityError, InvalidInputError, UnavailableError
from attestry.evidence.artifact_manifest import ArtifactManifest
from attestry.oms.bundle import OmsSigner
from attestry.usecases.sign_artifact import ArtifactSignature, request_artifact_signature, sign_artifact
from lambdas import sign_artifact as function
from tests.fakes import Faults, Killed, LocalSigner, MemoryFunctions, MemoryObjectStore
from tests.frozen import FOLDER, artifact_of, freeze


class Scene:
    """A frozen version in a store, and the artifact key."""

    def __init__(self) -> None:
        self.faults = Faults()
        self.store = MemoryObjectStore(self.faults)
        self.signer = LocalSigner("artifact", self.faults)
        self.bundles = OmsSigner(self.signer)
        self.artifact = freeze(self.store)

    def sign(self, **changes: Any) -> ArtifactSignature:
        arguments = {"folder": FOLDER, "version_digest": self.artifact.version_digest} | changes
        return sign_artifact(self.store, self.bundles, **arguments)

    def bundle(self) -> bytes:
        return self.store.read(f"{FOLDER}/evidence/model.sig", max_bytes=1 << 20)


@pytest.fixture
def scene() -> Scene:
    return Scene()


def statement_of(bundle: bytes) -> dict[str, Any]:
    statement: dict[str, Any] = json.loads(base64.b64decode(json.loads(bundle)["dsseEnvelope"]["payload"]))
    return statement


def resealed(bundle: bytes, edit: Any, signer: LocalSigner | None = None) -> bytes:
    """Change the payload of a bundle; with a signer, sign it anew as `model_signing` does."""
    document = json.loads(bundle)
    envelope = document["dsseEnvelope"]
    statement = statement_of(bundle)
    edit(statement)
    payload = json.dumps(statement).encode()
    envelope["payload"] = base64.b64encode(payload).decode()
    if signer:
        pae = b"DSSEv1 %d %s %d %s" % (len(envelope["payloadType"]), envelope["payloadType"].encode(), len(payload), payload)
        raw = signer.sign_es256(pae)
        der = encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
        envelope["signatures"][0]["sig"] = base64.b64encode(der).decode()
    return json.dumps(document).encode()


def test_the_bundle_lists_every_frozen_file_and_the_artifact_manifest_with_their_digests(scene: Scene) -> None:
    scene.sign()
    listed = {r["name"]: r["digest"] for r in statement_of(scene.bundle())["predicate"]["resources"]}
    expected = {f.path: f.sha256 for f in scene.artifact.files}
    assert listed == {**expected, "artifact-manifest.json": scene.artifact.version_digest}


def test_the_bundle_names_the_version(scene: Scene) -> None:
    scene.sign()
    (subject,) = statement_of(scene.bundle())["subject"]
    assert subject["name"] == f"urn:attestry:credit-risk:3:sha256:{scene.artifact.version_digest}"


def test_the_bundle_is_retained_in_the_evidence_of_the_version(scene: Scene) -> None:
    signature = scene.sign()
    (stored,) = scene.store.versions[signature.key]
    assert (signature.key, stored.retained, signature.version_id) == (f"{FOLDER}/evidence/model.sig", True, stored.version_id)


def test_no_frozen_file_is_read_again(scene: Scene) -> None:
    scene.sign()
    assert scene.faults.calls.count("MemoryObjectStore.read") == 1
    assert "MemoryObjectStore.open" not in scene.faults.calls


def test_signing_again_answers_the_first_bundle(scene: Scene) -> None:
    first = scene.sign()
    assert scene.sign() == first
    assert scene.faults.calls.count("LocalSigner.sign_es256") == 1


def test_of_two_that_sign_at_once_both_answer_the_bundle_that_was_written(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    make, answers = scene.bundles.make, []

    def overtaken(artifact: ArtifactManifest) -> bytes:
        monkeypatch.setattr(scene.bundles, "make", make)
        answers.append(scene.sign())
        return make(artifact)

    monkeypatch.setattr(scene.bundles, "make", overtaken)
    answers.append(scene.sign())
    assert answers[0] == answers[1]
    assert len(scene.store.versions[answers[0].key]) == 1


def test_a_crash_at_any_call_leaves_a_state_from_which_a_retry_signs() -> None:
    for n in range(1, 20):
        for plan in ("fail_before", "fail_after"):
            scene = Scene()
            scene.faults.clear()
            getattr(scene.faults, plan)(n, error=Killed())
            try:
                scene.sign()
            except Killed:
                pass
            else:
                if n > len(scene.faults.calls):
                    return
            scene.faults.clear()
            signature = scene.sign()
            scene.bundles.check(scene.bundle(), scene.artifact)
            assert len(scene.store.versions[signature.key]) == 1
    pytest.fail("signing takes more calls than were tried")


@pytest.mark.parametrize("path", ["model/extra.bin", "extra.json", "model/.gitignore", ".git/config"])
def test_a_file_that_the_artifact_manifest_does_not_list_is_not_signed_over(scene: Scene, path: str) -> None:
    scene.store.put(f"{FOLDER}/frozen/{path}", b"extra")
    with pytest.raises(IntegrityError, match="does not hold"):
        scene.sign()


def test_a_listed_file_that_is_missing_stops_the_signature(scene: Scene) -> None:
    del scene.store.versions[f"{FOLDER}/frozen/model/weights.bin"]
    with pytest.raises(IntegrityError, match="does not hold"):
        scene.sign()


def test_a_file_of_another_size_stops_the_signature(scene: Scene) -> None:
    scene.store.tamper(f"{FOLDER}/frozen/model/weights.bin", b"longer than what was frozen there")
    with pytest.raises(IntegrityError, match="does not hold"):
        scene.sign()


def test_a_file_that_was_written_twice_or_deleted_stops_the_signature(scene: Scene) -> None:
    scene.store.put(f"{FOLDER}/frozen/model/weights.bin", b"0123456789")
    with pytest.raises(IntegrityError, match="after it was frozen"):
        scene.sign()
    other = Scene()
    other.store.delete(f"{FOLDER}/frozen/model/weights.bin")
    with pytest.raises(IntegrityError, match="after it was frozen"):
        other.sign()


def test_an_artifact_manifest_of_another_digest_is_not_signed(scene: Scene) -> None:
    with pytest.raises(IntegrityError, match="another digest"):
        scene.sign(version_digest="0" * 64)


def test_what_is_no_digest_is_refused(scene: Scene) -> None:
    with pytest.raises(InvalidInputError):
        scene.sign(version_digest="latest")


def test_a_folder_without_an_artifact_manifest_is_not_signed(scene: Scene) -> None:
    with pytest.raises(IntegrityError, match="not closed"):
        scene.sign(folder="models/credit-risk/4-nothing")


def test_an_artifact_manifest_in_the_folder_of_another_version_is_not_signed(scene: Scene) -> None:
    other = FOLDER.replace("/3-", "/4-")
    freeze(scene.store, folder=other)
    with pytest.raises(IntegrityError, match="credit-risk@3"):
        scene.sign(folder=other)


def test_a_bundle_that_somebody_else_left_there_is_not_passed_off_as_the_signature(scene: Scene) -> None:
    forged = OmsSigner(LocalSigner("mallory")).make(scene.artifact)
    scene.store.put(f"{FOLDER}/evidence/model.sig", forged)
    with pytest.raises(IntegrityError):
        scene.sign()


def test_a_bundle_over_another_version_is_refused(scene: Scene) -> None:
    other = artifact_of(number=4)
    with pytest.raises(IntegrityError, match="other files"):
        scene.bundles.check(scene.bundles.make(other), scene.artifact)


def test_a_changed_payload_is_refused(scene: Scene) -> None:
    bundle = scene.bundles.make(scene.artifact)
    with pytest.raises(IntegrityError, match="not by the registry's key"):
        scene.bundles.check(resealed(bundle, lambda s: s["subject"][0].update(name="other")), scene.artifact)


def loosen(statement: dict[str, Any]) -> None:
    statement["predicate"]["serialization"]["ignore_paths"] = ["model"]


def drop_one(statement: dict[str, Any]) -> None:
    statement["predicate"]["resources"].pop()


def make_old(statement: dict[str, Any]) -> None:
    statement["predicateType"] = "https://model_signing/Digests/v0.1"


@pytest.mark.parametrize("edit", [loosen, drop_one, make_old])
def test_a_bundle_by_the_key_itself_that_would_check_less_is_refused(scene: Scene, edit: Any) -> None:
    bundle = scene.bundles.make(scene.artifact)
    with pytest.raises(IntegrityError):
        scene.bundles.check(resealed(bundle, edit, scene.signer), scene.artifact)


@pytest.mark.parametrize("junk", [b"", b"null", b"{}", b"[]", b'{"verificationMaterial":{}}', b"\xff"])
def test_what_is_no_bundle_is_refused(scene: Scene, junk: bytes) -> None:
    with pytest.raises(IntegrityError):
        scene.bundles.check(junk, scene.artifact)


def test_the_function_answers_where_the_bundle_lies(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(function, "_ports", lambda: (scene.store, scene.bundles))
    answer = function.handler({"folder": FOLDER, "version_digest": scene.artifact.version_digest}, None)
    assert answer == scene.sign().to_item()


@pytest.mark.parametrize("event", [{}, {"folder": FOLDER}, {"folder": 3, "version_digest": "0" * 64}])
def test_the_function_answers_an_error_to_bad_input(scene: Scene, monkeypatch: pytest.MonkeyPatch, event: dict[str, Any]) -> None:
    monkeypatch.setattr(function, "_ports", lambda: (scene.store, scene.bundles))
    assert function.handler(event, None)["error"]["code"] == "invalid_input"


def test_the_function_makes_its_ports_from_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"ATTESTRY_STORE": "store", "ATTESTRY_ARTIFACT_KEY": "key", "AWS_DEFAULT_REGION": "eu-central-1"}.items():
        monkeypatch.setenv(name, value)
    function._ports.cache_clear()
    store, bundles = function._ports()
    function._ports.cache_clear()
    assert isinstance(store, S3ObjectStore)
    assert isinstance(bundles, OmsSigner)


def test_the_caller_gets_the_signature_and_the_errors_by_their_class(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(function, "_ports", lambda: (scene.store, scene.bundles))
    functions = MemoryFunctions({"sign": lambda payload: function.handler(dict(payload), None)})
    assert request_artifact_signature(functions, "sign", FOLDER, scene.artifact.version_digest) == scene.sign()
    with pytest.raises(IntegrityError):
        request_artifact_signature(functions, "sign", FOLDER, "0" * 64)


@pytest.mark.parametrize(
    "answer",
    [
        None,
        {},
        {"error": {"code": "unavailable", "message": "later"}},
        {"sha256": "0" * 64, "key": "elsewhere/model.sig", "version_id": "v"},
        {"sha256": "x", "key": f"{FOLDER}/evidence/model.sig", "version_id": "v"},
    ],
)
def test_an_answer_that_is_no_signature_is_a_failure_that_can_be_tried_again(answer: Any) -> None:
    with pytest.raises(UnavailableError):
        request_artifact_signature(MemoryFunctions({"sign": lambda _: answer}), "sign", FOLDER, "0" * 64)


class WiderKey(LocalSigner):
    """Says that its key is on P-384."""

    def public_key_der(self) -> bytes:
        return ec.generate_private_key(ec.SECP384R1()).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def test_a_key_that_is_not_p256_is_refused(scene: Scene) -> None:
    with pytest.raises(InvalidInputError, match="P-256"):
        OmsSigner(WiderKey()).make(scene.artifact)
