"""The pipeline's steps on the versions of one model, as its functions take them; and what is lost, and found by the sweep."""

from __future__ import annotations

from typing import Any

from attestry.domain.commands import State
from attestry.domain.errors import ConflictError, HeldError
from attestry.domain.names import name_execution
from attestry.domain.principal import Principal
from attestry.domain.rollout import Plan
from attestry.domain.stages import PIPELINE, Stage, Standing, Status, stage_after
from attestry.domain.version import Version
from attestry.usecases.deploy import begin_deployment, fail_deployment, swap_pointer
from attestry.usecases.executions import start_next_attempt
from attestry.usecases.gate import open_approval
from attestry.usecases.readiness import check_frozen_files
from attestry.usecases.record_stage import StageResult
from attestry.usecases.records import load_version, stage_key
from attestry.usecases.rollout import begin_rollout, is_at_once
from attestry.usecases.sweep import sweep
from tests.machine.flow import MachineFlow
from tests.machine.people import PIPELINE_PRINCIPAL
from tests.machine.promotions import SECOND

ERROR = {"Error": "States.TaskFailed", "Cause": "it broke"}


class Pipeline:
    """The steps.

    Attributes:
        flow: the ports.
    """

    def __init__(self, flow: MachineFlow) -> None:
        self.flow = flow

    # What is there

    def version(self, number: int) -> Version:
        return load_version(self.flow.meta, self.flow.model, number)

    def state(self, number: int) -> State:
        version = self.version(number)
        return State(version.stage, version.status, version.standing, bool(version.held))

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
                self.place(version, by, environment or version.deployment_environment)
        except ConflictError as error:
            if not begun and not isinstance(error, HeldError):
                raise
            fail_deployment(flow.meta, attestor, flow.model, number, by=by, error=error.message, at=flow.clock.now())

    def place(self, version: Version, by: Principal, environment: str) -> None:
        """Put a version in place by the strategy that its manifest plans."""
        flow = self.flow
        if is_at_once(flow.meta, version, Plan.from_item(version.strategy), environment):
            self.swap(version.number, by, environment)
            return
        what: dict[str, Any] = {"environment": environment, "by": by, "reason": "approved", "at": flow.clock.now()}
        begin_rollout(flow.meta, flow.attestors["deploy"], flow.model, version.number, **what)

    def swap(self, number: int, by: Principal, environment: str = SECOND) -> None:
        flow = self.flow
        what = {"environment": environment, "capture_rate": "0", "by": by, "reason": "approved", "at": flow.clock.now()}
        swap_pointer(flow.meta, flow.attestors["deploy"], flow.model, number, **what)

    def lose(self, number: int) -> None:
        """Let the execution of the latest attempt break off, and the sweep find that."""
        self._end_execution(self.version(number))
        self.sweep()

    def sweep(self) -> None:
        flow = self.flow
        flow.clock.advance(minutes=20)
        sweep(flow.meta, flow.functions, flow.pipeline, gate_function="gate", at=flow.clock.now())

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
