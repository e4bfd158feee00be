"""The process that runs the embedded AWS: `python -m attestry.local.server`.

It takes everything from its environment (`attestry.local.process` makes it from an allow-list), takes the lock of its data
directory, patches the emulator, and serves on the loopback address until SIGTERM, upon which the state is saved. It is also saved
while it runs, whenever it was quiet for a moment, so that a crash costs little; only a stop saves a state that is whole.

Exit codes: 0 stopped; 3 the data directory is in use; 4 the emulator is not what the patches were written for; 1 all else.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import IO

import uvicorn

from attestry.local import (
    patch_access,
    patch_cloudtrail,
    patch_conditions,
    patch_environments,
    patch_forks,
    patch_iam,
    patch_jobs,
    patch_lambda,
    patch_openapi,
    patch_projections,
    patch_queries,
    patch_repeats,
    patch_s3,
    patch_saving_rows,
    patch_states,
    patch_streams,
    patch_tables,
    patch_windows,
    patch_writes,
    row_files,
    saving,
)
from attestry.local.patching import EMULATOR_VERSION, PatchError, check_version, load
from attestry.local.saving import Application, Saver, Saving
from attestry.local.settings import HOST

EXIT_IN_USE = 3
EXIT_PATCH = 4
_GRACE_SECONDS = 2
_KEEP_ALIVE_SECONDS = 75


def patch_emulator() -> None:
    """Apply every patch.

    Raises:
        PatchError: the emulator is not what the patches were written for.
    """
    check_version()
    for patch in (
        patch_access,
        patch_conditions,
        patch_iam,
        patch_cloudtrail,
        patch_lambda,
        patch_forks,
        patch_environments,
        patch_s3,
        patch_states,
        patch_jobs,
        patch_openapi,
        patch_repeats,
        patch_tables,
        patch_queries,
        patch_projections,
        patch_streams,
        patch_writes,
        patch_windows,
        patch_saving_rows,
        saving,
    ):
        patch.apply()


def hold_lock(data_dir: Path, port: int) -> IO[str] | None:
    """Take the lock of a data directory for the life of this process and write into it who holds it.

    Returns:
        The open lock file, or None when another process holds it.
    """
    lock = (data_dir / "server.lock").open("a+", encoding="utf-8")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return None
    lock.seek(0)
    lock.truncate()
    json.dump({"pid": os.getpid(), "port": port, "emulator": EMULATOR_VERSION, "started": time.time()}, lock)
    lock.flush()
    return lock


def server_of(application: Application, port: int) -> uvicorn.Server:
    """Return what serves an application on the loopback address until SIGTERM or SIGINT.

    By uvicorn and not by the emulator's own choice, hypercorn: its parser of HTTP is written in C, and a call of AWS takes a third less.
    """
    configuration = uvicorn.Config(
        application,
        host=HOST,
        port=port,
        loop="auto",
        http="httptools",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,  # who calls is who is connected, whatever a header says
        server_header=False,
        date_header=False,  # the emulator gives one
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )
    return uvicorn.Server(configuration)


def run(server: uvicorn.Server) -> int:
    """Serve until it is told to stop, and return the exit code."""
    try:
        server.run()
    except SystemExit:  # it did not start; the code that uvicorn has for it means here that the data directory is in use
        return 1
    return 0


def main() -> int:
    """Run the server until it is told to stop."""
    data_dir, port = Path(os.environ["ATTESTRY_LOCAL_DATA"]), int(os.environ["GATEWAY_PORT"])
    lock = hold_lock(data_dir, port)
    if lock is None:
        sys.stderr.write(f"{data_dir} is in use by another server\n")
        return EXIT_IN_USE
    state = Path(os.environ["STATE_DIR"])
    if lost := row_files.lost_from(state):
        # The emulator would begin with empty tables, and the next saving would take the place of what is left.
        sys.stderr.write(f"rows of tables are lost: {', '.join(lost)} in {state / row_files.FOLDER} is missing or cut short; restore it\n")
        return 1
    scratch = Path(os.environ["TMPDIR"])
    shutil.rmtree(scratch, ignore_errors=True)  # what workers of a killed server left behind
    scratch.mkdir(parents=True, exist_ok=True)
    try:
        patch_emulator()
    except PatchError as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_PATCH
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)  # uvicorn stops upon them, then raises them again
    saver = Saver(hand_over=patch_saving_rows.hand_over, settle=patch_saving_rows.settle)
    return run(server_of(Saving(load("ministack.app").app, saver), port))


if __name__ == "__main__":
    sys.exit(main())
