"""The example scripts, run under the contract that docs/manifest.md states."""

from __future__ import annotations

import importlib.util
import os
import runpy
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import pytest
import sklearn.metrics

from attestry.domain.environments import read_lock
from attestry.domain.gates import all_passed, apply_gates
from attestry.domain.manifest import Manifest, complete_manifest, read_manifest
from attestry.domain.metrics import METRIC_FUNCTIONS
from attestry.evaluation.environment import evaluation_lock
from attestry.sandbox.contract import script_arguments

EXAMPLES = sorted((Path(__file__).parents[2] / "manifests").glob("*/manifest.yaml"))


@dataclass
class Run:
    """One example after PROCESSING and TRAINING."""

    folder: Path
    manifest: Manifest
    output: Path
    model: Path

    def train(self, model: Path, *, apart: bool = False) -> Path:
        model.mkdir()
        start = run_apart if apart else run_here
        channel = self.manifest.data.training.channel
        variables = {f"SM_CHANNEL_{channel.upper()}": str(self.output / channel), "SM_MODEL_DIR": str(model)}
        start(self.folder, self.manifest.training.script, self.manifest.training.hyperparameters, variables)
        return model

    def inference(self) -> ModuleType:
        spec = importlib.util.spec_from_file_location("inference", self.folder / self.manifest.validation.script)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    def holdout(self) -> tuple[pd.DataFrame, pd.Series[Any]]:
        data = pd.read_parquet(self.output / self.manifest.data.holdout.channel)
        return data, data.pop(self.manifest.data.label.column)

    def predictions(self) -> pd.DataFrame:
        module = self.inference()
        answer = module.predict_fn(self.holdout()[0], module.model_fn(str(self.model)))
        return answer if isinstance(answer, pd.DataFrame) else pd.DataFrame({"prediction": answer})


def run_here(folder: Path, script: str, parameters: Any, variables: dict[str, str]) -> None:
    """Run a script in this process, which has imported the large packages already."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [script, *script_arguments(parameters)])
        patch.chdir(folder)
        for name, value in variables.items():
            patch.setenv(name, value)
        runpy.run_path(str(folder / script), run_name="__main__")


def run_apart(folder: Path, script: str, parameters: Any, variables: dict[str, str]) -> None:
    bytecode = {"PYTHONPYCACHEPREFIX": sys.pycache_prefix} if sys.pycache_prefix else {"PYTHONDONTWRITEBYTECODE": "1"}
    bare = {"PATH": os.environ["PATH"], **bytecode, **variables}
    subprocess.run([sys.executable, script, *script_arguments(parameters)], cwd=folder, env=bare, check=True, capture_output=True)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.parent.name)
def test_an_example_runs_in_the_environment_that_is_built_for_evaluation_anyway(path: Path) -> None:
    assert (path.parent / "requirements.lock").read_bytes() == evaluation_lock()


@pytest.fixture(scope="module", params=EXAMPLES, ids=lambda path: path.parent.name)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The data are written into a folder of the test, so that nobody's own data/ is needed or touched."""
    path: Path = request.param
    work = tmp_path_factory.mktemp(path.parent.name)
    (work / "get_data.py").write_bytes((path.parent / "get_data.py").read_bytes())
    run_here(work, "get_data.py", {}, {})
    draft = read_manifest(path.read_bytes(), draft=True)
    digests = {item["uri"]: "0" * 64 for item in draft.mapping["data"]["source"] if (work / item["uri"]).is_file()}
    mapping = complete_manifest(
        draft.mapping, revision="a" * 40, author="dana", repository="https://x.example/y", archive_sha256="0" * 64, data_sha256s=digests
    )
    example = Run(path.parent, Manifest.from_mapping(mapping), work / "output", work / "model")
    variables = {"SM_CHANNEL_SOURCE": str(work / "data"), "SM_OUTPUT_DATA_DIR": str(example.output)}
    run_here(path.parent, example.manifest.processing.script, example.manifest.processing.parameters, variables)
    example.train(example.model)
    return example


def test_the_predictions_pass_the_gates_of_the_manifest(trained: Run) -> None:
    validation, (_, labels), answer = trained.manifest.validation, trained.holdout(), trained.predictions()
    metrics: dict[str, float | None] = {}
    for metric in validation.metrics:
        reads_score = METRIC_FUNCTIONS[metric.name].reads == "score"
        column = validation.columns.score if reads_score else validation.columns.prediction
        metrics[metric.key] = float(getattr(sklearn.metrics, metric.name)(labels, answer[column], **metric.parameters))
    results = apply_gates(trained.manifest, metrics, None)
    assert all_passed(results), results


def test_training_and_holdout_share_no_row_and_lose_none(trained: Run) -> None:
    channels = [trained.manifest.data.training.channel, trained.manifest.data.holdout.channel]
    parts = [pd.read_parquet(trained.output / channel) for channel in channels]
    together = pd.concat(parts, ignore_index=True)
    assert len(together.drop_duplicates()) == len(together)
    assert list(parts[0].columns) == list(parts[1].columns)


def test_each_row_is_predicted_alike_alone_and_among_others(trained: Run) -> None:
    module, (features, _) = trained.inference(), trained.holdout()
    model = module.model_fn(str(trained.model))
    alone = [pd.DataFrame(module.predict_fn(features.iloc[[row]], model)) for row in range(5)]
    among = pd.DataFrame(module.predict_fn(features.head(5), model))
    pd.testing.assert_frame_equal(pd.concat(alone, ignore_index=True), among)


def test_a_second_training_in_another_process_gives_equal_bytes_on_the_same_machine(trained: Run) -> None:
    again = trained.train(trained.model.with_name("again"), apart=True)
    files = {path.name: path.read_bytes() for path in trained.model.iterdir()}
    assert {path.name: path.read_bytes() for path in again.iterdir()} == files


def test_the_lock_file_is_one_that_the_registry_accepts(trained: Run) -> None:
    assert trained.manifest.environment.lock_file is not None
    names = {requirement.name for requirement in read_lock((trained.folder / trained.manifest.environment.lock_file).read_bytes())}
    assert {"scikit-learn", "pandas", "pyarrow"} <= names
