"""Manifests for the tests: one that is complete and small, and a way to spoil it."""

from __future__ import annotations

import copy
import json
from typing import Any

import yaml

from attestry.domain.errors import InvalidInputError, Problem
from attestry.domain.manifest import ManifestDocument, read_manifest

COMPLETE: dict[str, Any] = {
    "model": {
        "name": "credit-risk",
        "owner": "credit-models@example.com",
        "team": "Credit analytics",
        "purpose": "Estimates the probability of default.",
        "risk_tier": "high",
        "labels": {"domain": "retail"},
    },
    "source": {
        "repository": "https://git.example.com/credit/models.git",
        "revision": "9fceb02d0ae598e95dc970b74767f19372d61af8",
        "author": "dana <dana@example.com>",
        "sha256": "0e" * 32,
    },
    "environment": {
        "lock_file": "requirements.lock",
        "framework": {"name": "scikit-learn", "version": "1.9.1"},
        "algorithm": {"name": "LogisticRegression", "version": "1.9.1"},
    },
    "data": {
        "source": [{"name": "loans", "uri": "data/loans.csv", "sha256": "5c" * 32, "origin": "Loan book"}],
        "training": {"channel": "train"},
        "holdout": {"channel": "holdout"},
        "label": {"column": "defaulted", "version": "2025-06", "source": "Payments", "labeller": "Collections"},
        "preparation": [{"name": "split", "kind": "split", "script": "process.py", "parameters": {"share": 0.25, "by": ["a", "b"]}}],
    },
    "processing": {"script": "process.py", "parameters": {"share": 0.25}},
    "training": {"script": "train.py", "hyperparameters": {"C": 0.1, "max_iter": 200, "scale": True, "solver": "lbfgs"}},
    "validation": {
        "script": "inference.py",
        "task": "classification",
        "columns": {"prediction": "label", "score": "probability"},
        "metrics": [{"name": "roc_auc_score"}, {"name": "recall_score", "alias": "recall", "parameters": {"pos_label": 1}}],
    },
    "gates": {
        "metrics": [{"metric": "roc_auc_score", "minimum": 0.9}],
        "no_worse_than_deployed": [{"metric": "recall", "by_more_than": 0.02}],
        "required": ["model.labels"],
    },
    "approval": {"people": {"roles": ["approver"], "count": 1}},
    "deployment": {"environment": "production", "memory_mib": 1024, "capture_rate": 0.5},
    "reproduction": {"bit_equal": True},
}


def changed(path: str, value: Any = None, *, remove: bool = False) -> dict[str, Any]:
    """Return the complete manifest with one field set or removed; integers in the dotted path are list indexes."""
    mapping = copy.deepcopy(COMPLETE)
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    node: Any = mapping
    for part in parents:
        node = node[part]
    if remove:
        del node[last]
    else:
        node[last] = value
    return mapping


def as_json(mapping: Any) -> bytes:
    return json.dumps(mapping, ensure_ascii=False).encode()


class _Dumper(yaml.SafeDumper):
    """Puts text in quotes that reads like a number in YAML 1.2, or in a hurry: PyYAML writes YAML 1.1."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    is_word = text.isidentifier() and text.lower() not in ("inf", "infinity", "nan")
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if is_word else '"')


_Dumper.add_representer(str, _represent_text)


def as_yaml(mapping: Any) -> bytes:
    text: str = yaml.dump(mapping, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    return text.encode()


def read(mapping: Any, *, draft: bool = False) -> ManifestDocument:
    return read_manifest(as_json(mapping), draft=draft)


def problems_of(raw: bytes | dict[str, Any], *, draft: bool = False) -> tuple[Problem, ...]:
    """Return what the reader has against the manifest; an empty tuple when it is accepted."""
    try:
        read_manifest(raw if isinstance(raw, bytes) else as_json(raw), draft=draft)
    except InvalidInputError as error:
        return error.problems
    return ()


def rules_of(raw: bytes | dict[str, Any], *, draft: bool = False) -> list[tuple[str, str]]:
    """Return field and rule of every problem."""
    return [(problem.field, problem.rule) for problem in problems_of(raw, draft=draft)]
