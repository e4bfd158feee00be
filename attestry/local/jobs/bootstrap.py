"""First code of a job's process: takes rights away, then becomes what the job starts.

Run as a file, so that nothing of this package is imported but the confinement. The first line of standard input is the configuration.
What is taken away stays away in the program that follows, and in all that it starts.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path


def main() -> None:
    """Confine this process and replace it by the job's command."""
    configuration = json.loads(sys.stdin.buffer.readline())
    sys.path.insert(0, str(Path(__file__).parents[3]))
    from attestry.sandbox import confine

    confine.confine(
        confine.Limits(configuration["file_bytes"]),
        readable=[*configuration["readable"], sys.base_prefix],
        writable=configuration["writable"],
        parent=configuration["parent"],
        network=configuration["network"],
    )
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    command = configuration["command"]
    os.execve(command[0], command, configuration["variables"])  # noqa: S606 (there is no shell, and the command is the request's)


if __name__ == "__main__":
    main()
