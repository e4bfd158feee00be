"""The demo's versions beside the deployed one: a shadow that answers for nobody, and a canary that halts by itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from attestry.cli.demo_parts import MODEL, expect, signed_version
from attestry.client.api import RegistryClient

SHADOW: Mapping[str, Any] = {"strategy": "shadow", "shadow": {"minutes": 60, "predictions": 0}}
CANARY: Mapping[str, Any] = {
    "strategy": "canary",
    "canary": {"steps": [50], "minutes": 30, "predictions": 0, "alarm": {"error_rate": 0.05, "minimum_errors": 3}},
}
FAR_OUT = 20_000.0
"""An area that no row of the data has; the second change to the script does not bear it."""

_GUARD = '    measurements = data[list(model.feature_names_in_)].astype("float64")\n'
_WRONG = '    if (measurements > 10_000).any(axis=None):\n        raise ValueError("a measurement is out of range")\n'
_REQUESTS = 60


def ask_for_shadow(project: Path) -> None:
    """Regularise less, and ask that the version comes as a shadow."""
    _edit(project / "manifest.yaml", SHADOW, C=1.0)


def ask_for_canary(project: Path) -> None:
    """Make the script refuse what it used to answer, and ask that the version comes as a canary."""
    script = project / "inference.py"
    text = script.read_text(encoding="utf-8")
    expect(_GUARD in text, "the example's inference script is not the one that this demo changes")
    script.write_text(text.replace(_GUARD, _GUARD + _WRONG), encoding="utf-8")
    _edit(project / "manifest.yaml", CANARY, C=0.1)


def use_canary(consumer: RegistryClient, operator: RegistryClient, rows: Sequence[Mapping[str, float]]) -> tuple[Counter[int], int]:
    """Ask until the canary has answered, and then what it fails until it has failed often enough.

    Returns:
        How many answers each version gave, and how many requests the canary failed that the deployed version answered.
    """
    answered: Counter[int] = Counter()
    for row in rows[:_REQUESTS]:
        answer = consumer.predict(MODEL, [row])
        expect(signed_version(answer) == answer["version"], "an answer names another version than its receipt")
        answered[int(answer["version"])] += 1
        if len(answered) > 1 and answered.total() >= 10:
            break
    wanted = CANARY["canary"]["alarm"]["minimum_errors"]
    for _ in range(_REQUESTS):
        answer = consumer.predict(MODEL, [{**rows[0], "worst_area": FAR_OUT}])
        expect(answer["version"] == 1, f"version {answer['version']} answered what only version 1 can")
        seen = operator.rollout(MODEL)["canary"]
        failed = int(seen["failed"]) if seen else wanted
        if failed >= wanted:
            return answered, failed
    raise AssertionError("unreachable: half of the requests go to the canary")


def await_halt(operator: RegistryClient, number: int, wait: Callable[[Callable[[], bool], str], None]) -> str:
    """Wait until the canary is out of its place, and return the reason that the registry gives."""
    wait(lambda: not operator.rollout(MODEL)["canary"], "the canary was not halted")
    version = operator.version(MODEL, number)
    expect(version["standing"] == "APPROVED", f"the halted canary stands {version['standing']}")
    return str(version["error"])


def await_comparison(operator: RegistryClient, number: int, wait: Callable[[Callable[[], bool], str], None]) -> Mapping[str, Any]:
    """Wait until the shadow has been asked, and return how its answers compare with those that were given."""
    wait(lambda: int(_comparison(operator)["compared"]) > 0, "the shadow was not asked")
    expect(operator.version(MODEL, number)["standing"] == "SHADOW", f"version {number} does not stand SHADOW")
    return _comparison(operator)


def _comparison(operator: RegistryClient) -> Mapping[str, Any]:
    shadow: Mapping[str, Any] = operator.rollout(MODEL)["shadow"]
    compared: Mapping[str, Any] = shadow["comparison"]
    return compared


def _edit(manifest: Path, deployment: Mapping[str, Any], **hyperparameters: float) -> None:
    document = yaml.safe_load(manifest.read_text(encoding="utf-8"))
    kept = {name: value for name, value in document["deployment"].items() if name not in ("strategy", "canary", "shadow")}
    document["deployment"] = {**kept, **deployment}
    document["training"]["hyperparameters"].update(hyperparameters)
    manifest.write_text(yaml.safe_dump(document, sort_keys=False, allow_unicode=True), encoding="utf-8")
