"""Development runs: what is logged is on disk at once, nothing is overwritten, and a registry can be told of it."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import attestry
from attestry.domain.imports import read_import
from attestry.sdk.runs import Run, RunError

ROOT = Path(__file__).parents[2]


def start(tmp_path: Path, **changes: Any) -> Run:
    return attestry.start_run("tumour-diagnosis", folder=tmp_path / "runs", **changes)


def read(run: Run, name: str) -> Any:
    return json.loads((run.folder / name).read_text())


def lines(run: Run) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]


def test_a_run_records_parameters_metrics_by_step_files_and_environment(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"weights")
    with start(tmp_path, parameters={"C": 0.1, "scale": True}, tags={"team": "oncology"}) as run:
        for step, loss in enumerate((0.9, 0.5)):
            run.log_metric("loss", loss, step=step)
        sha256 = run.log_file(tmp_path / "model.bin")
    record = read(run, "record.json")
    assert record["state"] == run.state == "FINISHED"
    assert record["files"] == {"model.bin": {"sha256": sha256, "size": 7}}
    assert record["environment"]["packages"]["pytest"] == pytest.__version__
    assert (run.folder / "files" / "model.bin").read_bytes() == b"weights"
    assert [(line["name"], line["value"], line["step"]) for line in lines(run)] == [("loss", 0.9, 0), ("loss", 0.5, 1)]
    claim = {"id": run.id, "experiment": "tumour-diagnosis", "params": {"C": "0.1", "scale": "true"}}
    assert read(run, "run.json") == {**claim, "metrics": {"loss": "0.5"}, "tags": {"team": "oncology"}}


def test_a_registry_takes_what_a_run_says_of_itself(tmp_path: Path) -> None:
    with start(tmp_path, parameters={"depth": None, "name": "x"}) as run:
        run.log_metrics({"auc": 0.97, "diverged": math.inf})
    asked = read_import("tumour-diagnosis", {"submission": "0" * 16, "run": read(run, "run.json")})
    assert (asked.run.id, asked.run.params, asked.run.metrics) == (
        run.id,
        {"depth": "null", "name": "x"},
        {"auc": "0.97", "diverged": "inf"},
    )


def test_a_run_that_is_killed_keeps_what_it_logged(tmp_path: Path) -> None:
    script = "import attestry, os, sys\nrun = attestry.start_run('x', folder=sys.argv[1])\nrun.log_metric('loss', 0.25)\nos._exit(9)"
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], cwd=ROOT, check=False)
    assert done.returncode == 9
    (folder,) = tmp_path.iterdir()
    assert json.loads((folder / "metrics.jsonl").read_text())["value"] == 0.25
    assert json.loads((folder / "record.json").read_text())["state"] == "RUNNING"


def test_a_run_whose_code_fails_says_why_and_the_error_goes_on(tmp_path: Path) -> None:
    run = start(tmp_path)
    with pytest.raises(ZeroDivisionError), run:
        run.log_metric("loss", 1 / 0)
    assert (read(run, "record.json")["state"], read(run, "record.json")["error"]) == ("FAILED", "ZeroDivisionError: division by zero")


def test_whatever_an_error_says_it_ends_the_run_and_goes_on(tmp_path: Path) -> None:
    run, message = start(tmp_path), "no such file: \udcff" + "x" * 5000
    with pytest.raises(FileNotFoundError), run:
        raise FileNotFoundError(message)
    record = read(run, "record.json")
    assert (record["state"], len(record["error"])) == ("FAILED", 2000)


def test_nothing_is_logged_into_a_run_that_has_ended(tmp_path: Path) -> None:
    with start(tmp_path) as run:
        pass
    for act in (
        lambda: run.log_metric("a", 1),
        lambda: run.log_parameter("a", 1),
        lambda: run.log_tags({"a": "b"}),
        lambda: run.log_file(__file__),
    ):
        with pytest.raises(RunError, match="has ended"):
            act()


def test_a_parameter_has_one_value(tmp_path: Path) -> None:
    run = start(tmp_path, parameters={"C": 0.1})
    run.log_parameter("C", 0.1)
    with pytest.raises(RunError, match=r"parameter C was logged as '0\.1'"):
        run.log_parameters({"D": 1, "C": 0.2})
    assert read(run, "run.json")["params"] == {"C": "0.1"}


@pytest.mark.parametrize("name", ["../outside", "/etc/x", "a/../../b", "."])
def test_a_file_does_not_leave_the_run(tmp_path: Path, name: str) -> None:
    (tmp_path / "x").write_text("x")
    run = start(tmp_path)
    with pytest.raises(RunError, match="leads out"):
        run.log_file(tmp_path / "x", name)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["runs", "x"]


def test_a_file_is_not_replaced_by_another_one(tmp_path: Path) -> None:
    run = start(tmp_path)
    (tmp_path / "x").write_text("one")
    first = run.log_file(tmp_path / "x")
    assert run.log_file(tmp_path / "x") == first
    (tmp_path / "x").write_text("two")
    with pytest.raises(RunError, match="another file was logged as x"):
        run.log_file(tmp_path / "x")
    assert (run.folder / "files" / "x").read_text() == "one"


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (lambda run: run.log_metric("loss", "0.3"), "metric loss: '0.3' is no number"),
        (lambda run: run.log_metric("loss", None), "is no number"),
        (lambda run: run.log_metric("loss", 10**400), "is no number"),
        (lambda run: run.log_metric("loss", 1, step=1.5), "step 1.5 is no whole number"),
        (lambda run: run.log_metric("loss", 1, step=2**53), "step 9007199254740992 is no whole number of at most 53 bits"),
        (lambda run: run.log_metric("\ud800", 1), "printable"),
        (lambda run: run.log_metric("loss\u200b", 1), "printable"),
        (lambda run: run.log_parameter("text", "\ud800"), "half of a surrogate pair"),
        (lambda run: run.log_tags({"text": "\udcff"}), "half of a surrogate pair"),
        (lambda run: run.log_file(__file__, "a\nb"), "printable"),
        (lambda run: run.log_metric("a\nb", 1), "printable"),
        (lambda run: run.log_metric("x" * 251, 1), "250"),
        (lambda run: run.log_parameter("grid", [1, 2]), "parameter grid is a list"),
        (lambda run: run.log_parameter("text", "x" * 8001), "8001 characters"),
    ],
)
def test_what_cannot_be_logged_is_refused_with_the_reason(tmp_path: Path, act: Any, said: str) -> None:
    run = start(tmp_path)
    with pytest.raises(RunError, match=said):
        act(run)
    assert lines(run) == []
    run.end()
    assert (read(run, "record.json")["state"], read(run, "run.json")["params"]) == ("FINISHED", {})


def test_threads_may_log_into_one_run(tmp_path: Path) -> None:
    run = start(tmp_path)
    threads = [threading.Thread(target=lambda n=n: [run.log_metric(f"m{n}", s, step=s) for s in range(50)]) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(lines(run)) == 400
    assert run.metrics == {f"m{n}": 49.0 for n in range(8)}


def test_numpy_scalars_are_numbers(tmp_path: Path) -> None:
    import numpy

    run = start(tmp_path)
    run.log_metrics({"a": numpy.float32(0.5), "b": numpy.int64(3)})
    assert run.metrics == {"a": 0.5, "b": 3.0}


def test_importing_attestry_imports_no_sdk_of_anybody_and_little_else() -> None:
    heavy = ("boto3", "botocore", "requests", "numpy", "jsonschema")
    script = f"import sys, attestry; attestry.start_run; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_what_the_page_of_the_sdk_shows_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "sdk.md").read_text()
    shown = page.split("## Development runs")[1].split("```python\n")[1].split("```")[0]
    names: dict[str, Any] = {}
    exec(compile(shown, "sdk.md", "exec"), names)
    assert names["run"].metrics == {"loss": 0.4}
    assert (tmp_path / ".attestry" / "runs" / names["run"].id / "files" / "model.txt").read_text() == "weights"
