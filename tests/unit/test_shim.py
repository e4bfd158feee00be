"""The entry shim, run as containers run it: `python3 shim.zip` and nothing else of ours, over folders and over URLs."""

from __future__ import annotations

import ast
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from attestry.domain.job_requests import BATCH_BOOT
from attestry.sandbox.container import container_variables
from attestry.sandbox.contract import Folders
from attestry.sandbox.job import read_container_job
from attestry.usecases.shim_archive import MODULES, SPARK_ENTRY, shim_archive
from tests.unit.sandbox_world import Store, serve_store, tar_gz

TRAIN = """
import argparse, json, os, pathlib
parser = argparse.ArgumentParser()
parser.add_argument("--n", type=int)
parser.add_argument("--scale")
arguments = parser.parse_args()
rows = (pathlib.Path(os.environ["SM_CHANNEL_TRAIN"]) / "part-0.csv").read_text()
told = {"n": arguments.n, "scale": arguments.scale, "rows": rows, "hps": json.loads(os.environ["SM_HPS"]), "cwd": os.getcwd()}
told["secrets"] = sorted(name for name in os.environ if name.startswith(("AWS_", "ATTESTRY_")))
told["hosts"] = os.environ["SM_HOSTS"], os.environ["SM_CURRENT_HOST"]
told["image"] = os.environ.get("IMAGE_SETTING")
pathlib.Path(os.environ["SM_MODEL_DIR"], "model.json").write_text(json.dumps(told))
print("trained on", rows)
"""
ARGUMENTS = {"n": 3, "scale": True}
SECRETS = {"AWS_SECRET_ACCESS_KEY": "s", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/v2/x", "IMAGE_SETTING": "kept"}


@pytest.fixture
def shim(tmp_path: Path) -> Path:
    file = tmp_path / "shim.zip"
    file.write_bytes(shim_archive())
    return file


@pytest.fixture
def store() -> Iterator[Store]:
    with serve_store() as store:
        yield store


def run(shim: Path, *arguments: str, environment: dict[str, str] | None = None, isolated: bool = True) -> subprocess.CompletedProcess[str]:
    """Run the shim without anything that is installed here."""
    flags = ["-I", "-S"] if isolated else []
    variables = {"PATH": os.environ["PATH"], **SECRETS, **(environment or {})}
    return subprocess.run(
        [sys.executable, *flags, str(shim), *arguments],
        env=variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=shim.parent,
    )


def job(source: bytes, channels: dict[str, dict[str, bytes]], **changes: Any) -> dict[str, Any]:
    """A job document whose files are mounted."""
    document = {
        "format": 1,
        "job": "e/TRAINING/1",
        "stage": "TRAINING",
        "mode": "script",
        "timeout_seconds": 20,
        "max_output_bytes": 1 << 20,
        "max_log_bytes": 65536,
        "source": named("source.tar.gz", source),
        "entry_point": "train.py",
        "arguments": ARGUMENTS,
        "channels": {name: [named(path, body) for path, body in files.items()] for name, files in channels.items()},
        "model": [],
        "outputs": {},
    }
    return {**document, **changes}


def named(path: str, body: bytes) -> dict[str, Any]:
    return {"path": path, "size": len(body), "sha256": hashlib.sha256(body).hexdigest()}


def lay_out(folder: Path, files: dict[str, bytes]) -> None:
    for path, body in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(body)


class Mounted:
    """What SageMaker lays out below /opt/ml, and where it looks afterwards."""

    def __init__(self, root: Path, kind: str) -> None:
        self.root, self.kind = root, kind
        self.inputs = root / ("processing/input" if kind == "processing" else "input/data")

    def put(self, document: dict[str, Any], source: bytes, channels: dict[str, dict[str, bytes]]) -> None:
        lay_out(self.inputs / "attestry-job", {"job.json": json.dumps(document).encode(), "source.tar.gz": source})
        for name, files in channels.items():
            lay_out(self.inputs / name, files)


@pytest.fixture
def training(tmp_path: Path) -> Mounted:
    return Mounted(tmp_path / "ml", "training")


@pytest.fixture
def processing(tmp_path: Path) -> Mounted:
    return Mounted(tmp_path / "ml", "processing")


TRAIN_DATA = {"train": {"part-0.csv": b"1,2\n"}}


def test_a_training_container_runs_the_script_under_the_contract_and_leaves_the_model_where_the_service_packs_it(
    shim: Path, training: Mounted
) -> None:
    source = tar_gz({"train.py": TRAIN})
    training.put(job(source, TRAIN_DATA), source, TRAIN_DATA)
    done = run(shim, "training", str(training.root))
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads((training.root / "model" / "model.json").read_text())
    assert (told["n"], told["scale"], told["hps"], told["rows"]) == (3, "true", ARGUMENTS, "1,2\n")
    assert told["secrets"] == []
    assert told["image"] == "kept"
    assert told["hosts"] == ['["algo-1"]', "algo-1"]
    assert (training.root / "output/data/log.txt").read_text() == "trained on 1,2\n\n"
    assert "trained on 1,2" in done.stdout
    assert not (training.root / "output/failure").exists()


def test_hosts_of_a_distributed_training_are_those_that_the_service_lists(shim: Path, training: Mounted) -> None:
    source = tar_gz({"train.py": TRAIN})
    training.put(job(source, TRAIN_DATA), source, TRAIN_DATA)
    lay_out(training.root / "input/config", {"resourceconfig.json": b'{"hosts": ["algo-1", "algo-2"], "current_host": "algo-2"}'})
    assert run(shim, "training", str(training.root)).returncode == 0
    assert json.loads((training.root / "model" / "model.json").read_text())["hosts"] == ['["algo-1", "algo-2"]', "algo-2"]


def test_a_processing_container_leaves_one_archive_for_the_service_to_upload(shim: Path, processing: Mounted) -> None:
    script = """
import os, pathlib
source = pathlib.Path(os.environ["SM_CHANNEL_SOURCE"], "data.csv").read_text()
for name in ("train", "holdout"):
    folder = pathlib.Path(os.environ["SM_OUTPUT_DATA_DIR"], name)
    folder.mkdir()
    (folder / "part-0.parquet").write_text(source)
"""
    source, data = tar_gz({"process.py": script}), {"source": {"data.csv": b"a\n"}}
    processing.put(job(source, data, stage="PROCESSING", entry_point="process.py"), source, data)
    done = run(shim, "processing", str(processing.root))
    assert done.returncode == 0, done.stdout + done.stderr
    with tarfile.open(processing.root / "processing/output/output.tar.gz") as archive:
        assert archive.getnames() == ["holdout/part-0.parquet", "train/part-0.parquet"]
    assert (processing.root / "processing/log/log.txt").read_text() == ""


def test_a_script_that_fails_ends_the_container_with_its_code_and_says_why_where_the_service_looks(
    shim: Path, training: Mounted, processing: Mounted
) -> None:
    script = "import sys\nprint('no column age')\nsys.exit(7)\n"
    source = tar_gz({"train.py": script})
    for mounted, reason in ((training, "output/failure"), (processing, "output/message")):
        mounted.put(job(source, TRAIN_DATA), source, TRAIN_DATA)
        done = run(shim, mounted.kind, str(mounted.root))
        assert done.returncode == 7
        assert (mounted.root / reason).read_text() == "the script ended with exit code 7: no column age"
        assert "[attestry: the script ended with exit code 7: no column age]" in done.stdout


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda m: (m.inputs / "train/part-0.csv").write_bytes(b"9,9\n"), "part-0.csv has 4 bytes and SHA-256"),
        (lambda m: (m.inputs / "train/part-0.csv").unlink(), "part-0.csv is not there"),
        (lambda m: (m.inputs / "train/more.csv").write_bytes(b"1"), "train holds 'more.csv', which the job does not name"),
        (lambda m: (m.inputs / "attestry-job/source.tar.gz").write_bytes(b"x"), "source.tar.gz has 1 bytes"),
        (lambda m: (m.inputs / "attestry-job/job.json").write_bytes(b"{"), "the job file cannot be read"),
        (lambda m: (m.inputs / "attestry-job/job.json").write_bytes(b"[]"), "the job file is no JSON object"),
        (lambda m: (m.inputs / "attestry-job/job.json").unlink(), "the job file cannot be read"),
    ],
)
def test_inputs_that_are_not_those_of_the_job_are_not_run_on(shim: Path, training: Mounted, change: Any, said: str) -> None:
    source = tar_gz({"train.py": "print('ran')"})
    training.put(job(source, TRAIN_DATA), source, TRAIN_DATA)
    change(training)
    done = run(shim, "training", str(training.root))
    assert done.returncode == 1
    assert said in (training.root / "output/failure").read_text()
    assert "ran\n" not in done.stdout


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("", "the script left nothing in SM_MODEL_DIR"),
        ("import os; os.symlink('/etc/passwd', os.environ['SM_MODEL_DIR'] + '/m')", "'m' is a symbolic link"),
        ("import os; open(os.environ['SM_MODEL_DIR'] + '/m', 'wb').write(b'0' * (1 << 21))", "larger than its limit"),
        ("import time; time.sleep(60)", "ran past its limit of 2 s"),
    ],
)
def test_what_the_sandbox_would_not_take_a_container_does_not_hand_over(shim: Path, training: Mounted, script: str, said: str) -> None:
    source = tar_gz({"train.py": script})
    training.put(job(source, TRAIN_DATA, timeout_seconds=2), source, TRAIN_DATA)
    assert run(shim, "training", str(training.root)).returncode == 1
    assert said in (training.root / "output/failure").read_text()


def test_a_container_with_urls_alone_fetches_runs_and_uploads(shim: Path, store: Store) -> None:
    document = url_job(store, {"train.py": TRAIN})
    done = run(shim, "urls", environment={"ATTESTRY_JOB_URL": store.input("job.json", json.dumps(document).encode())["url"]})
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(store.tar("model")["model.json"])
    assert (told["n"], told["secrets"]) == (3, [])
    assert store.objects["log"] == b"trained on 1,2\n\n"


def url_job(store: Store, files: dict[str, str], **changes: Any) -> dict[str, Any]:
    document = job(b"", {}, **changes)
    document["source"] = store.input("source.tar.gz", tar_gz(dict(files)))
    document["channels"] = {"train": [store.input("part-0.csv", b"1,2\n")]}
    document["outputs"] = {name: store.output(name) for name in ("model", "log")}
    return document


def test_batch_starts_the_shim_with_nothing_but_python_and_two_urls(store: Store) -> None:
    document = url_job(store, {"train.py": TRAIN})
    environment = {
        "PATH": os.environ["PATH"],
        "ATTESTRY_SHIM_URL": store.input("shim.zip", shim_archive())["url"],
        "ATTESTRY_SHIM_SHA256": hashlib.sha256(shim_archive()).hexdigest(),
        "ATTESTRY_JOB_URL": store.input("job.json", json.dumps(document).encode())["url"],
    }
    done = subprocess.run(
        [sys.executable, "-S", "-c", BATCH_BOOT], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "model.json" in store.tar("model")


def test_a_failure_over_urls_is_the_last_line_of_the_uploaded_log(shim: Path, store: Store) -> None:
    document = url_job(store, {"train.py": "raise ValueError('bad data')"})
    done = run(shim, "urls", environment={"ATTESTRY_JOB_URL": store.input("job.json", json.dumps(document).encode())["url"]})
    assert done.returncode == 1
    assert store.objects["log"].decode().rstrip().endswith("[attestry: the script ended with exit code 1: ValueError: bad data]")
    assert "model" not in store.objects


def test_a_job_file_that_cannot_be_read_ends_the_container(shim: Path, store: Store) -> None:
    done = run(shim, "urls", environment={"ATTESTRY_JOB_URL": f"{store.address}/none"})
    assert done.returncode == 1
    assert "job cannot be read: HTTP 404" in done.stdout
    assert run(shim, "urls").returncode == 1
    assert run(shim, "dance").returncode == 2


def test_a_script_is_told_when_the_service_takes_the_machine_away(shim: Path, training: Mounted) -> None:
    script = """
import os, pathlib, signal, sys, time
def stop(*_):
    pathlib.Path(os.environ["SM_MODEL_DIR"], "checkpoint").write_text("saved")
    sys.exit(9)
signal.signal(signal.SIGTERM, stop)
print("ready", flush=True)
time.sleep(30)
"""
    source = tar_gz({"train.py": script})
    training.put(job(source, TRAIN_DATA, timeout_seconds=40), source, TRAIN_DATA)
    process = subprocess.Popen([sys.executable, "-I", str(shim), "training", str(training.root)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 9
    process.stdout.close()
    assert (training.root / "model/checkpoint").read_text() == "saved"


def test_nothing_that_a_script_started_outlives_the_container(shim: Path, training: Mounted, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    script = f"""
import os, pathlib, subprocess, sys
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3); open({str(mark)!r}, 'w')"], start_new_session=True)
pathlib.Path(os.environ["SM_MODEL_DIR"], "m").write_text("x")
"""
    source = tar_gz({"train.py": script})
    training.put(job(source, TRAIN_DATA), source, TRAIN_DATA)
    assert run(shim, "training", str(training.root)).returncode == 0
    time.sleep(3.5)
    assert not mark.exists()


def test_the_hold_out_is_predicted_by_the_scripts_functions_in_a_process_of_their_own(shim: Path, processing: Mounted) -> None:
    pandas = pytest.importorskip("pandas")
    sink = io.BytesIO()
    pandas.DataFrame({"a": [1.0, 2.0, 3.0]}).to_parquet(sink)
    script = """
import json, pathlib
def model_fn(folder):
    return json.loads(pathlib.Path(folder, "model.json").read_text())["factor"]
def predict_fn(data, model):
    return {"label": data["a"] * model, "probability": data["a"] / 10}
"""
    source, model = tar_gz({"inference.py": script}), {"model.json": b'{"factor": 2}'}
    channels = {"holdout": {"part-0.parquet": sink.getvalue()}}
    document = job(
        source, channels, stage="VALIDATION", mode="predict", entry_point="inference.py", model=[named("model.json", model["model.json"])]
    )
    processing.put(document, source, {**channels, "attestry-model": model})
    done = run(shim, "processing", str(processing.root), isolated=False)
    assert done.returncode == 0, done.stdout + done.stderr
    with tarfile.open(processing.root / "processing/output/output.tar.gz") as archive:
        predictions = json.loads(archive.extractfile("predictions.json").read())  # type: ignore[union-attr]
    assert predictions == {"columns": {"label": [2.0, 4.0, 6.0], "probability": [0.1, 0.2, 0.3]}, "rows": 3}


FAKE_RSCRIPT = """#!/bin/sh
printf '%s\\n' "$@" > "$SM_MODEL_DIR/command"
printf '%s' "$SM_CHANNEL_TRAIN" > "$SM_MODEL_DIR/channel"
"""


def test_an_r_script_is_called_by_rscript_with_its_hyperparameters(shim: Path, training: Mounted, tmp_path: Path) -> None:
    """The interpreter here only writes down how it is called; the next test runs R itself where there is one."""
    folder = tmp_path / "bin"
    lay_out(folder, {"Rscript": FAKE_RSCRIPT.encode()})
    (folder / "Rscript").chmod(0o755)
    source = tar_gz({"r/train.R": "quit()"})
    training.put(job(source, TRAIN_DATA, entry_point="r/train.R"), source, TRAIN_DATA)
    done = run(shim, "training", str(training.root), environment={"PATH": f"{folder}:{os.environ['PATH']}"})
    assert done.returncode == 0, done.stdout
    script, *rest = (training.root / "model/command").read_text().splitlines()
    assert script.endswith("/source/r/train.R")
    assert rest == ["--n", "3", "--scale", "true"]
    assert (training.root / "model/channel").read_text() == str(training.inputs / "train")


@pytest.mark.skipif(shutil.which("Rscript") is None, reason="there is no R on this machine")
def test_an_r_script_runs_under_the_contract(shim: Path, training: Mounted) -> None:
    script = """
arguments <- commandArgs(trailingOnly = TRUE)
rows <- readLines(file.path(Sys.getenv("SM_CHANNEL_TRAIN"), "part-0.csv"))
writeLines(c(arguments, rows), file.path(Sys.getenv("SM_MODEL_DIR"), "model.txt"))
"""
    source = tar_gz({"train.R": script})
    training.put(job(source, TRAIN_DATA, entry_point="train.R"), source, TRAIN_DATA)
    done = run(shim, "training", str(training.root))
    assert done.returncode == 0, done.stdout
    assert (training.root / "model/model.txt").read_text().split() == ["--n", "3", "--scale", "true", "1,2"]


def test_an_r_script_in_an_image_without_r_says_so(shim: Path, training: Mounted, tmp_path: Path) -> None:
    source = tar_gz({"train.R": "quit()"})
    training.put(job(source, TRAIN_DATA, entry_point="train.R"), source, TRAIN_DATA)
    assert run(shim, "training", str(training.root), environment={"PATH": str(tmp_path)}).returncode == 1
    assert "the container has no Rscript" in (training.root / "output/failure").read_text()


def test_on_spark_the_channels_and_outputs_are_uris_and_the_script_runs_in_the_driver(tmp_path: Path, shim: Path) -> None:
    script = """
import json, os, sys
names = ("SM_CHANNEL_SOURCE", "SM_OUTPUT_DATA_DIR", "SM_INPUT_DIR")
json.dump({"argv": sys.argv[1:], "main": __name__, **{n: os.environ[n] for n in names}}, open("told.json", "w"))
"""
    document = job(b"", {"source": {"data.csv": b""}}, stage="PROCESSING", entry_point="process.py")
    lay_out(tmp_path / "driver", {"job.json": json.dumps(document).encode(), "source/process.py": script.encode(), "entry.py": SPARK_ENTRY})
    given, left = "s3://scratch/jobs/m/e/PROCESSING/1/in/", "s3://scratch/jobs/m/e/PROCESSING/1/out/"
    # Spark puts what --py-files names on the driver's path.
    done = subprocess.run(
        [sys.executable, "entry.py", given, left],
        cwd=tmp_path / "driver",
        env={"PYTHONPATH": str(shim)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "driver/told.json").read_text()) == {
        "argv": ["--n", "3", "--scale", "true"],
        "main": "__main__",
        "SM_CHANNEL_SOURCE": f"{given}source",
        "SM_OUTPUT_DATA_DIR": f"{left}output",
        "SM_INPUT_DIR": given,
    }


def test_the_shim_is_the_same_bytes_each_time_and_is_older_python_too() -> None:
    first = shim_archive()
    shim_archive.cache_clear()
    assert shim_archive() == first
    with zipfile.ZipFile(io.BytesIO(first)) as archive:
        names = archive.namelist()
        for name in names:
            ast.parse(archive.read(name), name, feature_version=(3, 10))
    assert names == sorted(["__main__.py", "attestry/__init__.py", *(f"attestry/sandbox/{m}.py" for m in MODULES)])


def test_the_images_settings_pass_and_the_jobs_own_do_not() -> None:
    inherited = {"PATH": "/opt/conda/bin", "LD_LIBRARY_PATH": "/cuda", "PYTHONPATH": "/opt/lib", "AWS_REGION": "x", "ECS_AGENT_URI": "x"}
    variables = container_variables(Folders(Path("/job")), inherited)
    assert (variables["PATH"], variables["LD_LIBRARY_PATH"], variables["PYTHONPATH"]) == (
        "/opt/conda/bin",
        "/cuda",
        "/job/source:/opt/lib",
    )
    assert not {"AWS_REGION", "ECS_AGENT_URI"} & variables.keys()


def test_a_containers_job_has_no_environment_and_may_be_r_but_not_where_it_predicts() -> None:
    document = job(b"", {"train": {"a": b""}}, entry_point="train.R")
    assert read_container_job(document, mounted=True).environment is None
    with pytest.raises(Exception, match="is not a Python file"):
        read_container_job({**document, "mode": "predict"}, mounted=True)
