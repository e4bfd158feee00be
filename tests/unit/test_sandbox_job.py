"""Scripts that really run, in a worker process as a warm function has it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from attestry.sandbox.confine import landlock_version
from tests.unit.sandbox_world import ROOT, Store, Worker, serve_store, tar_gz, zip_with_link, zipped

WRITE_MODEL = "import os\nopen(os.path.join(os.environ['SM_MODEL_DIR'], 'model.txt'), 'w').write('model')\n"
needs_landlock = pytest.mark.skipif(landlock_version() < 6, reason="this kernel has no Landlock of version 6")


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    with serve_store() as served:
        yield served


@pytest.fixture(scope="module")
def worker(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    started = Worker(store, tmp_path_factory.mktemp("worker"))
    yield started
    started.close()


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_script_gets_the_contract_and_its_model_is_uploaded(worker: Worker) -> None:
    script = """
import json, os, sys, tinypkg
assert tinypkg.VALUE == 42
from helper import greet
train = os.environ["SM_CHANNEL_TRAIN"]
seen = {
    "argv": sys.argv[1:], "hps": json.loads(os.environ["SM_HPS"]), "cpus": int(os.environ["SM_NUM_CPUS"]),
    "gpus": os.environ["SM_NUM_GPUS"], "cwd": os.getcwd() == os.path.dirname(os.path.abspath(__file__)),
    "data": open(os.path.join(train, "part", "a.csv")).read(), "greeting": greet(), "channels": os.environ["SM_CHANNELS"],
    "stdin": sys.stdin.read(), "main": __name__,
}
json.dump(seen, open(os.path.join(os.environ["SM_MODEL_DIR"], "seen.json"), "w"))
open(os.path.join(os.environ["SM_OUTPUT_DATA_DIR"], "report.txt"), "w").write("x")
print("trained")
"""
    arguments = {"n_estimators": 100, "scale": True, "rate": 0.1, "name": "a b", "layers": [1, 2]}
    channels = {"train": [worker.store.input("part/a.csv", b"1,2\n")]}
    job = worker.job({"train.py": script, "helper.py": "def greet(): return 'hello'\n"}, arguments=arguments, channels=channels)
    answer = worker.run(job)
    assert (answer["outcome"], answer["exit_code"], answer["error"]) == ("SUCCEEDED", 0, "")
    seen = json.loads(worker.store.tar("model")["seen.json"])
    assert seen["argv"] == ["--n_estimators", "100", "--scale", "true", "--rate", "0.1", "--name", "a b", "--layers", "[1, 2]"]
    assert seen["hps"] == arguments
    assert (seen["data"], seen["greeting"], seen["channels"]) == ("1,2\n", "hello", '["train"]')
    assert (seen["gpus"], seen["stdin"], seen["main"], seen["cwd"]) == ("0", "", "__main__", True)
    assert worker.store.tar("output") == {"report.txt": b"x"}
    assert worker.log() == "trained\n"


def test_the_answer_says_when_and_on_which_machine(worker: Worker) -> None:
    answer = worker.run(worker.job(WRITE_MODEL))
    assert answer["started"] < answer["ended"]
    assert answer["started"].endswith("Z")
    assert set(answer["machine"]) == {"cpu_count", "memory_mib", "gpu_count", "architecture", "python"}
    assert answer["machine"]["memory_mib"] == 1536


def test_a_form_is_posted_with_its_fields_before_the_file(worker: Worker) -> None:
    worker.run(worker.job(WRITE_MODEL))
    assert worker.store.posts[-1] == {"key": "log", "policy": "p0licy", "x-amz-signature": "s"}


def test_a_script_that_exits_non_zero_fails_with_its_last_line(worker: Worker) -> None:
    answer = worker.run(worker.job("raise ValueError('no such column: age')"))
    assert (answer["outcome"], answer["exit_code"]) == ("FAILED", 1)
    assert answer["error"] == "the script ended with exit code 1: ValueError: no such column: age"
    assert "ValueError: no such column: age" in worker.log()
    assert "model" not in worker.store.objects


def test_a_script_that_kills_itself_is_named_by_its_signal(worker: Worker) -> None:
    answer = worker.run(worker.job("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)"))
    assert (answer["outcome"], answer["exit_code"]) == ("FAILED", -11)
    assert "SIGSEGV" in answer["error"]


def test_a_script_past_its_limit_is_ended_with_its_grandchildren(worker: Worker) -> None:
    script = """
import os, subprocess, sys, time
command = [sys.executable, "-c", "import time; print('sleeps', flush=True); time.sleep(600)"]
sleepers = [subprocess.Popen(command, start_new_session=session, stdout=subprocess.PIPE, text=True) for session in (False, True)]
asleep = [p.stdout.readline().strip() for p in sleepers]
print(*[p.pid for p in sleepers], flush=True)
print(*asleep, flush=True)
time.sleep(600)
"""
    began = time.monotonic()
    answer = worker.run(worker.job(script, timeout_seconds=8))
    assert answer["outcome"] == "TIMED_OUT"
    assert "past its limit of 8 s" in answer["error"]
    assert time.monotonic() - began < 30
    assert worker.log().split("\n")[1] == "sleeps sleeps"
    pids = [int(pid) for pid in worker.log().split("\n")[0].split()]
    assert len(pids) == 2
    assert not any(is_running(pid) for pid in pids)


def test_the_functions_own_deadline_ends_a_script_before_it(worker: Worker) -> None:
    answer = worker.run(worker.job("import time; time.sleep(600)", timeout_seconds=600), seconds=2)
    assert answer["outcome"] == "TIMED_OUT"


def test_a_job_without_time_left_is_not_started(worker: Worker) -> None:
    answer = worker.run(worker.job(WRITE_MODEL), seconds=-1)
    assert (answer["outcome"], answer["exit_code"]) == ("FAILED", None)
    assert "no time is left" in answer["error"]


def test_a_daemon_that_forked_twice_does_not_outlive_its_job(worker: Worker) -> None:
    script = (
        WRITE_MODEL
        + """
import time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for d in range(3): os.close(d)
        open(os.path.join(os.environ["TMPDIR"], "pid"), "w").write(str(os.getpid()))
        while True: time.sleep(1)
    os._exit(0)
os.wait()
while not (os.path.exists(os.environ["TMPDIR"] + "/pid") and open(os.environ["TMPDIR"] + "/pid").read()): time.sleep(0.01)
print(open(os.environ["TMPDIR"] + "/pid").read())
"""
    )
    answer = worker.run(worker.job(script))
    assert answer["outcome"] == "SUCCEEDED", answer
    assert not is_running(int(worker.log()))


def test_a_tree_that_forks_on_and_on_comes_to_a_halt(worker: Worker) -> None:
    script = """
import os, time
for _ in range(6):
    os.fork()
for _ in range(2000):
    if os.fork() != 0:
        os._exit(0)
    time.sleep(0.002)
"""
    answer = worker.run(worker.job(script, timeout_seconds=1))
    assert answer["outcome"] in {"TIMED_OUT", "FAILED"}
    assert worker.run(worker.job(WRITE_MODEL))["outcome"] == "SUCCEEDED"


def test_a_script_that_prints_a_gibibyte_leaves_head_and_tail(worker: Worker) -> None:
    script = (
        WRITE_MODEL
        + """
import sys
print("the very first line")
chunk = b"x" * 1023 + b"\\n"
for _ in range(1024): sys.stdout.buffer.write(chunk * 1024)
print("the very last line")
"""
    )
    answer = worker.run(worker.job(script, timeout_seconds=60), seconds=120)
    assert answer["outcome"] == "SUCCEEDED"
    log = worker.log()
    assert log.startswith("the very first line\n")
    assert log.endswith("the very last line\n")
    assert "bytes left out here; the log is limited to 65536 bytes" in log
    assert 60_000 < len(log) <= 65536


def test_output_that_is_not_text_does_not_break_the_log(worker: Worker) -> None:
    worker.run(worker.job("import os\nos.write(1, b'\\xff\\xfe' * 60000)"))
    assert len(worker.store.objects["log"]) <= 65536
    assert worker.log().startswith("??")


def test_a_script_that_closes_its_output_is_still_waited_for(worker: Worker) -> None:
    script = "import os, time\nos.close(1); os.close(2)\ntime.sleep(0.4)\n" + WRITE_MODEL
    assert worker.run(worker.job(script))["outcome"] == "SUCCEEDED"


def test_a_training_script_that_writes_no_model_fails(worker: Worker) -> None:
    answer = worker.run(worker.job("print('done')"))
    assert (answer["outcome"], answer["exit_code"]) == ("FAILED", 0)
    assert answer["error"] == "the script left nothing in SM_MODEL_DIR"


def test_a_processing_script_that_writes_no_data_fails(worker: Worker) -> None:
    answer = worker.run(worker.job(WRITE_MODEL, stage="PROCESSING"))
    assert answer["error"] == "the script left nothing in SM_OUTPUT_DATA_DIR"
    assert "model" not in worker.store.objects


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("os.symlink('/etc/passwd', model + '/model.txt')", "'model.txt' is a symbolic link"),
        ("os.mkdir(model + '/d'); os.symlink('/etc', model + '/d/etc')", "'d/etc' is a symbolic link"),
        ("os.mkfifo(model + '/pipe')", "'pipe' is a special file"),
        ("[open(model + '/' + n, 'w').write('x') for n in ('Model.txt', 'model.txt')]", "one name after NFC and case folding"),
        ("[open(model + '/' + n, 'w').write('x') for n in ('e\\u0301', '\\u00e9')]", "one name after NFC and case folding"),
        ("open(model + '/a\\nb', 'w').write('x')", "control character"),
        ("open(os.fsencode(model) + b'/\\xff', 'w').write('x')", "not UTF-8"),
        ("open(model + '/big', 'wb').truncate(3 << 20); open(model + '/big2', 'wb').truncate(3 << 20)", "larger than its limit"),
    ],
)
def test_an_output_that_is_more_than_plain_files_is_refused(worker: Worker, script: str, said: str) -> None:
    answer = worker.run(worker.job(f"import os\nmodel = os.environ['SM_MODEL_DIR']\n{script}\n", max_output_bytes=4 << 20))
    assert answer["outcome"] == "FAILED", worker.log()
    assert said in answer["error"]
    assert "model" not in worker.store.objects


def test_one_file_larger_than_the_limit_cannot_be_written(worker: Worker) -> None:
    script = "import os\nopen(os.environ['SM_MODEL_DIR'] + '/big', 'wb').write(b'x' * (5 << 20))"
    answer = worker.run(worker.job(script, max_output_bytes=4 << 20))
    assert "File too large" in answer["error"]


def test_many_files_that_fill_the_disk_end_the_script(worker: Worker) -> None:
    script = """
import os
for n in range(100000):
    open(os.environ["TMPDIR"] + f"/{n}", "wb").write(b"x" * (1 << 20))
    if n % 64 == 63: __import__("time").sleep(0.2)
"""
    answer = worker.run(worker.job(script, max_output_bytes=16 << 20, timeout_seconds=60))
    assert answer["error"] == "the script wrote more than its folders may hold and was ended"


def test_memory_beyond_the_functions_is_refused_to_one_process(worker: Worker) -> None:
    assert worker.run(worker.job("x = bytearray(16 << 30)"))["error"].endswith("MemoryError")


def test_memory_beyond_the_functions_is_counted_over_all_processes(worker: Worker) -> None:
    script = """
import os, time
for _ in range(2): os.fork()
x = bytearray(b"x") * (500 << 20)
time.sleep(30)
"""
    answer = worker.run(worker.job(script))
    assert answer["error"] == "the script needed more than its memory, 1344 MiB, and was ended"


@needs_landlock
def test_a_script_that_writes_outside_its_folder_fails_and_writes_nothing(worker: Worker, tmp_path: Path) -> None:
    target = tmp_path / "outside"
    answer = worker.run(worker.job(f"open({str(target)!r}, 'w').write('x')"))
    assert answer["error"] == f"the script ended with exit code 1: PermissionError: [Errno 13] Permission denied: '{target}'"
    assert not target.exists()


@needs_landlock
def test_a_script_cannot_change_its_environment_or_its_neighbours(worker: Worker) -> None:
    script = "import os, tinypkg\nopen(os.path.join(os.path.dirname(tinypkg.__file__), 'evil.py'), 'w')"
    assert "Permission denied" in worker.run(worker.job(script))["error"]
    assert "Permission denied" in worker.run(worker.job(f"import os\nprint(os.listdir({str(worker.folder)!r}))"))["error"]


@needs_landlock
def test_a_script_reads_no_home_folder(worker: Worker, tmp_path: Path) -> None:
    secret = tmp_path / "credentials"
    secret.write_text("aws_secret_access_key = s3cret")
    answer = worker.run(worker.job(f"print(open({str(secret)!r}).read())"))
    assert "Permission denied" in answer["error"]
    assert "s3cret" not in worker.log()


def test_a_script_finds_no_credentials_in_any_environment(worker: Worker) -> None:
    script = (
        """
import os
assert not [name for name in os.environ if name.startswith(("AWS_", "ATTESTRY_", "_"))], os.environ
for pid in [p for p in os.listdir("/proc") if p.isdigit()]:
    for name in ("environ", "mem"):
        try:
            with open(f"/proc/{pid}/{name}", "rb") as f:
                if name == "environ" and int(pid) != os.getpid() and f.read():
                    print("READ", pid, name)
        except OSError as error:
            pass
print(open("/proc/self/environ").read().replace(chr(0), " "))
"""
        + WRITE_MODEL
    )
    answer = worker.run(worker.job(script))
    assert answer["outcome"] == "SUCCEEDED", answer
    assert "worker-secret" not in worker.log()
    assert "AWS_" not in worker.log()
    assert "READ" not in worker.log()


@needs_landlock
def test_a_script_that_calls_aws_has_no_way_out(worker: Worker) -> None:
    script = "import urllib.request\nurllib.request.urlopen('http://127.0.0.1:9/2015-03-31/functions', timeout=3)"
    assert "Permission denied" in worker.run(worker.job(script))["error"]


@needs_landlock
def test_a_script_cannot_signal_its_worker(worker: Worker) -> None:
    answer = worker.run(worker.job("import os, signal\nos.kill(os.getppid(), signal.SIGKILL)"))
    assert "PermissionError" in answer["error"]


def test_packages_of_the_registry_are_not_importable(worker: Worker) -> None:
    assert worker.run(worker.job("import attestry"))["error"].endswith("ModuleNotFoundError: No module named 'attestry'")
    assert worker.run(worker.job("import boto3"))["error"].endswith("ModuleNotFoundError: No module named 'boto3'")


def test_a_source_may_have_modules_of_any_name_but_they_do_not_replace_the_confinement(worker: Worker) -> None:
    source = {
        "train.py": "import ctypes, attestry\n" + WRITE_MODEL,
        "ctypes.py": "",
        "resource.py": "raise SystemExit(9)",
        "attestry.py": "",
    }
    assert worker.run(worker.job(source))["outcome"] == "SUCCEEDED"


def test_nothing_of_a_job_is_left_for_the_next_one(worker: Worker) -> None:
    worker.run(worker.job(WRITE_MODEL + "open('left.txt', 'w').write('x'); os.chmod('.', 0o500); os.chmod(os.environ['TMPDIR'], 0)"))
    script = WRITE_MODEL + "print(sorted(os.listdir('.')), os.listdir(os.environ['TMPDIR']), os.listdir(os.environ['SM_MODEL_DIR']))"
    worker.run(worker.job(script))
    assert worker.log() == "['train.py'] [] ['model.txt']\n"
    assert not list(worker.folder.glob("worker-*/job"))


@needs_landlock
def test_a_script_cannot_change_what_other_workers_share(worker: Worker) -> None:
    worker.run(worker.job(WRITE_MODEL))
    (described,) = worker.folder.glob("environments/*.json")
    before = described.read_bytes()
    packages = described.with_name(f"environment-{described.stem}")
    for attack in (
        f"open({str(packages / 'evil.py')!r}, 'w')",
        f"import os; os.truncate({str(packages / 'tinypkg/__init__.py')!r}, 0)",
        f"import os; os.rename({str(packages)!r}, {str(packages)!r} + '-gone')",
        f"import os; os.unlink({str(described)!r})",
        f"open({str(described)!r}, 'w')",
        f"print(open({str(described)!r}).read())",
    ):
        assert "Permission denied" in worker.run(worker.job(attack))["error"], attack
    assert described.read_bytes() == before
    assert worker.run(worker.job(WRITE_MODEL))["outcome"] == "SUCCEEDED"


@pytest.mark.parametrize("own_machine", [False, True])
def test_an_environment_that_a_script_changed_is_unpacked_anew(store: Store, tmp_path: Path, own_machine: bool) -> None:
    worker = Worker(store, tmp_path / "worker", own_machine=own_machine, environment=os.environ | {"TMPDIR": str(tmp_path)})
    try:
        _change_environment(worker)
    finally:
        worker.close()


def _change_environment(worker: Worker) -> None:
    worker.run(worker.job(WRITE_MODEL))
    module = next(worker.folder.rglob("environment-*/tinypkg/__init__.py"))
    module.write_text("VALUE = 'poisoned'\n")
    worker.run(worker.job("import tinypkg\nprint(tinypkg.VALUE)"))
    assert worker.log().startswith("42\n")
    (module.parent / "evil.py").write_text("")
    worker.run(worker.job("import tinypkg.evil"))
    assert "No module named 'tinypkg.evil'" in worker.log()


def test_on_a_machine_of_its_own_what_lies_outside_is_found_and_removed(store: Store, tmp_path: Path) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    (temporary / "evil").write_text("left by something that was not confined")
    own = Worker(store, temporary / "worker", own_machine=True, environment=os.environ | {"TMPDIR": str(temporary)})
    try:
        answer = own.run(own.job(WRITE_MODEL))
        assert (answer["outcome"], answer["error"]) == ("FAILED", "the script wrote outside its folders: evil")
        assert own.run(own.job(WRITE_MODEL))["outcome"] == "SUCCEEDED"
    finally:
        own.close()


@pytest.mark.parametrize("name", ["environment", "source"])
def test_an_input_with_other_bytes_is_refused(worker: Worker, name: str) -> None:
    job = worker.job(WRITE_MODEL)
    key = job[name]["url"].removeprefix(f"{worker.store.address}/")
    body = worker.store.objects[key]
    worker.store.objects[key] = body[:-1] + bytes([body[-1] ^ 1])
    # An environment that is unpacked already is not fetched again, so this one must be new to the worker.
    if name == "environment":
        job[name] = worker.store.input("environment.zip", zipped({"other/__init__.py": ""}))
        other = job[name]["url"].removeprefix(f"{worker.store.address}/")
        worker.store.objects[other] = worker.store.objects[other][:-1] + b"\x01"
    answer = worker.run(job)
    worker.store.objects[key] = body
    assert (answer["outcome"], answer["exit_code"]) == ("FAILED", None)
    assert "has SHA-256" in answer["error"]


def test_a_longer_input_is_refused_before_it_is_read_to_its_end(worker: Worker) -> None:
    data = worker.store.input("a.csv", b"1,2\n")
    worker.store.objects[data["url"].removeprefix(f"{worker.store.address}/")] = b"1,2\n" * 1000
    answer = worker.run(worker.job(WRITE_MODEL, channels={"train": [data]}))
    assert answer["error"] == "a.csv is longer than the 4 bytes that were recorded"


def test_an_input_that_is_not_there_is_named(worker: Worker) -> None:
    data = {**worker.store.input("a.csv", b"1"), "url": f"{worker.store.address}/nowhere?X-Amz-Signature=secret"}
    answer = worker.run(worker.job(WRITE_MODEL, channels={"train": [data]}))
    assert answer["error"] == "a.csv cannot be read: HTTP 404"


def test_an_upload_that_is_refused_is_told_with_its_reason(worker: Worker) -> None:
    job = worker.job(WRITE_MODEL)
    job["outputs"]["model"] = worker.store.output("model", max_bytes=1)
    answer = worker.run(job)
    assert answer["error"] == "model: the upload was refused: HTTP 400 EntityTooLarge: too large"


def test_a_log_that_cannot_be_kept_fails_the_job(worker: Worker) -> None:
    job = worker.job(WRITE_MODEL + "print('hello')")
    job["outputs"]["log"] = worker.store.output("log", max_bytes=1)
    answer = worker.run(job)
    assert answer["outcome"] == "FAILED"
    assert answer["error"].startswith("log: the upload was refused")


@pytest.mark.parametrize(
    ("archive", "said"),
    [
        (zip_with_link("tinypkg", "/etc"), "link or a special file"),
        (zipped({"../evil.py": ""}), "'..'"),
        (zipped({"/evil.py": ""}), "absolute"),
        (b"no zip", "damaged"),
    ],
)
def test_an_unsafe_environment_is_refused(worker: Worker, archive: bytes, said: str) -> None:
    answer = worker.run(worker.job(WRITE_MODEL, environment=worker.store.input("environment.zip", archive)))
    assert answer["outcome"] == "FAILED"
    assert said in answer["error"]


def test_an_unsafe_source_is_refused(worker: Worker) -> None:
    source = worker.store.input("source.tar.gz", tar_gz({"../train.py": WRITE_MODEL}))
    assert "'..'" in worker.run(worker.job(WRITE_MODEL, source=source))["error"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"format": 2}, "format"),
        ({"mode": "shell"}, "mode"),
        ({"entry_point": "../train.py"}, "entry_point"),
        ({"entry_point": "train.sh"}, "entry_point"),
        ({"entry_point": "other.py"}, "the source has no file 'other.py'"),
        ({"timeout_seconds": 0}, "timeout_seconds"),
        ({"arguments": {"--evil": 1}}, "arguments"),
        ({"arguments": {"x": None}}, "arguments.x"),
        ({"channels": {"../up": []}}, "channels"),
        ({"channels": {"train": [{"path": "../x", "url": "http://h/", "size": 1, "sha256": "0" * 64}]}}, "channels.train[0]"),
        ({"outputs": {"etc": {}}}, "outputs"),
        ({"mode": "predict"}, "channels"),
    ],
)
def test_a_job_that_breaks_its_format_is_answered_with_the_field(worker: Worker, changes: dict[str, object], said: str) -> None:
    answer = worker.run(worker.job(WRITE_MODEL, **changes))
    assert (answer["outcome"], answer["exit_code"]) == ("FAILED", None)
    assert answer["error"].startswith(said)


ASSET = """
import json, sys
sys.path.insert(0, sys.argv[1])
class Context:
    def get_remaining_time_in_millis(self): return 60000
from lambdas import sandbox, inference
print(json.dumps([
    sandbox.handler({"job_url": sys.argv[2]}, Context()), sandbox.handler({}, Context()),
    inference.handler({"version_digest": "0" * 64, "instances": None, "load": None}, Context()), inference.handler({}, Context()),
]))
"""


def test_the_functions_run_from_their_own_archive_on_the_standard_library_alone(worker: Worker, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "attestry/sandbox", tmp_path / "attestry/sandbox")
    (tmp_path / "lambdas").mkdir()
    for name in ("attestry/__init__.py", "lambdas/__init__.py", "lambdas/sandbox.py", "lambdas/inference.py"):
        shutil.copyfile(ROOT / name, tmp_path / name)
    document = worker.store.input("job.json", json.dumps(worker.job(WRITE_MODEL)).encode())
    environment = {"AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "1024", "TMPDIR": str(tmp_path), "PATH": os.environ["PATH"]}
    command = [sys.executable, "-I", "-S", "-c", ASSET, str(tmp_path), document["url"]]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    ran, without_url, not_loaded, nothing = json.loads(done.stdout)
    assert (ran["outcome"], ran["machine"]["memory_mib"]) == ("SUCCEEDED", 1024)
    assert worker.store.tar("model") == {"model.txt": b"model"}
    assert (without_url["outcome"], without_url["error"]) == ("FAILED", "job: only http and https URLs are read")
    assert (not_loaded, nothing) == ({"status": "NOT_LOADED"}, {"status": "NOT_LOADED"})
