"""Processes by fork: each is as if it had started from nothing."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from attestry.local.forks import POSSIBLE, Forked, ForkServer, imported_by

pytestmark = pytest.mark.skipif(not POSSIBLE, reason="this system cannot tell the end of a process that is nobody's child here")

TELLS = """
import json, os, random, sys
import calendar
print(json.dumps({
    "variables": dict(os.environ), "folder": os.getcwd(), "arguments": sys.argv, "first": sys.path[0], "name": __name__,
    "random": random.random(), "open": sorted(int(name) for name in os.listdir("/proc/self/fd")), "line": sys.stdin.readline(),
    "modules": [name for name in ("json.tool", "lambdas", "lambdas.uses") if name in sys.modules],
}), flush=True)
print("to the log", file=sys.stderr)
sys.exit(sys.stdin.readline().strip() or 0)
"""


@pytest.fixture(scope="module")
def functions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of functions: one that imports at its top and within, and one that starts from nothing."""
    folder = tmp_path_factory.mktemp("project") / "lambdas"
    folder.mkdir()
    (folder / "uses.py").write_text(
        "import json.tool\nfrom calendar import monthcalendar\nfrom lambdas.other import x\n\ndef handler():\n    import this\n"
    )
    (folder / "sandbox.py").write_text("import antigravity\n")
    return folder


@pytest.fixture(scope="module")
def forks(functions: Path) -> Iterator[ForkServer]:
    server = ForkServer(functions)
    yield server
    server.close()


def begun(forks: ForkServer, folder: Path, script: str = TELLS, **variables: str) -> Forked:
    path = folder / "script.py"
    path.write_text(script)
    return forks.spawn(str(path), cwd=str(folder), env=variables)


def states_of_children(pid: int) -> list[str]:
    """The letter for the state of each child of a process, `Z` for one that has ended and was not let go."""
    states = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            state, parent = path.read_text().rpartition(")")[2].split()[:2]
            states += [state] if int(parent) == pid else []
    return states


def told(process: Forked) -> Mapping[str, Any]:
    process.stdin.write("an event\n")
    answer: Mapping[str, Any] = json.loads(process.stdout.readline())
    return answer


def test_what_functions_import_at_their_top_is_imported_but_for_those_that_start_from_nothing(functions: Path) -> None:
    assert imported_by(functions) == ["json.tool", "calendar"]


def test_a_forked_process_has_its_own_variables_folder_and_arguments(forks: ForkServer, tmp_path: Path) -> None:
    process = begun(forks, tmp_path, ONE="1")
    answer = told(process)
    assert (answer["variables"], answer["folder"], answer["name"], answer["line"]) == (
        {"ONE": "1"},
        str(tmp_path),
        "__main__",
        "an event\n",
    )
    assert (answer["arguments"], answer["first"]) == ([str(tmp_path / "script.py")], str(tmp_path))
    process.kill()


def test_a_forked_process_has_what_was_imported_and_no_function_s_module(forks: ForkServer, tmp_path: Path) -> None:
    process = begun(forks, tmp_path)
    assert told(process)["modules"] == ["json.tool"]
    process.kill()


def test_a_forked_process_holds_its_three_streams_and_nothing_of_others(forks: ForkServer, tmp_path: Path) -> None:
    others = [begun(forks, tmp_path) for _ in range(3)]
    process = begun(forks, tmp_path)
    # The fourth is the folder that is being listed.
    assert told(process)["open"][:3] == [0, 1, 2]
    assert len(told(begun(forks, tmp_path))["open"]) == 4
    for one in (*others, process):
        one.kill()


def test_two_forked_processes_draw_other_random_numbers(forks: ForkServer, tmp_path: Path) -> None:
    one, other = begun(forks, tmp_path), begun(forks, tmp_path)
    assert told(one)["random"] != told(other)["random"]
    one.kill()
    other.kill()


def test_the_end_of_a_forked_process_is_told(forks: ForkServer, tmp_path: Path) -> None:
    process = begun(forks, tmp_path)
    told(process)
    assert process.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.01)
    process.stdin.write("\n")
    assert process.wait(30) is not None
    assert (process.stdout.read(), process.stderr.read()) == ("", "to the log\n")


def test_a_forked_process_ends_with_its_input(forks: ForkServer, tmp_path: Path) -> None:
    process = begun(forks, tmp_path, "import sys\nfor line in sys.stdin:\n    pass\n")
    process.stdin.close()
    process.wait(30)
    assert process.poll() is not None


@pytest.mark.parametrize("end", [Forked.terminate, Forked.kill])
def test_a_forked_process_can_be_ended(forks: ForkServer, tmp_path: Path, end: Any) -> None:
    process = begun(forks, tmp_path)
    end(process)
    process.wait(30)
    end(process)  # of one that has ended this does nothing


def test_an_exception_that_nobody_catches_is_printed_and_leaves_the_forking_process_alive(forks: ForkServer, tmp_path: Path) -> None:
    process = begun(forks, tmp_path, "raise ValueError('of this process')")
    assert "ValueError: of this process" in process.stderr.read()
    process.wait(30)
    told(begun(forks, tmp_path))


def test_processes_that_have_ended_are_let_go(forks: ForkServer, tmp_path: Path) -> None:
    for _ in range(3):
        process = begun(forks, tmp_path, "")
        process.wait(30)
    told(begun(forks, tmp_path))
    states = states_of_children(forks._process.pid)
    assert states
    assert states.count("Z") <= 1


def test_the_forking_process_ends_with_its_server_and_keeps_no_credentials(functions: Path, tmp_path: Path) -> None:
    script = (
        "import sys, pathlib\nfrom attestry.local.forks import ForkServer\n"
        "forks = ForkServer(pathlib.Path(sys.argv[1]))\nprint(forks._process.pid, flush=True)\nsys.stdin.read()\nimport os\nos._exit(9)\n"
    )
    variables = {**os.environ, "AWS_SECRET_ACCESS_KEY": "of-the-root"}
    with subprocess.Popen(
        [sys.executable, "-c", script, str(functions)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=variables
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        pid = int(server.stdout.readline())
        assert "of-the-root" not in Path(f"/proc/{pid}/environ").read_text()
        ended = os.pidfd_open(pid)
        server.stdin.close()
        server.wait(30)
    Forked(pid, ended, tuple(os.pipe()[end] for end in (1, 0, 0))).wait(30)
