"""The entry shim: the first of our code in a container of the user's, and all of it that is there.

It is a zip of this package's modules that `python3` runs, standard library only, Python 3.10 or later:

    python3 shim.zip processing        SageMaker processing: folders below /opt/ml/processing
    python3 shim.zip training          SageMaker training: folders below /opt/ml
    python3 shim.zip urls              Batch: the job file behind ATTESTRY_JOB_URL, URLs for everything else
    python3 shim.zip serve             SageMaker's endpoints: a version's frozen folder below /opt/ml/model
    python3 shim.zip predict SCRIPT CONFIGURATION    the process in which a script predicts on the hold-out; started by the shim itself
    python3 shim.zip model SCRIPT CONFIGURATION      the process in which a script serves; started by the shim itself

On EMR Serverless, Spark runs `spark_entry.py`, which finds the same modules (`attestry.sandbox.spark`).
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from attestry.sandbox.container import MountedPlace, Place, UrlPlace, run_in_container

ML_ROOT = "/opt/ml"


def main(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    """Do what the first argument says and return the exit code.

    Args:
        arguments: the archive's path, the mode, and for SageMaker's modes optionally the folder that stands for /opt/ml.
        environ: the variables.
    """
    shim, mode, *rest = [*arguments, ""]
    if mode in ("predict", "model"):
        return _run(mode, rest[0], json.loads(rest[1]))
    with tempfile.TemporaryDirectory(prefix="attestry-", ignore_cleanup_errors=True) as work:
        if mode == "serve":
            from attestry.sandbox.endpoint import serve

            return serve(shim, environ, Path(work))
        place = _place(mode, Path(rest[0] or ML_ROOT), Path(work), environ)
        if place is None:
            sys.stderr.write(f"attestry: {mode!r} is none of processing, training, urls, serve\n")
            return 2
        return run_in_container(place, shim, environ)


def _place(mode: str, root: Path, work: Path, environ: Mapping[str, str]) -> Place | None:
    if mode in ("processing", "training"):
        return MountedPlace(mode, root, work)
    return UrlPlace(environ.get("ATTESTRY_JOB_URL", ""), work) if mode == "urls" else None


def _run(mode: str, script: str, configuration: Mapping[str, str]) -> int:
    from attestry.sandbox.model_runner import predict_holdout, serve

    # What the script imports is the script's own and the image's, never ours.
    for name in [name for name in sys.modules if name.partition(".")[0] == "attestry"]:
        del sys.modules[name]
    folder = os.path.dirname(script)  # noqa: PTH120 (sys.path holds text)
    sys.path[:] = [folder, *sys.path[1:]]
    sys.argv[:] = [script]
    (predict_holdout if mode == "predict" else serve)(script, configuration)
    return 0
