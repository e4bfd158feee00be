"""What a script came to, as a sentence for the person who submitted it."""

from __future__ import annotations

import signal
from dataclasses import dataclass

from attestry.sandbox.child import Ending
from attestry.sandbox.log import BoundedLog


@dataclass(frozen=True)
class Result:
    """What a job came to.

    Attributes:
        outcome: SUCCEEDED, FAILED or TIMED_OUT.
        exit_code: of the script, negative for a signal; None if it was not started.
        error: a sentence, empty on success.
    """

    outcome: str
    exit_code: int | None
    error: str

    def also_failed(self, error: str) -> Result:
        """Return the result after one more thing went wrong."""
        outcome = "FAILED" if self.outcome == "SUCCEEDED" else self.outcome
        return Result(outcome, self.exit_code, f"{self.error}; {error}" if self.error else error)


def judge(ending: Ending, log: BoundedLog, *, seconds: float, memory_mib: int) -> Result:
    """Return what a script came to.

    Args:
        ending: how it ended.
        log: what it printed; its last line names the cause where nothing else does.
        seconds: the time that it had.
        memory_mib: the memory that it had.
    """
    code = ending.exit_code
    if ending.stopped == "time":
        return Result("TIMED_OUT", code, f"the script ran past its limit of {seconds:.0f} s and was ended")
    error = ""
    if ending.stopped == "memory":
        error = f"the script needed more than its memory, {memory_mib} MiB, and was ended"
    elif ending.stopped == "disk":
        error = "the script wrote more than its folders may hold and was ended"
    elif not ending.clean:
        error = "the script left processes that could not be ended"
    elif code < 0:
        error = f"the script was ended by {_signal_name(-code)}"
    elif code:
        error = f"the script ended with exit code {code}: {log.last_line() or 'it printed nothing'}"
    return Result("FAILED" if error else "SUCCEEDED", code, error)


def _signal_name(number: int) -> str:
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = str(number)
    return f"signal {name}{' (out of memory?)' if number == signal.SIGKILL else ''}"
