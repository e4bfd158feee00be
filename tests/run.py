"""Run all tests but the long ones: `python -m tests.run [pytest options]`.

Four runs go side by side, because most of them wait much: rules, formats, the template and foreign tools on two workers; adapters and
flows on one embedded AWS in one process, since they share it; roles and attacks on another; random sequences of commands on a third, which
is bare. What the later ones print is kept while the first prints, and follows it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BESIDE = ["-n", "2", "--dist", "loadfile", "tests/unit", "tests/crash", "tests/infra", "tests/independent"]
SEQUENCES = "tests/embedded/test_state_machine.py"
ON_AN_EMBEDDED_AWS = {
    "Adapters and flows on the embedded AWS": ["tests/contract", "tests/embedded", f"--ignore={SEQUENCES}"],
    "Roles and attacks on the embedded AWS": ["tests/security", "tests/attacks"],
    "Random sequences on the embedded AWS": [SEQUENCES],
}


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


def begin(command: list[str], log: Path, synthesis: Path) -> subprocess.Popen[bytes]:
    """Start a run that writes into a log, with a template of its own."""
    environment = {**os.environ, "ATTESTRY_SYNTHESIS_DIR": str(synthesis)}
    with log.open("wb") as stream:
        return subprocess.Popen(command, cwd=ROOT, stdout=stream, stderr=subprocess.STDOUT, env=environment)


def main() -> int:
    """Run all, and return a status that is zero when each passed."""
    options = sys.argv[1:]
    started = time.monotonic()
    with ExitStack() as ends:
        folder = Path(ends.enter_context(tempfile.TemporaryDirectory()))
        running = {}
        for number, (name, paths) in enumerate(ON_AN_EMBEDDED_AWS.items()):
            log = folder / f"{number}.log"
            process = begin(pytest(*options, *paths), log, ROOT / "build" / f"embedded-{number}-cdk.out")
            ends.callback(process.wait, 60)
            ends.callback(process.terminate)  # of one that has ended this does nothing
            running[name] = log, process
        statuses = [subprocess.run(pytest(*options, *BESIDE), cwd=ROOT, check=False).returncode]
        for name, (log, process) in running.items():
            print(f"\n{name}:", flush=True)
            statuses.append(follow(log, process))
    print(f"{time.monotonic() - started:.0f} s in all")
    return max(map(abs, statuses))


if __name__ == "__main__":
    sys.exit(main())
