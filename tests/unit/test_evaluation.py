"""Evaluation of what scripts left: real Parquet, real scikit-learn, an object store in memory."""

from __future__ import annotations

import hashlib
import io
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy
import pandas
import pyarrow
import pyarrow.parquet as parquet
import pytest
import sklearn.metrics
from sklearn.datasets import load_breast_cancer, load_iris

from attestry.domain.environments import read_lock
from attestry.domain.errors import IntegrityError, InvalidInputError, UnavailableError
from attestry.domain.metrics import METRIC_FUNCTIONS
from attestry.evaluation import comparison
from attestry.evaluation.describe_data import count_overlap, describe_labels
from attestry.evaluation.environment import EvaluationEnvironment, evaluation_lock
from attestry.evaluation.evaluate import evaluate
from attestry.evaluation.predictions import Predictions, parse_predictions
from attestry.evaluation.validation import compute_metrics
from attestry.sandbox.workspace import Workspace
from tests.fakes import MemoryObjectStore
from tests.unit.sandbox_world import tar_gz, zipped

PREFIX = "jobs/e/PROCESSING/1/evaluated/"


def parquet_bytes(frame: pandas.DataFrame | pyarrow.Table, **options: Any) -> bytes:
    sink = io.BytesIO()
    if isinstance(frame, pandas.DataFrame):
        frame.to_parquet(sink, **{"index": False, **options})
    else:
        parquet.write_table(frame, sink)
    return sink.getvalue()


def frame(**columns: Any) -> pandas.DataFrame:
    return pandas.DataFrame({"a": [1.5, 2.5, None], "b": [1, 2, 3], "label": ["x", "y", "x"]} | columns)


def process(files: Mapping[str, bytes], **changes: Any) -> tuple[dict[str, str], MemoryObjectStore]:
    scratch = MemoryObjectStore()
    scratch.put("jobs/e/PROCESSING/1/output.tar.gz", tar_gz(dict(files)))
    event = {"stage": "PROCESSING", "output_key": "jobs/e/PROCESSING/1/output.tar.gz", "prefix": PREFIX, "label_column": "label", **changes}
    return evaluate(event, MemoryObjectStore(), scratch), scratch


def summary_of(answer: Mapping[str, str], scratch: MemoryObjectStore) -> dict[str, Any]:
    assert answer["outcome"] == "SUCCEEDED", answer
    summary: dict[str, Any] = json.loads(scratch.read(answer["summary_key"], max_bytes=1 << 20))
    return summary


def table_at(scratch: MemoryObjectStore, key: str) -> pyarrow.Table:
    return parquet.read_table(io.BytesIO(scratch.read(PREFIX + key, max_bytes=1 << 24)))


def test_the_hold_out_is_parted_and_training_files_are_kept_byte_for_byte() -> None:
    train, first, second = parquet_bytes(frame()), parquet_bytes(frame()), parquet_bytes(frame(b=[7, 8, 9], label=["y", "y", "y"]))
    answer, scratch = process({"train/p.parquet": train, "holdout/1.parquet": first, "holdout/2.parquet": second, "notes.txt": b"x"})
    summary = summary_of(answer, scratch)
    assert scratch.read(f"{PREFIX}train/p.parquet", max_bytes=1 << 20) == train
    assert table_at(scratch, "holdout/1.parquet").column_names == ["a", "b"]
    assert table_at(scratch, "holdout-labels/labels.parquet").to_pydict() == {"label": ["x", "y", "x", "y", "y", "y"]}
    assert summary["schema"] == [{"name": "a", "type": "double"}, {"name": "b", "type": "int64"}, {"name": "label", "type": "large_string"}]
    assert (summary["rows"], summary["feature_columns"], summary["label_column"]) == ({"train": 3, "holdout": 6}, ["a", "b"], "label")
    assert summary["overlap_rows"] == 3
    assert summary["labels"]["holdout"] == {"distinct": 2, "counts": {"x": 2, "y": 4}}
    assert summary["features"]["train"] == {"a": {"nulls": 1, "min": 1.5, "max": 2.5}, "b": {"nulls": 0, "min": 1, "max": 3}}
    assert summary["ignored_files"] == ["notes.txt"]


def test_labels_stand_nowhere_in_the_hold_outs_features() -> None:
    data = frame(label=["s3cret1", "s3cret2", "s3cret3"])
    answer, scratch = process({"train/p.parquet": parquet_bytes(data), "holdout/p.parquet": parquet_bytes(data)})
    assert answer["outcome"] == "SUCCEEDED"
    raw = scratch.read(f"{PREFIX}holdout/p.parquet", max_bytes=1 << 20)
    assert b"s3cret" not in raw
    assert b"label" not in raw
    assert list(pandas.read_parquet(io.BytesIO(raw)).dtypes) == list(data.drop(columns="label").dtypes)


def test_folders_are_those_that_the_manifest_names() -> None:
    body = parquet_bytes(frame())
    answer, scratch = process({"fit/p.parquet": body, "test/p.parquet": body}, channels={"training": "fit", "holdout": "test"})
    assert summary_of(answer, scratch)["rows"] == {"train": 3, "holdout": 3}
    assert scratch.stat(f"{PREFIX}train/p.parquet")
    assert scratch.stat(f"{PREFIX}holdout/p.parquet")


def test_evaluating_again_gives_the_same_objects() -> None:
    body = parquet_bytes(frame())
    answer, scratch = process({"train/p.parquet": body, "holdout/p.parquet": body})
    event = {"stage": "PROCESSING", "output_key": "jobs/e/PROCESSING/1/output.tar.gz", "prefix": PREFIX, "label_column": "label"}
    assert evaluate(event, MemoryObjectStore(), scratch) == answer


@pytest.mark.parametrize(
    ("train", "holdout", "said"),
    [
        (None, frame(), "wrote no train/*.parquet"),
        (frame(), None, "wrote no holdout/*.parquet"),
        (frame().head(0), frame(), "train has no rows"),
        (frame(), frame().head(0), "holdout has no rows"),
        (frame(), frame().drop(columns="label"), "its columns differ from train/p.parquet"),
        (frame(), frame()[["b", "a", "label"]], "'b' (int64) where 'a' (double) is expected"),
        (frame(), frame(b=[1.0, 2.0, 3.0]), "'b' (double) where 'b' (int64) is expected"),
        (frame().drop(columns="label"), frame().drop(columns="label"), "the label column 'label' is missing"),
        (frame()[["label"]], frame()[["label"]], "no column besides the label"),
        (frame(label=["x", None, "y"]), frame(), "has 1 nulls"),
        (frame(), frame(label=["x", None, "y"]), "holdout/p.parquet: the label column 'label' has 1 nulls"),
        (frame(label=[1.0, numpy.inf, 2.0]), frame(label=[1.0, 2.0, 3.0]), "1 values that are NaN or infinite"),
        (frame(label=pandas.array([b"x", b"y", b"z"])), frame(label=pandas.array([b"x", b"y", b"z"])), "nested and binary types"),
        (frame(a=[[1], [2], [3]]), frame(a=[[1], [2], [3]]), "nested and binary types"),
    ],
)
def test_data_that_breaks_a_rule_is_refused_and_nothing_is_passed_on(
    train: pandas.DataFrame | None, holdout: pandas.DataFrame | None, said: str
) -> None:
    files = {f"{n}/p.parquet": parquet_bytes(f) for n, f in (("train", train), ("holdout", holdout)) if f is not None}
    answer, scratch = process(files)
    assert (answer["outcome"], answer["summary_key"]) == ("FAILED", "")
    assert said in answer["error"]
    assert not list(scratch.list_versions(PREFIX))


def test_a_pandas_index_is_not_taken_for_a_feature() -> None:
    data = frame().set_index(pandas.Index([5, 3, 1]))
    answer, _ = process({"train/p.parquet": parquet_bytes(data, index=True), "holdout/p.parquet": parquet_bytes(data, index=True)})
    assert "write with index=False" in answer["error"]


def test_nan_labels_inside_parquet_are_refused() -> None:
    table = pyarrow.table({"a": [1.0, 2.0], "label": pyarrow.array([1.0, float("nan")])})
    answer, _ = process({"train/p.parquet": parquet_bytes(table), "holdout/p.parquet": parquet_bytes(table)})
    assert "1 values that are NaN or infinite" in answer["error"]


@pytest.mark.parametrize("body", [b"", b"PAR1", b"no parquet at all", parquet_bytes(frame())[:-30], parquet_bytes(frame())[10:]])
def test_a_file_that_is_no_parquet_is_named(body: bytes) -> None:
    answer, _ = process({"train/p.parquet": body, "holdout/p.parquet": parquet_bytes(frame())})
    assert answer["error"].startswith("train/p.parquet: not a Parquet file") or "train/p.parquet" in answer["error"]


def test_a_damaged_archive_and_a_missing_one_are_answers() -> None:
    scratch = MemoryObjectStore()
    event = {"stage": "PROCESSING", "output_key": "k", "prefix": PREFIX, "label_column": "label"}
    assert "left no output" in evaluate(event, scratch, scratch)["error"]
    scratch.put("k", b"garbage")
    assert evaluate(event, scratch, scratch)["outcome"] == "FAILED"


def test_overlap_counts_hold_out_rows_that_training_has_too() -> None:
    train = pyarrow.table({"a": [1.0, 2.0, None], "b": ["x", "y", "z"]})
    holdout = pyarrow.table({"a": [1.0, 2.0, None, 1.0], "b": ["x", "x", "z", "x"]})
    assert count_overlap(train, holdout) == 3
    assert count_overlap(train, train.slice(0, 0)) == 0


def test_labels_with_many_values_are_described_by_their_moments() -> None:
    facts = describe_labels(pyarrow.chunked_array([numpy.arange(200.0)]))
    assert facts["distinct"] == 200
    assert (facts["min"], facts["max"], facts["mean"]) == (0.0, 199.0, 99.5)
    assert facts["deviation"] == pytest.approx(numpy.arange(200).std())


def predicted(**columns: Any) -> Predictions:
    lists = {name: list(values) for name, values in columns.items()}
    return Predictions(lists, len(next(iter(lists.values()))), b"")


def validate(
    predictions: bytes | None, truth: Any, metrics: list[dict[str, Any]], **changes: Any
) -> tuple[dict[str, str], MemoryObjectStore]:
    store, scratch = MemoryObjectStore(), MemoryObjectStore()
    stored = store.put_new("models/m/labels.parquet", parquet_bytes(pyarrow.table({"label": truth})))
    if predictions is not None:
        scratch.put("p.tar.gz", tar_gz({"predictions.json": predictions}))
    place = {"key": stored.key, "version_id": stored.version_id, "sha256": stored.sha256}
    event = {"stage": "VALIDATION", "predictions_key": "p.tar.gz", "labels": place, "metrics": metrics, "prefix": PREFIX, "columns": {}}
    return evaluate({**event, **changes}, store, scratch), scratch


def test_metrics_are_those_of_scikit_learn_on_the_hold_out() -> None:
    data = load_breast_cancer()
    score = numpy.linspace(1, 0, len(data.target))
    label = (score > 0.4).astype(int)
    body = json.dumps({"columns": {"label": label.tolist(), "p": score.tolist()}, "rows": len(label)}).encode()
    metrics = [{"name": "roc_auc_score"}, {"name": "recall_score", "alias": "recall_of_malignant", "parameters": {"pos_label": 0}}]
    answer, scratch = validate(body, data.target, metrics, columns={"prediction": "label", "score": "p"})
    summary = summary_of(answer, scratch)
    expected = float(sklearn.metrics.roc_auc_score(data.target, score))
    assert summary["metrics"]["roc_auc_score"]["value"] == expected
    assert summary["metrics"]["roc_auc_score"]["text"] == repr(expected)
    assert summary["metrics"]["recall_of_malignant"]["value"] == float(sklearn.metrics.recall_score(data.target, label, pos_label=0))
    assert summary["rows"] == 569
    assert scratch.read(f"{PREFIX}predictions.json", max_bytes=1 << 20) == body
    assert summary["predictions_sha256"] == hashlib.sha256(body).hexdigest()


CHAMPION_KEY = "models/m/1/stages/VALIDATION/1/predictions.json"


def against_champion(mine: list[int], theirs: list[int], truth: list[int], *, sha256: str = "") -> tuple[dict[str, str], MemoryObjectStore]:
    store, scratch = MemoryObjectStore(), MemoryObjectStore()
    labels = store.put_new("models/m/labels.parquet", parquet_bytes(pyarrow.table({"label": truth})))
    body = json.dumps({"columns": {"said": theirs}, "rows": len(theirs)}).encode()
    kept = store.put_new(CHAMPION_KEY, body)
    scratch.put("p.tar.gz", tar_gz({"predictions.json": json.dumps({"columns": {"prediction": mine}, "rows": len(mine)}).encode()}))
    file = {"path": "predictions.json", "key": kept.key, "version_id": kept.version_id, "sha256": sha256 or kept.sha256, "size": kept.size}
    event = {
        "stage": "VALIDATION",
        "predictions_key": "p.tar.gz",
        "labels": {"key": labels.key, "version_id": labels.version_id, "sha256": labels.sha256},
        "metrics": [{"name": "accuracy_score", "alias": "right"}, {"name": "recall_score"}],
        "prefix": PREFIX,
        "columns": {},
        "champion": {"reference": "m@1", "predictions": file, "columns": {"prediction": "said", "score": None}},
        "compare": {"right": 0.9},
    }
    return evaluate(event, store, scratch), scratch


def test_a_version_is_compared_with_the_deployed_one_row_by_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "MOST_RESAMPLES", 200)
    truth = [row % 2 for row in range(120)]
    theirs = [1 - label if row % 4 == 0 else label for row, label in enumerate(truth)]
    summary = summary_of(*against_champion(truth, theirs, truth))
    assert summary["champion"] == "m@1"
    assert summary["comparisons"].keys() == {"right"}, "only the metrics whose gates ask for it"
    told = summary["comparisons"]["right"]
    assert (float(told["effect"]), told["confidence"], told["rows"]) == (0.25, "0.9", 120)
    assert 0 < float(told["low"]) <= 0.25 <= float(told["high"])


def test_predictions_of_the_deployed_version_that_were_changed_end_the_evaluation() -> None:
    answer, _ = against_champion([1, 0], [1, 1], [1, 0], sha256="0" * 64)
    assert answer["outcome"] == "FAILED"
    assert "is not what m@1 predicted" in answer["error"]


def test_a_summary_tells_what_computed_it() -> None:
    own = {"id": "ab" * 32, "archive_sha256": "cd" * 32}
    summary = summary_of(
        *validate(b'{"columns": {"prediction": [1, 0]}, "rows": 2}', [1, 0], [{"name": "accuracy_score"}], environment=own)
    )
    told = summary["evaluated_with"]
    assert (told["scikit-learn"], told["numpy"]) == (sklearn.__version__, numpy.__version__)
    assert (told["environment_id"], told["environment_archive_sha256"]) == ("ab" * 32, "cd" * 32)
    assert set(told) == {"python", "scikit-learn", "numpy", "pyarrow", "environment_id", "environment_archive_sha256"}


@pytest.mark.parametrize("name", sorted(METRIC_FUNCTIONS))
def test_every_metric_that_a_manifest_may_name_can_be_computed(name: str) -> None:
    known = METRIC_FUNCTIONS[name]
    parameters = {"fbeta_score": {"beta": 2}, "top_k_accuracy_score": {"k": 1}}.get(name, {})
    labels = numpy.array([0, 1, 1, 0]) if known.task == "classification" else numpy.array([1.0, 2.0, 3.0, 4.0])
    table = predicted(prediction=[0, 1, 0, 0] if known.task == "classification" else [1.5, 2.0, 2.5, 4.0], score=[0.1, 0.9, 0.4, 0.2])
    computed = compute_metrics(labels, table, [{"name": name, "parameters": parameters}], score="score")
    assert numpy.isfinite(computed[name]["value"])


def test_string_labels_and_several_classes_are_judged() -> None:
    labels = numpy.array([load_iris().target_names[i] for i in load_iris().target], dtype=object)
    matrix = numpy.random.default_rng(0).dirichlet(numpy.ones(3), len(labels))
    names = sorted(set(labels))
    guesses = [names[i] for i in matrix.argmax(axis=1)]
    metrics = [
        {"name": "accuracy_score"},
        {"name": "f1_score", "parameters": {"average": "macro"}},
        {"name": "roc_auc_score", "parameters": {"multi_class": "ovr"}},
        {"name": "log_loss"},
    ]
    for columns in ({f"p_{name}": matrix[:, i] for i, name in enumerate(names)}, {f"p_{i}": matrix[:, i] for i in range(3)}):
        computed = compute_metrics(labels, predicted(prediction=guesses, **columns), metrics, score="p")
        assert computed["log_loss"]["value"] == float(sklearn.metrics.log_loss(labels, matrix))
        assert computed["accuracy_score"]["value"] == float(sklearn.metrics.accuracy_score(labels, guesses))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (None, "validation left no output"),
        (b"{", "not JSON"),
        (b'{"columns": {"prediction": [NaN, 1]}, "rows": 2}', "NaN is not a number that JSON knows"),
        (b'{"columns": {"prediction": [1e999, 1]}, "rows": 2}', "no finite number"),
        (b'{"columns": {"prediction": [null, 1]}, "rows": 2}', "no finite number"),
        (b'{"columns": {"prediction": [[1], 1]}, "rows": 2}', "no finite number"),
        (b'{"columns": {"prediction": [1]}, "rows": 2}', "has not 2 rows"),
        (b'{"columns": {"prediction": [1]}, "rows": 1}', "1 predictions for 2 rows"),
        (b'{"columns": {"prediction": [1, 1, 1]}, "rows": 3}', "3 predictions for 2 rows"),
        (b'{"columns": {"other": [1, 0]}, "rows": 2}', "predict_fn gave no column 'prediction'; it gave other"),
        (b'{"columns": {"prediction": ["1", 0]}, "rows": 2}', "mixes texts"),
        (b'{"columns": {"prediction": ["a", "b"]}, "rows": 2}', "scikit-learn refuses"),
        (b"[" * 100000, "not JSON"),
    ],
)
def test_predictions_that_break_a_rule_are_refused(body: bytes | None, said: str) -> None:
    answer, scratch = validate(body, [0, 1], [{"name": "accuracy_score"}])
    assert answer["outcome"] == "FAILED"
    assert said in answer["error"]
    assert not list(scratch.list_versions(PREFIX))


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        ({"name": "make_scorer"}, "not a metric that can be computed"),
        ({"name": "__import__"}, "not a metric that can be computed"),
        ({"name": "accuracy_score", "parameters": {"depth": 1}}, "scikit-learn refuses"),
        ({"name": "precision_score", "parameters": {"average": "sideways"}}, "scikit-learn refuses"),
        ({"name": "f1_score", "parameters": {"average": None}}, "several numbers"),
        ({"name": "roc_auc_score"}, "name their column in validation.columns.score"),
    ],
)
def test_a_metric_that_cannot_be_computed_is_named(metric: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        compute_metrics(numpy.array([0, 1]), predicted(prediction=[0, 1]), [metric])


def test_a_metric_that_is_not_finite_passes_nothing() -> None:
    with pytest.raises(InvalidInputError, match="comes out as nan"):
        compute_metrics(numpy.array([1, 1]), predicted(prediction=[0.1, 0.2]), [{"name": "roc_auc_score"}], score="prediction")


def test_labels_that_were_changed_in_the_bucket_are_refused() -> None:
    place = {"key": "models/m/labels.parquet", "version_id": None, "sha256": "0" * 64}
    answer, _ = validate(b'{"columns": {"prediction": [1, 0]}, "rows": 2}', [0, 1], [{"name": "accuracy_score"}], labels=place)
    assert "is not the file of labels that was recorded" in answer["error"]


def test_predictions_are_parsed_within_the_format_only() -> None:
    parsed = parse_predictions(b'{"columns": {"p": [1, 2.5, true]}, "rows": 3}')
    assert parsed.columns == {"p": [1, 2.5, True]}
    for body in (b"[]", b'{"columns": [], "rows": 1}', b'{"columns": {}, "rows": "1"}'):
        with pytest.raises(InvalidInputError):
            parse_predictions(body)


def test_the_registrys_own_lock_file_is_pinned_with_hashes() -> None:
    names = {requirement.name for requirement in read_lock(evaluation_lock())}
    assert {"scikit-learn", "numpy", "pyarrow"} <= names


def test_the_evaluation_environment_is_checked_and_imported_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    store = MemoryObjectStore()
    archive = zipped({"only_in_the_archive.py": "VALUE = 1\n"})
    store.put_new("environments/e/environment.zip", archive)
    environment = EvaluationEnvironment(Workspace(tmp_path))
    with pytest.raises(IntegrityError):
        environment.activate(store, "e", "0" * 64)
    digest = hashlib.sha256(archive).hexdigest()
    environment.activate(store, "e", digest)
    environment.activate(store, "e", digest)
    import only_in_the_archive

    assert only_in_the_archive.VALUE == 1
    with pytest.raises(UnavailableError):
        environment.activate(store, "other", "1" * 64)
