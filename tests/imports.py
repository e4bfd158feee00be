"""Imports for tests: submissions of files that were made elsewhere, as the command line uploads them."""

from __future__ import annotations

import hashlib
from typing import Any

from attestry.domain.imports import ImportRequest, read_import
from attestry.domain.principal import Principal
from attestry.domain.version import Version
from attestry.usecases.begin_import import begin_import, read_import_files
from attestry.usecases.import_version import import_version
from tests.flow import Flow
from tests.versions import DANA

MODEL = "churn"
MLMODEL = b"""artifact_path: model
flavors:
  python_function:
    env: {conda: conda.yaml, virtualenv: python_env.yaml}
    loader_module: mlflow.sklearn
    model_path: model.pkl
    predict_fn: predict
    python_version: 3.11.9
  sklearn:
    code: null
    pickled_model: model.pkl
    serialization_format: cloudpickle
    sklearn_version: 1.5.1
mlflow_version: 3.1.0
model_size_bytes: 1263
model_uuid: 6f1c7c2f3ad14a2a9c3c4f0a8f1b2c3d
run_id: 8f0f2a6f5bd94c07b8a2b7b0b1a2c3d4
signature:
  inputs: '[{"type": "double", "name": "tenure", "required": true}, {"type": "string", "name": "plan", "required": true}]'
  outputs: '[{"type": "tensor", "tensor-spec": {"dtype": "int64", "shape": [-1]}}]'
  params: null
utc_time_created: '2026-01-01 10:00:00.123456'
"""
FILES = {
    "MLmodel": MLMODEL,
    "model.pkl": b"\x80\x05a pickle that nobody here opens",
    "requirements.txt": b"mlflow==3.1.0\nscikit-learn==1.5.1\n",
    "python_env.yaml": b"python: 3.11.9\ndependencies:\n- -r requirements.txt\n",
}
RUN = {"id": "8f0f2a6f5bd94c07b8a2b7b0b1a2c3d4", "experiment": "churn", "params": {"C": "0.5"}, "metrics": {"auc": 0.91}, "tags": {}}


def submit(flow: Flow, files: dict[str, bytes] | None = None, *, by: Principal = DANA) -> str:
    """Upload files into a new submission and return its ID."""
    given = FILES if files is None else files
    body = {"files": [{"name": n, "size": len(b), "sha256": hashlib.sha256(b).hexdigest()} for n, b in given.items()]}
    grant = begin_import(flow.meta, flow.store, read_import_files(body), by=by, at=flow.clock.now())
    for upload in grant.uploads:
        flow.store.put(upload.key, given[upload.name])
    return grant.submission


def request_of(submission: str, model: str = MODEL, **changes: Any) -> ImportRequest:
    """What a client sends once the files are uploaded."""
    return read_import(model, {"submission": submission, "source": "runs:/8f0f/model", "run": RUN, **changes})


def bring(flow: Flow, submission: str, *, by: Principal = DANA, model: str = MODEL, **changes: Any) -> Version:
    """Import a submission."""
    return import_version(flow.meta, flow.store, flow.attestor, request_of(submission, model, **changes), by=by, at=flow.clock.now())
