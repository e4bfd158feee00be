"""The verbs of the catalogue and search: what they send, what they say, how they end."""

from __future__ import annotations

import json

import pytest

from tests.unit.client_double import ApiDouble
from tests.unit.test_cli_operate import Run, api, run

__all__ = ["api", "run"]

SEARCH = "POST /v1/search/versions"
HIT = {"model": "credit-risk", "number": 2, "standing": "DEPLOYED", "aliases": ["champion"], "metrics": {"accuracy": "0.9"}}


def test_a_model_is_created_with_its_tags(api: ApiDouble, run: Run) -> None:
    api.answer("POST /v1/models", {"name": "Iris", "model": "iris-1", "mode": "open"})
    done = run("catalogue", "create", "Iris", "--tag", "tier=low", "--open")
    assert done.exit_code == 0, done.output
    assert api.asked[-1].body == {"name": "Iris", "description": "", "tags": {"tier": "low"}, "mode": "open"}
    assert "iris-1" in done.stdout


@pytest.mark.parametrize(
    ("subject", "route"),
    [
        ("credit-risk", "PUT /v1/models/credit-risk/tags/a/b"),
        ("credit-risk@2", "PUT /v1/models/credit-risk/versions/2/tags/a/b"),
    ],
)
def test_a_tag_is_set_where_the_subject_says(api: ApiDouble, run: Run, subject: str, route: str) -> None:
    api.answer(route, {"key": "a/b", "value": "c=d"})
    done = run("catalogue", "tag", subject, "a/b=c=d")
    assert done.exit_code == 0, done.output
    assert api.asked[-1].body == {"value": "c=d"}


def test_an_alias_is_moved_and_shown(api: ApiDouble, run: Run) -> None:
    api.answer("PUT /v1/models/credit-risk/aliases/champion", {"alias": "champion", "model": "credit-risk", "number": 2})
    done = run("catalogue", "alias", "credit-risk@2", "champion")
    assert (done.exit_code, api.asked[-1].body) == (0, {"number": 2})
    assert "champion is credit-risk@2" in done.stdout


def test_a_search_says_what_it_is_asked_and_goes_on_to_the_last_page(api: ApiDouble, run: Run) -> None:
    api.answer(SEARCH, {"results": [HIT], "cursor": None})
    given = ("--where", "standing=DEPLOYED", "--tag", "env=eu", "--metric", "accuracy:0.8:", "--order", "-@accuracy")
    done = run("search", "--versions", *given, "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == [HIT]
    assert api.asked[-1].body == {
        "filter": [{"field": "standing", "is": "DEPLOYED"}, {"tag": "env", "is": "eu"}, {"metric": "accuracy", "from": 0.8}],
        "max_results": 50,
        "walk": False,
        "order_by": {"by": "metric", "metric": "accuracy", "descending": True},
    }
    assert "credit-risk@2" in run("search", "--versions").stdout


@pytest.mark.parametrize("arguments", [("--tag", "x"), ("--metric", "accuracy"), ("--metric", "a:b:c"), ("--where", "=x")])
def test_a_condition_out_of_form_is_wrong_usage(run: Run, arguments: tuple[str, ...]) -> None:
    assert run("search", *arguments).exit_code == 2
