"""docs/manifest.md says what the code does."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest

from attestry.domain.manifest import complete_manifest, read_manifest
from tests.unit import manifest_reference, test_manifest, test_manifest_source
from tests.unit.manifest_samples import read

PAGE = manifest_reference.PAGE.read_text(encoding="utf-8")
DOMAIN = Path(manifest_reference.__file__).parents[2] / "attestry" / "domain"


def example(name: str) -> str:
    found = re.search(rf"<!-- example: {re.escape(name)} -->\n```\w+\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    return found.group(1)


def test_the_reference_is_what_the_schema_says() -> None:
    assert manifest_reference.replace_reference(PAGE) == PAGE, "run: python -m tests.unit.manifest_reference"


def test_the_example_is_a_manifest_that_can_be_submitted() -> None:
    draft = read_manifest(example("manifest.yaml").encode(), draft=True)
    mapping = complete_manifest(
        draft.mapping,
        revision="a" * 40,
        author="dana",
        repository="https://git.example.com/x",
        archive_sha256="0" * 64,
        data_sha256s={"data/loans.csv": "1" * 64},
    )
    assert read(mapping).manifest.model.name == "credit-risk"


@pytest.mark.parametrize("stage", ["processing", "training"])
def test_the_example_scripts_take_exactly_the_parameters_of_the_example(stage: str) -> None:
    section = read_manifest(example("manifest.yaml").encode(), draft=True).mapping[stage]
    names = re.findall(r'add_argument\("--(\w+)"', example(section["script"]))
    assert names == list(section.get("parameters", section.get("hyperparameters")))


@pytest.mark.parametrize("name", ["process.py", "train.py", "inference.py"])
def test_the_example_scripts_are_python(name: str) -> None:
    ast.parse(example(name))


def test_every_rule_that_the_code_can_report_is_in_the_tables() -> None:
    told = set(re.findall(r"`([a-z0-9_]+)`", PAGE.split("## What is refused")[1]))
    tested = {rule for *_, rules in cases(test_manifest_source) for _, rule, _ in rules} | {case[-1][1] for case in cases(test_manifest)}
    archive = set(re.findall(r'_broken\(\s*self\._field,\s*"(\w+)"', (DOMAIN / "archive.py").read_text()))
    names = set(re.findall(r'BrokenRule\("(\w+)"', (DOMAIN / "names.py").read_text())) | {"path_distinct"}
    rules = set(re.findall(r'yield .*?\), "(\w+)",', (DOMAIN / "manifest_rules.py").read_text()))
    assert tested | archive | names | rules <= told


def cases(module: object) -> list[tuple[Any, ...]]:
    """Return the parameters of the test of bad fields or texts."""
    name = next(n for n in dir(module) if n.startswith(("test_a_field_that", "test_a_text_that_breaks")))
    return [tuple(values) for values in getattr(module, name).pytestmark[0].args[1]]
