"""The container's program: it serves a version whose every byte was checked, or it ends; really run as `python3 shim.zip serve`."""

from __future__ import annotations

import http.client
import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from attestry.sandbox import endpoint
from attestry.sandbox.endpoint import DIGEST_VARIABLE, MAX_BODY_BYTES, SCRIPT_VARIABLE, EndpointServer
from attestry.sandbox.errors import SandboxError, ServingError
from attestry.usecases.shim_archive import shim_archive
from tests.frozen import artifact_of
from tests.unit.sandbox_world import tar_gz

SCRIPT = """
import json, os, pathlib
def model_fn(model_dir):
    return json.loads((pathlib.Path(model_dir) / "model.json").read_text())
def predict_fn(data, model):
    if data["x"].iloc[0] == 13:
        raise ValueError("unlucky")
    if data["x"].iloc[0] == 14:
        os._exit(3)
    if data["x"].iloc[0] == 15:
        return [float("nan")] * len(data)
    if data["x"].iloc[0] == 16:
        return [" ".join(sorted(n for n in os.environ if n.startswith(("AWS_", "ATTESTRY_"))))]
    return data["x"] * model["factor"]
"""
FILES = {
    "manifest.json": b'{"validation":{"script":"serve/inference.py"}}',
    "source.tar.gz": tar_gz({"serve/inference.py": SCRIPT}),
    "model/model.json": b'{"factor": 3}',
}


def lay_out(root: Path, files: dict[str, bytes] | None = None) -> str:
    """Lay a frozen folder out as SageMaker does, and return its version digest."""
    files = FILES if files is None else files
    artifact = artifact_of(files)
    for path, body in {**files, "artifact-manifest.json": artifact.to_bytes()}.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(body)
    return artifact.version_digest


def environ(digest: str, **more: str) -> dict[str, str]:
    return {DIGEST_VARIABLE: digest, SCRIPT_VARIABLE: "serve/inference.py", "AWS_SECRET_ACCESS_KEY": "s", **more}


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("shim") / "shim.zip"
    path.write_bytes(shim_archive())
    return path


@pytest.fixture(scope="module")
def server(shim: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, str]]:
    """The shim's own process, with its port and the version digest."""
    root = tmp_path_factory.mktemp("model")
    digest = lay_out(root)
    code = (
        "import sys; sys.path.insert(0, {shim!r});"
        "from pathlib import Path; from attestry.sandbox.endpoint import serve; import os;"
        "sys.exit(serve({shim!r}, os.environ, Path({work!r}), Path({root!r}), 0))"
    ).format(shim=str(shim), work=str(tmp_path_factory.mktemp("work")), root=str(root))
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=root, env=environ(digest, PATH="/usr/bin:/bin")
    )
    assert process.stdout is not None
    found = re.search(r"port (\d+)", process.stdout.readline())
    assert found is not None
    yield int(found[1]), digest
    process.kill()
    process.wait()


def ask(port: int, method: str, path: str, body: bytes = b"") -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request(method, path, body)
    answer = connection.getresponse()
    read = answer.read()
    connection.close()
    return answer.status, json.loads(read) if read else None


def predict(server: tuple[int, str], *instances: dict[str, Any], **changes: Any) -> Any:
    request = {"version_digest": server[1], "instances": list(instances), "columns": ["x"], **changes}
    return ask(server[0], "POST", "/invocations", json.dumps(request).encode())[1]


def test_a_version_that_is_as_it_was_frozen_is_served_under_its_digest(server: tuple[int, str]) -> None:
    assert ask(server[0], "GET", "/ping")[0] == 200
    assert predict(server, {"x": 2}, {"x": 5}) == {"status": "OK", "output": [6, 15], "version_digest": server[1]}


@pytest.mark.parametrize(
    ("value", "said"), [(13, "unlucky"), (15, "is not a finite number"), (14, "the model's process ended")], ids=["raises", "nan", "dies"]
)
def test_what_goes_wrong_is_an_answer_and_the_next_request_is_answered(server: tuple[int, str], value: int, said: str) -> None:
    answer = predict(server, {"x": value})
    assert answer["status"] == "FAILED"
    assert said in answer["error"]
    assert predict(server, {"x": 1})["output"] == [3]
    assert ask(server[0], "GET", "/ping")[0] == 200


def test_the_script_sees_none_of_the_containers_own_variables(server: tuple[int, str]) -> None:
    assert predict(server, {"x": 16})["output"] == [""]


@pytest.mark.parametrize(
    "changes",
    [{"version_digest": "0" * 64}, {"instances": []}, {"instances": [1]}, {"instances": None}],
    ids=["digest", "none", "no", "null"],
)
def test_a_request_for_another_version_or_without_instances_is_not_answered(server: tuple[int, str], changes: dict[str, Any]) -> None:
    assert predict(server, {"x": 1}, **changes)["status"] == "FAILED"


def test_only_the_two_paths_are_there_and_a_body_beyond_the_limit_is_not_read(server: tuple[int, str]) -> None:
    assert ask(server[0], "GET", "/")[0] == 404
    assert ask(server[0], "POST", "/invocations", b"nonsense")[1]["status"] == "FAILED"
    connection = http.client.HTTPConnection("127.0.0.1", server[0], timeout=30)
    connection.putrequest("POST", "/invocations")
    connection.putheader("Content-Length", str(MAX_BODY_BYTES + 1))
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()


def test_requests_at_once_are_answered_one_after_another(server: tuple[int, str]) -> None:
    answers: dict[int, Any] = {}
    threads = [threading.Thread(target=lambda n=n: answers.update({n: predict(server, {"x": n})})) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {n: answer["output"] for n, answer in answers.items()} == {n: [3 * n] for n in range(8)}


def tamper_model(root: Path) -> None:
    (root / "model/model.json").write_bytes(b'{"factor": 4}')


def tamper_source(root: Path) -> None:
    (root / "source.tar.gz").write_bytes(tar_gz({"serve/inference.py": "import os"}))


def add_file(root: Path) -> None:
    (root / "model/extra.pkl").write_bytes(b"x")


def add_link(root: Path) -> None:
    (root / "model/link.json").symlink_to("/etc/hostname")


def replace_by_link(root: Path) -> None:
    (root / "model/model.json").rename(root / "elsewhere.json")
    (root / "model/model.json").symlink_to(root / "elsewhere.json")


def remove_file(root: Path) -> None:
    (root / "model/model.json").unlink()


def forge_manifest(root: Path) -> None:
    body = {**FILES, "model/model.json": b'{"factor": 4}'}
    lay_out(root, body)


def remove_manifest(root: Path) -> None:
    (root / "artifact-manifest.json").unlink()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (tamper_model, r"model/model\.json is not what"),
        (tamper_source, r"source\.tar\.gz is not what"),
        (add_file, r"model/extra\.pkl is not a file"),
        (add_link, r"model/link\.json is not a file"),
        (replace_by_link, r"model/model\.json of this version is missing"),
        (remove_file, r"model/model\.json of this version is missing"),
        (forge_manifest, "the version digest is"),
        (remove_manifest, "not among the files"),
    ],
)
def test_a_folder_that_is_not_the_version_is_not_served(tmp_path: Path, change: Any, said: str) -> None:
    root = tmp_path / "model"
    digest = lay_out(root)
    change(root)
    server = EndpointServer(root, tmp_path / "work", "shim", environ(digest))
    with pytest.raises(SandboxError, match=said):
        server.check()
    assert not server.ready


def test_another_script_than_the_manifests_is_not_run(tmp_path: Path) -> None:
    digest = lay_out(tmp_path / "model")
    server = EndpointServer(tmp_path / "model", tmp_path / "work", "shim", environ(digest, **{SCRIPT_VARIABLE: "serve/other.py"}))
    with pytest.raises(SandboxError, match="inference script is"):
        server.check()


def test_a_container_without_a_digest_ends_with_a_sentence_in_its_log(shim: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(shim), "serve"], capture_output=True, text=True, check=False, cwd=tmp_path, env={"PATH": "/bin"}
    )
    assert done.returncode == 1
    assert "this version is not served" in done.stderr


def test_a_model_that_does_not_load_ends_the_container(shim: Path, tmp_path: Path) -> None:
    broken = {**FILES, "source.tar.gz": tar_gz({"serve/inference.py": "def model_fn(d): raise OSError('no weights')"})}
    digest = lay_out(tmp_path / "model", broken)
    server = EndpointServer(tmp_path / "model", tmp_path / "work", str(shim), environ(digest, PATH="/usr/bin:/bin"))
    server.check()
    with pytest.raises(ServingError, match="no weights"):
        server.load()
    assert not server.ready


def test_the_variables_are_named_as_the_registry_names_them() -> None:
    from attestry.domain import endpoints

    assert (endpoint.DIGEST_VARIABLE, endpoint.SCRIPT_VARIABLE) == (endpoints.DIGEST_VARIABLE, endpoints.SCRIPT_VARIABLE)
