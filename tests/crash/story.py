"""The life of a model as a list of steps, each what one trigger does: an event, a state of the pipeline, a person's request, a schedule.

A step may be done again as its trigger would do it again, by a new process if the old one was killed. Scenes between the steps are what
happens outside of the registry (the sandbox runs a script, time passes), or what another step has shown already.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from types import SimpleNamespace
from typing import Any, cast

from attestry.client.ceremony import next_targets
from attestry.client.key_changes import revoke
from attestry.domain.errors import UnavailableError
from attestry.domain.stages import Stage
from attestry.domain.version import Version
from attestry.usecases.audit import drain_audit
from attestry.usecases.reconcile import Reconciler
from attestry.usecases.records import load_version
from tests.crash.world import ACCOUNT, DECISIONS, Registry
from tests.fakes import Killed
from tests.flow import DATA, EXAMPLE, GOOD, Flow, example_manifest, example_source
from tests.root_of_trust import moment
from tests.ssh_keys import SshPerson

MODEL = "tumour-diagnosis"
VERSION = "/v1/models/{model}/versions/{number}"
SCRIPTS = (Stage.PROCESSING, Stage.TRAINING, Stage.VALIDATION)
POOR = {**GOOD, "roc_auc_score": 0.5}
TRIES = 4
NIGHT = {"hours": 3}

Act = Callable[[Registry], None]


@dataclass(frozen=True)
class Step:
    """A part of the story.

    Attributes:
        name: what happens.
        act: lets it happen, once more where it did not.
        scene: whether it is outside of what is tried.
    """

    name: str
    act: Act
    scene: bool = False


def perform(registry: Registry, step: Step) -> int:
    """Do a step as its trigger does it, again where it failed; return how often it was tried."""
    for tried in range(1, TRIES + 1):
        try:
            step.act(registry)
        except (Killed, UnavailableError) as error:
            if tried == TRIES:
                raise AssertionError(f"{step.name} fails again and again") from error
        else:
            return tried
    raise AssertionError("unreachable")


def story() -> list[Step]:
    """The whole life; the ledger is written between all that happens, as its schedule has it."""
    told = [
        *_beginning(),
        *_first_version(),
        *_failed_and_rejected_version(2),
        *_automatic_version(3),
        *_version_by_hand(4),
        *_operations(),
        *_poor_version(5),
        *_console_version(6),
        *_end(),
    ]
    catching_up = _scene("the ledger catches up", sequence)
    return [part for step in told for part in ([step] if step.scene or step.act is sequence else [catching_up, step])]


def _beginning() -> list[Step]:
    def person(name: str, *keys: str) -> Act:
        body = {"person": name, "logins": [name], "ssh_keys": list(keys)}
        return lambda r: _ignore(r.api("people", "POST /v1/people", "admin/alex", body))

    return [
        Step("the root of trust is published", lambda r: _publish(r, r.root_files)),
        Step("a person is added", person("erin", SshPerson("erin").public)),
        *(_scene(f"{name} is added", person(name)) for name in ("alex", "dana", "grace", "henry", "judy")),
        Step("the ledger begins", sequence),
    ]


def _first_version() -> list[Step]:
    """Two persons approve it, one of them with a signature of their own; then it is deployed and answers."""
    steps = [
        Step("an upload is announced", _upload(1, people=2)),
        Step("a manifest is registered", _register(1)),
        Step("the environments are planned", _plan(1)),
        _scene("the environments are built", _build),
    ]
    for stage in SCRIPTS:
        steps += [
            Step(f"{stage} is prepared", _prepare(1, stage)),
            _scene(f"{stage} runs", _run(1, stage)),
            Step(f"{stage} is recorded", _record(1, stage)),
        ]
    return [
        *steps,
        Step("the approval opens", _open(1)),
        Step("a person approves and signs", _decide(1, "erin", signed=True)),
        Step("a second person approves", _decide(1, "grace")),
        Step("the gate sends the pipeline on", Registry.deliver),
        Step("the approval is recorded", _record(1, Stage.APPROVAL)),
        Step("the pipeline deploys", _deploy(1)),
        Step("the first prediction", predict),
        Step("a prediction by the same key", predict),
        Step("receipts are collected and sealed", collect),
        Step("events enter the ledger", sequence),
    ]


def _failed_and_rejected_version(n: int) -> list[Step]:
    """Its training fails in the middle of freezing and is tried again in a folder of its own; a person rejects it."""
    return [
        *_up_to(n, Stage.TRAINING, people=1),
        _scene("a training leaves no model", _run(n, Stage.TRAINING, model={})),
        Step("a failed TRAINING is recorded", _record(n, Stage.TRAINING)),
        _scene("its execution ends", lambda r: r.pipeline.end(_head(r, n).execution_id, "FAILED")),
        Step("a failed version is tried again", _operate(n, "retry", "henry", reason="the script was slow")),
        Step("TRAINING is prepared again", _prepare(n, Stage.TRAINING, attempt=2)),
        _scene("the training runs again", _run(n, Stage.TRAINING, attempt=2)),
        Step("TRAINING is recorded in another folder", _record(n, Stage.TRAINING, attempt=2)),
        *_script(n, Stage.VALIDATION, attempt=2),
        _scene("the approval opens", _open(n)),
        Step("a stranger to the rules is refused", _refused(n)),
        Step("a person rejects", _decide(n, "erin", verdict="reject")),
        Step("the gate ends a rejected pipeline", Registry.deliver),
        Step("a rejection is recorded", _record(n, Stage.APPROVAL, attempt=2)),
    ]


def _automatic_version(n: int) -> list[Step]:
    """Its policy approves it; it takes the place of the first one between two predictions of one process."""
    return [
        *_up_to(n, None),
        Step("a policy approves as the approval opens", _open(n)),
        _scene("the approval is recorded", _record(n, Stage.APPROVAL)),
        _scene("a prediction before the cut-over", predict),
        Step("a deployment replaces another", _deploy(n)),
        Step("a prediction after the cut-over", predict),
    ]


def _version_by_hand(n: int) -> list[Step]:
    """It was uploaded by hand, so that it waits for who has done so; it is deployed by a person."""
    return [
        _scene("files are uploaded by hand", _upload_by_hand(n)),
        Step("a manifest that nobody announced is registered", _register(n)),
        *_up_to(n, None, begun=True),
        Step("an approval waits for a claim", _open(n)),
        Step("a submission is claimed", _claim(n)),
        Step("a policy approves what was claimed", Registry.deliver),
        _scene("the approval is recorded", _record(n, Stage.APPROVAL)),
        Step("a person asks for a deployment", _operate(n, "deployment", "henry", reason="it is better")),
        Step("a deployment that was asked for releases a third version", Registry.deliver),
    ]


def _operations() -> list[Step]:
    def add_login(registry: Registry) -> None:
        body = {"person": "erin", "logins": ["erin-2"], "name": "Erin"}
        registry.api("people", "POST /v1/people", "admin/alex", body)

    return [
        _scene("a prediction by the version that was uploaded by hand", predict),
        Step("a rollback", _roll_back("it is slow")),
        Step("the capture rate is set", _operate_model("capture", "henry", rate="0.5", reason="costs")),
        Step("a login is added", add_login),
        _scene("a prediction at the new rate", predict),
        Step("receipts of several keys are collected", collect),
        Step("the deployed version is killed", _operate(3, "kill", "henry", reason="it harms")),
        Step("a rollback into a vacant place", _roll_back("the other one was killed")),
        Step("a prediction after the kill", predict),
    ]


def _poor_version(n: int) -> list[Step]:
    return [
        *_up_to(n, Stage.VALIDATION),
        _scene("a validation goes badly", _run(n, Stage.VALIDATION, metrics=POOR)),
        Step("a VALIDATION that fails its gates is recorded", _record(n, Stage.VALIDATION)),
    ]


def _console_version(n: int) -> list[Step]:
    """It is decided on in the AWS console; then its execution is gone, and in the end its day of retirement comes."""
    return [
        *_up_to(n, None, people=1),
        _scene("the approval opens", _open(n)),
        Step("CloudTrail tells who decides in the console", _caller),
        Step("a decision in the console", _console(n)),
        _scene("its execution is lost", lambda r: r.pipeline.end(_head(r, n).execution_id, "FAILED")),
        Step("the gate starts the next attempt", Registry.deliver),
        _scene("that execution is lost too, and time passes", _lose(n, 2)),
        Step("the sweep starts what stands still", sweep),
        Step("a retirement is scheduled", _operate(n, "retirement", "alex", reason="the contract ends", on="2026-01-04")),
        _scene("days pass", lambda r: r.wait(days=2)),
        Step("the sweep finds what is due", sweep),
        Step("what is due is retired", Registry.deliver),
    ]


def _end() -> list[Step]:
    def renew(registry: Registry) -> None:
        root = revoke(registry.trusted_root, registry.trusted_root.artifact_signers[0].fingerprint, since=moment(200))
        renewed = next_targets(registry.root_files, root, at=registry.clock.at)
        _publish(registry, registry.facts.setdefault("renewed", registry.people.finish(renewed, at=registry.clock.at)))

    return [
        Step("a version is retired", _operate(1, "retirement", "alex", reason="it is old")),
        Step("keys are closed", collect),
        Step("denied acts enter the outbox", drain),
        Step("a changed root of trust is published", renew),
        Step("the last events enter the ledger", sequence),
        _scene("a night passes", lambda r: r.wait(**NIGHT)),
        Step("table, ledger and store are compared", reconcile),
    ]


# Schedules


def sequence(registry: Registry) -> None:
    """A run of the sequencer."""
    done = registry.sequencer().run()
    assert not done.findings, done.findings
    assert not done.conflicts, "an event has two contents"
    assert not done.malformed


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


def drain(registry: Registry) -> None:
    """Take audited acts into the outbox."""
    registry.wait(minutes=3)
    while (done := drain_audit(registry.meta, registry.store, registry.clock.now())) is not None and done.more:
        pass


def reconcile(registry: Registry) -> None:
    """A whole round, which must find nothing."""
    gateway = cast("Any", SimpleNamespace(answered=lambda day: None))
    done = Reconciler(registry.meta, registry.store, gateway, registry.clock, verifiers=[registry.log_key]).run()
    assert not done.opened, [dict(row) for key, row in registry.meta.rows.items() if key.partition.startswith("FINDINGS")]
    if done.errors:
        raise UnavailableError(str(done.errors))


# Uploads, and the pipeline


@cache
def _manifest(n: int, people: int) -> bytes:
    def edit(draft: dict[str, Any]) -> None:
        draft["training"]["hyperparameters"]["C"] = n / 10
        draft["approval"] = {"people": {"roles": ["approver"], "count": people}} if people else {"automatic": True}

    return example_manifest(example_source(), edit=edit)


def _files(n: int, people: int) -> dict[str, bytes]:
    return {"data/breast_cancer.csv": DATA, "source.tar.gz": example_source(), "manifest.json": _manifest(n, people)}


def _upload(n: int, *, people: int = 0) -> Act:
    def act(registry: Registry) -> None:
        files = _files(n, people)
        announced = [{"name": name, "size": len(body), "sha256": hashlib.sha256(body).hexdigest()} for name, body in files.items()]
        granted = registry.api("uploads", "POST /v1/uploads", "scientist/dana", {"files": announced})
        for given in granted["uploads"]:
            registry.put_object(registry.store, given["key"], files[given["name"]])
        registry.facts[f"upload {n}"] = f"{granted['prefix']}manifest.json"

    return act


def _upload_by_hand(n: int) -> Act:
    def act(registry: Registry) -> None:
        prefix = f"candidates/AROASCIENTIST:judy/{n:024d}/"
        for name, body in _files(n, 0).items():
            registry.put_object(registry.store, prefix + name, body)
        registry.facts[f"upload {n}"] = f"{prefix}manifest.json"

    return act


def _register(n: int) -> Act:
    def act(registry: Registry) -> None:
        told = registry.invoke("register", {"detail": {"object": {"key": registry.facts[f"upload {n}"]}}})
        assert (told["state"], told.get("version")) == ("REGISTERED", n), told

    return act


def _of(n: int, stage: str, attempt: int) -> dict[str, Any]:
    execution = {"arn": f"arn:aws:states:eu-central-1:{ACCOUNT}:execution:attestry-pipeline:x", "name": "x", "started": "s"}
    return {"model": MODEL, "version": n, "attempt": attempt, "stage": stage, "execution": execution}


def _plan(n: int) -> Act:
    def act(registry: Registry) -> None:
        registry.facts["environments"] = registry.invoke("prepare_stage", _of(n, "ENVIRONMENT", 1))["environments"]

    return act


def _build(registry: Registry) -> None:
    """What the builder of environments leaves; `tests/unit/test_build_environment.py` tries its crashes."""
    for wanted in registry.facts["environments"]:
        prefix, archive = f"environments/{wanted['id']}/", f"PK {wanted['lock_sha256']}".encode()
        if f"{prefix}environment.json" in registry.store.versions:
            continue
        packages = [{"name": "scikit-learn", "version": "1.9.1"}]
        made = {"archive_sha256": hashlib.sha256(archive).hexdigest(), "size": len(archive), "packages": packages}
        registry.put_object(registry.store, f"{prefix}environment.zip", archive)
        registry.put_object(registry.store, f"{prefix}environment.json", json.dumps({**wanted, **made}).encode())


def _prepare(n: int, stage: Stage, attempt: int = 1) -> Act:
    def act(registry: Registry) -> None:
        prepared = registry.invoke("prepare_stage", _of(n, stage.value, attempt))
        assert not prepared["skip"]

    return act


def _run(n: int, stage: Stage, attempt: int = 1, **outputs: Any) -> Act:
    def act(registry: Registry) -> None:
        place = cast("Flow", SimpleNamespace(scratch=registry.outside(registry.scratch)))
        result = Flow.run(place, _head(registry, n), stage, attempt=attempt, **outputs)
        registry.facts["run"] = {"run": result.run, "evaluation": result.evaluation, "entered": result.entered}

    return act


def _record(n: int, stage: Stage, attempt: int = 1) -> Act:
    def act(registry: Registry) -> None:
        ran = registry.facts["run"] if stage in SCRIPTS else {"run": {}, "entered": "e"}
        registry.invoke("record_stage", {**_of(n, stage.value, attempt), **ran})

    return act


def _open(n: int) -> Act:
    def act(registry: Registry) -> None:
        # Each try of a state that waits for a token has a token of its own; the one before is void.
        execution = _head(registry, n).execution_id
        registry.pipeline.waiting = {t: e for t, e in registry.pipeline.waiting.items() if e != execution}
        token = registry.pipeline.wait_for_token(execution)
        registry.invoke("gate", {"action": "wait", "model": MODEL, "version": n, "attempt": 1, "token": token})

    return act


def _deploy(n: int) -> Act:
    def act(registry: Registry) -> None:
        answer = registry.invoke("deploy", {"model": MODEL, "version": n, "attempt": 1, "reason": "approved"})
        assert answer["outcome"] == "SUCCEEDED", answer

    return act


def _script(n: int, stage: Stage, attempt: int = 1) -> list[Step]:
    return [
        _scene(f"{stage} of version {n} is prepared", _prepare(n, stage, attempt)),
        _scene(f"{stage} of version {n} runs", _run(n, stage, attempt)),
        _scene(f"{stage} of version {n} is recorded", _record(n, stage, attempt)),
    ]


def _up_to(n: int, stage: Stage | None, *, people: int = 0, begun: bool = False) -> list[Step]:
    """The scenes that lead a version to where a stage runs, or through all that run scripts."""
    first = [
        _scene(f"version {n} is uploaded", _upload(n, people=people)),
        _scene(f"version {n} is registered", _register(n)),
    ]
    last = [] if stage is None else [_scene(f"{stage} of version {n} is prepared", _prepare(n, stage))]
    done = SCRIPTS if stage is None else SCRIPTS[: SCRIPTS.index(stage)]
    return [*([] if begun else first), *(step for s in done for step in _script(n, s)), *last]


# Persons


def _decide(n: int, who: str, *, verdict: str = "approve", signed: bool = False) -> Act:
    def act(registry: Registry) -> None:
        packet = str(_head(registry, n).packet["sha256"])
        signature = SshPerson(who).sign(packet).decode() if signed else ""
        body = {"decision": verdict, "reason": "reviewed", "packet_sha256": packet, "signature": signature}
        registry.api("decide", f"POST {VERSION}/decision", f"approver/{who}", body, model=MODEL, number=n)

    return act


def _refused(n: int) -> Act:
    def act(registry: Registry) -> None:
        body = {"decision": "approve", "reason": "mine"}
        answer = registry.request("decide", f"POST {VERSION}/decision", "approver/dana", body, model=MODEL, number=n)
        if answer["statusCode"] == 503:
            raise UnavailableError(answer["body"])
        assert answer["statusCode"] == 403, answer

    return act


def _operate(n: int, verb: str, who: str, **body: Any) -> Act:
    def act(registry: Registry) -> None:
        registry.api("operate", f"POST {VERSION}/{verb}", f"deployer/{who}", body, model=MODEL, number=n)

    return act


def _operate_model(verb: str, who: str, **body: Any) -> Act:
    def act(registry: Registry) -> None:
        registry.api("operate", f"POST /v1/models/{{model}}/{verb}", f"deployer/{who}", body, model=MODEL)

    return act


def _roll_back(reason: str) -> Act:
    return _operate_model("rollback", "henry", reason=reason)


def _claim(n: int) -> Act:
    def act(registry: Registry) -> None:
        registry.api("operate", f"POST {VERSION}/claim", "scientist/judy", {}, model=MODEL, number=n)

    return act


def _publish(registry: Registry, files: dict[str, bytes]) -> None:
    registry.api("root", "POST /v1/root", "admin/alex", {"files": {name: data.decode() for name, data in files.items()}})


def predict(registry: Registry) -> None:
    """A prediction; what its caller was answered is remembered."""
    body = {"instances": [{"a": 1.5, "b": 2.0}]}
    answer = registry.api("predict", "POST /v1/models/{model}/predictions", "consumer/frank", body, model=MODEL)
    registry.facts["acknowledged"] = (*registry.facts["acknowledged"], answer)


EXECUTION = f"{DECISIONS.replace(':stateMachine:', ':execution:')}:by-grace"


def _caller(registry: Registry) -> None:
    identity = {
        "type": "AssumedRole",
        "arn": f"arn:aws:sts::{ACCOUNT}:assumed-role/attestry-approver/grace",
        "principalId": "AROAAPPROVER:grace",
        "accountId": ACCOUNT,
    }
    started = {"eventSource": "states.amazonaws.com", "eventName": "StartExecution", "responseElements": {"executionArn": EXECUTION}}
    detail = {**started, "userIdentity": identity, "sourceIPAddress": "192.0.2.7", "eventID": "e1"}
    assert registry.invoke("console_decision", {"detail": detail})["outcome"] == "KEPT"


def _console(n: int) -> Act:
    def act(registry: Registry) -> None:
        body = {"model": MODEL, "version": n, "decision": "approve", "reason": "reviewed in the console"}
        asked = {"input": body, "execution_arn": EXECUTION, "started": "2026-01-02T03:00:00Z", "redrives": 0}
        answer = registry.invoke("console_decision", asked)
        code = answer.get("error", {}).get("code")
        if code == "unavailable":
            raise UnavailableError(str(answer))
        assert answer["outcome"] == "DECIDED", answer

    return act


def _lose(n: int, attempt: int) -> Act:
    def act(registry: Registry) -> None:
        names = [name for name in registry.pipeline.executions if name.startswith(f"{MODEL}-{n}-{attempt}-")]
        registry.pipeline.end(names[0], "FAILED")
        registry.wait(minutes=20)

    return act


def _head(registry: Registry, n: int) -> Version:
    """A version's head, read without a call that is counted."""
    calls = registry.faults.calls
    planned, registry.faults._planned = registry.faults._planned, []
    registry.faults.calls = []
    try:
        return load_version(registry.meta, MODEL, n)
    finally:
        registry.faults.calls, registry.faults._planned = calls, planned


def _scene(name: str, act: Act) -> Step:
    return Step(name, act, scene=True)


def _ignore(_: object) -> None:
    """Let an answer be."""


__all__ = ["EXAMPLE", "Step", "collect", "drain", "perform", "reconcile", "sequence", "story", "sweep"]
