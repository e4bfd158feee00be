"""What the attestation of a stage says, taken from the stage's record and nothing else.

- PROCESSING and TRAINING: SLSA provenance v1 (https://slsa.dev/spec/v1.0/provenance). `externalParameters` are what the submitter chose,
  `internalParameters` what the registry added; `resolvedDependencies` are all that went in; the stage's record and log are byproducts. Of a
  stage that ran as a job of another service, `attestry_job` is what that service tells of the job.
- Of a stage that was taken from an earlier version, the builder is `reuse`; what went in is what went into the run, and that run's record.
- VALIDATION: in-toto test-result v0.1. `configuration` names the gates as they were committed before the evaluation, the hold-out and its
  labels; the tests are the gates.

That the source archive is what the repository has at the revision is the submitter's word, so the commit is annotated as claimed; the
archive's own digest, and every other, was computed by the registry.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from attestry.evidence.predicates import PROVENANCE, TEST_RESULT, Predicate

BUILD_TYPE: Final = "urn:attestry:build:stage:v1"
CLAIMED: Final = {"attestry_grade": "claimed"}

_TRAINING: Final = "TRAINING"


def provenance_of(record: Mapping[str, Any], record_sha256: str, record_key: str) -> Predicate:
    """Return the SLSA provenance of a PROCESSING or TRAINING that has succeeded.

    Args:
        record: the stage's record.
        record_sha256: its digest, hex.
        record_key: object key that it is kept under.
    """
    parameters = "hyperparameters" if record["stage"] == _TRAINING else "arguments"
    execution = record["execution"]["arn"]
    definition = {
        "buildType": BUILD_TYPE,
        "externalParameters": {
            "stage": record["stage"],
            "executor": record["executor"],
            "entryPoint": record["code"]["script"],
            parameters: record["parameters"],
            "resources": record["resources"]["requested"],
        },
        "internalParameters": {"attempt": record["attempt"], **_internal(record)},
        "resolvedDependencies": _dependencies(record),
    }
    details = {
        "builder": {"id": f"urn:attestry:builder:{record['builder']}"},
        "metadata": {
            "invocationId": f"{execution}/{record['stage']}/{record['attempt']}",
            "startedOn": record["started"],
            "finishedOn": record["ended"],
        },
        "byproducts": _byproducts(record, record_sha256, record_key),
    }
    if "ran" in record:
        details["attestry_job"] = dict(record["ran"])
    return Predicate(PROVENANCE, {"buildDefinition": definition, "runDetails": details})


def judgement_of(record: Mapping[str, Any]) -> Predicate:
    """Return the test result of a VALIDATION that was judged.

    Args:
        record: the stage's record, with `criteria` as planned and `gates` as judged.
    """
    criteria = record["criteria"]
    configuration = [
        _resource("gates", criteria["gates_sha256"]),
        _resource("manifest", record["candidate"]),
        _resource("dataset/holdout", criteria["holdout"]),
        _resource("dataset/holdout-labels", criteria["labels"]),
    ]
    gates: Sequence[Mapping[str, Any]] = record["gates"]
    return Predicate(
        TEST_RESULT,
        {
            "result": "PASSED" if record["outcome"] == "SUCCEEDED" else "FAILED",
            "configuration": configuration,
            "passedTests": [_test(g) for g in gates if g["passed"]],
            "warnedTests": [],
            "failedTests": [_test(g) for g in gates if not g["passed"]],
            "attestry_gates": [dict(g) for g in gates],
            "attestry_metrics": record["metrics"],
            "attestry_rows": record["rows"],
            "attestry_compared_with": record["compared_with"],
            "attestry_outputs": {o["name"]: o["digest"] for o in record["outputs"]},
            # Records of former times do not have these.
            **{f"attestry_{name}": record[name] for name in ("compared_holdout", "comparisons", "evaluated_with") if name in record},
            **({"attestry_job": dict(record["ran"])} if "ran" in record else {}),
        },
    )


def _internal(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the registry added: the sandbox and its interpreter, or the job, whose image brings an interpreter of its own.

    Of a stage that was not run, the run that it was taken from.
    """
    if "reused_from" in record:
        return {"reused_from": dict(record["reused_from"])}
    if "job" in record:
        return {"job": dict(record["job"])}
    environment = record["environment"]
    return {"resources": record["resources"]["configured"], "python": environment["python"], "platform": environment["platform"]}


def _dependencies(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    code, environment, container = record["code"], record["environment"], record["container"]
    found: list[dict[str, Any]] = [
        {
            "name": "commit",
            "uri": f"git+{code['repository']}@{code['revision']}",
            "digest": {"gitCommit": code["revision"]},
            "annotations": CLAIMED,
        },
        _resource("source", code["archive_sha256"]),
        _resource("manifest", record["candidate"]),
    ]
    if code["dirty_diff_sha256"]:
        found.append(_resource("uncommitted changes", code["dirty_diff_sha256"]))
    found += [_dataset(d) for d in record["inputs"]]
    if "reused_from" in record:
        found.append(_resource("record of the run", record["reused_from"]["record_sha256"]))
    if "job" not in record and not (container and "reused_from" in record):
        found += [_resource("environment", environment["archive_sha256"]), _resource("lock file", environment["lock_sha256"])]
    if container:
        _, _, digest = str(container).partition("@sha256:")
        found.append({"name": "container", "uri": f"oci://{container}", "digest": {"sha256": digest}})
    return found


def _dataset(dataset: Mapping[str, Any]) -> dict[str, Any]:
    files = dataset["files"]
    resource = {"name": f"dataset/{dataset['name']}", "uri": dataset["uri"], "digest": {"sha256": dataset["digest"]}}
    if dataset["name"].startswith("source/"):
        # Source data is one file; which S3 version of it was read is part of what went in.
        resource["annotations"] = {"attestry_key": files[0]["key"], "attestry_version_id": files[0]["version_id"]}
    return resource


def _byproducts(record: Mapping[str, Any], sha256: str, key: str) -> list[dict[str, Any]]:
    found = [{**_resource("record", sha256), "uri": f"urn:attestry:object:{key}", "mediaType": "application/json"}]
    log = record["log"]
    if log:
        found.append({**_resource("log", log["sha256"]), "uri": f"urn:attestry:object:{log['key']}", "mediaType": "text/plain"})
    return found


def _resource(name: str, sha256: str) -> dict[str, Any]:
    return {"name": name, "digest": {"sha256": sha256}}


def _test(gate: Mapping[str, Any]) -> str:
    return f"{gate['name']} {gate['rule']}"
