"""Decisions on the command line: the packet that is read, the signature over it, and what who may not decide is told."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from attestry.cli.candidates import _waits_for
from attestry.evidence.packet_page import render_page
from attestry.evidence.ssh_signature import verify_approval
from tests.ssh_keys import SshPerson
from tests.unit import test_cli
from tests.unit.client_double import ApiDouble
from tests.unit.packet_samples import packet_of, serve_packet
from tests.unit.test_cli import Run

api, run = test_cli.api, test_cli.run

PACKET = "GET /v1/models/credit-risk/versions/2/packet"
DECISION = "POST /v1/models/credit-risk/versions/2/decision"
DECIDED = {"decision": "approve", "complete": True, "approvals": ["erin"], "needed": 1, "signed_by_person": False}
APPROVE = ("approve", "credit-risk@2", "--reason", "fine")
needs_keygen = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="ssh-keygen is not on this machine")


@pytest.fixture
def key(tmp_path: Path) -> Path:
    file = tmp_path / "id_ed25519"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(file)], check=True)
    return file


def sent(api: ApiDouble) -> list[Any]:
    return [asked.body for asked in api.asked if asked.method == "POST"]


def test_the_packet_is_shown_with_its_digest_before_the_decision_that_names_it(api: ApiDouble, run: Run) -> None:
    packet = serve_packet(api)
    api.answer(DECISION, DECIDED)
    done = run(*APPROVE)
    assert done.exit_code == 0
    for part in (f"credit-risk@2, packet {packet.sha256}", "roc_auc_score 0.93", "1 judged, all passed", "none open"):
        assert part in done.stderr
    assert done.stdout.strip() == "credit-risk@2 is approved, recorded by registry"
    assert sent(api) == [{"decision": "approve", "reason": "fine", "packet_sha256": packet.sha256}]


def test_an_approval_carries_the_conditions_of_its_options_and_the_answer_tells_what_holds(api: ApiDouble, run: Run) -> None:
    serve_packet(api)
    terms = {"until": "2027-01-31T00:00:00.000000Z", "max_predictions": 100, "segments": {"region": ["CH", "EU"]}}
    api.answer(DECISION, {**DECIDED, "terms": terms})
    options = ("--until", "2027-01-31", "--max-predictions", "100", "--segment", "region=EU", "--segment", "region=CH")
    done = run(*APPROVE, *options)
    told = (
        "credit-risk@2 is approved until 2027-01-31T00:00:00.000000Z, for 100 predictions, where region is CH or EU, recorded by registry"
    )
    assert done.stdout.strip().replace("\n", " ") == told
    wanted = {"until": "2027-01-31", "max_predictions": 100, "segments": {"region": ["EU", "CH"]}}
    assert sent(api)[0]["conditions"] == wanted


def test_a_conflict_is_declared_and_without_a_reason_what_is_declared_is_listed(api: ApiDouble, run: Run) -> None:
    row = {"model": "credit-risk", "person": "erin", "active": True, "reason": "mine", "by": "erin", "at": "2026-01-02T00:00:00Z"}
    api.answer("POST /v1/models/credit-risk/conflicts", row)
    told = "erin has a conflict of interest on credit-risk: mine (erin, 2026-01-02T00:00:00Z)"
    assert run("conflict", "credit-risk", "--reason", "mine").stdout.strip().replace("\n", " ") == told
    assert sent(api) == [{"reason": "mine", "person": "", "withdraw": False}]
    api.answer("GET /v1/models/credit-risk/conflicts", {"conflicts": [{**row, "active": False}]})
    assert "has no conflict of interest any more" in run("conflict", "credit-risk").stdout.replace("\n", " ")


@pytest.mark.parametrize("segment", ["region", "=EU", "region="])
def test_a_segment_without_name_or_value_is_refused_before_anything_is_sent(api: ApiDouble, run: Run, segment: str) -> None:
    serve_packet(api)
    assert run(*APPROVE, "--segment", segment).exit_code == 2
    assert sent(api) == []


def test_an_approval_that_is_not_the_last_says_what_is_missing(api: ApiDouble, run: Run) -> None:
    serve_packet(api)
    api.answer(DECISION, {**DECIDED, "complete": False, "needed": 2, "missing": "1 validator"})
    assert run(*APPROVE).stdout.strip() == "credit-risk@2 has 1 of 2 approvals, recorded by registry; missing: 1 validator"


def test_a_packet_that_is_not_what_the_registry_says_is_not_decided_on(api: ApiDouble, run: Run) -> None:
    honest, forged = packet_of("credit-risk", 2), packet_of("credit-risk", 3)
    for content in (forged.raw.decode(), honest.raw.decode().replace("0.93", "0.99")):
        api.answers[PACKET] = []
        api.answer(PACKET, {"sha256": honest.sha256, "content": content})
        assert run(*APPROVE).exit_code == 5
    assert sent(api) == []


def test_a_decision_on_a_packet_that_was_read_before_is_not_sent_when_there_is_another(api: ApiDouble, run: Run) -> None:
    packet = serve_packet(api)
    api.answer(DECISION, DECIDED)
    done = run(*APPROVE, "--packet", "ab" * 32)
    assert done.exit_code == 1
    assert f"is {packet.sha256}, not {'ab' * 32}" in done.stderr
    assert sent(api) == []
    assert run(*APPROVE, "--packet", packet.sha256).exit_code == 0


@needs_keygen
def test_an_approval_is_signed_by_ssh_keygen_over_the_packet_that_was_shown(api: ApiDouble, run: Run, key: Path) -> None:
    packet = serve_packet(api)
    api.answer(DECISION, {**DECIDED, "signed_by_person": True})
    done = run(*APPROVE, "--sign-with", str(key))
    assert done.stdout.strip() == "credit-risk@2 is approved, signed by person"
    public = key.with_suffix(".pub").read_text()
    verify_approval(sent(api)[0]["signature"].encode(), packet.sha256, [public])


@needs_keygen
def test_a_key_that_does_not_sign_sends_nothing(api: ApiDouble, run: Run, tmp_path: Path) -> None:
    serve_packet(api)
    done = run(*APPROVE, "--sign-with", str(tmp_path / "none"))
    assert done.exit_code == 1
    assert "no key file" in done.stderr
    assert sent(api) == []


def test_a_rejection_takes_no_key(run: Run) -> None:
    assert run("reject", "credit-risk@2", "--reason", "no", "--sign-with", "key").exit_code == 2


@pytest.mark.parametrize("verdict", ["approve", "reject"])
def test_a_version_that_is_not_there_gives_a_sentence_and_3(api: ApiDouble, run: Run, verdict: str) -> None:
    api.refuse("GET /v1/models/credit-risk/versions/9/packet", 404, "not_found", "there is no version credit-risk@9")
    done = run(verdict, "credit-risk@9", "--reason", "x")
    assert done.exit_code == 3
    assert "there is no version credit-risk@9" in done.stderr
    assert sent(api) == []


@pytest.mark.parametrize(
    ("arguments", "role"),
    [
        (APPROVE, "approver or validator"),
        (("reject", "credit-risk@2", "--reason", "no"), "approver or validator"),
        (("rollback", "credit-risk", "--reason", "no"), "deployer"),
        (("people", "add", "erin", "--login", "erin"), "admin"),
        (("claim", "credit-risk@2"), "scientist"),
    ],
)
def test_who_acts_in_another_role_is_told_the_right_one_and_how_to_take_it(
    api: ApiDouble, run: Run, arguments: tuple[str, ...], role: str
) -> None:
    serve_packet(api)
    api.answer("GET /v1/models/credit-risk", {"model": "credit-risk", "deployed": []})
    for route in (DECISION, "POST /v1/models/credit-risk/rollback", "POST /v1/people", "POST /v1/models/credit-risk/versions/2/claim"):
        api.answer(route, {"message": "Forbidden"}, 403)
    done = run(*arguments)
    assert done.exit_code == 4
    assert f"needs the role {role}" in done.stderr
    assert "--profile" in done.stderr
    assert json.loads(run(*arguments, "--json").stdout)["error"]["details"] == {"roles": role.split(" or ")}


def test_what_the_registry_itself_refuses_keeps_its_own_sentence(api: ApiDouble, run: Run) -> None:
    serve_packet(api)
    api.refuse(DECISION, 403, "self_approval", "dana submitted it")
    assert "dana submitted it" in run(*APPROVE).stderr


def test_the_packet_is_written_as_a_page_and_as_the_bytes_that_are_digested(api: ApiDouble, run: Run, tmp_path: Path) -> None:
    packet = serve_packet(api)
    done = run("packet", "credit-risk@2", "--html", "p.html", "--save", "p.json")
    assert done.exit_code == 0
    assert (tmp_path / "p.html").read_bytes() == render_page(packet)
    assert (tmp_path / "p.json").read_bytes() == packet.raw
    told = json.loads(run("packet", "credit-risk@2", "--json").stdout)
    assert (told["sha256"], told["packet"]) == (packet.sha256, packet.content)
    assert run("packet", "credit-risk@2", "--html", "no/such/folder/p.html").exit_code == 2


def test_a_packet_cannot_act_on_the_terminal(api: ApiDouble, run: Run) -> None:
    content = dict(packet_of("credit-risk", 2).content)
    hostile = type(packet_of("credit-risk", 2)).make({**content, "metrics": {"a\x1b[2J": "\x1b]0;x\x07"}})
    api.answer(PACKET, {"sha256": hostile.sha256, "content": hostile.raw.decode()})
    api.answer(DECISION, DECIDED)
    for done in (run("packet", "credit-risk@2"), run(*APPROVE)):
        assert done.exit_code == 0
        assert "\x1b]0" not in done.output
        assert "\x1b[2J" not in done.output


class TestPeople:
    def test_a_public_key_is_sent_without_its_comment(self, api: ApiDouble, run: Run, tmp_path: Path) -> None:
        erin = SshPerson("erin")
        (tmp_path / "id.pub").write_text(f"{erin.public} erin@laptop\n")
        api.answer(
            "POST /v1/people", {"person": "erin", "logins": ["erin"], "ssh_keys": [{"fingerprint": "SHA256:x", "added": "now"}]}, 201
        )
        done = run("people", "add", "erin", "--ssh-key", "id.pub")
        assert sent(api) == [{"person": "erin", "logins": [], "ssh_keys": [erin.public]}]
        assert "signs with SHA256:x, since now" in done.stdout

    def test_a_private_key_never_leaves_the_machine(self, api: ApiDouble, run: Run, tmp_path: Path) -> None:
        (tmp_path / "id").write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nabc\n-----END OPENSSH PRIVATE KEY-----\n")
        done = run("people", "add", "erin", "--ssh-key", "id")
        assert done.exit_code == 2
        assert "private key" in done.stderr
        assert api.asked == []

    def test_neither_login_nor_key_is_wrong_usage(self, run: Run) -> None:
        assert run("people", "add", "erin").exit_code == 2


class TestWhatItWaitsFor:
    @pytest.mark.parametrize(
        ("version", "wanted"),
        [
            ({"submitter_person": "dana", "approval_policy": {"roles": ["approver"], "count": 1}}, "attestry approve m@1 --reason TEXT"),
            (
                {"submitter_person": "dana", "approval_policy": {"roles": ["approver"], "count": 2, "signed": True}},
                "attestry approve m@1 --reason TEXT --sign-with ~/.ssh/id_ed25519",
            ),
        ],
    )
    def test_a_version_for_people_gives_their_command(self, version: dict[str, Any], wanted: str) -> None:
        assert _waits_for("m@1", version)[-1].strip() == wanted

    def test_the_number_of_persons_is_said(self) -> None:
        policy = {"roles": ["approver"], "count": 2}
        assert "2 persons in the role approver" in _waits_for("m@1", {"submitter_person": "dana", "approval_policy": policy})[0]

    @pytest.mark.parametrize("policy", [{"automatic": True}, {"roles": ["approver"], "count": 1}])
    def test_an_unproven_submitter_is_what_is_missing_and_nobody_is_asked_to_approve(self, policy: dict[str, Any]) -> None:
        told = "\n".join(_waits_for("m@1", {"submitter_person": None, "approval_policy": policy}))
        assert "submitter is unproven" in told
        assert "attestry claim m@1" in told
        assert "attestry approve" not in told

    def test_an_automatic_policy_asks_for_nobody(self) -> None:
        told = "\n".join(_waits_for("m@1", {"submitter_person": "dana", "approval_policy": {"automatic": True}}))
        assert "attestry" not in told
