"""Writes docs/transitions.md out of the table of commands: `python -m tests.unit.transitions_page`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from attestry.domain.commands import MEANING, Command, Effect, Outcome, State, outcome, reachable
from attestry.domain.operations import ROLES_OF, Operation
from attestry.domain.stages import PIPELINE, Stage, Standing, Status

PAGE = Path(__file__).parents[2] / "docs" / "transitions.md"
GROUPS: tuple[tuple[str, tuple[Command, ...]], ...] = (
    ("The pipeline", (Command.START, Command.SUCCEED, Command.FAIL, Command.GATES_FAIL)),
    ("Submitters and approvers", (Command.SUBMIT_AGAIN, Command.CLAIM, Command.APPROVE, Command.REJECT)),
    (
        "By hand",
        (Command.RETRY, Command.REDO_PROCESSING, Command.REDO_TRAINING, Command.REDO_VALIDATION, Command.HOLD, Command.RELEASE),
    ),
    ("In and out of place", (Command.DEPLOY, Command.ROLLBACK, Command.DEPLOY_ANOTHER)),
    ("Out of use", (Command.KILL, Command.RETIRE, Command.SCHEDULE, Command.EXPIRE)),
)
OPERATIONS = {
    Command.APPROVE: Operation.APPROVE,
    Command.REJECT: Operation.REJECT,
    Command.RETRY: Operation.RETRY,
    Command.REDO_PROCESSING: Operation.REDO,
    Command.REDO_TRAINING: Operation.REDO,
    Command.REDO_VALIDATION: Operation.REDO,
    Command.HOLD: Operation.HOLD,
    Command.RELEASE: Operation.RELEASE,
    Command.DEPLOY: Operation.DEPLOY,
    Command.ROLLBACK: Operation.ROLLBACK,
    Command.KILL: Operation.KILL,
    Command.RETIRE: Operation.RETIRE,
    Command.SCHEDULE: Operation.RETIRE,
}
INTRODUCTION = """# What every command does in every state

Printed from `attestry/domain/commands.py` by `python -m tests.unit.transitions_page`. A test holds the page against the table, and another
one the use cases: each of the {states} states is reached by the commands themselves, and each of the {commands} commands is given
there. These are all the states that the commands lead to from the registration on, of {combinations} combinations of stage, status,
standing and hold. Not in the tables: rollouts beside a deployed version (standings CANARY and SHADOW), promotions and the approval that an
environment asks for (no command but `promote` and the two decisions, none of which moves a version), the end of an approval, and
versions that were made elsewhere (stage IMPORTED), which [deployment-strategies.md](deployment-strategies.md),
[operations.md](operations.md#approvals-that-end) and [imports.md](imports.md) describe.

A cell says which state follows, as far as it differs. `recorded`: a move that leads to the same state. `-`: nothing changes, and whoever
asked is answered. `refused` comes with an error and changes nothing, not a byte. The number is that of the rule below the table. Held
versions have a table of their own, with the cells in which the hold makes a difference. Who may give a command, and what the use case asks
for besides (the person, the quorum, own candidates), stands in [cli.md](cli.md) and [threat-model.md](threat-model.md); a command of
somebody who may not is refused in every state.
"""


def render() -> str:
    """Return the page."""
    states = reachable()
    combinations = (len(PIPELINE) + 1) * len(Status) * len(Standing) * 2
    parts = [INTRODUCTION.format(states=len(states), commands=len(Command), combinations=combinations), _commands()]
    for title, commands in GROUPS:
        parts.append(_group(title, commands, states))
    return "\n".join(parts)


def _commands() -> str:
    rows = ["| command | what it is | roles |", "|---|---|---|"]
    for command in Command:
        roles = ", ".join(ROLES_OF[OPERATIONS[command]]) if command in OPERATIONS else ""
        rows.append(f"| {command} | {MEANING[command]} | {roles} |")
    return "\n".join([*rows, ""])


def _group(title: str, commands: Sequence[Command], states: Sequence[State]) -> str:
    rules: list[str] = []
    free = [state for state in states if not state.held]
    held = [s for s in states if s.held and any(_differs(s, c) for c in commands)]
    parts = [f"## {title}", "", *_table(commands, free, rules, only_different=False)]
    if held:
        parts += ["", "Held:", "", *_table(commands, held, rules, only_different=True)]
    return "\n".join([*parts, "", *(f"{number}. {rule}" for number, rule in enumerate(rules, start=1)), ""])


def _table(commands: Sequence[Command], states: Iterable[State], rules: list[str], *, only_different: bool) -> list[str]:
    rows = [f"| stage and status | standing | {' | '.join(commands)} |", "|---" * (len(commands) + 2) + "|"]
    for state in sorted(states, key=_order):
        cells = ["" if only_different and not _differs(state, c) else _cell(state, outcome(state, c), rules) for c in commands]
        rows.append(f"| {state.stage} {state.status} | {state.standing} | {' | '.join(cells)} |")
    return rows


def _cell(state: State, done: Outcome, rules: list[str]) -> str:
    said = {Effect.NOTHING: "-", Effect.REFUSED: "refused", Effect.RECORDS: "recorded", Effect.MOVES: _moved(state, done.to)}[done.effect]
    if not done.rule:
        return said
    if done.rule not in rules:
        rules.append(done.rule)
    return f"{said} ({rules.index(done.rule) + 1})"


def _moved(state: State, to: State) -> str:
    parts = [f"{to.stage} {to.status}"] if (to.stage, to.status) != (state.stage, state.status) else []
    parts += [str(to.standing)] if to.standing is not state.standing else []
    parts += ["held" if to.held else "held no more"] if to.held != state.held else []
    return ", ".join(parts)


def _differs(state: State, command: Command) -> bool:
    """Return whether a hold makes a difference to what a command does."""
    free = State(state.stage, state.status, state.standing)
    held, else_ = outcome(state, command), outcome(free, command)
    same = (held.to.stage, held.to.status, held.to.standing) == (else_.to.stage, else_.to.status, else_.to.standing)
    return held.effect is not else_.effect or held.rule != else_.rule or not same


def _order(state: State) -> tuple[int, int, int]:
    return list(Stage).index(state.stage), list(Status).index(state.status), list(Standing).index(state.standing)


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
