"""Scripts that misbehave, on the embedded AWS: what becomes of their versions, and what they find in the sandbox."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from attestry.sandbox import confine
from tests.embedded.flows import Registry, example_rows

pytest_plugins = ("tests.embedded.flows",)
pytestmark = [pytest.mark.embedded, pytest.mark.xdist_group("embedded")]

needs_landlock = pytest.mark.skipif(not confine.landlock_version(), reason="this kernel cannot keep a script from files and connections")

SNOOP = """
import glob, json, os, sys, urllib.request
settings = json.loads(os.environ["SM_HPS"])
print("VARIABLES", sorted(os.environ))
for path in glob.glob("/proc/[0-9]*/environ"):
    try:
        if path.split("/")[2] != str(os.getpid()) and open(path, "rb").read():
            print("READ", path)
    except OSError:
        pass
for path in (settings["credentials"], os.path.expanduser("~/.aws/credentials")):
    try:
        print("READ", len(open(path).read()))
    except OSError as error:
        print("REFUSED", type(error).__name__)
try:
    import boto3
    print("FOUND boto3")
except ImportError:
    pass
try:
    body = b"Action=GetCallerIdentity&Version=2011-06-15"
    urllib.request.urlopen(urllib.request.Request(settings["aws"], body), timeout=5)
    print("AWS ANSWERED")
except OSError as error:
    print("NO WAY OUT", error)
sys.exit(3)
"""
DECISION = {"decision": "approve", "reason": "the gates hold"}


@dataclass(frozen=True)
class Failed:
    """A version whose training script looked for credentials and exited with 3, and was tried again.

    Attributes:
        model, number: the version.
        first: the version after its first attempt.
        log: the log of the first attempt, as it was shown then.
        last: the version after its second attempt.
    """

    model: str
    number: int
    first: Mapping[str, Any]
    log: str
    last: Mapping[str, Any]


@pytest.fixture(scope="module")
def failed(registry: Registry) -> Failed:
    """See the class."""

    def edit(manifest: dict[str, Any]) -> None:
        where = {"aws": registry.stack.endpoint_url, "credentials": str(registry.stack.data.aws_credentials)}
        manifest["training"]["hyperparameters"] |= where

    model, number = registry.submit(registry.small_project(model="script-fails", edit=edit, train=SNOOP))
    first = registry.rest(model, number).version
    log = str(registry.client("dana").log(model, number, "TRAINING")["text"])
    registry.client("dana").retry(model, number, "perhaps it was the weather")
    # The retry is counted at once, but the version is FAILED until the new attempt begins its stage.
    registry.until_recorded(model, number, "TRAINING", 2)
    return Failed(model, number, first, log, registry.client("grace").version(model, number))


@pytest.fixture(scope="module")
def rejected(registry: Registry) -> Mapping[str, Any]:
    """A version that calls everything benign, and so misses the gate on recall."""

    def edit(manifest: dict[str, Any]) -> None:
        manifest["training"]["hyperparameters"]["threshold"] = 99.0

    model, number = registry.submit(registry.small_project(model="gate-fails", edit=edit))
    version: Mapping[str, Any] = registry.rest(model, number).version
    return version


def test_a_script_that_exits_non_zero_leaves_its_version_failed_in_its_stage(failed: Failed) -> None:
    assert (failed.first["stage"], failed.first["status"], failed.first["standing"]) == ("TRAINING", "FAILED", "CANDIDATE")


def test_the_error_of_a_failed_version_names_the_exit_code(failed: Failed) -> None:
    assert "exit code 3" in failed.first["error"]


def test_the_log_of_a_failed_script_is_kept_in_the_folder_of_its_version(registry: Registry, failed: Failed) -> None:
    assert f"{failed.first['folder']}/stages/TRAINING/1/log.txt" in registry.keys(failed.first["folder"])


def test_a_retry_keeps_the_number_and_counts_the_attempt(registry: Registry, failed: Failed) -> None:
    assert failed.number in [v["number"] for v in registry.client("grace").versions(failed.model)]
    assert (failed.last["number"], failed.last["attempt"]) == (failed.number, 2)


def test_a_retry_begins_at_the_stage_that_failed(failed: Failed) -> None:
    assert [(s["stage"], s["attempt"], s["status"]) for s in failed.last["stages"]] == [
        ("PROCESSING", 1, "SUCCEEDED"),
        ("TRAINING", 1, "FAILED"),
        ("TRAINING", 2, "FAILED"),
    ]


def test_a_version_that_fails_again_leaves_no_model(registry: Registry, failed: Failed) -> None:
    assert [key for key in registry.keys(failed.last["folder"]) if "/frozen/" in key] == []


def test_a_script_is_given_no_variable_of_aws_or_of_the_registry(failed: Failed) -> None:
    (line,) = (line for line in failed.log.splitlines() if line.startswith("VARIABLES"))
    assert [name for name in json.loads(line.removeprefix("VARIABLES ").replace("'", '"')) if name.startswith(("AWS", "ATTESTRY"))] == []


@needs_landlock
def test_a_script_can_read_no_credentials(failed: Failed) -> None:
    assert "READ" not in failed.log
    assert failed.log.count("REFUSED") == 2


def test_a_script_finds_no_client_of_aws(failed: Failed) -> None:
    assert "FOUND boto3" not in failed.log


@needs_landlock
def test_a_script_that_calls_aws_has_no_way_out(failed: Failed) -> None:
    assert "NO WAY OUT" in failed.log
    assert "AWS ANSWERED" not in failed.log


def test_a_gate_that_fails_rejects_the_version(rejected: Mapping[str, Any]) -> None:
    assert (rejected["stage"], rejected["status"], rejected["standing"]) == ("VALIDATION", "REJECTED", "REJECTED")


def test_a_rejected_version_shows_the_numbers(rejected: Mapping[str, Any]) -> None:
    assert rejected["metrics"]["recall_score"] == "0.0"
    (gate,) = rejected["gates"]
    assert (gate["name"], gate["passed"], gate["threshold"], gate["value"]) == ("recall_score", False, "0.5", "0.0")


@pytest.mark.parametrize(
    ("profile", "act", "body"),
    [("erin", "decision", DECISION), ("frank", "deployment", {"reason": "anyway"}), ("dana", "retry", {"reason": "again"})],
)
def test_a_rejection_is_final(registry: Registry, rejected: Mapping[str, Any], profile: str, act: str, body: dict[str, str]) -> None:
    path = f"/v1/models/{rejected['model']}/versions/{rejected['number']}/{act}"
    assert registry.call(profile, "POST", path, body).status == 409


def test_a_model_of_which_nothing_is_deployed_makes_no_prediction(registry: Registry, rejected: Mapping[str, Any]) -> None:
    path = f"/v1/models/{rejected['model']}/predictions"
    answer = registry.call("frank-consumer", "POST", path, {"instances": example_rows()[:1]})
    assert (answer.status, answer.code) == (404, "not_found")
