"""Validation records as people hand them in: by the command line, and through the API's handler."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from attestry.api.components import COMPONENTS
from attestry.api.operations import BY_ID
from attestry.client.validate import read_record_file
from attestry.domain.errors import InvalidInputError
from attestry.evaluation.evaluate import evaluate_record
from attestry.evidence.ssh_signature import RECORD_NAMESPACE, verify_approval
from attestry.evidence.validation_record import ValidationRecord
from attestry.usecases.people import add_person
from tests.api_world import ApiWorld
from tests.evidence_world import ADMIN
from tests.unit import test_cli
from tests.unit.client_double import ApiDouble
from tests.unit.test_cli import Run
from tests.validations import VICTORS, record_of, sign, trial

api, run = test_cli.api, test_cli.run

SHOW, VALIDATE = "GET /v1/models/credit-risk/versions/2", "POST /v1/models/credit-risk/versions/2/validations"
FILE = "kind: champion-challenger\nmetric: conversion\nchampion: {size: 5000, successes: 400}\nchallenger: {size: 5000, successes: 460}\n"
needs_keygen = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="ssh-keygen is not on this machine")


@pytest.fixture
def key(tmp_path: Path) -> Path:
    file = tmp_path / "id_ed25519"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(file)], check=True)
    return file


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "champion.yaml"
    made.write_text(FILE)
    return made


def answered(**facts: Any) -> dict[str, Any]:
    told = {
        "check": "champion-challenger",
        "metric": "conversion",
        "confidence": "0.95",
        "effect": "0.012",
        "low": "0.001",
        "high": "0.023",
    }
    return {"transition": 9, "record_sha256": "ab" * 32, "facts": {**told, "p_value": "0.0163", **facts}, "missing": [], "person": "victor"}


@needs_keygen
def test_a_record_is_made_of_the_file_signed_by_ssh_keygen_and_sent_with_the_digest_of_the_version(
    api: ApiDouble, run: Run, key: Path, file: Path
) -> None:
    api.answer(SHOW, {"model": "credit-risk", "number": 2, "version_digest": "cd" * 32})
    api.answer(VALIDATE, {**answered(), "missing": ["no leakage-check was recorded"]})
    done = run("validate", "credit-risk@2", "--record", str(file), "--sign-with", str(key))
    assert done.exit_code == 0
    told = done.stdout.replace("\n", " ")
    assert "conversion better by 0.012 (0.001 to 0.023 at 95% confidence), p 0.0163" in told
    assert "before credit-risk@2 can be approved: no leakage-check was recorded" in told
    (sent,) = [asked.body for asked in api.asked if asked.method == "POST"]
    record = ValidationRecord.parse(sent["record"].encode())
    assert (record.model, record.number, record.version_digest, record.content["challenger"]["successes"]) == (
        "credit-risk",
        2,
        "cd" * 32,
        460,
    )
    verify_approval(sent["signature"].encode(), record.sha256, [key.with_suffix(".pub").read_text()], namespace=RECORD_NAMESPACE)


def test_a_file_that_breaks_a_rule_sends_nothing_and_names_field_and_rule(api: ApiDouble, run: Run, file: Path) -> None:
    api.answer(SHOW, {"model": "credit-risk", "number": 2, "version_digest": "cd" * 32})
    file.write_text(f"{FILE}p_value: 0.0001\n")
    done = run("validate", "credit-risk@2", "--record", str(file), "--sign-with", "none")
    assert done.exit_code == 1
    assert "content.p_value" in done.stderr
    assert [asked.method for asked in api.asked if asked.method == "POST"] == []
    with pytest.raises(InvalidInputError, match="a mapping with a kind"):
        read_record_file(b"[1, 2]")


def test_a_version_without_a_digest_and_a_file_that_is_not_there_are_told(api: ApiDouble, run: Run, file: Path) -> None:
    api.answer(SHOW, {"model": "credit-risk", "number": 2, "version_digest": ""})
    assert "no version digest yet" in run("validate", "credit-risk@2", "--record", str(file), "--sign-with", "none").stderr
    assert run("validate", "credit-risk@2", "--record", "none.yaml", "--sign-with", "none").exit_code == 2


@pytest.fixture(scope="module")
def registry() -> Iterator[ApiWorld]:
    with pytest.MonkeyPatch.context() as patch:
        made = ApiWorld.install(patch)
        world = made.evidence
        world.flow.functions.handlers["evaluate"] = lambda event: evaluate_record({k: event[k] for k in ("kind", "content")})
        add_person(world.meta, "victor", ["victor"], name="", by=ADMIN, at=world.clock.now(), ssh_keys=[VICTORS.public])
        yield made


def hand_in(registry: ApiWorld, record: ValidationRecord, who: str = "validator/victor", body: dict[str, Any] | None = None) -> Any:
    signed = {"record": record.raw.decode(), "signature": sign(record).decode(), **(body or {})}
    return registry.call("POST", f"/v1/models/{registry.model}/versions/1/validations", signed, who=who)


def test_the_api_takes_a_record_and_answers_as_it_is_described(registry: ApiWorld) -> None:
    version = registry.evidence.head
    answer = hand_in(registry, record_of(version, content=trial()))
    schema = {**BY_ID["versions.validate"].answer, "components": {"schemas": dict(COMPONENTS)}}
    assert (answer.status, list(Draft202012Validator(schema).iter_errors(answer.body))) == (200, [])
    assert (answer.body["person"], answer.body["facts"]["metric"]) == ("victor", "conversion")
    name, payload, _ = next(call for call in registry.evidence.flow.functions.called if call[0] == "evaluate")
    assert (name, payload["action"], payload["kind"]) == ("evaluate", "trial", "champion-challenger")
    shown = registry.call("GET", f"/v1/models/{registry.model}/versions/1", who="auditor/grace").body
    assert shown["validations"]["champion-challenger:conversion"]["record"] == answer.body["record_sha256"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"record": ""}, 400),
        ({"record": 7}, 400),
        ({"signature": ""}, 400),
        ({"signature": "x"}, 400),
        ({"p_value": "0.01"}, 400),
        ({"person": "erin"}, 400),
        ({"record": json.dumps({"kind": "champion-challenger"})}, 400),
    ],
)
def test_the_api_refuses_what_is_no_signed_record_and_who_the_caller_is_never_comes_from_the_body(
    registry: ApiWorld, body: dict[str, Any], status: int
) -> None:
    record = record_of(registry.evidence.head, made="2026-05-01T00:00:00.000000Z")
    assert hand_in(registry, record, body=body).status == status


@pytest.mark.parametrize("who", ["approver/erin", "scientist/dana", "consumer/frank", "admin/alex", "auditor/grace"])
def test_the_api_takes_records_of_validators_alone(registry: ApiWorld, who: str) -> None:
    assert hand_in(registry, record_of(registry.evidence.head), who).status == 403
