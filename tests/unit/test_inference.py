"""Predictions by a manifest's own functions: on the hold-out as a job, and served from a process of their own."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas
import pytest

from attestry.sandbox.confine import landlock_version
from tests.unit.sandbox_world import Server, Store, Worker, installed_packages, serve_store, tar_gz, zipped

SCRIPT = """
import os, sys, time, numpy, pandas

def model_fn(model_dir):
    return float(open(os.path.join(model_dir, "coefficient")).read())

def predict_fn(data, model):
    assert isinstance(data, pandas.DataFrame)
    how = str(data["how"].iloc[0])
    x = data["x"].to_numpy()
    if how == "plain": return x * model
    if how == "matrix": return numpy.column_stack([x, x * model])
    if how == "frame": return pandas.DataFrame({"label": ["a"] * len(x), "p": numpy.float32(x)})
    if how == "columns": return [",".join(data.columns)] * len(x)
    if how == "nan": return x * numpy.nan
    if how == "short": return x[:-1]
    if how == "raise": raise ValueError("bad row")
    if how == "die": print("going down"); sys.stdout.flush(); os._exit(7)
    if how == "hang": time.sleep(600)
    if how == "print": print("to standard output"); os.write(1, b"{}" + bytes([10])); return x
    if how == "large": return ["y" * 1000] * 1 if len(x) == 1 else ["y" * 1000000] * len(x)
    if how == "memory": y = bytearray(b"x") * (700 << 20); time.sleep(9); return x
    if how == "pid": return [os.getpid()] * len(x)
    if how == "aws": return [str(sorted(n for n in os.environ if n.startswith("AWS")))] * len(x)
    if how == "write": open(os.path.join(os.path.dirname(__file__), "evil"), "w"); return x
"""


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    with serve_store() as served:
        yield served


@pytest.fixture(scope="module")
def packages(store: Store) -> dict[str, Any]:
    return store.input("environment.zip", installed_packages("pandas", "pyarrow"))


@pytest.fixture(scope="module")
def nothing(store: Store) -> dict[str, Any]:
    return store.input("environment.zip", zipped({"empty.py": ""}))


@pytest.fixture(scope="module")
def server(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    started = Server(store, tmp_path_factory.mktemp("server"))
    yield started
    started.close()


@pytest.fixture(scope="module")
def version(server: Server, packages: dict[str, Any]) -> dict[str, Any]:
    return server.version(SCRIPT, packages)


def loaded(server: Server, version: dict[str, Any]) -> dict[str, Any]:
    deadline = time.monotonic() + 120
    while (answer := server.call(version))["status"] == "LOADING":
        assert time.monotonic() < deadline
    return answer


def rows(how: str, count: int = 2) -> list[dict[str, Any]]:
    return [{"x": float(n + 1), "how": how} for n in range(count)]


def test_an_unknown_version_is_not_loaded_without_its_files(server: Server) -> None:
    assert server.call({"version_digest": "0" * 64, "load": None}, rows("plain")) == {"status": "NOT_LOADED"}


def test_a_version_is_loaded_and_then_predicts_without_being_sent_again(server: Server, version: dict[str, Any]) -> None:
    assert loaded(server, version) == {"status": "READY"}
    assert server.call(version, rows("plain"), load=False) == {"status": "OK", "output": [2.0, 4.0]}


@pytest.mark.parametrize(
    ("how", "output"),
    [
        ("plain", [2.0, 4.0]),
        ("matrix", [[1.0, 2.0], [2.0, 4.0]]),
        ("frame", [{"label": "a", "p": 1.0}, {"label": "a", "p": 2.0}]),
        ("print", [1.0, 2.0]),
        ("aws", ["[]", "[]"]),
    ],
)
def test_an_output_is_one_json_element_for_each_instance(server: Server, version: dict[str, Any], how: str, output: list[Any]) -> None:
    loaded(server, version)
    assert server.call(version, rows(how), load=False) == {"status": "OK", "output": output}


def test_columns_stand_in_the_order_that_the_caller_gives(server: Server, version: dict[str, Any]) -> None:
    loaded(server, version)
    assert server.call(version, rows("columns", 1), load=False)["output"] == ["x,how"]
    assert server.call(version, rows("columns", 1), load=False, columns=["how", "x"])["output"] == ["how,x"]


@pytest.mark.parametrize(
    ("instances", "said"),
    [
        (rows("nan"), "predict_fn: column 'prediction', row 0: nan is not a finite number"),
        (rows("short"), "predict_fn: column 'prediction' has 1 rows, the input had 2"),
        (rows("raise"), "predict_fn: ValueError: bad row"),
        ([{"x": 1.0, "how": "plain"}, {"x": 1.0}], "predict_fn: instance 1 lacks or adds 'how'"),
        ([], "instances: a list of objects is needed"),
        ([1], "instances: a list of objects is needed"),
    ],
)
def test_a_request_that_fails_leaves_the_model_standing(server: Server, version: dict[str, Any], instances: Any, said: str) -> None:
    loaded(server, version)
    assert server.call(version, instances, load=False) == {"status": "FAILED", "error": said}
    assert server.call(version, rows("plain"), load=False)["status"] == "OK"


@pytest.mark.skipif(landlock_version() < 1, reason="this kernel has no Landlock")
def test_serving_code_cannot_change_its_own_files(server: Server, version: dict[str, Any]) -> None:
    loaded(server, version)
    assert "PermissionError" in server.call(version, rows("write"), load=False)["error"]


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("die", "the model's process ended: going down"),
        ("memory", "the model's process ended: it needed more than its memory, 508 MiB"),
        ("hang", "gave no answer in time"),
        ("large", "the output is larger than"),
    ],
)
def test_a_process_that_dies_hangs_or_floods_is_replaced(server: Server, version: dict[str, Any], how: str, said: str) -> None:
    loaded(server, version)
    before = server.call(version, rows("pid", 1), load=False)["output"][0]
    answer = server.call(version, rows(how, 8), load=False)
    assert answer["status"] == "FAILED"
    assert said in answer["error"]
    assert not Path(f"/proc/{before}").exists()
    assert server.call(version, rows("plain"), load=False) == {"status": "NOT_LOADED"}
    assert loaded(server, version) == {"status": "READY"}
    assert server.call(version, rows("plain"), load=False)["status"] == "OK"


def test_a_call_answers_loading_before_the_deadline_and_ready_later(server: Server, nothing: dict[str, Any]) -> None:
    slow = server.version("import time\ndef model_fn(d): time.sleep(1.5)\ndef predict_fn(d, m): pass", nothing)
    slow["load"]["deadline_seconds"] = 0.3
    began = time.monotonic()
    assert server.call(slow) == {"status": "LOADING"}
    assert time.monotonic() - began < 1.4
    time.sleep(2.5)
    assert server.call(slow) == {"status": "READY"}


@pytest.mark.parametrize("path", ["model/coefficient", "source.tar.gz", "manifest.json", "environment.zip"])
def test_a_file_that_was_changed_is_refused_by_name_and_nothing_runs(
    server: Server, nothing: dict[str, Any], path: str, tmp_path: Path
) -> None:
    # Not one that the server holds unpacked: that would not be fetched again.
    if path == "environment.zip":
        nothing = server.store.input("environment.zip", zipped({"other.py": ""}))
    tampered = server.version(f"open({str(tmp_path / 'ran')!r}, 'w')\ndef model_fn(d): pass\ndef predict_fn(d, m): pass", nothing)
    place = (
        tampered["load"]["environment"] if path == "environment.zip" else next(f for f in tampered["load"]["files"] if f["path"] == path)
    )
    body = server.store.objects[place["url"].removeprefix(f"{server.store.address}/")]
    place["url"] = server.store.input("other", body[:-1] + bytes([body[-1] ^ 1]))["url"]
    answer = server.call(tampered)
    assert answer["status"] == "REFUSED"
    assert answer["error"].startswith(f"{path} has SHA-256 ")
    assert not (tmp_path / "ran").exists()


def test_an_artifact_manifest_that_does_not_hash_to_the_version_digest_is_refused(server: Server, nothing: dict[str, Any]) -> None:
    honest = server.version("def model_fn(d): pass\ndef predict_fn(d, m): pass", nothing)
    answer = server.call({**honest, "version_digest": "0" * 64})
    assert answer["status"] == "REFUSED"
    assert answer["error"].startswith("artifact-manifest.json has SHA-256 ")


def test_the_callers_word_on_environment_and_script_counts_for_nothing(server: Server, nothing: dict[str, Any]) -> None:
    source = "def model_fn(d): pass\ndef predict_fn(d, m): pass"
    other = server.version(source, server.store.input("environment.zip", zipped({"empty.py": "import json"})))
    other["load"]["environment"] = server.store.input("environment.zip", zipped({"empty.py": "import os"}))
    assert server.call(other)["status"] == "REFUSED"
    script = server.version(source, nothing)
    script["load"]["entry_point"] = "other.py"
    assert server.call(script) == {"status": "REFUSED", "error": "the inference script is 'inference.py' by manifest.json, not 'other.py'"}


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("def predict_fn(d, m): pass", "loading failed: the inference script defines no model_fn"),
        ("def model_fn(d): pass", "loading failed: the inference script defines no predict_fn"),
        ("def model_fn(d): raise OSError('no such model')\ndef predict_fn(d, m): pass", "loading failed: OSError: no such model"),
        ("import nowhere", "loading failed: ModuleNotFoundError: No module named 'nowhere'"),
        ("import os, sys\nprint('bye', file=sys.stderr)\nos._exit(1)", "the model's process ended: bye"),
    ],
)
def test_a_model_that_does_not_load_fails_with_its_reason(server: Server, nothing: dict[str, Any], script: str, said: str) -> None:
    assert server.call(server.version(script, nothing)) == {"status": "FAILED", "error": said}


def test_files_that_were_not_given_or_cannot_be_read_are_named(server: Server, nothing: dict[str, Any]) -> None:
    missing = server.version("def model_fn(d): pass\ndef predict_fn(d, m): 1", nothing)
    gone = dict(missing["load"]["files"][0])
    missing["load"]["files"][0] = {**gone, "url": f"{server.store.address}/gone"}
    assert server.call(missing) == {"status": "FAILED", "error": "model/coefficient cannot be read: HTTP 404"}
    missing["load"]["files"] = missing["load"]["files"][1:]
    assert server.call(missing) == {"status": "FAILED", "error": "model/coefficient of this version was not given"}


def test_no_more_versions_are_kept_than_configured(store: Store, nothing: dict[str, Any], tmp_path: Path) -> None:
    one = Server(store, tmp_path, kept=1)
    try:
        versions = [one.version(f"def model_fn(d): return {n}\ndef predict_fn(d, m): pass", nothing) for n in range(2)]
        for version in versions:
            assert loaded(one, version) == {"status": "READY"}
        assert one.call(versions[0], rows("plain"), load=False) == {"status": "NOT_LOADED"}
        assert len(list(tmp_path.glob("worker-*/model-*"))) == 1
    finally:
        one.close()
    assert not list(tmp_path.glob("worker-*"))


def holdout_job(worker: Worker, packages: dict[str, Any], how: str) -> dict[str, Any]:
    parts = []
    for name, values in (("1.parquet", [1.0, 2.0]), ("0.parquet", [5.0])):
        sink = io.BytesIO()
        pandas.DataFrame({"x": values, "how": how}).to_parquet(sink, index=False)
        parts.append(worker.store.input(name, sink.getvalue()))
    source = worker.store.input("source.tar.gz", tar_gz({"inference.py": SCRIPT}))
    model = [worker.store.input("coefficient", b"2")]
    return worker.job(
        "",
        stage="VALIDATION",
        mode="predict",
        entry_point="inference.py",
        environment=packages,
        source=source,
        model=model,
        channels={"test": parts},
    )


def test_the_hold_out_is_predicted_in_order_of_its_files(store: Store, packages: dict[str, Any], tmp_path: Path) -> None:
    worker = Worker(store, tmp_path / "w")
    try:
        answer = worker.run(holdout_job(worker, packages, "plain"))
        assert answer["outcome"] == "SUCCEEDED", worker.log()
        assert json.loads(store.tar("output")["predictions.json"]) == {"columns": {"prediction": [10.0, 2.0, 4.0]}, "rows": 3}
        assert worker.run(holdout_job(worker, packages, "frame"))["outcome"] == "SUCCEEDED"
        assert json.loads(store.tar("output")["predictions.json"])["columns"]["label"] == ["a", "a", "a"]
        for how, said in (("nan", "row 0: nan is not a finite number"), ("short", "has 2 rows, the input had 3"), ("raise", "bad row")):
            answer = worker.run(holdout_job(worker, packages, how))
            assert answer["outcome"] == "FAILED"
            assert said in answer["error"]
            assert "output" not in store.objects
    finally:
        worker.close()
