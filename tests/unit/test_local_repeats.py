"""The embedded AWS does once what comes out the same each time."""

from __future__ import annotations

import copy
import json
from collections import defaultdict
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ministack.core import iam_evaluator
from ministack.services import apigateway

from attestry.local.patch_repeats import Copies, parameters_of, parse_once

POLICY = json.dumps({"Statement": {"Sid": "Own", "Effect": "Allow", "Action": "s3:GetObject", "Resource": ["arn:aws:s3:::a/*"]}})
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.binary(max_size=8) | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=20,
)

SEGMENTS = st.sampled_from(["v1", "models", "{model}", "{path+}", "a.b", "a+b", "x{n}y", "", "m-1", "{", "}", "a\nb"])
PATHS = st.lists(SEGMENTS, max_size=4).map(lambda segments: "/" + "/".join(segments))


@given(VALUES)
def test_a_copied_row_is_equal_and_shares_nothing_that_can_be_changed(value: Any) -> None:
    copied = Copies.deepcopy(value)
    assert copied == value
    assert not {id(part) for part in changeable(value)} & {id(part) for part in changeable(copied)}


@pytest.mark.parametrize("value", [{"a": Decimal("1.5")}, defaultdict(dict, {"a": {"b": {"S": "c"}}}), [object]])
def test_what_json_has_not_is_copied_as_ever(value: Any) -> None:
    copied = Copies.deepcopy(value)
    assert copied == copy.deepcopy(value)
    assert type(copied) is type(value)
    assert copied is not value


def test_a_policy_s_text_is_read_once_and_each_caller_has_a_list_of_its_own() -> None:
    read: list[Any] = []

    def original(document: str | dict[str, Any]) -> list[Any]:
        read.append(document)
        return iam_evaluator.parse_policy_document(document)

    parse = parse_once(original)
    first, second = parse(POLICY), parse(POLICY)
    assert first == second == iam_evaluator.parse_policy_document(POLICY)
    assert first is not second
    assert read == [POLICY]


def test_a_policy_that_has_changed_is_read_anew() -> None:
    parse = parse_once(iam_evaluator.parse_policy_document)
    denied = POLICY.replace("Allow", "Deny")
    assert [parse(text)[0].effect for text in (POLICY, denied, POLICY)] == ["Allow", "Deny", "Allow"]
    mapping = json.loads(POLICY)
    assert parse(mapping)[0].effect == "Allow"
    mapping["Statement"]["Effect"] = "Deny"
    assert parse(mapping)[0].effect == "Deny"


@given(template=PATHS, path=PATHS)
def test_a_path_has_the_parameters_that_the_emulator_finds(template: str, path: str) -> None:
    assert parameters_of(template, path) == apigateway._extract_path_params(template, path)


def test_parameters_are_a_segment_each_or_all_that_is_left_and_belong_to_their_caller() -> None:
    template = "/v1/models/{model}/files/{path+}"
    found = parameters_of(template, "/v1/models/m/files/a/b")
    assert found == {"model": "m", "path": "a/b"}
    found["model"] = "another"
    assert parameters_of(template, "/v1/models/m/files/a/b") == {"model": "m", "path": "a/b"}
    assert parameters_of(template, "/v1/models/m/n/files/a") is None
    assert parameters_of("/v1/models", "/v1/models") == {}


def changeable(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [value, *(part for inner in value.values() for part in changeable(inner))]
    if isinstance(value, list):
        return [value, *(part for inner in value for part in changeable(inner))]
    return []
