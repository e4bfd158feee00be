"""Files of every family of tools are kept as they came, byte for byte, and nothing of them is ever loaded by the registry."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest

from attestry.domain.stages import Stage, Status
from attestry.usecases.browse import list_files
from tests.flow import Flow
from tests.imports import MLMODEL, MODEL, bring, submit
from tests.unit.test_imported_version import freeze


def sklearn_folder() -> dict[str, bytes]:
    """A real model of scikit-learn, pickled, beside an MLmodel as MLflow writes it."""
    from sklearn.linear_model import LogisticRegression

    fitted = LogisticRegression().fit([[0.0], [1.0], [2.0], [3.0]], [0, 0, 1, 1])
    return {"MLmodel": MLMODEL, "model.pkl": pickle.dumps(fitted), "requirements.txt": b"scikit-learn\n"}


def xgboost_json() -> dict[str, bytes]:
    """The head of a model as XGBoost's `save_model` writes JSON."""
    parameters = {"base_score": "5E-1", "num_class": "0", "num_feature": "1"}
    learner = {"learner_model_param": parameters, "objective": {"name": "reg:squarederror"}}
    return {"model.json": json.dumps({"learner": learner, "version": [2, 1, 0]}).encode()}


def pytorch_archive() -> dict[str, bytes]:
    """The archive that `torch.save` writes: a zip with a pickle and the raw tensors."""
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w") as archive:
        archive.writestr("model/data.pkl", pickle.dumps({"weight": [1.0, 2.0]}, protocol=2))
        archive.writestr("model/byteorder", "little")
        archive.writestr("model/data/0", struct.pack("<2f", 1.0, 2.0))
        archive.writestr("model/version", "3\n")
    return {"model.pt": raw.getvalue()}


def onnx_graph() -> dict[str, bytes]:
    """A ModelProto: ir_version 8, producer_name, an opset import."""
    return {"model.onnx": b"\x08\x08" + b"\x12\x04tiny" + b"\x42\x02\x10\x11"}


def r_object() -> dict[str, bytes]:
    """What R's `saveRDS(c(1L, 2L), "model.rds")` writes: gzip over the XDR serialization."""
    body = b"X\n" + struct.pack(">iii", 2, 0x00040301, 0x00020300) + struct.pack(">iiii", 13, 2, 1, 2)
    return {"model.rds": gzip.compress(body, mtime=0)}


def plain_tar() -> dict[str, bytes]:
    """A tar with a member that would leave its folder: it is one file, and is not unpacked."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        info = tarfile.TarInfo("../../etc/cron.d/x")
        info.size = 4
        archive.addfile(info, io.BytesIO(b"evil"))
    return {"model.tar": raw.getvalue()}


FAMILIES = (sklearn_folder, xgboost_json, pytorch_archive, onnx_graph, r_object, plain_tar)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.__name__)
def test_files_of_a_family_come_back_as_they_were_brought(family):
    files = family()
    flow = Flow()
    version = freeze(flow, bring(flow, submit(flow, files)))
    assert (version.stage, version.status) == (Stage.IMPORTED, Status.SUCCEEDED)
    listed = {f["path"]: f["url"] for f in list_files(flow.meta, flow.store, MODEL, 1)["files"]}
    assert {name: flow.store.fetch(listed[f"model/{name}"]) for name in files} == files


def test_a_model_of_scikit_learn_predicts_after_the_way_through_the_registry():
    flow = Flow()
    freeze(flow, bring(flow, submit(flow, sklearn_folder())))
    listed = {f["path"]: f["url"] for f in list_files(flow.meta, flow.store, MODEL, 1)["files"]}
    fitted = pickle.loads(flow.store.fetch(listed["model/model.pkl"]))
    assert [int(v) for v in fitted.predict([[0.0], [3.0]])] == [0, 1]


class _Marks:
    """Leaves a file behind where it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self._marker = marker

    def __reduce__(self):
        return (Path.touch, (self._marker,))


def test_a_pickle_that_acts_when_it_is_loaded_is_kept_and_never_loaded(tmp_path):
    marker = tmp_path / "loaded"
    hostile = pickle.dumps(_Marks(marker))
    flow = Flow()
    version = freeze(flow, bring(flow, submit(flow, {"MLmodel": MLMODEL, "model.pkl": hostile})))
    assert version.status is Status.SUCCEEDED
    assert not marker.exists()
