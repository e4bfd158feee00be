"""Run all tests but the long ones: `python -m tests.run [pytest options]`.

Two runs go side by side, because the second mostly waits: rules, formats, the template and foreign tools on two workers; adapters, flows
and attacks on one embedded AWS in one process, since they share it. What the second prints is kept while the first prints, and follows it.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BESIDE = ["-n", "2", "--dist", "loadfile", "tests/unit", "tests/crash", "tests/infra", "tests/independent"]
ON_THE_EMBEDDED_AWS = ["tests/contract", "tests/embedded", "tests/security", "tests/attacks"]


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


def main() -> int:
    """Run both, and return a status that is zero when both passed."""
    options = sys.argv[1:]
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "embedded.log"
        with log.open("wb") as stream:
            second = subprocess.Popen(pytest(*options, *ON_THE_EMBEDDED_AWS), cwd=ROOT, stdout=stream, stderr=subprocess.STDOUT)
        try:
            first = subprocess.run(pytest(*options, *BESIDE), cwd=ROOT, check=False).returncode
            print("\nOn the embedded AWS:", flush=True)
            other = follow(log, second)
        except BaseException:
            second.terminate()
            second.wait(60)
            raise
    print(f"{time.monotonic() - begun:.0f} s in all")
    return max(first, other)


if __name__ == "__main__":
    sys.exit(main())
