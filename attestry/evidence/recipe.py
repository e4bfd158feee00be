"""The recipe of a stage: everything that goes into its run, so that two runs of one recipe had bit-equal inputs.

Rules:
- A recipe is read from a plan or from a record, which repeats its plan. What differs from run to run (number, attempt, execution, job and
  times) is no part of it; everything else is, the seed among the parameters.
- The candidate is a part: one manifest, so one script contract, label and way of parting the data.
- Data are compared by digest, code by the digest of its archive, the environment by that of its archive, an image by its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

_PARTS: Final = ("format", "model", "candidate", "stage", "executor", "code", "environment", "container", "parameters", "resources")


def recipe_of(told: Mapping[str, Any]) -> dict[str, Any]:
    """Return the recipe that a plan or a record of a stage tells, JSON values.

    Raises:
        KeyError: it is neither.
    """
    return {**{name: told[name] for name in _PARTS}, "inputs": {data["name"]: data["digest"] for data in told["inputs"]}}


def reused_plan(plan: Mapping[str, Any], reused_from: Mapping[str, Any]) -> dict[str, Any]:
    """Return the plan of a stage that is taken from another version: what would have run, that nothing does, and from where it is taken.

    Args:
        plan: the plan of a run.
        reused_from: `number`, `attempt`, `transition` and `record_sha256` of the run, and `through`, see `attestry.usecases.reuse`.
    """
    return {**{name: value for name, value in plan.items() if name != "job"}, "builder": "reuse", "reused_from": dict(reused_from)}


def same_outputs(record: Mapping[str, Any], run: Mapping[str, Any]) -> bool:
    """Return whether a stage has the files that another run made, byte for byte.

    A model's digest is that of the artifact manifest, which names its version, so files are compared one by one.
    """
    return _files(record) == _files(run)


def _files(record: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    return {output["name"]: {file["path"]: file["sha256"] for file in output["files"]} for output in record["outputs"]}
