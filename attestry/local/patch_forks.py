"""Patch: the processes of functions are forked, where the system can tell their ends (see `attestry.local.forks`).

What AWS does is not at stake: an execution environment is as fresh as before, and there sooner.
"""

from __future__ import annotations

import contextvars
import logging
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from attestry.local.forks import FROM_NOTHING, POSSIBLE, Forked, ForkServer
from attestry.local.patching import PatchError, load, replace

_FUNCTIONS = Path(__file__).resolve().parents[2] / "lambdas"
_LOG = logging.getLogger("attestry.local.forks")
_forks: contextvars.ContextVar[ForkServer | None] = contextvars.ContextVar("attestry_local_forks", default=None)


class _Subprocess:
    """The module `subprocess` as the emulator's runtime sees it: the process of a function that is being started is forked."""

    def __getattr__(self, name: str) -> Any:
        return getattr(subprocess, name)

    def Popen(self, command: list[str], *, cwd: str, env: Mapping[str, str], **options: Any) -> subprocess.Popen[str] | Forked:  # noqa: N802 (the name that is called)
        forks = _forks.get()
        if forks is not None:
            try:
                return forks.spawn(command[1], cwd=cwd, env=env)
            except OSError:
                _LOG.exception("a process could not be forked, and starts from nothing")
        return subprocess.Popen(command, cwd=cwd, env=dict(env), **options)  # noqa: S603 (what the emulator would have started)


def apply() -> None:
    """Patch the start of functions' processes.

    Raises:
        PatchError: the emulator is not what this was written for.
    """
    if not POSSIBLE:
        return
    runtime = load("ministack.core.lambda_runtime")
    if runtime.subprocess is not subprocess:
        raise PatchError("the emulator's runtime does not import subprocess")
    runtime.subprocess = _Subprocess()
    forks = ForkServer(_FUNCTIONS)
    replace(runtime.Worker, "_spawn", "c55febf956565c5e", lambda original: _spawn_by(forks, original))


def _spawn_by(forks: ForkServer, original: Callable[..., Any]) -> Callable[..., Any]:
    def spawn(self: Any) -> None:
        runtime, handler = str(self.config.get("Runtime", "")), str(self.config.get("Handler", ""))
        by_fork = runtime.startswith("python") and handler.rpartition(".")[0] not in FROM_NOTHING
        token = _forks.set(forks if by_fork else None)
        try:
            original(self)
        finally:
            _forks.reset(token)

    return spawn
