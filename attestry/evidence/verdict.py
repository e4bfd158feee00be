"""Verdicts: what a verification found, step by step, and what follows from it. Never a bare boolean.

| verdict | when |
|---|---|
| PROVEN | every step holds, and everything is in a ledger under the pinned root |
| SIGNED-UNANCHORED | every signature holds, but something is not in the ledger yet |
| INCOMPLETE | nothing contradicts, but something that ought to be there is missing |
| BROKEN | a step does not hold |

Rules:

1. The worst outcome decides; a step that was passed over for lack of what another should have given never counts as passed.
2. A step that fails ends the verification: what would rest on it is not judged.
3. Whatever a forged document makes a check stumble over is a step that does not hold, never a crash.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from attestry.domain.errors import AttestryError

FORMAT = 1


class MissingError(AttestryError):
    """Something that a step needs is not there: nothing is wrong, but nothing is shown either."""

    code = "missing"


class Verdict(StrEnum):
    """What a verification comes to."""

    PROVEN = "PROVEN"
    SIGNED_UNANCHORED = "SIGNED-UNANCHORED"
    INCOMPLETE = "INCOMPLETE"
    BROKEN = "BROKEN"


class Outcome(StrEnum):
    """How a step ended: it holds; it holds but is not in the ledger yet; something is missing; it does not hold; it was not reached."""

    PASSED = "passed"
    PENDING = "pending"
    MISSING = "missing"
    FAILED = "failed"
    NOT_REACHED = "not reached"


@dataclass(frozen=True)
class Found:
    """What a check found.

    Attributes:
        outcome: how it ended.
        detail: the sentence for a person.
    """

    outcome: Outcome
    detail: str


@dataclass(frozen=True)
class Step:
    """One named step of a verification."""

    name: str
    outcome: Outcome
    detail: str

    def to_dict(self) -> dict[str, str]:
        """Return the step for `--json`."""
        return {"step": self.name, "outcome": self.outcome.value, "detail": self.detail}


@dataclass(frozen=True)
class Witnessing:
    """Who cosigned the checkpoint.

    Attributes:
        names: the witnesses whose cosignatures hold.
        outside: those of them in an account of somebody else, by the word of the trusted root.
        size: number of leaves of the checkpoint.
        origin: name of the ledger.
    """

    names: tuple[str, ...] = ()
    outside: tuple[str, ...] = ()
    size: int = 0
    origin: str = ""

    @property
    def is_self_witnessed(self) -> bool:
        """Return whether nobody outside the registry's own account has cosigned."""
        return not self.outside


@dataclass(frozen=True)
class Verification:
    """The result of a verification.

    Attributes:
        subject: prediction ID or `MODEL@N`; empty where not even that could be read.
        steps: all steps, in order.
        witnessing: who cosigned.
        notes: what a reader has to know besides: a demo root, a later revocation.
        facts: what was found out on the way, for `--json`: version, approvers, time of the ledger.
    """

    subject: str
    steps: tuple[Step, ...]
    witnessing: Witnessing = field(default_factory=Witnessing)
    notes: tuple[str, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def verdict(self) -> Verdict:
        """Return the verdict over all steps."""
        outcomes = {s.outcome for s in self.steps}
        if Outcome.FAILED in outcomes or not outcomes:
            return Verdict.BROKEN
        if outcomes & {Outcome.MISSING, Outcome.NOT_REACHED}:
            return Verdict.INCOMPLETE
        return Verdict.SIGNED_UNANCHORED if Outcome.PENDING in outcomes else Verdict.PROVEN

    @property
    def reason(self) -> str:
        """Return the sentence behind the verdict: the steps that decided it, or the witnesses."""
        deciding = {
            Verdict.BROKEN: (Outcome.FAILED,),
            Verdict.INCOMPLETE: (Outcome.MISSING, Outcome.NOT_REACHED),
            Verdict.SIGNED_UNANCHORED: (Outcome.PENDING,),
            Verdict.PROVEN: (),
        }[self.verdict]
        told = [f"{s.name}: {s.detail}" for s in self.steps if s.outcome in deciding]
        if told:
            return "; ".join(told)
        if self.witnessing.outside:
            return f"witnessed by {', '.join(self.witnessing.outside)}"
        return f"self-witnessed ({', '.join(self.witnessing.names) or 'no cosignature'})"

    def to_dict(self) -> dict[str, Any]:
        """Return the document that `--json` prints; docs/formats.md has its schema."""
        witnessing = self.witnessing
        return {
            "format": FORMAT,
            "verdict": self.verdict.value,
            "reason": self.reason,
            "subject": self.subject,
            "steps": [s.to_dict() for s in self.steps],
            "ledger": {"origin": witnessing.origin, "size": witnessing.size},
            "witnesses": {
                "names": list(witnessing.names),
                "outside": list(witnessing.outside),
                "self_witnessed": witnessing.is_self_witnessed,
            },
            "notes": list(self.notes),
            "facts": self.facts,
        }


Check = Callable[[], Found | str]
"""Returns a finding, or the detail of a step that holds; raises an `AttestryError` where it does not hold."""

_STUMBLES = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError)


def run_steps(checks: Sequence[tuple[str, Check]], *, after: Sequence[Step] = ()) -> tuple[Step, ...]:
    """Run the checks in order, up to the first that does not hold; the others are listed as not reached.

    Args:
        checks: name and check of each step.
        after: steps that were run before; if one of them does not hold, none of these is run.
    """
    steps: list[Step] = []
    broken = any(step.outcome is Outcome.FAILED for step in after)
    for name, check in checks:
        if broken:
            steps.append(Step(name, Outcome.NOT_REACHED, "rests on a step that does not hold"))
            continue
        found = _run(check)
        steps.append(Step(name, found.outcome, found.detail))
        broken = found.outcome is Outcome.FAILED
    return (*after, *steps)


def _run(check: Check) -> Found:
    try:
        found = check()
    except MissingError as error:
        return Found(Outcome.MISSING, error.message)
    except AttestryError as error:
        return Found(Outcome.FAILED, error.message)
    except _STUMBLES as error:
        # A forged document can lack any field or hold anything in it; see rule 3.
        return Found(Outcome.FAILED, f"a document has not the form that it needs ({type(error).__name__}: {error})")
    return found if isinstance(found, Found) else Found(Outcome.PASSED, found)
