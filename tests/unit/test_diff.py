"""The differences between two versions."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from attestry.domain.diff import compare_sections

KEYS = st.sampled_from(["a", "b", "name", "c"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.text(alphabet="xy", max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)
SECTIONS = st.dictionaries(st.sampled_from(["metrics", "data", "code"]), st.dictionaries(KEYS, VALUES, max_size=3), max_size=3)


def rows(before: dict[str, Any], after: dict[str, Any]) -> list[tuple[str, str, Any, Any, str]]:
    return [(d.section, d.field, d.before, d.after, d.change) for d in compare_sections(before, after)]


def test_a_changed_setting_is_one_row() -> None:
    assert rows({"hyperparameters": {"C": 1, "depth": 3}}, {"hyperparameters": {"C": 0.1, "depth": 3}}) == [
        ("hyperparameters", "C", 1, 0.1, "changed")
    ]


def test_what_came_and_what_went_is_told_apart_from_what_changed() -> None:
    assert rows({"dependencies": {"numpy": "2.1", "six": "1.0"}}, {"dependencies": {"numpy": "2.2", "scipy": "1.17"}}) == [
        ("dependencies", "numpy", "2.1", "2.2", "changed"),
        ("dependencies", "scipy", None, "1.17", "added"),
        ("dependencies", "six", "1.0", None, "removed"),
    ]


def test_a_section_that_only_one_version_has_is_told_field_by_field() -> None:
    assert rows({}, {"metrics": {"recall": "0.9"}}) == [("metrics", "recall", None, "0.9", "added")]
    assert rows({"metrics": {"recall": "0.9"}}, {}) == [("metrics", "recall", "0.9", None, "removed")]


def test_items_of_lists_are_compared_by_their_name() -> None:
    steps = [{"name": "split", "share": 0.25}, {"name": "scale", "method": "standard"}]
    other = [{"name": "split", "share": 0.2}, {"name": "scale", "method": "standard"}, {"name": "encode"}]
    assert rows({"data": {"preparation": steps}}, {"data": {"preparation": other}}) == [
        ("data", "preparation[split].share", 0.25, 0.2, "changed"),
        ("data", "preparation[encode]", None, {"name": "encode"}, "added"),
    ]


def test_a_step_that_moved_is_told_as_moved() -> None:
    steps = [{"name": "impute"}, {"name": "scale"}]
    assert rows({"data": {"steps": steps}}, {"data": {"steps": steps[::-1]}}) == [
        ("data", "steps (order)", ["impute", "scale"], ["scale", "impute"], "changed")
    ]


def test_a_truth_value_is_no_number_and_equal_numbers_are_equal() -> None:
    assert rows({"s": {"x": 1}}, {"s": {"x": True}}) == [("s", "x", 1, True, "changed")]
    assert rows({"s": {"x": 1}}, {"s": {"x": 1.0}}) == []
    assert rows({"s": {"x": (1, 2)}}, {"s": {"x": [1, 2]}}) == []


def test_a_row_is_ready_for_json() -> None:
    (row,) = compare_sections({"s": {"x": 1}}, {"s": {"x": 2}})
    assert row.to_item() == {"section": "s", "field": "x", "before": 1, "after": 2, "change": "changed"}


@given(SECTIONS)
def test_a_version_does_not_differ_from_itself(sections: dict[str, Any]) -> None:
    assert rows(sections, sections) == []


@given(SECTIONS, SECTIONS)
def test_the_way_back_has_the_same_fields_with_the_sides_swapped(before: dict[str, Any], after: dict[str, Any]) -> None:
    there = {(d.section, d.field, repr(d.before), repr(d.after)) for d in compare_sections(before, after)}
    back = {(d.section, d.field, repr(d.after), repr(d.before)) for d in compare_sections(after, before)}
    assert there == back


@given(SECTIONS, SECTIONS)
def test_versions_that_differ_in_a_value_have_a_difference(before: dict[str, Any], after: dict[str, Any]) -> None:
    def plain(sections: dict[str, Any]) -> dict[str, Any]:
        return {name: fields for name, fields in sections.items() if fields}

    assert bool(rows(before, after)) == (repr_sorted(plain(before)) != repr_sorted(plain(after)))


def repr_sorted(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ",".join(f"{key!r}:{repr_sorted(value[key])}" for key in sorted(value)) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(repr_sorted, value)) + "]"
    return repr(value)
