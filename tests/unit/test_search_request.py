"""The JSON in which a query is asked: what each condition means, and what is refused by the name of its field."""

from __future__ import annotations

from typing import Any

import pytest

from attestry.domain.errors import InvalidInputError
from attestry.domain.search import HasLabel, HasTag, Is, MetricIn, NameLike, Order, Query, Text
from attestry.domain.search_request import read_query


def test_every_condition_is_read_as_what_it_says() -> None:
    body = {
        "filter": [
            {"field": "standing", "is": "DEPLOYED"},
            {"tag": "env", "is": "eu"},
            {"tag": "env", "is_not": "us"},
            {"label": "domain", "is": "retail"},
            {"text": "spring sale"},
            {"name_like": "a%", "ignore_case": True},
            {"metric": "accuracy", "from": 0.5, "to": 1},
        ],
        "order_by": {"by": "metric", "metric": "accuracy", "descending": True},
        "max_results": 7,
        "cursor": "abc",
        "walk": True,
    }
    conditions = (
        Is("standing", "DEPLOYED"),
        HasTag("env", "eu"),
        HasTag("env", "us", negated=True),
        HasLabel("domain", "retail"),
        Text("spring sale"),
        NameLike("a%", ignore_case=True),
        MetricIn("accuracy", 0.5, 1.0),
    )
    assert read_query(body) == Query(conditions, Order("metric", True, "accuracy"), 7, "abc", walk=True)
    assert read_query({}) == Query()


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"filter": {}}, "filter"),
        ({"filter": [3]}, "filter[0]"),
        ({"filter": [{"field": "owner"}]}, "filter[0].is"),
        ({"filter": [{"field": "owner", "is": "x", "or": "y"}]}, "filter[0]"),
        ({"filter": [{"tag": "a"}]}, "filter[0]"),
        ({"filter": [{"tag": "a", "is": "b", "is_not": "c"}]}, "filter[0]"),
        ({"filter": [{"metric": "a", "from": "1"}]}, "filter[0]"),
        ({"filter": [{"metric": "a", "from": True}]}, "filter[0]"),
        ({"filter": [{"metric": "a", "from": 10**400}]}, "filter[0]"),
        ({"filter": [{"text": "\ud800"}]}, "filter[0].text"),
        ({"filter": [{"name_like": "a", "ignore_case": 1}]}, "filter[0]"),
        ({"order_by": "name"}, "order_by"),
        ({"order_by": {"by": "metric"}}, "order_by"),
        ({"order_by": {"by": "name", "metric": "a"}}, "order_by"),
        ({"max_results": True}, "max_results"),
        ({"cursor": 3}, "cursor"),
        ({"walk": "yes"}, "walk"),
    ],
)
def test_what_is_out_of_form_is_named(body: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        read_query(body)
    assert refused.value.problems[0].field == field
