"""The page about the command line has every verb there is, and no other."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from attestry.cli.main import make_app

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"


def verbs(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Walk the command line down to what can be run."""
    groups = getattr(command, "commands", None)
    if groups is None:
        yield path
    for name, inner in (groups or {}).items():
        yield from verbs(inner, (*path, name))


def listed() -> list[list[list[str]]]:
    """The words of each code span in the first column of the table; a word may be several, `describe|tag`."""
    text = PAGE.read_text(encoding="utf-8")
    table = text[text.index("## Verbs") : text.index("### submit")]
    column = [match for match in re.findall(r"^\| (.*?) (?<!\\)\| ", table, re.MULTILINE) if match.startswith("`")]
    return [[word.split(r"\|") for word in span.split()] for cell in column for span in re.findall(r"`([^`]*)`", cell)]


def names(path: tuple[str, ...], span: list[list[str]]) -> bool:
    return len(span) >= len(path) and all(word in words for word, words in zip(path, span, strict=False))


def test_every_verb_is_on_the_page() -> None:
    spans = listed()
    there = list(verbs(typer.main.get_command(make_app())))
    assert len(there) > 60
    assert [path for path in there if not any(names(path, span) for span in spans)] == []


def test_no_verb_is_on_the_page_that_is_not_there() -> None:
    there = list(verbs(typer.main.get_command(make_app())))
    assert [span for span in listed() if not any(names(path, span) for path in there)] == []
