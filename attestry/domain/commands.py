"""Commands: what each of them does to a version, for every state that a version can be in.

One pure table, `outcome`. `docs/transitions.md` is printed from it, and tests drive the use cases into every state and hold each command
against it. It says what happens when a command comes from somebody who may give it; who may is in `attestry.domain.operations`.

    outcome(State(Stage.VALIDATION, Status.SUCCEEDED, Standing.CANDIDATE), Command.START).to
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cache

from attestry.domain.stages import DEPLOYABLE, Stage, Standing, Status, stage_after


class Command(StrEnum):
    """What can be asked of a version, or happen to it."""

    SUBMIT_AGAIN = "submit again"
    CLAIM = "claim"
    START = "start stage"
    SUCCEED = "stage succeeded"
    FAIL = "stage failed"
    GATES_FAIL = "stage rejected"
    APPROVE = "approve"
    REJECT = "reject"
    RETRY = "retry"
    REDO_PROCESSING = "redo PROCESSING"
    REDO_TRAINING = "redo TRAINING"
    REDO_VALIDATION = "redo VALIDATION"
    HOLD = "hold"
    RELEASE = "release"
    DEPLOY = "deploy"
    ROLLBACK = "rollback"
    DEPLOY_ANOTHER = "another is deployed"
    KILL = "kill"
    RETIRE = "retire"
    SCHEDULE = "schedule retirement"
    EXPIRE = "expire"


MEANING: Mapping[Command, str] = {
    Command.SUBMIT_AGAIN: "the same manifest and source are uploaded once more",
    Command.CLAIM: "the person who uploaded it by hand says so; of a submitter who is known it changes nothing",
    Command.START: "the pipeline comes to the next stage, or to the one that failed, in its latest attempt",
    Command.SUCCEED: "the pipeline reports the success of the stage that the version is in; of DEPLOYMENT, the version is warm",
    Command.FAIL: "the pipeline reports that the stage failed which runs, or would begin next",
    Command.GATES_FAIL: "the pipeline reports a VALIDATION whose gates do not hold",
    Command.APPROVE: "the last approval that the policy asks for; one before it leaves the version where it is",
    Command.REJECT: "a person who may approve rejects",
    Command.RETRY: "somebody has the failed stage tried again",
    Command.REDO_PROCESSING: "somebody has PROCESSING done again",
    Command.REDO_TRAINING: "somebody asks for TRAINING to be done again",
    Command.REDO_VALIDATION: "somebody has VALIDATION done again",
    Command.HOLD: "somebody holds the version",
    Command.RELEASE: "somebody ends its hold",
    Command.DEPLOY: "somebody has it put in place; START, SUCCEED and FAIL of DEPLOYMENT follow",
    Command.ROLLBACK: "somebody has this version put back in place, where another one was deployed before",
    Command.DEPLOY_ANOTHER: "another version of the model takes the place in the environment",
    Command.KILL: "somebody kills it",
    Command.RETIRE: "somebody retires it, without saying that it may stand deployed",
    Command.SCHEDULE: "somebody sets a later day for its retirement, without saying that it may stand deployed then",
    Command.EXPIRE: "the day that was set for its retirement comes",
}


class Effect(StrEnum):
    """What a command does."""

    MOVES = "moves"
    RECORDS = "records"
    NOTHING = "nothing"
    REFUSED = "refused"


@dataclass(frozen=True)
class State:
    """Where a version is, and what it is.

    Attributes:
        stage: the latest stage.
        status: its status.
        standing: what the version is to its users.
        held: whether somebody holds it.
    """

    stage: Stage
    status: Status
    standing: Standing
    held: bool = False

    def __str__(self) -> str:
        """Return `VALIDATION SUCCEEDED, CANDIDATE` and, where it is held, `, held`."""
        return f"{self.stage} {self.status}, {self.standing}{', held' if self.held else ''}"


@dataclass(frozen=True)
class Outcome:
    """What a command does to a version in a state.

    Attributes:
        effect: MOVES to another state; RECORDS a move that leads to the same state; NOTHING changes, and the caller is answered;
            REFUSED with an error, and nothing changes.
        to: the state after it.
        rule: why, in a sentence.
    """

    effect: Effect
    to: State
    rule: str = ""


BEGINNING = State(Stage.REGISTERED, Status.SUCCEEDED, Standing.CANDIDATE)

_RETIRED = "it is out of use for good"
_REJECTED = "a rejection is final"
_HELD = "it is held"
_SKIP = "no stage is passed over"


def outcome(state: State, command: Command) -> Outcome:
    """Return what a command does to a version in a state."""
    return _RULES[command](state)


@cache
def reachable() -> tuple[State, ...]:
    """Return every state that the commands lead to from the registration on, in the order in which they are met; there is no other."""
    met = {BEGINNING: None}
    queue = deque([BEGINNING])
    while queue:
        state = queue.popleft()
        for command in Command:
            after = outcome(state, command).to
            if after not in met:
                met[after] = None
                queue.append(after)
    return tuple(met)


@cache
def path_to(wanted: State) -> tuple[Command, ...]:
    """Return the fewest commands that lead from the registration to a state.

    Raises:
        KeyError: none do.
    """
    paths: dict[State, tuple[Command, ...]] = {BEGINNING: ()}
    queue = deque([BEGINNING])
    while queue and wanted not in paths:
        state = queue.popleft()
        for command in Command:
            after = outcome(state, command).to
            if after not in paths:
                paths[after] = (*paths[state], command)
                queue.append(after)
    return paths[wanted]


def _moves(state: State, rule: str = "", **changes: object) -> Outcome:
    after = replace(state, **changes)  # type: ignore[arg-type]
    return Outcome(Effect.MOVES if after != state else Effect.RECORDS, after, rule)


def _nothing(state: State, rule: str) -> Outcome:
    return Outcome(Effect.NOTHING, state, rule)


def _refused(state: State, rule: str) -> Outcome:
    return Outcome(Effect.REFUSED, state, rule)


def _is_retired(state: State) -> bool:
    return state.standing is Standing.RETIRED


def _start(state: State) -> Outcome:
    stage, status = state.stage, state.status
    if _is_retired(state):
        return _refused(state, _RETIRED)
    if stage is Stage.APPROVAL and status is Status.REJECTED:
        return _nothing(state, "its execution is sent on to its end")
    if status is Status.REJECTED:
        return _refused(state, _REJECTED)
    if stage is Stage.DEPLOYMENT and status is Status.RUNNING and state.held:
        return _moves(state, "a held version is not put in place", status=Status.FAILED)
    if status is Status.RUNNING:
        return _nothing(state, "it has begun")
    if stage is Stage.DEPLOYMENT and status is Status.SUCCEEDED:
        return _nothing(state, "the pipeline is at its end")
    if state.held:
        return _nothing(state, "a held version begins nothing: its execution ends, and the release starts the next one")
    following = stage_after(stage) if status is Status.SUCCEEDED else stage
    assert following is not None  # noqa: S101 - the end of the pipeline is dealt with above
    return _moves(state, "", stage=following, status=Status.RUNNING)


def _succeed(state: State) -> Outcome:
    if state.stage is Stage.REGISTERED and not _is_retired(state):
        return _refused(state, "what has not begun cannot have ended")
    if _is_retired(state) or state.status is not Status.RUNNING:
        return _nothing(state, "nothing runs; the report is answered from the record")
    if state.stage is Stage.APPROVAL:
        return _nothing(state, "people or the policy end it, not the pipeline")
    if state.stage is Stage.DEPLOYMENT:
        if state.held:
            return _moves(state, "a held version is not put in place", status=Status.FAILED)
        return _moves(state, "", status=Status.SUCCEEDED, standing=Standing.DEPLOYED)
    return _moves(state, "", status=Status.SUCCEEDED)


def _fail(state: State) -> Outcome:
    stage, status = state.stage, state.status
    if _is_retired(state) or status in (Status.FAILED, Status.REJECTED):
        return _nothing(state, "nothing runs; the report is answered from the record")
    if stage is Stage.APPROVAL and status is Status.RUNNING:
        return _nothing(state, "no decision came in time: it still waits, and can be decided")
    if stage is Stage.DEPLOYMENT and status is Status.SUCCEEDED:
        return _nothing(state, "the pipeline is at its end")
    if status is Status.RUNNING:
        return _moves(state, "", status=Status.FAILED)
    if state.held:
        return _nothing(state, "a held version begins nothing, so nothing has failed")
    return _moves(state, "the stage that would have begun", stage=stage_after(stage), status=Status.FAILED)


def _gates_fail(state: State) -> Outcome:
    if _is_retired(state):
        return _nothing(state, "nothing runs; the report is answered from the record")
    if state.stage is Stage.VALIDATION and state.status is Status.RUNNING:
        return _moves(state, "", status=Status.REJECTED, standing=Standing.REJECTED)
    if state.stage in (Stage.REGISTERED, Stage.PROCESSING, Stage.TRAINING) and state.status is not Status.FAILED:
        return _refused(state, "what has not begun cannot have ended")
    return _nothing(state, "nothing runs; the report is answered from the record")


def _approve(state: State) -> Outcome:
    if state.stage is not Stage.APPROVAL or state.status is not Status.RUNNING or _is_retired(state):
        return _refused(state, "it does not wait for a decision")
    if state.held:
        return _refused(state, _HELD)
    return _moves(state, "", status=Status.SUCCEEDED, standing=Standing.APPROVED)


def _reject(state: State) -> Outcome:
    if state.stage is not Stage.APPROVAL or state.status is not Status.RUNNING or _is_retired(state):
        return _refused(state, "it does not wait for a decision")
    return _moves(state, "", status=Status.REJECTED, standing=Standing.REJECTED)


def _retry(state: State) -> Outcome:
    if _is_retired(state):
        return _refused(state, _RETIRED)
    if state.held:
        return _refused(state, _HELD)
    if state.status is not Status.FAILED:
        return _refused(state, "only what failed is tried again")
    return _moves(state, "the next attempt starts")


def _redo(stage: Stage) -> Callable[[State], Outcome]:
    def rule(state: State) -> Outcome:
        refusal = _redo_refused(state, stage)
        if refusal:
            return _refused(state, refusal)
        back = {Stage.PROCESSING: Stage.REGISTERED, Stage.VALIDATION: Stage.TRAINING}[stage]
        return _moves(state, "the next attempt starts behind the stage before", stage=back, status=Status.SUCCEEDED)

    return rule


def _redo_refused(state: State, stage: Stage) -> str:
    """Return why a stage of a version in a state is not done again, or an empty text."""
    order = list(Stage)
    at, wanted = order.index(state.stage), order.index(stage)
    is_frozen = at > order.index(Stage.TRAINING) or (state.stage is Stage.TRAINING and state.status is Status.SUCCEEDED)
    refusals = (
        (_is_retired(state), _RETIRED),
        (state.status is Status.REJECTED, _REJECTED),
        (state.standing is not Standing.CANDIDATE, "what is approved is not made again"),
        (stage is Stage.TRAINING and is_frozen, "what is frozen never changes: a new version is needed"),
        (state.stage is stage and state.status is Status.FAILED, "what failed is retried"),
        (state.status is Status.RUNNING and state.stage is not Stage.APPROVAL, "what runs ends first"),
        (at < wanted, f"it has not succeeded yet; {_SKIP}"),
        (stage is Stage.PROCESSING and is_frozen, "what is frozen never changes: a new version is needed"),
    )
    return next((why for refused, why in refusals if refused), "")


def _hold(state: State) -> Outcome:
    if state.held:
        return _nothing(state, "it is held already")
    if state.standing in (Standing.RETIRED, Standing.REJECTED):
        return _refused(state, "nothing is left to hold")
    return _moves(state, "", held=True)


def _release(state: State) -> Outcome:
    if not state.held:
        return _nothing(state, "it is not held; what stands still is started")
    if _is_retired(state):
        return _refused(state, _RETIRED)
    return _moves(state, "the next attempt starts where its execution has ended", held=False)


def _deploy(state: State) -> Outcome:
    if _is_retired(state):
        return _refused(state, _RETIRED)
    if state.held:
        return _refused(state, _HELD)
    if state.standing not in DEPLOYABLE:
        return _refused(state, f"it is not approved; {_SKIP}")
    if state.status is Status.RUNNING:
        return _nothing(state, "it is on its way")
    return _moves(state, "", stage=Stage.DEPLOYMENT, status=Status.RUNNING)


def _rollback(state: State) -> Outcome:
    if state.standing is Standing.DEPLOYED:
        return _nothing(state, "it stands there")
    if _is_retired(state):
        return _refused(state, _RETIRED)
    if state.held:
        return _refused(state, _HELD)
    if state.standing not in DEPLOYABLE:
        return _refused(state, f"it is not approved; {_SKIP}")
    return _moves(state, "", stage=Stage.DEPLOYMENT, status=Status.SUCCEEDED, standing=Standing.DEPLOYED)


def _deploy_another(state: State) -> Outcome:
    if state.standing is Standing.DEPLOYED:
        return _moves(state, "kept for rollback", standing=Standing.ROLLBACK)
    if state.standing is Standing.ROLLBACK:
        return _moves(state, "kept no more", standing=Standing.APPROVED)
    return _nothing(state, "it stands nowhere")


def _kill(state: State) -> Outcome:
    if _is_retired(state):
        return _nothing(state, "it is killed; of one that was retired, the kill is recorded")
    return _out_of_use(state)


def _retire(state: State) -> Outcome:
    if _is_retired(state):
        return _nothing(state, "it is out of use")
    if state.standing is Standing.DEPLOYED:
        return _refused(state, "it stands deployed, and nobody said that it may")
    return _out_of_use(state)


def _schedule(state: State) -> Outcome:
    if _is_retired(state):
        return _refused(state, _RETIRED)
    if state.standing is Standing.DEPLOYED:
        return _refused(state, "it stands deployed, and nobody said that it may")
    return _moves(state, "the day binds, whatever becomes of it until then")


def _expire(state: State) -> Outcome:
    if _is_retired(state):
        return _nothing(state, "it is out of use")
    return _out_of_use(state)


def _out_of_use(state: State) -> Outcome:
    status = Status.FAILED if state.status is Status.RUNNING else state.status
    return _moves(state, "", status=status, standing=Standing.RETIRED)


_RULES: Mapping[Command, Callable[[State], Outcome]] = {
    Command.SUBMIT_AGAIN: lambda state: _nothing(state, "the same candidate is the same version"),
    Command.CLAIM: lambda state: _nothing(state, "its submitter is known"),
    Command.START: _start,
    Command.SUCCEED: _succeed,
    Command.FAIL: _fail,
    Command.GATES_FAIL: _gates_fail,
    Command.APPROVE: _approve,
    Command.REJECT: _reject,
    Command.RETRY: _retry,
    Command.REDO_PROCESSING: _redo(Stage.PROCESSING),
    Command.REDO_TRAINING: _redo(Stage.TRAINING),
    Command.REDO_VALIDATION: _redo(Stage.VALIDATION),
    Command.HOLD: _hold,
    Command.RELEASE: _release,
    Command.DEPLOY: _deploy,
    Command.ROLLBACK: _rollback,
    Command.DEPLOY_ANOTHER: _deploy_another,
    Command.KILL: _kill,
    Command.RETIRE: _retire,
    Command.SCHEDULE: _schedule,
    Command.EXPIRE: _expire,
}
