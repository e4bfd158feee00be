"""Attacks on who decides and on what: other names, second logins, decisions that are replayed or made up, and what was revoked."""

from __future__ import annotations

import hashlib
import json
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from attestry.domain.principal import Principal
from attestry.domain.stages import Stage, Standing, Status
from attestry.evidence.delegation import jwk_of
from attestry.evidence.predicates import APPROVAL, Predicate
from attestry.ports import Key
from attestry.usecases.attest import Attestor
from attestry.usecases.records import Move, approval_key, move_writes, transition_key, version_key
from tests.attacks.conftest import Tell
from tests.attacks.scene import SECOND_LOGINS, Scene, broken, failures, wire
from tests.embedded.flow_versions import NO_LONGER_WAITING, ended
from tests.embedded.flows import Answer, refusal
from tests.fakes import LocalSigner

pytest_plugins = ("tests.embedded.flows",)
pytestmark = [pytest.mark.embedded, pytest.mark.xdist_group("embedded")]

APPROVE = {"decision": "approve", "reason": "the gates hold"}
NOT_THERE = "the approvals that the policy of"


def decide(scene: Scene, profile: str, number: int) -> Answer:
    """Approve through the API."""
    return scene.registry.call(profile, "POST", f"/v1/models/{scene.model}/versions/{number}/decision", APPROVE)


def refused_delegation(scene: Scene) -> Mapping[str, Any]:
    """The error with which the delegator refuses to let a process sign for what the pointer names."""
    answer = scene.delegate(jwk_of(Ed25519PrivateKey.generate().public_key().public_bytes_raw()))
    assert "error" in answer, answer
    error: Mapping[str, Any] = answer["error"]
    return error


@contextmanager
def approval_of(scene: Scene, number: int, place: str, row: Mapping[str, Any], **changes: Any) -> Iterator[None]:
    """Have an administrator put the row of an approval into the table."""
    key = approval_key(scene.model, number, place)
    with scene.kept(key):
        named = {"pk": {"S": key.partition}, "sk": {"S": key.sort}}
        scene.put_row({**row, **{n: wire(v) for n, v in changes.items()}, **named})
        yield


def test_a_submitter_cannot_approve_what_they_submitted(scene: Scene, tell: Tell) -> None:
    answer = decide(scene, "dana-approver", scene.twin)
    assert (answer.status, answer.code) == (403, "self_approval")
    tell("API refuses: 403 `self_approval`")


def test_a_submitter_cannot_approve_under_a_second_login(scene: Scene, tell: Tell) -> None:
    answer = decide(scene, SECOND_LOGINS["dana"], scene.twin)
    assert (answer.status, answer.code) == (403, "self_approval")
    tell("persons are compared, not logins: 403 `self_approval`")


def test_one_person_with_two_logins_is_not_two_approvers(scene: Scene, tell: Tell) -> None:
    first, second = scene.one_person_twice
    assert (first.status, second.status) == (200, 200)
    assert (second.body["complete"], second.body["person"]) == (False, "erin")
    assert (scene.waiting_after.stage, scene.waiting_after.status, scene.waiting_after.approved) == (Stage.APPROVAL, Status.RUNNING, False)
    tell("the second login's approval is the first's once more; the version waits for another person")


def test_a_self_approval_written_by_an_administrator_is_not_delegated_to(scene: Scene, tell: Tell) -> None:
    row = scene.row(approval_key(scene.model, scene.first, "erin"))
    digest, packet = scene.head(scene.twin).version_digest, scene.head(scene.twin).packet["sha256"]
    with scene.pointed_at(scene.twin), approval_of(scene, scene.twin, "dana", row, person="dana", version_digest=digest, evidence=packet):
        error, found = refused_delegation(scene), scene.findings()
    assert (error["code"], NOT_THERE in error["message"]) == ("conflict", True), error
    assert f"{version_key(scene.model, scene.twin).partition}/APPROVAL#dana" in found["decision.without_event"]
    tell("delegation refused: `conflict`; finding `decision.without_event`")


def test_equal_bytes_do_not_share_an_approval(scene: Scene, tell: Tell) -> None:
    """The twin has the same files, byte for byte, as the version that was approved; an administrator copies the approval as it stands."""
    first, twin = scene.head(scene.first), scene.head(scene.twin)
    files = {f.path: f.sha256 for f in first.frozen if f.path.startswith("model/")}
    assert files == {f.path: f.sha256 for f in twin.frozen if f.path.startswith("model/")}
    assert first.version_digest != twin.version_digest
    row = scene.row(approval_key(scene.model, scene.first, "erin"))
    with scene.pointed_at(scene.twin), approval_of(scene, scene.twin, "erin", row):
        error = refused_delegation(scene)
    assert (error["code"], NOT_THERE in error["message"]) == ("conflict", True), error
    tell("version digests differ though the bytes are equal; delegation refused: `conflict`")


def test_an_approval_that_is_rewritten_for_another_version_has_no_event(scene: Scene, tell: Tell) -> None:
    row = scene.row(approval_key(scene.model, scene.first, "erin"))
    digest, packet = scene.head(scene.twin).version_digest, scene.head(scene.twin).packet["sha256"]
    with scene.pointed_at(scene.twin), approval_of(scene, scene.twin, "erin", row, version_digest=digest, evidence=packet):
        error, found = refused_delegation(scene), scene.findings()
    assert error["code"] == "integrity", error
    assert f"{version_key(scene.model, scene.twin).partition}/APPROVAL#erin" in found["decision.without_event"]
    tell("delegation refused: `integrity`; finding `decision.without_event`")


def test_an_approval_of_another_stage_does_not_count(scene: Scene, tell: Tell) -> None:
    with scene.edited(approval_key(scene.model, scene.second, "erin"), stage="VALIDATION"):
        error = refused_delegation(scene)
    assert (error["code"], NOT_THERE in error["message"]) == ("conflict", True), error
    tell("delegation refused: `conflict`")


def test_an_approval_that_is_replayed_does_not_count_twice(scene: Scene, tell: Tell) -> None:
    """The version needs two persons. One approval is taken away, and the other put in its place once more."""
    other = approval_key(scene.model, scene.second, "approver-01")
    row = scene.row(approval_key(scene.model, scene.second, "erin"))
    with scene.kept(other), approval_of(scene, scene.second, "approver-02", row):
        scene.delete_row(other)
        error, found = refused_delegation(scene), scene.findings()
    assert (error["code"], NOT_THERE in error["message"]) == ("conflict", True), error
    where = version_key(scene.model, scene.second).partition
    assert f"{where}/APPROVAL#approver-01" in found["decision.deleted"]
    assert f"{where}/APPROVAL#approver-02" in found["decision.without_event"]
    tell("persons are counted: delegation refused: `conflict`; findings `decision.deleted`, `decision.without_event`")


def test_an_approval_on_another_policy_does_not_count(scene: Scene, tell: Tell) -> None:
    """An administrator lowers the number of persons that the policy asks for, and takes one approval away."""
    policy = {**scene.head(scene.second).approval_policy, "count": 1}
    other = approval_key(scene.model, scene.second, "approver-01")
    with scene.edited(version_key(scene.model, scene.second), approval_policy=policy), scene.kept(other):
        scene.delete_row(other)
        error, trace = refused_delegation(scene), scene.trace()
    assert (error["code"], NOT_THERE in error["message"]) == ("conflict", True), error
    assert "not the one that was committed before VALIDATION" in failures(trace)["record of VALIDATION"]
    tell("approvals name the policy's digest: delegation refused: `conflict`; trace BROKEN at `record of VALIDATION`")


def test_a_whole_made_up_approval_with_its_event_proves_nothing(scene: Scene, tell: Tell) -> None:
    """An administrator writes everything that the registry would: decision, transition, event and attestation, but not by its key."""
    registry, version = scene.registry, scene.head(scene.foreign)
    mallory = Attestor(LocalSigner(registry.attestor("decide")._signer.key_id), registry.store)
    by = Principal.from_item(registry.rows(scene.model, scene.first, "APPROVAL#")[0]["principal"])
    facts = {"person": "erin", "decision": "approve", "policy_sha256": "ab" * 32, "opened": version.transition, "signed_by_person": False}
    move = Move(
        Stage.APPROVAL,
        Status.SUCCEEDED,
        Standing.APPROVED,
        "version.approved",
        by,
        "fine",
        datetime.now(UTC),
        version.packet["sha256"],
        facts,
        Predicate(APPROVAL, {**facts, "packet_sha256": version.packet["sha256"]}),
    )
    moved = version_key(scene.model, scene.foreign)
    with scene.kept(moved, Key(moved.partition, f"TRANSITION#{version.transition + 1:06d}")):
        registry.meta.transact(move_writes(version, move, mallory, {"approved": True}))
        scene.sequence()
        step, reason = broken(scene.verify(scene.version_bundle(scene.foreign)))
    assert step == "transitions", reason
    tell(f"the ledger takes the event, and verify says BROKEN at `{step}`: no key of the registry attested it")


@pytest.mark.parametrize("profile", ["approver-03", "erin", SECOND_LOGINS["erin"]])
def test_an_upload_in_another_s_name_is_approved_by_nobody(scene: Scene, tell: Tell, profile: str) -> None:
    answer = decide(scene, profile, scene.foreign)
    assert (answer.status, answer.code) == (403, "unproven_identity")
    assert scene.head(scene.foreign).submitter_person is None
    assert scene.registry.call("dana", "POST", f"/v1/models/{scene.model}/versions/{scene.foreign}/claim", {}).status == 403
    tell("its submitter is unproven: 403 `unproven_identity`; nobody else can claim it: 403")


def test_an_upload_below_the_prefix_of_somebody_else_is_denied(scene: Scene, tell: Tell) -> None:
    registry = scene.registry
    erin = registry.aws("sts", "erin").get_caller_identity()["UserId"]
    put = registry.aws("s3", "dana").put_object
    assert refusal(put, Bucket=registry.bucket, Key=f"candidates/{erin}/{uuid.uuid4().hex}/manifest.yaml", Body=b"x") == "AccessDenied"
    tell("S3 refuses: AccessDenied by role and bucket policy")


def test_a_presigned_upload_takes_no_other_bytes(scene: Scene, tell: Tell) -> None:
    """Whoever gets hold of dana's upload URLs cannot have a manifest of their own attributed to her."""
    announced = {"name": "manifest.json", "size": 2, "sha256": hashlib.sha256(b"{}").hexdigest()}
    grant = scene.registry.client("dana").announce_upload([announced])["uploads"][0]
    request = urllib.request.Request(grant["url"], b"[]", dict(grant["headers"]), method="PUT")
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=20)
    assert refused.value.code in (400, 403)
    tell(f"S3 refuses: the URL is signed for one checksum ({refused.value.code})")


def test_a_person_s_role_under_another_name_is_denied(scene: Scene, tell: Tell) -> None:
    sts = scene.registry.aws("sts", "dana-user")
    arn = "arn:aws:iam::000000000000:role/attestry-approver"
    assert refusal(sts.assume_role, RoleArn=arn, RoleSessionName="erin") == "AccessDenied"
    tell("STS refuses: the trust policy demands one's own user name as session name")


def test_a_killed_version_is_not_rolled_back_to(scene: Scene, tell: Tell) -> None:
    rollback = scene.registry.call("frank", "POST", f"/v1/models/{scene.model}/rollback", {"reason": "the old one was better"})
    assert (rollback.status, rollback.code) == (404, "not_found")
    path = f"/v1/models/{scene.model}/versions/{scene.first}/deployment"
    deployment = scene.registry.call("frank", "POST", path, {"reason": "the old one was better"})
    assert (deployment.status, deployment.code) == (409, "conflict")
    again = decide(scene, "erin", scene.first)
    assert again.status == 200, "the same decision again is answered like the first"
    assert again.body["standing"] == "RETIRED"
    assert scene.head(scene.first).standing is Standing.RETIRED
    tell("API refuses: rollback 404, deployment 409; an old approval brings nothing back")


def test_a_killed_version_that_an_administrator_puts_back_is_not_delegated_to(scene: Scene, tell: Tell) -> None:
    with scene.pointed_at(scene.first):
        answer = scene.delegate(jwk_of(Ed25519PrivateKey.generate().public_key().public_bytes_raw()))
        found = scene.findings()
    assert answer["error"]["code"] == "integrity", answer
    assert f"{version_key(scene.model, scene.first).partition}/HEAD" in found["head.standing"]
    tell("delegation refused: `integrity`; finding `head.standing`")


def test_a_killed_version_whose_end_is_deleted_as_well_is_found(scene: Scene, tell: Tell) -> None:
    """The administrator takes back the move too: its row, and its number in the head. Its event stays."""
    number = scene.head(scene.first).transition
    assert scene.registry.kinds(scene.model, scene.first)[-1] == "version.killed"
    key = transition_key(scene.model, scene.first, number)
    with scene.kept(key), scene.pointed_at(scene.first), scene.edited(version_key(scene.model, scene.first), transition=number - 1):
        scene.delete_row(key)
        error, found = refused_delegation(scene), scene.findings()
    assert error["code"] == "integrity", error
    assert f"{key.partition}/{key.sort}" in found["transition.deleted"]
    tell("delegation refused: `integrity`, by the word of the ledger; finding `transition.deleted`")


def test_the_task_token_of_another_execution_deploys_nothing(scene: Scene, tell: Tell) -> None:
    """The gate's own role, stolen by an administrator, sends the token of one waiting execution in the name of another version."""
    registry = scene.registry
    token = scene.head(scene.foreign).token
    output = json.dumps({"model": scene.model, "version": scene.twin})
    assert refusal(registry.aws("stepfunctions", "dana").send_task_success, taskToken=token, output=output) == "AccessDeniedException"
    states = registry.aws("stepfunctions", registry.as_function("gate"))
    with scene.edited(version_key(scene.model, scene.twin), token=token):
        assert registry.invoke("gate", {"action": "decided", "model": scene.model, "version": scene.twin}) == {"outcome": "waiting"}
        states.send_task_success(taskToken=token, output=output)
        assert ended(registry, scene.model, scene.foreign) == "FAILED"
    for number in (scene.twin, scene.foreign):
        assert "version.deployed" not in registry.kinds(scene.model, number)
        assert scene.head(number).standing is Standing.CANDIDATE
    assert refusal(states.send_task_success, taskToken=token, output=output) in NO_LONGER_WAITING
    tell("only the gate may send tokens; the pipeline reads the decision from the table: its execution FAILED, nothing is deployed")
