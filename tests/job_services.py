"""Stand-ins for the services that run jobs.

They take a request as the pipeline sends it, check it against the service's own model, do what the service does with scratch, really run
the entry shim, and answer as the service describes a job that has ended. The machine alone is stood in for: SageMaker's folders below
/opt/ml lie in a folder of the test.
"""

from __future__ import annotations

import http.server
import io
import json
import os
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.fakes import MemoryObjectStore
from tests.service_models import problems_of_answer, problems_of_request
from tests.unit.sandbox_world import _parse_form

BEGAN, ENDED = 1_767_322_800_000, 1_767_323_400_000
MISSING = {"sagemaker-training": "training", "sagemaker-processing": "processing"}


class SageMaker:
    """Runs processing and training jobs on this machine.

    Args:
        scratch: the scratch bucket.
        folder: where the machines' folders are made.
    """

    def __init__(self, scratch: MemoryObjectStore, folder: Path) -> None:
        self.scratch, self.folder = scratch, folder
        self.requests: list[Mapping[str, Any]] = []

    def run(self, service: str, request: Mapping[str, Any]) -> dict[str, Any]:
        """Return `$run` as the pipeline has it after the `.sync` task of this request."""
        assert problems_of_request(service, request) == []
        self.requests.append(request)
        kind = MISSING[service]
        name = request[f"{kind.capitalize()}JobName"]
        machine = self.folder / name
        for uri, local in _inputs(kind, request):
            self._download(uri, machine / local.removeprefix("/opt/"))
        specification = request["AppSpecification" if kind == "processing" else "AlgorithmSpecification"]
        command = [part.replace("/opt/ml", str(machine / "ml")) for part in specification["ContainerEntrypoint"]]
        done = subprocess.run(
            [sys.executable, *command[1:], *specification["ContainerArguments"], str(machine / "ml")],
            env={"PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
            check=False,
        )
        self._upload(kind, request, machine / "ml", failed=done.returncode != 0)
        answer = self._describe(kind, request, machine / "ml", done.returncode)
        assert problems_of_answer("sagemaker", f"Describe{kind.capitalize()}Job", answer) == []
        if done.returncode:
            return {"service": service, "error": {"Error": "States.TaskFailed", "Cause": json.dumps(answer, default=str)}}
        return {"service": service, "answer": json.loads(json.dumps(answer, default=str))}

    def _download(self, uri: str, folder: Path) -> None:
        prefix = uri.partition("//")[2].partition("/")[2]
        keys = [v.key for v in self.scratch.list_versions(prefix) if v.is_latest]
        assert keys, f"SageMaker refuses a channel without objects: {uri}"
        for key in keys:
            target = folder / key.removeprefix(prefix)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(self.scratch.read(key, max_bytes=1 << 30))

    def _upload(self, kind: str, request: Mapping[str, Any], root: Path, *, failed: bool) -> None:
        if kind == "training":
            base = request["OutputDataConfig"]["S3OutputPath"].partition("//")[2].partition("/")[2]
            target = f"{base}/{request['TrainingJobName']}/output"
            self.scratch.put(f"{target}/output.tar.gz", _tar(root / "output/data"))
            if not failed:
                self.scratch.put(f"{target}/model.tar.gz", _tar(root / "model"))
            return
        for output in request["ProcessingOutputConfig"]["Outputs"]:
            where = output["S3Output"]
            if failed and where["S3UploadMode"] == "EndOfJob":
                continue
            folder = root / where["LocalPath"].removeprefix("/opt/ml/")
            for file in sorted(f for f in folder.rglob("*") if f.is_file()):
                key = where["S3Uri"].partition("//")[2].partition("/")[2] + "/" + file.relative_to(folder).as_posix()
                self.scratch.put(key, file.read_bytes())

    def _describe(self, kind: str, request: Mapping[str, Any], root: Path, code: int) -> dict[str, Any]:
        name, status = request[f"{kind.capitalize()}JobName"], "Failed" if code else "Completed"
        arn = f"arn:aws:sagemaker:eu-central-1:123456789012:{kind}-job/{name}"
        began, ended = datetime.fromtimestamp(BEGAN / 1000, UTC), datetime.fromtimestamp(ENDED / 1000, UTC)
        if kind == "processing":
            message = root / "output/message"
            return {
                **{k: request[k] for k in ("ProcessingJobName", "AppSpecification", "ProcessingResources")},
                "ProcessingJobArn": arn,
                "ProcessingJobStatus": status,
                "CreationTime": began,
                "ProcessingStartTime": began,
                "ProcessingEndTime": ended,
                **({"FailureReason": f"AlgorithmError: , exit code: {code}"} if code else {}),
                **({"ExitMessage": message.read_text()} if message.is_file() else {}),
            }
        failure = root / "output/failure"
        reason = f"AlgorithmError: {failure.read_text() if failure.is_file() else ''}, exit code: {code}"
        return {
            **{k: request[k] for k in ("TrainingJobName", "AlgorithmSpecification", "ResourceConfig", "StoppingCondition")},
            "TrainingJobArn": arn,
            "TrainingJobStatus": status,
            "SecondaryStatus": status,
            "ModelArtifacts": {"S3ModelArtifacts": f"{request['OutputDataConfig']['S3OutputPath']}/{name}/output/model.tar.gz"},
            "CreationTime": began,
            "TrainingStartTime": began,
            "TrainingEndTime": ended,
            "BillableTimeInSeconds": 420,
            **({"FailureReason": reason} if code else {}),
        }


class Batch:
    """Runs jobs that hold URLs.

    Args:
        image: what its job definition runs.
    """

    def __init__(self, image: str) -> None:
        self.image = image
        self.requests: list[Mapping[str, Any]] = []

    def run(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return `$run` after the `.sync` task with these arguments, whose members begin with a capital."""
        request = _uncapitalised(arguments)
        assert problems_of_request("batch", request) == []
        self.requests.append(request)
        overrides = request["containerOverrides"]
        variables = {e["name"]: e["value"] for e in overrides["environment"]}
        done = subprocess.run(
            [sys.executable, *overrides["command"][1:]],
            env={"PATH": os.environ["PATH"], **variables},
            capture_output=True,
            text=True,
            check=False,
        )
        answer = {
            "JobName": request["jobName"],
            "JobArn": "arn:aws:batch:eu-central-1:123456789012:job/5d",
            "JobId": "5d",
            "JobQueue": request["jobQueue"],
            "JobDefinition": request["jobDefinition"],
            "Status": "FAILED" if done.returncode else "SUCCEEDED",
            "StatusReason": "Essential container in task exited",
            "StartedAt": BEGAN,
            "StoppedAt": ENDED,
            "Attempts": [{"StartedAt": BEGAN, "StoppedAt": ENDED, "Container": {"ExitCode": done.returncode}}],
            "Container": {"Image": self.image, "ExitCode": done.returncode, "LogStreamName": "attestry/default/77"},
        }
        if done.returncode:
            return {"service": "batch", "error": {"Error": "States.TaskFailed", "Cause": json.dumps(answer)}}
        return {"service": "batch", "answer": answer}


@contextmanager
def served(*stores: MemoryObjectStore) -> Iterator[None]:
    """Answer the presigned URLs of memory stores over local HTTP while the block lasts."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            number, _, rest = self.path.lstrip("/").partition("/")
            try:
                self._answer(200, stores[int(number)].fetch(f"memory://bucket/{rest}"))
            except Exception as error:  # noqa: BLE001 (whatever the store has against the URL is the client's answer)
                self._answer(403, str(error).encode())

        def do_POST(self) -> None:
            number = int(urlsplit(self.path).path.lstrip("/").partition("/")[0])
            fields, body = _parse_form(self.headers["Content-Type"], self.rfile.read(int(self.headers["Content-Length"])))
            stores[number].post(fields, body)
            self._answer(204, b"")

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            return

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        for number, store in enumerate(stores):
            store.address = f"http://127.0.0.1:{server.server_port}/{number}/"
        yield
    finally:
        for store in stores:
            store.address = "memory://bucket/"
        server.shutdown()
        server.server_close()


def _inputs(kind: str, request: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if kind == "processing":
        for item in request["ProcessingInputs"]:
            yield item["S3Input"]["S3Uri"], item["S3Input"]["LocalPath"]
        return
    for channel in request["InputDataConfig"]:
        yield channel["DataSource"]["S3DataSource"]["S3Uri"], f"/opt/ml/input/data/{channel['ChannelName']}"


def _tar(folder: Path) -> bytes:
    """What SageMaker packs: names without a leading folder."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w:gz") as archive:
        for file in sorted(f for f in folder.rglob("*") if f.is_file()):
            archive.add(file, file.relative_to(folder).as_posix())
    return sink.getvalue()


def _uncapitalised(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k[:1].lower() + k[1:]: v if k == "Tags" else _uncapitalised(v) for k, v in value.items()}
    return [_uncapitalised(v) for v in value] if isinstance(value, list) else value
