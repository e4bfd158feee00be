"""Gives commands as those do who may, or may not: the gateway's check of the role, then the use case; and the pipeline's steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date, timedelta
from typing import Any

from attestry.domain.approvals import Verdict
from attestry.domain.cause import CauseKind
from attestry.domain.commands import Command
from attestry.domain.errors import AttestryError
from attestry.domain.operations import Operation, require_role
from attestry.domain.principal import Principal
from attestry.domain.stages import Stage, Standing
from attestry.domain.version import Version
from attestry.evidence.ssh_signature import RECORD_NAMESPACE
from attestry.evidence.validation_record import ValidationRecord
from attestry.usecases.canary_counts import failure_put
from attestry.usecases.decide import decide_approval
from attestry.usecases.decide_promotion import decide_promotion
from attestry.usecases.delegate import delegate_signing
from attestry.usecases.deploy import roll_back
from attestry.usecases.gate import send_on
from attestry.usecases.lapse import lapse_due
from attestry.usecases.manual import Hand, hold_version, redo_stage, release_version, retry_version
from attestry.usecases.open_promotion import open_promotion
from attestry.usecases.operate import claim_submission, request_deployment
from attestry.usecases.pointer import number_in
from attestry.usecases.promotion import check_promotion, has_to_be_asked, is_waiting, withdraw_promotion
from attestry.usecases.promotion_notice import tell_again
from attestry.usecases.records import decision_key, person_of, pointer_key
from attestry.usecases.refresh import Trigger
from attestry.usecases.register import Registration, UploadedManifest
from attestry.usecases.request_transition import request_transition
from attestry.usecases.revoke import kill_version, retire_due, retire_version
from attestry.usecases.rollout_request import change_rollout
from attestry.usecases.rollout_watch import watch_rollouts
from attestry.usecases.validate import record_validation
from tests.fakes import MemoryAlarms
from tests.flow import DATA, GOOD
from tests.machine.flow import MachineFlow, source
from tests.machine.people import PIPELINE_PRINCIPAL, PRINCIPALS, RIGHTFUL
from tests.machine.pipeline import Pipeline
from tests.machine.promotions import DEPLOYMENTS, SECOND
from tests.ssh_keys import SshPerson

LEAKAGE = "leakage-check"
MADE = "2026-01-01T00:00:00.000000Z"
FAILURES = 2
"""How many of them halt a canary."""


class Commander(Pipeline):
    """Commands on the versions of one model.

    Attributes:
        flow: the ports.
        manifests: number of a version to its manifest.
        deployments: number of a version to the name of what its candidate says of its deployment.
    """

    def __init__(self, flow: MachineFlow) -> None:
        super().__init__(flow)
        self.manifests: dict[int, bytes] = {}
        self.deployments: dict[int, str] = {}
        self._who: dict[str, Principal] = {}

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

    def change_rollout(self, action: str, who: str, number: int | None) -> None:
        """Advance, halt or finish what is rolled out, whichever or a version that is named."""
        flow, by = self.flow, self.who(who)
        require_role(Operation.DEPLOY, by, flow.model)
        what: dict[str, Any] = {"environment": SECOND, "by": by, "reason": "as planned", "at": flow.clock.now(), "number": number}
        change_rollout(flow.meta, flow.attestors["operate"], flow.model, action, **what)

    def validate(self, number: int, who: str) -> None:
        """Hand in the record that a manifest may demand, signed by whoever hands it in."""
        flow, version = self.flow, self.version(number)
        record = ValidationRecord.make(LEAKAGE, flow.model, number, version.version_digest or "0" * 64, MADE, {"method": "rows compared"})
        by = self.who(who)
        signature = SshPerson(str(by.person)).sign(record.sha256, namespace=RECORD_NAMESPACE.encode())
        what: dict[str, Any] = {"record": record.raw, "signature": signature, "by": by, "at": flow.clock.now()}
        record_validation(flow.meta, flow.attestors["decide"], flow.store, lambda _: {}, flow.model, number, **what)

    # Schedules, and what was sent

    def watch_rollouts(self) -> None:
        """The look that is taken every minute."""
        watch_rollouts(self.flow.meta, self.flow.attestors["deploy"], MemoryAlarms(), at=self.flow.clock.now())

    def fail_canary(self, number: int) -> None:
        """Let a canary fail two requests that the deployed version answers."""
        version = self.version(number)
        self.flow.meta.transact([failure_put(version, "it broke", self.flow.clock.now()) for _ in range(FAILURES)])

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
