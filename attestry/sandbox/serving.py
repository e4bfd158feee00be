"""Serves versions: loads what a version digest names, checks every byte of it, and answers predictions from a confined process.

Rules:

1. A version is named by its digest. The artifact manifest must hash to it; files and environment must be what that manifest says, checked
   while they are read. One byte off and the answer is REFUSED with the file's name, and nothing of it runs.
2. Loading goes on in the background, so an answer comes by the deadline: LOADING, and a later call finds it READY. A failed load is
   told once and forgotten, so the next call tries again from the store.
3. Where the kernel keeps versions apart (Landlock), four are kept; elsewhere one, and everything of it is ended and removed before the
   next. On AWS the function has an execution environment for each version (tenant isolation).
4. Outputs are one finite JSON element for each instance, or the answer is FAILED.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from attestry.sandbox import confine
from attestry.sandbox.artifact import MANIFEST, MAX_MANIFEST_BYTES, MODEL, SOURCE, Frozen, check_entry_point, read_artifact_manifest
from attestry.sandbox.child import Child, start
from attestry.sandbox.contract import Folders, base_environment
from attestry.sandbox.environments import EnvironmentCache
from attestry.sandbox.errors import BadJobError, FetchError, SandboxError, ServingError, TamperedFileError
from attestry.sandbox.fetch import fetch_bytes, fetch_file
from attestry.sandbox.job import Input, read_entry_point
from attestry.sandbox.machine import cpu_count, gpu_count, total_memory_mib
from attestry.sandbox.model_process import ModelProcess
from attestry.sandbox.processes import end_descendants
from attestry.sandbox.unpack import remove_tree, unpack_tar
from attestry.sandbox.workspace import Workspace, has_machine_of_its_own

Answer = dict[str, Any]

REQUEST_SECONDS = 20.0
LOAD_SECONDS = 280.0
WAIT_SECONDS = 20.0
MAX_FILE_BYTES = 64 << 20
WORKER_MIB = 192
KEPT = 4
"""Deployed, rollback, canary and shadow: what a model has in use at once."""

PROCESSES = 512


@dataclass
class _Loading:
    """A version that is loaded, or on its way there; its fields are guarded by `done`.

    Attributes:
        digest: version digest.
        folder: name of its folder in the workspace.
        environment: digest of its environment's archive, hex, once known.
        done: set once the outcome is known.
        process: the model's process once there is one.
        status: READY, REFUSED or FAILED once done.
        error: why not READY.
    """

    digest: str
    folder: str
    environment: str = ""
    done: threading.Event = field(default_factory=threading.Event)
    process: ModelProcess | None = None
    status: str = ""
    error: str = ""


class ModelServer:
    """Serves versions from one worker process, one call at a time.

    Args:
        workspace: the worker's folder; default a new one.
        memory_mib: the function's configured memory; default that of the machine.
        kept: versions to keep; default by rule 3.
    """

    def __init__(self, workspace: Workspace | None = None, *, memory_mib: int | None = None, kept: int | None = None) -> None:
        confine.shield_worker()
        self._workspace = workspace or Workspace()
        self._memory_bytes = max(64, (memory_mib or total_memory_mib()) - WORKER_MIB) << 20
        self._kept = kept or (KEPT if confine.landlock_version() else 1)
        self._environments = EnvironmentCache(self._workspace)
        self._models: dict[str, _Loading] = {}
        self._count = 0

    def handle(self, event: Mapping[str, Any], deadline: float) -> Answer:
        """Answer one call; it raises nothing.

        Args:
            event: `{"version_digest", "instances": [...] | None, "columns"?: [...], "load"?: {...}}`; `instances` None loads only.
                `load` has `artifact_manifest` {"url"}, `files` [{"path", "url"}], `environment` {"url", "size"}, `entry_point`, and
                `deadline_seconds`, how long this call may take before it answers LOADING.
            deadline: when the answer has to be there, in seconds on the monotonic clock.

        Returns:
            `{"status": "OK", "output": [...]}` with instances, `{"status": "READY"}` without, `{"status": "NOT_LOADED"}`,
            `{"status": "LOADING"}`, or `{"status": "REFUSED" | "FAILED", "error": str}`.
        """
        try:
            return self._handle(event, deadline)
        except ServingError as error:
            return {"status": "FAILED", "error": str(error)}
        except SandboxError as error:
            return {"status": "REFUSED", "error": str(error)}
        except Exception as error:  # noqa: BLE001 (an exception would end the worker and all models it holds)
            return {"status": "FAILED", "error": f"the sandbox failed: {type(error).__name__}: {error}"}

    def close(self) -> None:
        """End all models and remove everything."""
        for digest, model in list(self._models.items()):
            model.done.wait(LOAD_SECONDS)
            self._forget(digest)
        self._workspace.close()

    def _handle(self, event: Mapping[str, Any], deadline: float) -> Answer:
        digest = str(event.get("version_digest", ""))
        model = self._models.get(digest)
        if model and model.done.is_set() and model.status == "READY" and not (model.process and model.process.alive):
            self._forget(digest)
            model = None
        load = event.get("load")
        if model is None:
            if load is None:
                return {"status": "NOT_LOADED"}
            model = self._begin(digest, load)
            if model is None:
                return {"status": "LOADING"}
        wait = WAIT_SECONDS if load is None else float(load.get("deadline_seconds") or WAIT_SECONDS)
        model.done.wait(max(0.0, min(wait, deadline - time.monotonic())))
        if not model.done.is_set():
            return {"status": "LOADING"}
        if model.status != "READY" or model.process is None:
            self._forget(digest)
            return {"status": model.status or "FAILED", "error": model.error}
        self._models[digest] = self._models.pop(digest)
        instances = event.get("instances")
        if instances is None:
            return {"status": "READY"}
        return {"status": "OK", "output": self._predict(model.process, instances, event.get("columns"), deadline)}

    def _predict(self, process: ModelProcess, instances: Any, columns: Any, deadline: float) -> list[Any]:
        if not isinstance(instances, list) or not instances or not all(isinstance(i, dict) for i in instances):
            raise ServingError("instances: a list of objects is needed")
        named = columns if isinstance(columns, list) else None
        return process.predict(instances, named, min(deadline, time.monotonic() + REQUEST_SECONDS))

    def _begin(self, digest: str, load: Mapping[str, Any]) -> _Loading | None:
        """Start loading and return the version, or None while another one loads: they are loaded one after another."""
        if not all(m.done.is_set() for m in self._models.values()):
            return None
        while len(self._models) >= self._kept:
            self._forget(next(iter(self._models)))
        if not self._end_orphans():
            raise ServingError("processes of an earlier version cannot be ended")
        self._count += 1
        model = _Loading(digest, f"model-{self._count}")
        self._models[digest] = model
        threading.Thread(target=self._load, args=(model, load), name="load", daemon=True).start()
        return model

    def _load(self, model: _Loading, load: Mapping[str, Any]) -> None:
        deadline = time.monotonic() + LOAD_SECONDS
        try:
            folders = Folders(self._workspace.folder(model.folder))
            entry_point, packages = self._fetch(model, load, folders)
            model.process = ModelProcess(
                lambda requests, answers: start(self._child(folders, entry_point, packages, requests, answers)),
                memory_bytes=self._memory_bytes,
            )
            if not model.process.wait_ready(deadline):
                raise ServingError(f"model_fn took longer than {LOAD_SECONDS:.0f} s")
            model.status = "READY"
        except ServingError as error:
            model.status, model.error = "FAILED", str(error)
        except FetchError as error:
            model.status = "REFUSED" if isinstance(error, TamperedFileError) else "FAILED"
            model.error = str(error)
        except SandboxError as error:
            model.status, model.error = "REFUSED", str(error)
        except Exception as error:  # noqa: BLE001 (the outcome has to be known, or callers would wait for ever)
            model.status, model.error = "FAILED", f"the sandbox failed: {type(error).__name__}: {error}"
        finally:
            model.done.set()

    def _fetch(self, model: _Loading, load: Mapping[str, Any], folders: Folders) -> tuple[str, Path]:
        """Fetch and check all that the version is made of, and return the inference script's path and the packages' folder."""
        entry_point = read_entry_point(load)
        urls = _urls(load)
        frozen = read_artifact_manifest(
            fetch_bytes(_url(load, "artifact_manifest"), max_bytes=MAX_MANIFEST_BYTES, name="artifact-manifest.json"), model.digest
        )
        folders.make()
        for path in frozen.files:
            if path not in urls:
                raise FetchError(f"{path} of this version was not given")
            target = folders.model / path.removeprefix(MODEL) if path.startswith(MODEL) else folders.archives / path
            fetch_file(frozen.input(path, urls[path]), target)
        check_entry_point(folders.archives / MANIFEST, entry_point)
        unpack_tar(folders.archives / SOURCE, folders.source)
        remove_tree(folders.archives)
        if not (folders.source / entry_point).is_file():
            raise BadJobError(f"the source has no file {entry_point!r}")
        in_use = [m.environment for m in self._models.values() if m is not model]
        model.environment = frozen.environment_sha256
        packages = self._environments.get(_environment_input(load, frozen), in_use=in_use)
        return entry_point, packages

    def _child(self, folders: Folders, entry_point: str, packages: Path, requests: int, answers: int) -> Child:
        own = has_machine_of_its_own()
        contract = {"SM_MODEL_DIR": str(folders.model), "SM_NUM_CPUS": str(cpu_count()), "SM_NUM_GPUS": str(gpu_count())}
        return Child(
            mode="serve",
            source=folders.source,
            packages=packages,
            entry_point=entry_point,
            arguments=[],
            variables=base_environment(folders, os.environ) | contract,
            readable=[folders.model],
            writable=[folders.temporary],
            limits=confine.Limits(MAX_FILE_BYTES, self._memory_bytes + confine.RESERVED_BYTES, PROCESSES if own else None),
            extra={"model": str(folders.model), "requests": requests, "answers": answers},
            pass_fds=(requests, answers),
        )

    def _forget(self, digest: str) -> None:
        model = self._models.pop(digest)
        if model.process:
            model.process.end()
        self._end_orphans()
        self._workspace.folder(model.folder)

    def _end_orphans(self) -> bool:
        """End what models left that are gone, for it is handed to this process; return whether nothing of it lives on."""
        if not all(m.done.is_set() for m in self._models.values()):
            return True  # one that loads may have a process that is not known yet; the next load waits for it, and ends the rest
        known = [m.process.pid for m in self._models.values() if m.process and m.process.pid]
        return end_descendants(os.getpid(), sparing=known)


def _url(load: Mapping[str, Any], name: str) -> str:
    value = load.get(name)
    if not isinstance(value, Mapping) or not isinstance(value.get("url"), str):
        raise BadJobError(f"load.{name}: needs a url")
    return str(value["url"])


def _urls(load: Mapping[str, Any]) -> dict[str, str]:
    files = load.get("files")
    if not isinstance(files, Sequence) or not all(isinstance(f, Mapping) and {"path", "url"} <= f.keys() for f in files):
        raise BadJobError("load.files: a list of path and url is needed")
    return {str(f["path"]): str(f["url"]) for f in files}


def _environment_input(load: Mapping[str, Any], frozen: Frozen) -> Input:
    size = load.get("environment", {}).get("size")
    if not isinstance(size, int):
        raise BadJobError("load.environment.size: needed")
    # The size only bounds the download; which bytes these must be is said by the artifact manifest.
    return Input("environment.zip", _url(load, "environment"), size, frozen.environment_sha256)
