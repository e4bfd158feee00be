"""Refreshes on the embedded AWS: new data dropped into the bucket, triggers at once, an alarm, and a recipe that is run again."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.embedded.flows import ROOT, Registry, at_once, commit, run, until

pytest_plugins = ("tests.embedded.flows",)
pytestmark = [pytest.mark.embedded, pytest.mark.xdist_group("embedded")]

SOURCES = {"tumour-diagnosis": "wisconsin-breast-cancer", "diabetes-progression": "diabetes"}
REASON = {"reason": "the flow test asks"}


@dataclass(frozen=True)
class Example:
    """An example under a name of its own, deployed, and the key under which another version of its data was put."""

    model: str
    dropped: str


def project(registry: Registry, example: str) -> Path:
    """The example in a git repository of its own, under another model's name, with its data and another version of them."""
    folder = registry.folder / f"refresh-{example}"
    shutil.copytree(ROOT / "manifests" / example, folder, ignore=shutil.ignore_patterns("data", "__pycache__"))
    manifest = yaml.safe_load((folder / "manifest.yaml").read_text())
    manifest["model"]["name"] = f"{example}-refreshed"
    (folder / "manifest.yaml").write_text(yaml.safe_dump(manifest, sort_keys=False))
    for arguments in ((), ("--leave-out", "10")):
        subprocess.run([sys.executable, "get_data.py", *arguments], cwd=folder, check=True, capture_output=True)
    (folder / ".gitignore").write_text("data/\n")
    run(folder, "git", "init", "--quiet", "--initial-branch=main")
    run(folder, "git", "remote", "add", "origin", "https://git.example.com/models.git")
    commit(folder)
    return folder


def dropped(registry: Registry, example: str) -> Example:
    """Have the example in place, and drop another version of its data into the bucket."""
    folder = project(registry, example)
    model, number = registry.submit(folder)
    followed = registry.rest(model, number)
    if followed.rest == "WAITING":
        registry.approve(model, number)
    new = next((folder / "data").glob("*.new.csv"))
    user_id = registry.aws("sts", "dana").get_caller_identity()["UserId"]
    key = f"datasets-in/{model}/{SOURCES[example]}/{user_id}/{new.name}"
    registry.aws("s3", "dana").put_object(Bucket=registry.bucket, Key=key, Body=new.read_bytes())
    return Example(model, key)


@pytest.fixture(scope="module")
def tumour(registry: Registry) -> Example:
    return dropped(registry, "tumour-diagnosis")


@pytest.fixture(scope="module")
def diabetes(registry: Registry) -> Example:
    return dropped(registry, "diabetes-progression")


def refreshed(registry: Registry, model: str) -> dict[str, Any]:
    """The second version of a model, once it is there."""
    client = registry.client("grace")
    until(lambda: len(client.versions(model)) > 1, f"{model} was refreshed")
    version: dict[str, Any] = client.version(model, 2)
    return version


@pytest.mark.parametrize(("example", "rest"), [("tumour", "WAITING"), ("diabetes", "DEPLOYED")])
def test_data_dropped_into_the_bucket_make_a_version_that_names_cause_and_parent(
    registry: Registry, request: pytest.FixtureRequest, example: str, rest: str
) -> None:
    model = request.getfixturevalue(example).model
    cause = refreshed(registry, model)["cause"]
    assert (cause["kind"], cause["parent"]) == ("data", 1)
    assert cause["changed"][0]["before"] != cause["changed"][0]["after"]
    assert "dana" in cause["barred"]
    followed = registry.rest(model, 2)
    assert followed.rest == rest, followed.version["error"]
    sources = registry.client("grace").data(model, 2, "source")["digests"]
    assert list(sources.values()) == [cause["changed"][0]["after"]]


def test_ten_more_triggers_for_the_same_data_at_once_make_no_other_version(registry: Registry, tumour: Example) -> None:
    refreshed(registry, tumour.model)
    event = {
        "detail-type": "Object Created",
        "source": "aws.s3",
        "time": datetime.now(UTC).isoformat(),
        "detail": {"bucket": {"name": registry.bucket}, "object": {"key": tumour.dropped}},
    }
    answers = at_once(10, lambda _: registry.invoke("register", event)["refreshes"][0])
    assert {a["state"] for a in answers} <= {"NOTHING", "MADE_BEFORE"}
    assert len(registry.client("grace").versions(tumour.model)) == 2


def test_a_file_under_another_ones_prefix_is_refused_by_the_store(registry: Registry, tumour: Example) -> None:
    key = tumour.dropped.replace(tumour.dropped.split("/")[3], "AROASOMEBODY:erin")
    s3 = registry.aws("s3", "dana")
    with pytest.raises(s3.exceptions.ClientError, match="AccessDenied"):
        s3.put_object(Bucket=registry.bucket, Key=key, Body=b"x")


def test_a_reproduction_of_the_deterministic_example_is_bit_equal_and_deploys_nothing(registry: Registry, diabetes: Example) -> None:
    registry.rest(diabetes.model, 2)
    answer = registry.call("dana", "POST", f"/v1/models/{diabetes.model}/versions/1/reproduction", REASON)
    assert answer.status == 202, answer.raw
    number = answer.body["version"]
    followed = registry.rest(diabetes.model, number)
    assert followed.rest in ("COMPARED", "REJECTED"), followed.version["error"]
    told = until(lambda: registry.client("grace").version(diabetes.model, 1)["reproductions"], "the verdict was recorded")
    assert (told[0]["verdict"], told[0]["run"]["number"]) == ("bit-equal", number)
    assert registry.kinds(diabetes.model, 1)[-1] == "version.reproduced"
    assert "version.approved" not in registry.kinds(diabetes.model, number)


def test_an_alarm_makes_a_version_only_while_it_rings(registry: Registry) -> None:
    def edit(manifest: dict[str, Any]) -> None:
        manifest["refresh"] = {"alarms": ["flow-drift"]}

    model, number = registry.made(registry.small_project(model="alarmed", edit=edit))
    metric = {"MetricName": "Drift", "Namespace": "Flow", "Statistic": "Sum", "Period": 60, "EvaluationPeriods": 1, "Threshold": 1.0}
    cloudwatch = registry.aws("cloudwatch")
    cloudwatch.put_metric_alarm(AlarmName="flow-drift", ComparisonOperator="GreaterThanThreshold", **metric)
    event = {"detail-type": "CloudWatch Alarm State Change", "source": "aws.cloudwatch", "detail": {"alarmName": "flow-drift"}}
    cloudwatch.set_alarm_state(AlarmName="flow-drift", StateValue="OK", StateReason="calm")
    assert [r["state"] for r in registry.invoke("register", event)["refreshes"]] == ["SKIPPED"]
    cloudwatch.set_alarm_state(AlarmName="flow-drift", StateValue="ALARM", StateReason=json.dumps({"drift": 2}))
    answers = at_once(4, lambda _: registry.invoke("register", event)["refreshes"][0])
    assert [a["state"] for a in answers].count("MADE") == 1
    cause = registry.client("grace").version(model, number + 1)["cause"]
    assert (cause["kind"], cause["alarm"]["name"], cause["alarm"]["state"]) == ("alarm", "flow-drift", "ALARM")
