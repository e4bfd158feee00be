"""The contract on Spark: the script runs in the driver, and its channels and outputs are `s3://` URIs.

EMR Serverless runs the script where Spark's own gateway is, so it is no process of its own: what the driver may do, the script may do, and
that ends at the run's folder in scratch. Spark writes the prepared data itself, `SM_OUTPUT_DATA_DIR/train` and so on, as Parquet files.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

from attestry.sandbox.contract import Folders, script_arguments, script_environment
from attestry.sandbox.errors import BadJobError
from attestry.sandbox.job import MAX_JOB_BYTES, Job, read_container_job
from attestry.sandbox.machine import cpu_count, gpu_count


def main(arguments: Sequence[str]) -> None:
    """Run the script of the job in the working directory: `job.json` as --files brings it, `source` as --archives unpacks it.

    Args:
        arguments: the program, and the `s3://` URIs of what is given and of what is left, with a slash at the end.

    Raises:
        BadJobError: the job breaks the format.
    """
    given, left = arguments[1:3]
    here = Path.cwd()
    document = json.loads((here / "job.json").read_bytes()[:MAX_JOB_BYTES])
    job = read_container_job(document, mounted=True)
    script = here / "source" / job.entry_point
    if not script.is_file() or script.suffix != ".py":
        raise BadJobError(f"the source has no Python file {job.entry_point!r}")
    os.environ.update(spark_environment(job, given, left))
    # As Python does for a program: its own folder first.
    sys.path[:0] = [str(script.parent), str(here / "source")]
    sys.argv[:] = [str(script), *script_arguments(job.arguments)]
    runpy.run_path(str(script), run_name="__main__")


def spark_environment(job: Job, given: str, left: str) -> dict[str, str]:
    """Return the contract's variables, with URIs where there are folders elsewhere.

    Args:
        job: the job.
        given: URI of what the registry gives, with a slash at the end.
        left: URI of what the script leaves, with a slash at the end.
    """
    variables = script_environment(job, Folders(Path.cwd()), cpus=cpu_count(), gpus=gpu_count())
    variables |= {f"SM_CHANNEL_{name.upper()}": f"{given}{name}" for name in job.channels}
    output = f"{left}output"
    return variables | {"SM_INPUT_DIR": given, "SM_MODEL_DIR": f"{left}model", "SM_OUTPUT_DIR": output, "SM_OUTPUT_DATA_DIR": output}
