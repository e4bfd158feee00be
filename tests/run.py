"""Run the type checker and all tests but the long ones: `python -m tests.run [pytest options]`.

Six runs go side by side, because most of them wait much: rules and formats; adapters and flows on one embedded AWS, in one process since
they share it; roles and attacks on another; the template, which is synthesised once for each configuration; crashes, foreign tools, and
then random sequences of commands on an AWS of their own; types. The first two take longest, so the others leave the processor to them.
What the later ones print is kept while the first prints, and follows it.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FIRST = ["tests/unit"]
SEQUENCES = "tests/embedded/test_state_machine.py"
FLOWS = "Adapters and flows on the embedded AWS"
BESIDE = {
    FLOWS: ["tests/contract", "tests/embedded", f"--ignore={SEQUENCES}"],
    "Roles and attacks on the embedded AWS": ["tests/security", "tests/attacks"],
    "The template": ["tests/infra"],
    "Crashes, foreign tools, and random sequences on the embedded AWS": ["tests/crash", "tests/independent", SEQUENCES],
}
LATER = ("nice", "-n", "10")


def pytest(*arguments: str) -> list[str]:
    """Return the command of a run of pytest."""
    return [sys.executable, "-m", "pytest", "-m", "not long", *arguments]


def follow(log: Path, process: subprocess.Popen[bytes]) -> int:
    """Print a log until the process that writes it has ended."""
    with log.open("rb") as stream:
        while True:
            ended = process.poll()
            while chunk := stream.read(1 << 16):
                sys.stdout.buffer.write(chunk)
                sys.stdout.flush()
            if ended is not None:
                return ended
            time.sleep(0.5)


def commands(options: list[str]) -> dict[str, list[str]]:
    """Return the runs beside the first one, by what they are about."""
    runs = {name: pytest(*options, *paths) for name, paths in BESIDE.items()} | {"Types": [sys.executable, "-m", "mypy"]}
    return {name: command if name == FLOWS else [*LATER, *command] for name, command in runs.items()}


def begin(command: list[str], log: Path) -> subprocess.Popen[bytes]:
    """Start a run that writes into a log; the first one that needs the template synthesises it, and the others wait for that.

    Each run is a session of its own, as the embedded AWS is: Linux shares processors between sessions first (the scheduler's autogroups),
    and in one session all runs together would get as much as one embedded AWS.
    """
    with log.open("wb") as stream:
        return subprocess.Popen(command, cwd=ROOT, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True)


def main() -> int:
    """Run all, and return a status that is zero when each passed."""
    options = sys.argv[1:]
    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, lambda number, _: sys.exit(128 + number))  # so that no run outlives this one in a session of its own
    started = time.monotonic()
    with ExitStack() as ends:
        folder = Path(ends.enter_context(tempfile.TemporaryDirectory()))
        running = {}
        for number, (name, command) in enumerate(commands(options).items()):
            log = folder / f"{number}.log"
            process = begin(command, log)
            ends.callback(process.wait, 60)
            ends.callback(process.terminate)  # of one that has ended this does nothing
            running[name] = log, process
        statuses = [subprocess.run(pytest(*options, *FIRST), cwd=ROOT, check=False, start_new_session=True).returncode]
        for name, (log, process) in running.items():
            print(f"\n{name}:", flush=True)
            statuses.append(follow(log, process))
    print(f"{time.monotonic() - started:.0f} s in all")
    return max(map(abs, statuses))


if __name__ == "__main__":
    sys.exit(main())
