"""Takes over a script's output folders and its log, and sends them where the job says."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from attestry.sandbox.collect import pack_folder
from attestry.sandbox.contract import Folders
from attestry.sandbox.errors import OutputError
from attestry.sandbox.job import Job
from attestry.sandbox.log import BoundedLog
from attestry.sandbox.upload import upload_file

REQUIRED_OUTPUT = {"TRAINING": "model", "PROCESSING": "output", "VALIDATION": "output"}


def pack_outputs(job: Job, folders: Folders, wanted: Collection[str]) -> list[tuple[str, Path]]:
    """Pack what a script left, each output folder to one archive, and return their names and files.

    Args:
        job: the job.
        folders: its folders.
        wanted: `model`, `output`: folders for which there is a place.

    Raises:
        OutputError: nothing is left where something must be, or what is left cannot be taken.
    """
    required = REQUIRED_OUTPUT.get(job.stage, "output")
    packed: list[tuple[str, Path]] = []
    for name in ("model", "output") if job.mode == "script" else ("output",):
        folder: Path = getattr(folders, name)
        count = pack_folder(folder, folders.archives / f"{name}.tar.gz", max_bytes=job.max_output_bytes)
        if name == required and not count:
            raise OutputError(f"the script left nothing in {'SM_MODEL_DIR' if name == 'model' else 'SM_OUTPUT_DATA_DIR'}")
        if name == required and name not in wanted:
            raise OutputError(f"the job names no place for the {name}")
        if count and name in wanted:
            packed.append((name, folders.archives / f"{name}.tar.gz"))
    return packed


def upload_outputs(job: Job, folders: Folders) -> None:
    """Send what a script left. All is packed before the first goes up, so a bad output leaves nothing of the others behind.

    Raises:
        OutputError: as `pack_outputs`.
        UploadError: a place refused what is sent.
    """
    for name, archive in pack_outputs(job, folders, job.outputs):
        upload_file(archive, job.outputs[name], name=name)


def upload_log(job: Job, folders: Folders, log: BoundedLog) -> None:
    """Send the log, where the job names a place for it.

    Raises:
        UploadError: the place refused it.
    """
    if "log" not in job.outputs:
        return
    file = folders.archives / "log.txt"
    file.write_bytes(log.content())
    upload_file(file, job.outputs["log"], name="log")
