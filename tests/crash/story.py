"""The life of a model as a list of steps, each what one trigger does: an event, a state of the pipeline, a person's request, a schedule.

A step may be done again as its trigger would do it again, by a new process if the old one was killed. Scenes between the steps are what
happens outside of the registry (the sandbox runs a script, time passes), or what another step has shown already.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from attestry.domain.errors import UnavailableError
from attestry.domain.stages import Stage
from tests.crash.acts import (
    SCRIPTS,
    Act,
    add_person,
    begin_in_console,
    build,
    caller,
    claim,
    collect,
    console,
    decide,
    deploy,
    end_execution,
    lose,
    open_approval,
    operate,
    operate_model,
    plan,
    predict,
    prepare,
    publish,
    publish_next,
    reconcile,
    record,
    refused,
    register,
    roll_back,
    run,
    sequence,
    sweep,
    upload,
    upload_by_hand,
)
from tests.crash.world import Registry
from tests.fakes import Killed
from tests.flow import GOOD
from tests.ssh_keys import SshPerson

POOR = {**GOOD, "roc_auc_score": 0.5}
TRIES = 4


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
    return catching_up(told)


def catching_up(told: list[Step]) -> list[Step]:
    """The same steps, with the ledger written between all that happens, as its schedule has it."""
    catches_up = scene("the ledger catches up", sequence)
    return [part for step in told for part in ([step] if step.scene or step.act is sequence else [catches_up, step])]


def _beginning() -> list[Step]:
    def person(name: str, *keys: str) -> Act:
        return add_person(person=name, logins=[name], ssh_keys=list(keys))

    return [
        Step("the root of trust is published", lambda r: publish(r, r.root_files)),
        Step("a person is added", person("erin", SshPerson("erin").public)),
        *(scene(f"{name} is added", person(name)) for name in ("alex", "dana", "grace", "henry", "judy")),
        Step("the ledger begins", sequence),
    ]


def _first_version() -> list[Step]:
    """Two persons approve it, one of them with a signature of their own; then it is deployed and answers."""
    steps = [
        Step("an upload is announced", upload(1, people=2)),
        Step("a manifest is registered", register(1)),
        Step("the environments are planned", plan(1)),
        scene("the environments are built", build),
    ]
    for stage in SCRIPTS:
        steps += [
            Step(f"{stage} is prepared", prepare(1, stage)),
            scene(f"{stage} runs", run(1, stage)),
            Step(f"{stage} is recorded", record(1, stage)),
        ]
    return [
        *steps,
        Step("the approval opens", open_approval(1)),
        Step("a person approves and signs", decide(1, "erin", signed=True)),
        Step("a second person approves", decide(1, "grace")),
        Step("the gate sends the pipeline on", Registry.deliver),
        Step("the approval is recorded", record(1, Stage.APPROVAL)),
        Step("the pipeline deploys", deploy(1)),
        Step("the first prediction", predict),
        Step("a prediction by the same key", predict),
        Step("receipts are collected and sealed", collect),
        Step("events enter the ledger", sequence),
        Step("table, ledger and store are compared", reconcile),
    ]


def _failed_and_rejected_version(n: int) -> list[Step]:
    """Its training fails in the middle of freezing and is tried again in a folder of its own; a person rejects it."""
    return [
        *up_to(n, Stage.TRAINING, people=1),
        scene("a training leaves no model", run(n, Stage.TRAINING, model={})),
        Step("a failed TRAINING is recorded", record(n, Stage.TRAINING)),
        scene("its execution ends", end_execution(n)),
        Step("a failed version is tried again", operate(n, "retry", "henry", reason="the script was slow")),
        Step("TRAINING is prepared again", prepare(n, Stage.TRAINING, attempt=2)),
        scene("the training runs again", run(n, Stage.TRAINING, attempt=2)),
        Step("TRAINING is recorded in another folder", record(n, Stage.TRAINING, attempt=2)),
        *_script(n, Stage.VALIDATION, attempt=2),
        scene("the approval opens", open_approval(n)),
        Step("a stranger to the rules is refused", refused(n)),
        scene("minutes pass", lambda r: r.wait(minutes=3)),
        Step("denied acts enter the ledger", sequence),
        Step("a person rejects", decide(n, "erin", verdict="reject")),
        Step("the gate ends a rejected pipeline", Registry.deliver),
        Step("a rejection is recorded", record(n, Stage.APPROVAL, attempt=2)),
    ]


def _automatic_version(n: int) -> list[Step]:
    """Its policy approves it; it takes the place of the first one between two predictions of one process."""
    return [
        *up_to(n, None),
        Step("a policy approves as the approval opens", open_approval(n)),
        scene("the approval is recorded", record(n, Stage.APPROVAL)),
        scene("a prediction before the cut-over", predict),
        Step("a deployment replaces another", deploy(n)),
        Step("a prediction after the cut-over", predict),
    ]


def _version_by_hand(n: int) -> list[Step]:
    """It was uploaded by hand, so that it waits for who has done so; it is deployed by a person."""
    return [
        scene("files are uploaded by hand", upload_by_hand(n)),
        Step("a manifest that nobody announced is registered", register(n)),
        *up_to(n, None, begun=True),
        Step("an approval waits for a claim", open_approval(n)),
        Step("a submission is claimed", claim(n)),
        Step("a policy approves what was claimed", Registry.deliver),
        scene("the approval is recorded", record(n, Stage.APPROVAL)),
        Step("a person asks for a deployment", operate(n, "deployment", "henry", reason="it is better")),
        Step("a deployment that was asked for releases a third version", Registry.deliver),
    ]


def _operations() -> list[Step]:
    return [
        scene("a prediction by the version that was uploaded by hand", predict),
        Step("a rollback", roll_back(3, "it is slow")),
        Step("the capture rate is set", operate_model("capture", "henry", rate="0.5", reason="costs")),
        Step("a login is added", add_person(person="erin", logins=["erin-2"], name="Erin")),
        scene("a prediction at the new rate", predict),
        Step("receipts of several keys are collected", collect),
        Step("the deployed version is killed", operate(3, "kill", "henry", reason="it harms")),
        Step("a rollback into a vacant place", roll_back(4, "the other one was killed")),
        Step("a prediction after the kill", predict),
    ]


def _poor_version(n: int) -> list[Step]:
    return [
        *up_to(n, Stage.VALIDATION),
        scene("a validation goes badly", run(n, Stage.VALIDATION, metrics=POOR)),
        Step("a VALIDATION that fails its gates is recorded", record(n, Stage.VALIDATION)),
    ]


def _console_version(n: int) -> list[Step]:
    """It is decided on in the AWS console; then its execution is gone, and in the end its day of retirement comes."""
    return [
        *up_to(n, None, people=1),
        scene("the approval opens", open_approval(n)),
        scene("grace starts a decision in the console", begin_in_console(n)),
        Step("CloudTrail tells who decides in the console", caller),
        Step("a decision in the console", console),
        scene("its execution is lost", end_execution(n)),
        Step("the gate starts the next attempt", Registry.deliver),
        scene("that execution is lost too, and time passes", lose(n, 2)),
        Step("the sweep starts what stands still", sweep),
        Step("a retirement is scheduled", operate(n, "retirement", "alex", reason="the contract ends", on="2026-01-04")),
        scene("days pass", lambda r: r.wait(days=2)),
        Step("the sweep finds what is due", sweep),
        Step("what is due is retired", Registry.deliver),
    ]


def _end() -> list[Step]:
    return [
        Step("a version is retired", operate(1, "retirement", "alex", reason="it is old")),
        Step("keys are closed", collect),
        Step("a changed root of trust is published", publish_next),
        Step("the last events enter the ledger", sequence),
        scene("table, ledger and store are compared again", reconcile),
    ]


def _script(n: int, stage: Stage, attempt: int = 1) -> list[Step]:
    return [
        scene(f"{stage} of version {n} is prepared", prepare(n, stage, attempt)),
        scene(f"{stage} of version {n} runs", run(n, stage, attempt)),
        scene(f"{stage} of version {n} is recorded", record(n, stage, attempt)),
    ]


def up_to(n: int, stage: Stage | None, *, people: int = 0, begun: bool = False, **deployment: Any) -> list[Step]:
    """The scenes that lead a version to where a stage runs, or through all that run scripts."""
    first = [
        scene(f"version {n} is uploaded", upload(n, people=people, **deployment)),
        scene(f"version {n} is registered", register(n)),
    ]
    last = [] if stage is None else [scene(f"{stage} of version {n} is prepared", prepare(n, stage))]
    done = SCRIPTS if stage is None else SCRIPTS[: SCRIPTS.index(stage)]
    return [*([] if begun else first), *(step for s in done for step in _script(n, s)), *last]


def scene(name: str, act: Act) -> Step:
    """Something outside of what is tried."""
    return Step(name, act, scene=True)
