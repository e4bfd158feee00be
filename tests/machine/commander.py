"""Gives commands as those do who may, or may not: the gateway's check of the role, then the use case; and the pipeline's steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date, timedelta
from typing import Any

from attestry.domain.approvals import Verdict
from attestry.domain.cause import CauseKind
from attestry.domain.commands import Command, State
from attestry.domain.errors import AttestryError, ConflictError, HeldError
from attestry.domain.names import name_execution
from attestry.domain.operations import Operation, require_role
from attestry.domain.principal import Principal, registry_principal
from attestry.domain.stages import PIPELINE, Stage, Standing, Status, stage_after
from attestry.domain.version import Version
from attestry.usecases.decide import decide_approval
from attestry.usecases.decide_promotion import decide_promotion
from attestry.usecases.delegate import delegate_signing
from attestry.usecases.deploy import begin_deployment, fail_deployment, roll_back, swap_pointer
from attestry.usecases.executions import start_next_attempt
from attestry.usecases.gate import open_approval, send_on
from attestry.usecases.lapse import lapse_due
from attestry.usecases.manual import Hand, hold_version, redo_stage, release_version, retry_version
from attestry.usecases.open_promotion import open_promotion
from attestry.usecases.operate import claim_submission, request_deployment
from attestry.usecases.pointer import number_in
from attestry.usecases.promotion import check_promotion, has_to_be_asked, is_waiting, withdraw_promotion
from attestry.usecases.promotion_notice import tell_again
from attestry.usecases.readiness import check_frozen_files
from attestry.usecases.record_stage import StageResult
from attestry.usecases.records import decision_key, load_version, person_of, pointer_key, stage_key
from attestry.usecases.refresh import Trigger
from attestry.usecases.register import Registration, UploadedManifest
from attestry.usecases.request_transition import request_transition
from attestry.usecases.revoke import kill_version, retire_due, retire_version
from attestry.usecases.sweep import sweep
from tests.flow import DATA, GOOD
from tests.machine.flow import MachineFlow, source
from tests.machine.promotions import DEPLOYMENTS, SECOND
from tests.versions import session

PIPELINE_PRINCIPAL = registry_principal("pipeline")
PRINCIPALS: Mapping[str, Principal] = {
    "submitter": session("scientist", "dana"),
    "submitter as approver": session("approver", "dana"),
    "submitter under a second login": session("approver", "dana2"),
    "approver": session("approver", "erin"),
    "second approver": session("approver", "grace"),
    "validator": session("validator", "vera"),
    "deployer": session("deployer", "henry"),
    "deployer as approver": session("approver", "henry"),
    "other deployer": session("deployer", "judy"),
    "submitter as deployer": session("deployer", "dana2"),
    "deployer nobody knows": session("deployer", "mallory"),
    "consumer": session("consumer", "frank"),
    "admin": session("admin", "alex"),
    "other scientist": session("scientist", "judy"),
    "stranger": session("approver", "mallory"),
}
"""Who asks; a stranger acts as approver, but its login maps to no person."""

RIGHTFUL: Mapping[Command, str] = {
    Command.CLAIM: "submitter",
    Command.RETRY: "submitter",
    Command.REDO_PROCESSING: "submitter",
    Command.REDO_TRAINING: "submitter",
    Command.REDO_VALIDATION: "submitter",
    Command.HOLD: "approver",
    Command.RELEASE: "approver",
    Command.DEPLOY: "deployer",
    Command.ROLLBACK: "deployer",
    Command.KILL: "admin",
    Command.RETIRE: "deployer",
    Command.SCHEDULE: "deployer",
}
"""Who may give a command that a person gives."""

ERROR = {"Error": "States.TaskFailed", "Cause": "it broke"}


class Commander:
    """Commands on the versions of one model.

    Attributes:
        flow: the ports.
        manifests: number of a version to its manifest.
        deployments: number of a version to the name of what its candidate says of its deployment.
    """

    def __init__(self, flow: MachineFlow) -> None:
        self.flow = flow
        self.manifests: dict[int, bytes] = {}
        self.deployments: dict[int, str] = {}
        self._who: dict[str, Principal] = {}

    # What is there

    def version(self, number: int) -> Version:
        return load_version(self.flow.meta, self.flow.model, number)

    def state(self, number: int) -> State:
        version = self.version(number)
        return State(version.stage, version.status, version.standing, bool(version.held))

    def who(self, name: str) -> Principal:
        if name not in self._who:
            # Logins change persons nowhere in these sequences; asking once is enough.
            self._who[name] = person_of(self.flow.meta, PRINCIPALS[name])
        return self._who[name]

    def hand(self, by: str) -> Hand:
        flow = self.flow
        attestor = flow.attestors["operate"]
        return Hand(flow.meta, attestor, flow.pipeline, flow.functions, "gate", self.who(by), f"asked for by {by}", flow.clock.now())

    # Commands

    def submit(self, edit: Callable[[dict[str, Any]], None], *, by_hand: bool = False, deployment: str = "production alone") -> Version:
        def complete(mapping: dict[str, Any]) -> None:
            edit(mapping)
            mapping["deployment"] |= DEPLOYMENTS[deployment][0]

        number = len(self.manifests) + 1
        manifest = self.flow.manifest(number, complete)
        registration = self._upload(manifest, by_hand=by_hand)
        assert registration.version is not None, registration.errors
        self.manifests[number], self.deployments[number] = manifest, deployment
        self.flow.build_environments(registration.version)
        return registration.version

    def _upload(self, manifest: bytes, *, by_hand: bool = False) -> Registration:
        flow = self.flow
        if not by_hand:
            return flow.register(flow.upload(manifest, source(), by=self.who("submitter")))
        prefix = f"candidates/AROASCIENTIST:judy/{len(self.manifests):024d}/"
        for name, body in {"source.tar.gz": source(), "data/breast_cancer.csv": DATA, "manifest.json": manifest}.items():
            flow.store.put(prefix + name, body)
        return flow.register(UploadedManifest(f"{prefix}manifest.json", None, "123456789012"))

    def give(self, command: Command, number: int, by: str = "") -> None:
        """Give a command.

        Raises:
            AttestryError: it is refused.
        """
        who = by or (self._undecided(number) if command in (Command.APPROVE, Command.REJECT) else RIGHTFUL.get(command, ""))
        simple: dict[Command, Callable[[], Any]] = {
            Command.SUBMIT_AGAIN: lambda: self._upload(self.manifests[number]),
            Command.START: lambda: self.start(number),
            Command.SUCCEED: lambda: self.succeed(number),
            Command.FAIL: lambda: self.fail(number),
            Command.GATES_FAIL: lambda: self.report(number, Stage.VALIDATION, metrics={**GOOD, "recall_score": 0.1}),
            Command.CLAIM: lambda: self.claim(number, who),
            Command.APPROVE: lambda: self.decide(number, who, Verdict.APPROVE),
            Command.REJECT: lambda: self.decide(number, who, Verdict.REJECT),
            Command.RETRY: lambda: retry_version(self.hand(who), self.flow.model, number),
            Command.REDO_PROCESSING: lambda: redo_stage(self.hand(who), self.flow.model, number, Stage.PROCESSING),
            Command.REDO_TRAINING: lambda: redo_stage(self.hand(who), self.flow.model, number, Stage.TRAINING),
            Command.REDO_VALIDATION: lambda: redo_stage(self.hand(who), self.flow.model, number, Stage.VALIDATION),
            Command.HOLD: lambda: hold_version(self.hand(who), self.flow.model, number),
            Command.RELEASE: lambda: release_version(self.hand(who), self.flow.model, number),
            Command.DEPLOY: lambda: self.request_deployment(number, who),
            Command.ROLLBACK: lambda: self.roll_back(who, number),
            Command.DEPLOY_ANOTHER: lambda: self.deploy_another(number),
            Command.KILL: lambda: self.kill(number, who),
            Command.RETIRE: lambda: self.retire(number, who),
            Command.SCHEDULE: lambda: self.retire(number, who, on=date(2099, 1, 1) + timedelta(days=self.version(number).transition)),
            Command.EXPIRE: lambda: self.expire(number),
        }
        simple[command]()

    def _undecided(self, number: int) -> str:
        """An approver who has not decided on the version yet."""
        names = ("approver", "second approver")
        version = self.version(number)
        rows = {n: self.flow.meta.get(decision_key(version, str(self.who(n).person))) for n in names}
        return next(name for name in names if rows[name] is None)

    # The pipeline

    def start(self, number: int) -> None:
        """Let the latest attempt come to the next stage; where the latest attempt has failed, the one after it."""
        flow, version = self.flow, self.version(number)
        if version.status is Status.FAILED and version.standing is not Standing.RETIRED and self._has_ended(version) and not version.held:
            version = start_next_attempt(flow.meta, flow.pipeline, version)
        ended = version.status is Status.SUCCEEDED
        stage = (stage_after(version.stage) if ended else version.stage) or Stage.DEPLOYMENT
        if stage is Stage.APPROVAL:
            self.open(number, version.attempt)
        elif stage is Stage.DEPLOYMENT:
            self.deploy(number, PIPELINE_PRINCIPAL, finish=False)
        elif flow.prepare(version, stage, version.attempt).get("held"):
            self._end_execution(version)

    def open(self, number: int, attempt: int) -> None:
        flow, version = self.flow, self.version(number)
        token = flow.pipeline.wait_for_token(self._execution(version))
        ports = (flow.meta, flow.attestors["gate"], flow.store, flow.pipeline, flow.notifier)
        open_approval(*ports, model=flow.model, number=number, token=token, at=flow.clock.now(), attempt=attempt)

    def succeed(self, number: int) -> None:
        version = self.version(number)
        if version.stage is Stage.DEPLOYMENT and version.status is Status.RUNNING:
            self.deploy(number, PIPELINE_PRINCIPAL)
        else:
            self.report(number, Stage.PROCESSING if version.stage is Stage.REGISTERED else version.stage)

    def report(self, number: int, stage: Stage, *, attempt: int | None = None, **outputs: Any) -> str:
        """Let an attempt report that a stage's script has ended well."""
        flow, version = self.flow, self.version(number)
        attempt = attempt or version.attempt
        result = StageResult({"outcome": "SUCCEEDED"}, None, None, "t")
        if flow.meta.get(stage_key(flow.model, number, stage, attempt)) is not None:
            result = flow.run(version, stage, attempt=attempt, **outputs)
        return flow.record(version, stage, result, attempt)["outcome"]

    def fail(self, number: int) -> None:
        """Let the latest attempt report that the stage failed which runs, or would begin next, and end."""
        flow, version = self.flow, self.version(number)
        if version.stage is Stage.DEPLOYMENT and version.status is Status.RUNNING:
            by, at = PIPELINE_PRINCIPAL, flow.clock.now()
            fail_deployment(flow.meta, flow.attestors["deploy"], flow.model, number, by=by, error="it does not load", at=at)
            self._end_execution(version)
            return
        ended = version.status is Status.SUCCEEDED
        stage = (stage_after(version.stage) if ended else version.stage) or Stage.DEPLOYMENT
        if stage in PIPELINE:
            outcome = flow.record(version, stage, StageResult(None, None, ERROR, "t"), version.attempt)["outcome"]
            if outcome == "FAILED" and self.version(number).status is Status.FAILED:
                self._end_execution(version)

    def deploy(self, number: int, by: Principal, *, finish: bool = True, environment: str | None = None) -> None:
        """What the deploy function does, but for the warming."""
        flow, attestor, begun = self.flow, self.flow.attestors["deploy"], False
        version = self.version(number)
        if (version.stage, version.status) == (Stage.DEPLOYMENT, Status.SUCCEEDED) and version.standing is not Standing.RETIRED:
            return
        try:
            version = begin_deployment(flow.meta, attestor, version, by=by, reason="approved", at=flow.clock.now())
            begun = True
            if finish:
                check_frozen_files(flow.store, version)
                self.swap(number, by, environment or version.deployment_environment)
        except ConflictError as error:
            if not begun and not isinstance(error, HeldError):
                raise
            fail_deployment(flow.meta, attestor, flow.model, number, by=by, error=error.message, at=flow.clock.now())

    def swap(self, number: int, by: Principal, environment: str = SECOND) -> None:
        flow = self.flow
        what = {"environment": environment, "capture_rate": "0", "by": by, "reason": "approved", "at": flow.clock.now()}
        swap_pointer(flow.meta, flow.attestors["deploy"], flow.model, number, **what)

    # Persons

    def claim(self, number: int, who: str) -> None:
        flow, by = self.flow, self.who(who)
        if "scientist" in by.roles:
            claim_submission(flow.meta, flow.attestors["operate"], flow.model, number, by=by, at=flow.clock.now())

    def decide(self, number: int, who: str, verdict: Verdict) -> None:
        flow, by = self.flow, self.who(who)
        require_role(Operation(verdict.value), by, flow.model)
        ports = (flow.meta, flow.attestors["decide"], flow.store)
        done = decide_approval(*ports, flow.model, number, verdict, reason="reviewed", by=by, at=flow.clock.now())
        if done.complete:
            flow.functions.send("gate", {"action": "decided", "model": flow.model, "version": number})

    def request_deployment(self, number: int, who: str, environment: str | None = None) -> None:
        flow, by = self.flow, self.who(who)
        require_role(Operation.DEPLOY, by, flow.model)
        ports = (flow.meta, flow.attestors["operate"], flow.functions)
        what: dict[str, Any] = {"deploy_function": "deploy", "by": by, "reason": "release", "at": flow.clock.now()}
        request_deployment(*ports, flow.model, number, environment=environment, **what)

    def promote(self, number: int, who: str, to: str) -> None:
        """What the function that operates does when it is asked for a promotion, and the gate for it."""
        flow, by, version = self.flow, self.who(who), self.version(number)
        if not is_waiting(version, to):
            check_promotion(version, to, flow.clock.now())
        require_role(Operation.DEPLOY, by, flow.model)
        if has_to_be_asked(version, to, flow.clock.now()):
            ports = (flow.meta, flow.attestors["gate"], flow.store, flow.notifier)
            open_promotion(*ports, flow.model, number, environment=to, by=by, reason="release", at=flow.clock.now())
        else:
            self.request_deployment(number, who, to)

    def withdraw(self, number: int, who: str, to: str) -> None:
        flow, by = self.flow, self.who(who)
        require_role(Operation.DEPLOY, by, flow.model)
        what: dict[str, Any] = {"environment": to, "by": by, "reason": "not now", "at": flow.clock.now()}
        withdraw_promotion(flow.meta, flow.attestors["operate"], flow.model, number, **what)

    def decide_promotion(self, number: int, who: str, verdict: Verdict, to: str) -> None:
        flow, by = self.flow, self.who(who)
        require_role(Operation(verdict.value), by, flow.model)
        what: dict[str, Any] = {"environment": to, "by": by, "reason": "reviewed", "at": flow.clock.now()}
        decide_promotion(flow.meta, flow.attestors["decide"], flow.store, flow.model, number, verdict, **what)

    def roll_back(self, who: str, to: int | None = None, environment: str = "") -> None:
        flow, by = self.flow, self.who(who)
        require_role(Operation.ROLLBACK, by, flow.model)
        where = environment or (self.version(to).deployment_environment if to is not None else SECOND)
        roll_back(flow.meta, flow.attestors["operate"], flow.model, environment=where, by=by, reason="back", at=flow.clock.now(), to=to)

    def deploy_another(self, number: int) -> None:
        pointer = self.flow.meta.get(pointer_key(self.flow.model, SECOND))
        others = [n for n in self.manifests if n != number and n != number_in(pointer)]
        self.swap(next(n for n in others if self.version(n).approved), PIPELINE_PRINCIPAL)

    def kill(self, number: int, who: str) -> None:
        flow, by = self.flow, self.who(who)
        require_role(Operation.KILL, by, flow.model)
        kill_version(flow.meta, flow.attestors["operate"], flow.model, number, reason="it harms", by=by, at=flow.clock.now())

    def retire(self, number: int, who: str, *, on: date | None = None, even_if_deployed: bool = False) -> None:
        flow, by = self.flow, self.who(who)
        require_role(Operation.RETIRE, by, flow.model)
        what: dict[str, Any] = {"reason": "old", "by": by, "at": flow.clock.now(), "on": on, "even_if_deployed": even_if_deployed}
        retire_version(flow.meta, flow.attestors["operate"], flow.model, number, **what)

    def transition(self, number: int, to: str, who: str) -> None:
        request_transition(self.hand(who), self.flow.model, number, to, deploy_function="deploy")

    def refresh(self, number: int, who: str) -> int | None:
        """Have a version made anew of a version's candidate; return its number, None where none was made."""
        flow, by = self.flow, self.who(who)
        if not {"scientist", "deployer"} & set(by.roles):
            return None
        trigger = Trigger(CauseKind.MANUAL, by, "it is old", identity={"request": f"r-{flow.clock.at.isoformat()}"})
        made = flow.make_refresher(flow.attestors["register"]).refresh(flow.model, trigger, flow.clock.now(), parent=number)
        if made.state != "MADE" or made.number is None:
            return None
        self.manifests[made.number], self.deployments[made.number] = self.manifests[number], self.deployments[number]
        return made.number

    # Schedules, and what was sent

    def expire(self, number: int) -> None:
        """Let the day come that was set for the version's retirement; where none was, one is set first."""
        version = self.version(number)
        if version.standing is not Standing.RETIRED:
            day = (self.flow.clock.now() + timedelta(days=1)).date()
            self.retire(number, "deployer", on=day, even_if_deployed=True)
        self.retire_due()

    def retire_due(self) -> None:
        self.flow.clock.advance(days=2)
        retire_due(self.flow.meta, self.flow.attestors["operate"], at=self.flow.clock.now())

    def wait(self) -> None:
        """Let days pass in which no schedule runs."""
        self.flow.clock.advance(days=3)

    def lapse_due(self) -> None:
        """Let what has ended by now leave."""
        flow = self.flow
        done = lapse_due(
            flow.meta,
            flow.attestors["operate"],
            flow.notifier,
            lambda asked: tell_again(flow.meta, flow.notifier, asked, None),
            at=flow.clock.now(),
        )
        assert not done.errors, done.errors

    def lose(self, number: int) -> None:
        """Let the execution of the latest attempt break off, and the sweep find that."""
        self._end_execution(self.version(number))
        self.sweep()

    def sweep(self) -> None:
        flow = self.flow
        flow.clock.advance(minutes=20)
        sweep(flow.meta, flow.functions, flow.pipeline, gate_function="gate", at=flow.clock.now())

    def deliver(self) -> None:
        """Let the functions run that were sent something; what they refuse has no answer."""
        flow = self.flow
        sent, flow.functions.sent = flow.functions.sent, []
        for function, payload in sent:
            try:
                if function == "deploy":
                    by, where = Principal.from_item(payload["principal"]), payload.get("environment")
                    self.deploy(int(payload["version"]), by, environment=where)
                else:
                    ports = (flow.meta, flow.attestors["gate"], flow.store, flow.pipeline)
                    send_on(*ports, model=flow.model, number=int(payload["version"]), at=flow.clock.now())
            except AttestryError:
                continue

    def delegate(self, jwk: Mapping[str, str], environment: str) -> Any:
        flow = self.flow
        return delegate_signing(flow.meta, flow.delegator, model=flow.model, environment=environment, jwk=jwk, at=flow.clock.now())

    def _has_ended(self, version: Version) -> bool:
        return self.flow.pipeline.status(self._execution(version)) != "RUNNING" or (
            self.flow.meta.get(stage_key(version.model, version.number, version.stage, version.attempt)) is not None
        )

    def _end_execution(self, version: Version) -> None:
        name = self._execution(version)
        if name in self.flow.pipeline.executions:
            self.flow.pipeline.end(name, "FAILED")

    def _execution(self, version: Version) -> str:
        return name_execution(version.model, version.number, version.attempt, version.candidate)
