"""MLmodel files: read as text, with bounds, and never acted upon."""

from __future__ import annotations

import json
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attestry.domain.errors import InvalidInputError
from attestry.domain.mlmodel import MAX_READING_BYTES, MlModel, read_mlmodel
from attestry.evidence.canonical import canonical_bytes
from tests.imports import MLMODEL

PLAIN = "flavors:\n  sklearn: {}\n"


def rules_of(error):
    return {(p.field, p.rule) for p in error.value.problems}


def with_signature(inputs: str) -> bytes:
    return json.dumps({"flavors": {"sklearn": {}}, "signature": {"inputs": inputs}}).encode()


def test_what_mlflow_writes_is_read_field_by_field():
    read = read_mlmodel(MLMODEL, b"mlflow==3.1.0\n# a comment\n\nscikit-learn==1.5.1\n")
    assert sorted(read.flavors) == ["python_function", "sklearn"]
    assert read.flavors["sklearn"]["sklearn_version"] == "1.5.1"
    assert (read.python_version, read.loader_module) == ("3.11.9", "mlflow.sklearn")
    assert read.environment == {"conda": "conda.yaml", "virtualenv": "python_env.yaml"}
    assert read.texts["model_uuid"] == "6f1c7c2f3ad14a2a9c3c4f0a8f1b2c3d"
    assert read.texts["run_id"] == "8f0f2a6f5bd94c07b8a2b7b0b1a2c3d4"
    assert read.texts["utc_time_created"] == "2026-01-01 10:00:00.123456"
    assert read.requirements == ("mlflow==3.1.0", "scikit-learn==1.5.1")


def test_a_signature_is_parsed_from_the_json_inside_the_yaml():
    signature = read_mlmodel(MLMODEL).signature
    assert signature is not None
    assert [f["name"] for f in signature.inputs or ()] == ["tenure", "plan"]
    assert (signature.outputs or ())[0]["tensor-spec"] == {"dtype": "int64", "shape": [-1]}
    assert signature.params is None


def test_a_flavour_that_nobody_here_knows_is_kept_as_it_was_written():
    read = read_mlmodel(b"flavors:\n  my_company.flavour:\n    weights: [1, 2, 3]\n    nested: {a: {b: true}}\n  crate: null\n")
    assert read.flavors == {"my_company.flavour": {"weights": [1, 2, 3], "nested": {"a": {"b": True}}}, "crate": {}}


def test_a_module_that_a_flavour_names_is_not_imported():
    read_mlmodel(b"flavors:\n  python_function:\n    loader_module: antigravity\n    code: code\n")
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (b"", "empty"),
        (b"\xff\xfe", "utf8"),
        (b"- a list\n", "type"),
        (b"model_uuid: x\n", "required"),
        (b"flavors: {}\n", "required"),
        (b"flavors: [sklearn]\n", "required"),
        (b"flavors: {sklearn: pickle}\n", "type"),
        (b"flavors: {sklearn: &a {x: 1}, other: *a}\n", "no_aliases"),
        (b"flavors: {sklearn: !!python/object/apply:os.system ['id']}\n", "no_tags"),
        (b"flavors: {sklearn: {}}\n---\nflavors: {}\n", "one_document"),
        (b"flavors: {sklearn: {}}\nflavors: {other: {}}\n", "duplicate_key"),
        (b"flavors: {a: " + b"[" * 30 + b"]" * 30 + b"}\n", "nesting"),
        (b"flavors: {a: [" + b"1," * 30_000 + b"]}\n", "length"),
        (b"flavors: {a: '" + b"x" * 300_000 + b"'}\n", "size"),
        (json.dumps({"flavors": {f"f{n}": {} for n in range(51)}}).encode(), "max_items"),
        (b"flavors: {a: {}}\nsignature: [1]\n", "type"),
        (b"flavors: {a: {}}\nmodel_uuid: {x: 1}\n", "type"),
        (b"flavors: {a: {}}\nrun_id: '" + b"r" * 600 + b"'\n", "length"),
    ],
)
def test_a_document_that_breaks_a_rule_is_refused_with_the_rule(text, rule):
    with pytest.raises(InvalidInputError) as error:
        read_mlmodel(text)
    assert rule in {r for _, r in rules_of(error)}


@pytest.mark.parametrize(
    ("inputs", "rule"),
    [
        ("not json", "json"),
        ("[" * 100_000, "json"),
        ('{"type": "double"}', "fields"),
        ('[{"name": "no type"}]', "fields"),
        ('[{"type": 5}]', "fields"),
        ('[{"type": "double", "x": NaN}]', "json"),
        ('[{"type": "double", "x": 1e999}]', "number"),
        ('[{"type": "double", "x": 99999999999999999999}]', "number"),
        ('[{"type": "double", "name": "\\ud800"}]', "text"),
        ('[{"type": "array", "items": ' + '{"a":' * 25 + "1" + "}" * 25 + "}]", "nesting"),
        (json.dumps([{"type": "double"}] * 2001), "max_items"),
    ],
)
def test_a_signature_that_is_no_list_of_fields_is_refused(inputs, rule):
    with pytest.raises(InvalidInputError) as error:
        read_mlmodel(with_signature(inputs))
    assert rules_of(error) == {("signature.inputs", rule)}


def test_a_bomb_of_aliases_is_refused_before_it_grows():
    levels = "\n".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9) if n else 'x'}]" for n in range(20))
    begun = time.perf_counter()
    with pytest.raises(InvalidInputError):
        read_mlmodel(f"{levels}\n{PLAIN}".encode())
    assert time.perf_counter() - begun < 2


def test_a_reading_that_would_be_too_large_keeps_names_alone_and_says_so():
    columns = json.dumps([{"type": "double", "name": f"column {n} " + "x" * 80} for n in range(1900)])
    item = read_mlmodel(with_signature(columns)).to_item()
    assert (item["cut"], item["signature"], item["flavors"]) == (True, None, {"sklearn": {}})
    assert len(json.dumps(item)) < MAX_READING_BYTES


def test_requirements_that_are_no_text_or_too_many_are_left_out():
    assert read_mlmodel(PLAIN.encode(), b"\xff").requirements == ()
    assert read_mlmodel(PLAIN.encode(), b"x" * 70_000).requirements == ()
    assert len(read_mlmodel(PLAIN.encode(), b"a==1\n" * 5000).requirements) == 1000


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(min_size=1, max_size=10), inner, max_size=4),
    max_leaves=12,
)


def checked(data: bytes) -> MlModel | None:
    """Read a hostile document: it is refused by the one error there is, or gives a reading that has a canonical form."""
    try:
        read = read_mlmodel(data, data)
    except InvalidInputError:
        return None
    canonical_bytes(read.to_item())
    return read


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=400))
def test_no_bytes_do_anything_but_read_or_be_refused(data):
    checked(data)


@settings(max_examples=40, deadline=None)
@given(st.text(alphabet="flavors:sklearn{}[]&*!|>-'\"\\ \n\t#,1.0e~", max_size=200))
def test_no_yaml_does_anything_but_read_or_be_refused(text):
    checked(f"{PLAIN}{text}".encode())


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.sampled_from(["flavors", "signature", "run_id", "model_uuid", "x"]), JSON, max_size=5))
def test_no_json_does_anything_but_read_or_be_refused(body):
    checked(json.dumps(body).encode())
    checked(json.dumps({**body, "flavors": {"sklearn": {}}}).encode())


@settings(max_examples=40, deadline=None)
@given(st.lists(st.dictionaries(st.text(max_size=8), JSON, max_size=3), max_size=4))
def test_what_a_signature_says_comes_back_as_it_was_written(fields):
    typed = [{**f, "type": "double"} for f in fields]
    read = checked(with_signature(json.dumps(typed)))
    assert read is None or [dict(f) for f in (read.signature.inputs if read.signature else ()) or ()] == typed
