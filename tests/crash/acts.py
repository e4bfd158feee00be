"""What each trigger does: an event, a state of the pipeline, a person's request, a schedule; each through the real handler.

What happens outside of the registry is here too: uploads, the sandbox, the builder of environments.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from functools import cache
from types import SimpleNamespace
from typing import Any, cast

from attestry.client.ceremony import next_targets
from attestry.client.key_changes import revoke
from attestry.domain.audit import AUDIT
from attestry.domain.errors import UnavailableError
from attestry.domain.events import timestamp
from attestry.domain.stages import Stage
from attestry.domain.version import Version
from attestry.ports import ExecutionDescription
from attestry.usecases.audit import GRACE as AUDIT_GRACE
from attestry.usecases.reconcile import Reconciler
from attestry.usecases.records import load_version
from lambdas import operate as operate_function
from tests.console import MACHINE, delivered, execution_arn, identity, started
from tests.crash.world import ACCOUNT, Registry
from tests.flow import DATA, Flow, example_manifest, example_source
from tests.root_of_trust import moment
from tests.ssh_keys import SshPerson

MODEL = "tumour-diagnosis"
VERSION = "/v1/models/{model}/versions/{number}"
SCRIPTS = (Stage.PROCESSING, Stage.TRAINING, Stage.VALIDATION)

Act = Callable[[Registry], None]


# Schedules


def sequence(registry: Registry) -> None:
    """A run of the sequencer; acts that it could not take up are left to the next one."""
    over = timestamp(registry.clock.at - AUDIT_GRACE)[:16]
    done = registry.invoke("sequence", {})
    assert not done["findings"], done["findings"]
    assert (done["conflicts"], done["malformed"]) == (0, 0)
    if [key for key in registry.meta.rows if key.partition == AUDIT and key.sort < over]:
        raise UnavailableError("acts of past minutes were not taken up")


def collect(registry: Registry) -> None:
    """A run of the collector; what it could not do is left to the next one."""
    done = registry.invoke("collect", {})
    assert not done["gaps"], "a prediction is missing"
    if done["errors"]:
        raise UnavailableError(str(done["errors"]))


def sweep(registry: Registry) -> None:
    """A run of the sweep; what it could not do is left to the next one."""
    if registry.invoke("sweep", {})["failed"]:
        raise UnavailableError("a version could not be mended")


def lapse(registry: Registry) -> None:
    """What the sweep sends where an approval has ended; what could not be done is left to the next one."""
    done = registry.invoke("operate", operate_function.LAPSE_DUE)
    if done["errors"]:
        raise UnavailableError(str(done["errors"]))


def reconcile(registry: Registry) -> None:
    """A whole round, which must find nothing."""
    gateway = cast("Any", SimpleNamespace(answered=lambda day: None))
    done = Reconciler(registry.meta, registry.store, gateway, registry.clock, verifiers=[registry.log_key]).run()
    assert not done.opened, [dict(row) for key, row in registry.meta.rows.items() if key.partition.startswith("FINDINGS")]
    if done.errors:
        raise UnavailableError(str(done.errors))


# Uploads, and the pipeline


@cache
def _manifest(n: int, people: int, deployment: str) -> bytes:
    def edit(draft: dict[str, Any]) -> None:
        draft["training"]["hyperparameters"]["C"] = n / 10
        draft["approval"] = {"people": {"roles": ["approver"], "count": people}} if people else {"automatic": True}
        draft["deployment"] |= json.loads(deployment)

    return example_manifest(example_source(), edit=edit)


def _files(n: int, people: int, **deployment: Any) -> dict[str, bytes]:
    manifest = _manifest(n, people, json.dumps(deployment))
    return {"data/breast_cancer.csv": DATA, "source.tar.gz": example_source(), "manifest.json": manifest}


def upload(n: int, *, people: int = 0, **deployment: Any) -> Act:
    """Upload a candidate that so many approvers decide on; `deployment` changes that section of the manifest."""

    def act(registry: Registry) -> None:
        files = _files(n, people, **deployment)
        announced = [{"name": name, "size": len(body), "sha256": hashlib.sha256(body).hexdigest()} for name, body in files.items()]
        granted = registry.api("uploads", "POST /v1/uploads", "scientist/dana", {"files": announced})
        for given in granted["uploads"]:
            registry.put_object(registry.store, given["key"], files[given["name"]])
        registry.facts[f"upload {n}"] = f"{granted['prefix']}manifest.json"

    return act


def upload_by_hand(n: int) -> Act:
    def act(registry: Registry) -> None:
        prefix = f"candidates/AROASCIENTIST:judy/{n:024d}/"
        for name, body in _files(n, 0).items():
            registry.put_object(registry.store, prefix + name, body)
        registry.facts[f"upload {n}"] = f"{prefix}manifest.json"

    return act


def register(n: int) -> Act:
    def act(registry: Registry) -> None:
        told = registry.invoke("register", {"detail": {"object": {"key": registry.facts[f"upload {n}"]}}})
        assert (told["state"], told.get("version")) == ("REGISTERED", n), told

    return act


def _of(n: int, stage: str, attempt: int) -> dict[str, Any]:
    execution = {"arn": f"arn:aws:states:eu-central-1:{ACCOUNT}:execution:attestry-pipeline:x", "name": "x", "started": "s"}
    return {"model": MODEL, "version": n, "attempt": attempt, "stage": stage, "execution": execution}


def plan(n: int) -> Act:
    def act(registry: Registry) -> None:
        registry.facts["environments"] = registry.invoke("prepare_stage", _of(n, "ENVIRONMENT", 1))["environments"]

    return act


def build(registry: Registry) -> None:
    """What the builder of environments leaves; `tests/unit/test_build_environment.py` tries its crashes."""
    for wanted in registry.facts["environments"]:
        prefix, archive = f"environments/{wanted['id']}/", f"PK {wanted['lock_sha256']}".encode()
        if f"{prefix}environment.json" in registry.store.versions:
            continue
        packages = [{"name": "scikit-learn", "version": "1.9.1"}]
        made = {"archive_sha256": hashlib.sha256(archive).hexdigest(), "size": len(archive), "packages": packages}
        registry.put_object(registry.store, f"{prefix}environment.zip", archive)
        registry.put_object(registry.store, f"{prefix}environment.json", json.dumps({**wanted, **made}).encode())


def prepare(n: int, stage: Stage, attempt: int = 1) -> Act:
    def act(registry: Registry) -> None:
        prepared = registry.invoke("prepare_stage", _of(n, stage.value, attempt))
        assert not prepared["skip"]

    return act


def run(n: int, stage: Stage, attempt: int = 1, **outputs: Any) -> Act:
    def act(registry: Registry) -> None:
        place = cast("Flow", SimpleNamespace(scratch=registry.outside(registry.scratch)))
        result = Flow.run(place, head(registry, n), stage, attempt=attempt, **outputs)
        registry.facts["run"] = {"run": result.run, "evaluation": result.evaluation, "entered": result.entered}

    return act


def record(n: int, stage: Stage, attempt: int = 1) -> Act:
    def act(registry: Registry) -> None:
        ran = registry.facts["run"] if stage in SCRIPTS else {"run": {}, "entered": "e"}
        registry.invoke("record_stage", {**_of(n, stage.value, attempt), **ran})

    return act


def open_approval(n: int) -> Act:
    def act(registry: Registry) -> None:
        # Each try of a state that waits for a token has a token of its own; the one before is void.
        version = head(registry, n)
        execution = version.execution_id
        registry.pipeline.waiting = {t: e for t, e in registry.pipeline.waiting.items() if e != execution}
        token = registry.pipeline.wait_for_token(execution)
        registry.invoke("gate", {"action": "wait", "model": MODEL, "version": n, "attempt": version.attempt, "token": token})

    return act


def deploy(n: int) -> Act:
    def act(registry: Registry) -> None:
        answer = registry.invoke("deploy", {"model": MODEL, "version": n, "attempt": 1, "reason": "approved"})
        assert answer["outcome"] == "SUCCEEDED", answer

    return act


# Persons


def decide(n: int, who: str, *, verdict: str = "approve", signed: bool = False, promotion: str = "") -> Act:
    def act(registry: Registry) -> None:
        version = head(registry, n)
        packet = str(version.promotions[promotion]["packet"] if promotion else version.packet["sha256"])
        signature = SshPerson(who).sign(packet).decode() if signed else ""
        body = {"decision": verdict, "reason": "reviewed", "packet_sha256": packet, "signature": signature}
        body |= {"promotion": promotion} if promotion else {}
        registry.api("decide", f"POST {VERSION}/decision", f"approver/{who}", body, model=MODEL, number=n)

    return act


def refused(n: int) -> Act:
    def act(registry: Registry) -> None:
        body = {"decision": "approve", "reason": "mine"}
        answer = registry.request("decide", f"POST {VERSION}/decision", "approver/dana", body, model=MODEL, number=n)
        if answer["statusCode"] == 503:
            raise UnavailableError(answer["body"])
        assert answer["statusCode"] == 403, answer

    return act


def operate(n: int, verb: str, who: str, **body: Any) -> Act:
    def act(registry: Registry) -> None:
        registry.api("operate", f"POST {VERSION}/{verb}", f"deployer/{who}", body, model=MODEL, number=n)

    return act


def operate_model(verb: str, who: str, **body: Any) -> Act:
    def act(registry: Registry) -> None:
        registry.api("operate", f"POST /v1/models/{{model}}/{verb}", f"deployer/{who}", body, model=MODEL)

    return act


def roll_back(to: int, reason: str) -> Act:
    return operate_model("rollback", "henry", to=to, reason=reason)


def claim(n: int) -> Act:
    def act(registry: Registry) -> None:
        registry.api("operate", f"POST {VERSION}/claim", "scientist/judy", {}, model=MODEL, number=n)

    return act


def add_person(**body: Any) -> Act:
    def act(registry: Registry) -> None:
        registry.api("people", "POST /v1/people", "admin/alex", body)

    return act


def publish(registry: Registry, files: dict[str, bytes]) -> None:
    """Publish the root of trust."""
    registry.api("root", "POST /v1/root", "admin/alex", {"files": {name: data.decode() for name, data in files.items()}})


def publish_next(registry: Registry) -> None:
    """Publish a root in which a key ends; its holders sign once."""
    root = revoke(registry.trusted_root, registry.trusted_root.artifact_signers[0].fingerprint, since=moment(200))
    if "next root" not in registry.facts:
        drafted = next_targets(registry.root_files, root, at=registry.clock.at)
        registry.facts["next root"] = registry.people.finish(drafted, at=registry.clock.at)
    publish(registry, registry.facts["next root"])


def predict(registry: Registry) -> None:
    """A prediction; what its caller was answered is remembered."""
    body = {"instances": [{"a": 1.5, "b": 2.0}]}
    answer = registry.api("predict", "POST /v1/models/{model}/predictions", "consumer/frank", body, model=MODEL)
    registry.facts["acknowledged"] = (*registry.facts["acknowledged"], answer)


EXECUTION = execution_arn("by-grace")


def begin_in_console(n: int) -> Act:
    """Let grace start a decision in the AWS console."""

    def act(registry: Registry) -> None:
        body = {"action": "approve", "model": MODEL, "version": n, "reason": "reviewed in the console"}
        described = ExecutionDescription(EXECUTION, MACHINE, "by-grace", registry.clock.at, json.dumps(body))
        registry.facts["started"] = ((EXECUTION, described),)

    return act


def caller(registry: Registry) -> None:
    ((_, described),) = registry.facts["started"]
    event = delivered(started(identity("grace"), name="by-grace", at=described.started))
    assert registry.invoke("console_decision", event)["outcome"] == "KEPT"


def console(registry: Registry) -> None:
    ((_, described),) = registry.facts["started"]
    answer = registry.invoke("console_decision", {"input": json.loads(described.input), "execution_arn": EXECUTION})
    assert answer["outcome"] == "DECIDED", answer


def end_execution(n: int) -> Act:
    """Let the first execution of a version end."""
    return lambda registry: registry.pipeline.end(head(registry, n).execution_id, "FAILED")


def lose(n: int, attempt: int) -> Act:
    def act(registry: Registry) -> None:
        names = [name for name in registry.pipeline.executions if name.startswith(f"{MODEL}-{n}-{attempt}-")]
        registry.pipeline.end(names[0], "FAILED")
        registry.wait(minutes=20)

    return act


def head(registry: Registry, n: int) -> Version:
    """A version's head, read without a call that is counted."""
    calls = registry.faults.calls
    planned, registry.faults._planned = registry.faults._planned, []
    registry.faults.calls = []
    try:
        return load_version(registry.meta, MODEL, n)
    finally:
        registry.faults.calls, registry.faults._planned = calls, planned
