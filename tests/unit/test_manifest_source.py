"""The manifest's text: YAML 1.2 and JSON, strictly, with lines."""

from __future__ import annotations

import json
import math
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestry.domain.manifest_source import MAX_BYTES, MAX_SAFE_INTEGER, normalise_number, parse_source
from tests.unit.manifest_samples import COMPLETE, as_yaml


def found(text: str | bytes) -> list[tuple[str, str, int | None]]:
    source = parse_source(text if isinstance(text, bytes) else text.encode())
    return [(p.field, p.rule, p.line) for p in source.problems]


def value(text: str) -> object:
    source = parse_source(text.encode())
    assert source.problems == ()
    return source.value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: &x 1\nb: *x", [("a", "no_anchors", 1), ("b", "no_aliases", 2)]),
        ("a: 1\nb: 2\na: 3", [("a", "duplicate_key", 3)]),
        ('{"a": 1,\n "a": 2}', [("a", "duplicate_key", 2)]),
        ("a: !!python/object:os.system x", [("a", "no_tags", 1)]),
        ("a: !!str 5", [("a", "no_tags", 1)]),
        ("a: 1\n---\nb: 2", [("", "one_document", 2)]),
        ("%YAML 1.1\n---\na: 1", [("", "no_directives", 1)]),
        ("a: .nan", [("a", "finite", 1)]),
        ("a: -.INF", [("a", "finite", 1)]),
        ("a: NaN", [("a", "finite", 1)]),
        ("a: 1e999", [("a", "finite", 1)]),
        ('{"a": NaN}', [("a", "finite", 1)]),
        ('{"a":\n -Infinity}', [("a", "finite", 2)]),
        ("a: 0123", [("a", "ambiguous_number", 1)]),
        ("a: 9007199254740993", [("a", "number_range", 1)]),
        ("a: 1.0e+20", [("a", "number_range", 1)]),
        (f"a: {'9' * 5000}", [("a", "finite", 1)]),
        ("1: a", [("1", "text_key", 1)]),
        ("true: a", [("true", "text_key", 1)]),
        ("? [a]\n: b", [("", "text_key", 1)]),
        ('a: "x\\0y"', [("a", "text", 1)]),
        ('{"a": "\\ud800"}', [("a", "text", 1)]),
        ("a: [1, 2", [("", "syntax", 1)]),
        ("", [("", "empty", None)]),
        (b"a: \xff", [("", "utf8", 1)]),
        ("\n\n" + "[" * 25 + "]" * 25, [("[0]" * 20, "nesting", 3)]),
        ("- a\n" * 20_001, [("[20000]", "length", 20_000)]),
        (b"a: " + b"x" * MAX_BYTES, [("", "size", None)]),
    ],
)
def test_a_text_that_breaks_a_rule_is_told_with_field_rule_and_line(text: str | bytes, expected: list[tuple[str, str, int | None]]) -> None:
    assert found(text) == expected


def test_json_nested_a_hundred_thousand_levels_deep_is_refused_without_recursion() -> None:
    text = '{"a":' + "[" * 100_000 + "]" * 100_000 + "}"
    assert [rule for _, rule, _ in found(text)] == ["nesting"]


def test_an_expansion_bomb_is_refused_and_never_expanded() -> None:
    bomb = "a: &a [x]\n" + "".join(f"{chr(98 + i)}: &{chr(98 + i)} [*{chr(97 + i)}, *{chr(97 + i)}]\n" for i in range(20))
    assert {rule for _, rule, _ in found(bomb)} == {"no_anchors", "no_aliases"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: no", "no"),
        ("a: on", "on"),
        ("a: 2024-01-01", "2024-01-01"),
        ("a: 12:30:45", "12:30:45"),
        ("a: 1_000", "1_000"),
        ("a: 0o17", 15),
        ("a: 0x1F", 31),
        ("a: 1.0", 1),
        ("a: 1e3", 1000),
        ("a: -0.0", 0),
        ("a: .5", 0.5),
        ("a: TRUE", True),
        ("a: ~", None),
        ("a: '.nan'", ".nan"),
        ('a: "0123"', "0123"),
        ("a: |\n  two\n  lines\n", "two\nlines\n"),
        ('{"a": "\\ud83d\\ude00"}', "😀"),
        ('{\t"a"\t:\t"tabs"}', "tabs"),
        ("{a: flow yaml}", "flow yaml"),
        ("\ufeffa: bom", "bom"),
    ],
)
def test_scalars_resolve_by_the_core_schema_of_yaml_1_2(text: str, expected: object) -> None:
    read = value(text)
    assert isinstance(read, dict)
    assert read["a"] == expected
    assert type(read["a"]) is type(expected)


def test_a_value_is_found_on_the_line_of_its_key() -> None:
    source = parse_source(b"a:\n  b:\n    - x\n    - c:\n        2\n")
    assert source.line_of_field("a.b[1].c") == 4
    assert source.line_of_field("a.b[0]") == 3
    assert source.line_of_field("a.b[1].missing") == 4
    assert source.line_of_field("elsewhere") == 1


def test_lines_of_json_are_counted_too() -> None:
    source = parse_source(b'{\n "a": {\n  "b": [1,\n   2]}}')
    assert [source.line_of_field(name) for name in ("a", "a.b", "a.b[1]")] == [2, 3, 4]


@given(st.text(max_size=300) | st.text(alphabet="{}[]:,-?&*!|>'\"%@`# \n\tab01.", max_size=200))
def test_no_text_makes_the_reader_raise(text: str) -> None:
    source = parse_source(text.encode("utf-8", "surrogatepass"))
    if not source.problems:
        json.dumps(source.value, allow_nan=False)


@given(st.binary(max_size=300))
def test_no_bytes_make_the_reader_raise(raw: bytes) -> None:
    parse_source(raw)


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-MAX_SAFE_INTEGER, MAX_SAFE_INTEGER)
    | st.floats(-1e9, 1e9).map(lambda x: normalise_number(x)[0])
    | st.text(alphabet=string.printable[:95] + "äß漢😀\n", max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(string.ascii_letters, min_size=1, max_size=8), inner, max_size=4),
    max_leaves=20,
).filter(lambda x: depth(x) < 18)


def depth(value: object) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth, value.values()), default=0)
    return 1 + max(map(depth, value), default=0) if isinstance(value, list) else 0


@given(st.dictionaries(st.text(string.ascii_letters, min_size=1, max_size=8), PLAIN, max_size=5), st.sampled_from([None, 2]))
def test_json_comes_back_as_the_standard_library_reads_it(mapping: dict[str, object], indent: int | None) -> None:
    assert value(json.dumps(mapping, indent=indent)) == mapping


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_a_number_has_one_form_or_is_refused(number: float) -> None:
    normal, problem = normalise_number(number)
    if problem is None:
        assert normal == number
        assert isinstance(normal, int) == float(number).is_integer()
    else:
        assert not math.isfinite(number) or abs(number) > MAX_SAFE_INTEGER


def test_every_field_of_a_whole_manifest_has_its_own_line() -> None:
    raw = as_yaml(COMPLETE)
    source = parse_source(raw)
    lines = raw.decode().splitlines()
    for path, line in source.lines.items():
        if path and isinstance(path[-1], str):
            assert f"{path[-1]}:" in lines[line - 1]
