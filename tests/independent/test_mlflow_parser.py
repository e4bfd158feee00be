"""Our reading of filters and orders against MLflow's own parser: whatever we accept, it accepts, and reads the same."""

from __future__ import annotations

import json
import random
from typing import Any

from attestry.mlflow import filters, ordering
from attestry.mlflow.errors import MlflowError
from tests.mlflow_environment import run

FILTERS = 400
TEXTS = ("x", "iris", "a b", "it''s", "a\\'b", "100%", "a_b", "", "ü", "name = 1", "; --", "(1, 2)", 'say "hi"')
KEYS = ("a", "team", "a1", "1a", "a.b", "ö", "order", "version", "select", "`a b`", "`mlflow.user`", '"a b"', "`x`")
ODD = (
    "name",
    "name =",
    "name = x",
    "foo = 'x'",
    "params.a = 'b'",
    "attributes.name = 'x'",
    "name = 'x' OR name = 'y'",
    "name = 'x'; drop table models",
    "(name = 'x')",
    "name IN ()",
    "name IN (1)",
    "tags.a-b = 'c'",
    "tags.a = 1",
    "name = 5",
    "name = `x`",
    "name = 'unclosed",
    "Name = 'x'",
)
ORDERS = (
    *("name", "name ASC", "name desc", "last_updated_timestamp desc", "`name` desc", "version_number", "version_number asc"),
    *("name foo", "name asc desc", "foo", "name, timestamp", "", "name;", "creation_timestamp DESC", "timestamp"),
)


def well_formed(chance: random.Random) -> str:
    """A filter that the grammar has, in some spelling."""
    conditions = []
    for _ in range(chance.randint(1, 3)):
        text = repr_of(chance)
        kind = chance.randrange(4)
        if kind == 0:
            conditions.append(f"{chance.choice(('name', 'attribute.name'))} {comparator(chance)} {text}")
        elif kind == 1:
            conditions.append(f"{chance.choice(('tag', 'tags'))}.{chance.choice(KEYS)} {comparator(chance)} {text}")
        elif kind == 2:
            listed = ", ".join(f"'{chance.choice(('a', 'b c', 'ü'))}'" for _ in range(chance.randint(1, 3)))
            conditions.append(f"name {chance.choice(('IN', 'in', 'NOT IN', 'not in'))} ({listed})")
        else:
            conditions.append(f"name{chance.choice(('=', ' =', '= '))}{text}")
    return chance.choice((" AND ", " and ", "  AND  ")).join(conditions)


def comparator(chance: random.Random) -> str:
    return chance.choice(("=", "!=", "LIKE", "like", "ILIKE", "ilike"))


def repr_of(chance: random.Random) -> str:
    text = chance.choice(TEXTS)
    return f'"{text}"' if '"' not in text and "\\" not in text and chance.random() < 0.3 else f"'{text}'"


def damaged(chance: random.Random) -> str:
    """A filter in which a character is missing, doubled, or another."""
    text = list(well_formed(chance))
    at = chance.randrange(len(text))
    text[at : at + 1] = chance.choice(([], [text[at]] * 2, [chance.choice("'\"`().,=<>% xA0;")]))
    return "".join(text)


def ours(asked: dict[str, Any]) -> dict[str, Any]:
    try:
        if "order" in asked:
            keys = ordering.OF_MODELS if asked["of"] == "models" else ordering.OF_VERSIONS
            (order,) = ordering.parse_order([asked["order"]], keys)
            return {"order": [order.key, order.ascending]}
        attributes = filters.OF_MODELS if asked["of"] == "models" else filters.OF_VERSIONS
        found = filters.parse_filter(asked["filter"], attributes).conditions
    except MlflowError as error:
        return {"error": error.code}
    return {"conditions": [[c.kind, c.key, c.comparator, list(c.value) if isinstance(c.value, tuple) else c.value] for c in found]}


def theirs(asked: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run("parse.py", given="\n".join(map(json.dumps, asked)) + "\n").splitlines()]


def test_what_we_accept_of_filters_and_orders_mlflow_reads_the_same_and_what_it_refuses_we_refuse() -> None:
    chance = random.Random(20)
    good = [{"of": chance.choice(("models", "versions")), "filter": well_formed(chance)} for _ in range(FILTERS)]
    bad = [{"of": "models", "filter": text} for text in (*ODD, *(damaged(chance) for _ in range(FILTERS)))]
    numbers = [{"of": "versions", "filter": f"version_number {c} {n}"} for c in ("=", "!=", "<", "<=", ">", ">=") for n in (0, 7, -1)]
    orders = [{"of": of, "order": text} for of in ("models", "versions") for text in ORDERS]
    asked = [*good, *bad, *numbers, *orders]
    answers = dict(enumerate(theirs(asked)))
    assert len(answers) == len(asked)
    for number, one in enumerate(asked):
        mine, reference = ours(one), answers[number]
        if one in good or one in numbers:
            assert mine == reference, one
        if "error" in reference:
            assert mine == reference or one.get("order") == "creation_timestamp DESC", one
        elif "error" not in mine:
            assert mine == reference or one.get("order") == "timestamp", one
