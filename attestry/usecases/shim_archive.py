"""The entry shim as bytes: what `python3` runs in a container that has nothing of ours.

The same package gives the same bytes, so the archive's digest says which shim ran.
"""

from __future__ import annotations

import io
import zipfile
from functools import cache
from importlib.resources import files

MODULES = (
    "__init__",
    "artifact",
    "child",
    "collect",
    "confine",
    "container",
    "contract",
    "endpoint",
    "errors",
    "fetch",
    "job",
    "log",
    "machine",
    "model_process",
    "model_runner",
    "outcome",
    "outputs",
    "paths",
    "processes",
    "shim",
    "spark",
    "unpack",
    "upload",
)
"""What the shim imports, its own imports included; a test runs it from these alone."""

SPARK_ENTRY = b"""import sys

from attestry.sandbox.spark import main

main(sys.argv)
"""
"""What Spark is given to run; the archive is on its path by --py-files."""

_MAIN = b"""import os
import sys

from attestry.sandbox.shim import main

sys.exit(main(sys.argv, os.environ))
"""
_DATE = (1980, 1, 1, 0, 0, 0)


@cache
def shim_archive() -> bytes:
    """Return the zip."""
    package = files("attestry")
    content = {"__main__.py": _MAIN, "attestry/__init__.py": b""}
    content |= {f"attestry/sandbox/{name}.py": package.joinpath("sandbox", f"{name}.py").read_bytes() for name in MODULES}
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:
        for path, body in sorted(content.items()):
            archive.writestr(zipfile.ZipInfo(path, _DATE), body)
    return sink.getvalue()
