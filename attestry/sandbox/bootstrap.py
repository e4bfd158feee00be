"""First code of every child process: takes rights away, then hands over to the stranger's code.

Run as a file by `child.start`, with the interpreter's `-s -S -P -B`: no site packages, no working directory on the path. The first line of
standard input is the configuration. All that is needed from this package is imported before the first right is gone, and forgotten
before the first line of the script runs, so that a script or its environment may have packages of any name.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
from pathlib import Path


def main() -> None:
    """Confine this process and run what the configuration names."""
    configuration = json.loads(sys.stdin.buffer.readline())
    package = str(Path(__file__).parents[2])
    sys.path.insert(0, package)
    from attestry.sandbox import confine, model_runner

    sys.path.remove(package)
    # An interpreter of a virtual environment reads this when a script starts it as a process of its own.
    environment = str(Path(sys.executable).parents[1] / "pyvenv.cfg")
    confine.confine(
        confine.Limits(**configuration["limits"]),
        readable=[*configuration["readable"], sys.prefix, sys.base_prefix, sys.exec_prefix, environment],
        writable=configuration["writable"],
        parent=configuration["parent"],
    )
    for name in [name for name in sys.modules if name.partition(".")[0] == "attestry"]:
        del sys.modules[name]

    source, packages = configuration["source"], configuration["packages"]
    script = os.path.join(source, configuration["entry_point"])  # noqa: PTH118 (a script's argv[0] is text)
    own = list(dict.fromkeys([os.path.dirname(script), source]))  # noqa: PTH120
    sys.path[:] = [*own, *sys.path, packages]
    os.environ.update(configuration["variables"])
    # Processes that the script starts find the same packages.
    os.environ["PYTHONPATH"] = os.pathsep.join([*own, packages])
    sys.argv[:] = [script, *configuration["arguments"]]

    _close_standard_input()
    if configuration["mode"] == "serve":
        model_runner.serve(script, configuration)
    elif configuration["mode"] == "predict":
        model_runner.predict_holdout(script, configuration)
    else:
        runpy.run_path(script, run_name="__main__")


def _close_standard_input() -> None:
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 (lives as long as the process)


if __name__ == "__main__":
    main()
