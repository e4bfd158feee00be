"""One version of the example, from its submission to the trace of a prediction, as the API's clients see it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from jsonschema import Draft202012Validator

from attestry.client.download import download_files
from attestry.evidence.delegation import verify_delegation
from attestry.evidence.receipt import check_output, check_request, verify_receipt
from attestry.usecases.collect import PRIVATE, RECEIPTS
from attestry.usecases.sign import delegation_key
from tests.embedded.flows import LABEL, ROOT, Answer, Registry, example_rows, until
from tests.trace_requirements import REQUIREMENTS, problems_of

pytest_plugins = ("tests.embedded.flows",)
pytestmark = [pytest.mark.embedded, pytest.mark.xdist_group("embedded")]

SCHEMA = json.loads((ROOT / "manifests" / "trace.schema.json").read_text())
REQUEST = json.dumps({"instances": example_rows()[:3]}).encode()


@pytest.fixture(scope="module")
def shown(registry: Registry, deployed: tuple[str, int]) -> dict[str, Any]:
    """The version as an auditor is shown it."""
    version: dict[str, Any] = registry.client("grace").version(*deployed)
    return version


@pytest.fixture(scope="module")
def prediction(registry: Registry, deployed: tuple[str, int]) -> Answer:
    """An answer to a consumer."""
    model, _ = deployed
    client = registry.client("frank-consumer")
    client.predict(model, example_rows()[:1])
    answer = registry.call("frank-consumer", "POST", f"/v1/models/{model}/predictions", REQUEST)
    assert answer.status == 200, answer.body
    return answer


@pytest.fixture(scope="module")
def delegator_key(registry: Registry) -> bytes:
    """The public key of the delegator, from KMS."""
    key: bytes = registry.aws("kms").get_public_key(KeyId="alias/attestry-delegator")["PublicKey"]
    return key


@pytest.fixture(scope="module")
def trace(registry: Registry, prediction: Answer) -> dict[str, Any]:
    """The deep trace of the prediction, as an auditor asks for it."""
    document: dict[str, Any] = registry.client("grace").trace(prediction.body["prediction_id"], deep=True)
    return document


def test_a_version_shows_the_run_of_each_stage(shown: dict[str, Any]) -> None:
    assert [(s["stage"], s["attempt"], s["status"]) for s in shown["stages"]] == [
        ("PROCESSING", 1, "SUCCEEDED"),
        ("TRAINING", 1, "SUCCEEDED"),
        ("VALIDATION", 1, "SUCCEEDED"),
    ]


def test_a_version_shows_every_move_from_its_registration_to_its_deployment(shown: dict[str, Any]) -> None:
    assert [t["kind"] for t in shown["transitions"]] == [
        "candidate.registered",
        *["stage.started", "stage.succeeded"] * 3,
        "stage.started",
        "version.approved",
        "stage.started",
        "version.deployed",
    ]


def test_a_version_shows_who_approved_it(shown: dict[str, Any]) -> None:
    assert [(a["person"], a["principal"]["roles"], a["version_digest"]) for a in shown["approvals"]] == [
        ("erin", ["approver"], shown["version_digest"])
    ]


def test_a_record_names_machine_parameters_and_who_ran_it(shown: dict[str, Any]) -> None:
    record = json.loads(next(s["record"] for s in shown["stages"] if s["stage"] == "TRAINING"))
    assert record["ran_by"]["person"] == "dana"
    assert record["parameters"]["C"] == 0.1
    assert record["claimed"]["machine"]["cpu_count"] == os.cpu_count()
    assert record["resources"]["configured"]["memory_mib"] > 0


def test_the_token_of_the_pipeline_is_shown_to_nobody(registry: Registry, deployed: tuple[str, int]) -> None:
    assert "token" not in registry.client("grace").version(*deployed)


@pytest.mark.parametrize(("stage", "printed"), [("PROCESSING", "train: 426 rows"), ("TRAINING", "fitted on 426 rows")])
def test_the_log_of_a_script_is_read_from_the_version(registry: Registry, deployed: tuple[str, int], stage: str, printed: str) -> None:
    assert printed in registry.client("dana").log(*deployed, stage)["text"]


def test_the_training_data_comes_back_as_it_was_recorded(registry: Registry, deployed: tuple[str, int], tmp_path: Path) -> None:
    files = registry.client("dana").data(*deployed, "training")["files"]
    (downloaded,) = download_files(files, tmp_path)
    table = pyarrow.parquet.read_table(downloaded.path)
    assert (table.num_rows, table.num_columns) == (426, 31)


def test_training_was_given_the_training_set_alone(registry: Registry, deployed: tuple[str, int]) -> None:
    training = registry.head(*deployed).dataset("training")
    assert channels(registry, deployed, "TRAINING") == {"train": [file.sha256 for file in training.files]}


def test_validation_was_given_features_without_their_labels(registry: Registry, deployed: tuple[str, int], tmp_path: Path) -> None:
    (downloaded,) = download_files(registry.client("grace").data(*deployed, "holdout")["files"], tmp_path)
    assert list(channels(registry, deployed, "VALIDATION")) == ["holdout"]
    assert LABEL not in pyarrow.parquet.read_schema(downloaded.path).names


def test_the_source_data_lies_at_its_digest(registry: Registry, deployed: tuple[str, int]) -> None:
    (source,) = (d for d in registry.head(*deployed).datasets if d.name.startswith("source/"))
    assert [f.key for f in source.files] == [f"datasets/{source.digest}/breast_cancer.csv"]


def test_a_receipt_verifies_under_the_delegator_s_public_key(registry: Registry, prediction: Answer, delegator_key: bytes) -> None:
    receipt = verify_receipt(prediction.body["receipt"], verify_delegation(delegation_of(registry, prediction), delegator_key))
    assert str(receipt.prediction_id) == prediction.body["prediction_id"]


def test_a_receipt_is_signed_for_the_version_and_its_digest(
    registry: Registry, prediction: Answer, delegator_key: bytes, deployed: tuple[str, int]
) -> None:
    version = verify_receipt(prediction.body["receipt"], verify_delegation(delegation_of(registry, prediction), delegator_key)).version
    assert (version.model, version.number, version.digest) == (*deployed, registry.head(*deployed).version_digest)


def test_a_receipt_binds_the_request_and_the_answer_byte_for_byte(registry: Registry, prediction: Answer, delegator_key: bytes) -> None:
    receipt = verify_receipt(prediction.body["receipt"], verify_delegation(delegation_of(registry, prediction), delegator_key))
    check_request(receipt, prediction.body["request_salt"], REQUEST)
    check_output(receipt, prediction.raw.split(b'"output": ', 1)[1].split(b', "receipt"', 1)[0])


def test_every_step_of_a_deep_trace_passes(trace: dict[str, Any]) -> None:
    assert [s for s in trace["steps"] if s["outcome"] != "passed"] == []


def test_what_the_ledger_has_not_anchored_is_said_to_be_so(trace: dict[str, Any]) -> None:
    outcomes = {s["outcome"] for s in trace["proof"]["steps"]}
    assert outcomes <= {"passed", "pending"}
    assert trace["verdict"] == ("SIGNED-UNANCHORED" if "pending" in outcomes else "PROVEN")


def test_a_trace_validates_against_its_schema(trace: dict[str, Any]) -> None:
    assert [error.message for error in Draft202012Validator(SCHEMA).iter_errors(trace)] == []


@pytest.mark.parametrize("capability", REQUIREMENTS)
def test_a_trace_answers_what_it_has_to(trace: dict[str, Any], capability: str) -> None:
    assert problems_of(trace, capability) == []


def test_the_command_line_prints_the_same_trace_as_json(registry: Registry, trace: dict[str, Any]) -> None:
    printed = json.loads(registry.attestry("grace", "trace", trace["prediction"]["prediction_id"]["value"], "--deep", "--json").stdout)
    # The ledger goes on between the two, so what it has anchored by then may differ.
    assert printed["proof"].keys() == trace["proof"].keys()
    assert {**printed, "proof": None, "verdict": None} == {**trace, "proof": None, "verdict": None}


def test_a_prediction_is_captured_in_the_folder_of_its_version(registry: Registry, prediction: Answer, deployed: tuple[str, int]) -> None:
    captured = [REQUEST.decode(), prediction.body["output"]]
    until(
        lambda: captured in [[e.get("request"), json.loads(e["output"])] for e in collected(registry, prediction, deployed, private=True)],
        "the payload was captured",
        30,
    )


def test_a_receipt_is_kept_in_the_folder_of_its_version(registry: Registry, prediction: Answer, deployed: tuple[str, int]) -> None:
    receipt = prediction.body["receipt"]
    until(lambda: receipt in [e["receipt"] for e in collected(registry, prediction, deployed, private=False)], "the receipt was kept", 30)


def channels(registry: Registry, version: tuple[str, int], stage: str) -> dict[str, list[str]]:
    """Digests of the files of each channel in the job that a stage's sandbox was given."""
    execution = registry.head(*version).execution_id
    scratch = registry.stack.outputs["ScratchBucket"]
    job = json.load(registry.aws("s3").get_object(Bucket=scratch, Key=f"jobs/{version[0]}/{execution}/{stage}/1/job.json")["Body"])
    return {name: [file["sha256"] for file in files] for name, files in job["channels"].items()}


def delegation_of(registry: Registry, prediction: Answer) -> str:
    """The delegation behind a prediction's key."""
    row = registry.meta.get(delegation_key(prediction.body["prediction_id"].rpartition("-")[0]))
    assert row is not None
    return str(row["delegation"])


def collected(registry: Registry, prediction: Answer, version: tuple[str, int], *, private: bool) -> list[dict[str, Any]]:
    """What the collector has archived of a prediction's key by now: payloads, or receipts."""
    registry.invoke("collect", {})
    folder = f"{registry.head(*version).folder}/predictions/{prediction.body['prediction_id'].rpartition('-')[0]}/"
    keys = [k for k in registry.keys(folder) if k.endswith(PRIVATE if private else RECEIPTS)]
    bodies = [registry.aws("s3").get_object(Bucket=registry.bucket, Key=key)["Body"].read() for key in keys]
    return [json.loads(line) for body in bodies for line in body.splitlines()]
