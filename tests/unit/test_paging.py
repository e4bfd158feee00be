"""Pages of lists: whole, in order, each row once, and cursors that lead where they were made for and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestry.domain.errors import InvalidInputError
from attestry.domain.paging import MAX_LIMIT, read_cursor, read_page, write_cursor
from attestry.ports import Key, Put
from attestry.usecases.each_row import ROWS, each_row
from attestry.usecases.findings import Observed, Scope, settle
from tests.api_world import ApiWorld
from tests.fakes import MemoryMetaStore
from tests.versions import AT

LISTS = {
    "models": "/v1/models",
    "versions": "/v1/models/m-007/versions",
    "people": "/v1/people",
    "findings": "/v1/findings",
    "editions": "/v1/policies/standard",
    "policies": "/v1/policies",
    "conflicts": "/v1/models/m-007/conflicts",
}


@pytest.fixture(scope="module")
def api() -> Iterator[ApiWorld]:
    with pytest.MonkeyPatch.context() as patch:
        made = ApiWorld.install(patch)
        for n in range(12):
            model = {"model": f"m-{n:03d}", "next": 1, "rev": 1, "gsi_pk": "MODELS", "gsi_sk": f"m-{n:03d}"}
            version = {"model": "m-007", "number": n + 1, "gsi_pk": "VERSIONS#m-007", "gsi_sk": f"{n + 1:09d}"}
            made.meta.transact([Put(Key(f"MODEL#m-{n:03d}"), model), Put(Key(f"VERSION#m-007#{n + 1}"), version)])
        for n in range(12):
            made.call("POST", "/v1/people", {"person": f"p{n:02d}", "logins": [f"p{n:02d}"]})
            document = {"name": "standard", "rules": [], "description": str(n)}
            made.call("POST", "/v1/policies", {"document": document, "reason": "stricter"})
            body = {"reason": "a friend's", "person": f"p{n:02d}"}
            assert made.call("POST", "/v1/models/m-007/conflicts", body).status == 200
            settle(
                made.meta,
                Scope("unit", f"m-{n % 2:03d}", 0),
                [Observed("row.changed", str(i), "x", "y") for i in range(n)],
                AT + timedelta(n),
            )
        for name in ("b-policy", "c-policy"):
            made.call("POST", "/v1/policies", {"document": {"name": name, "rules": []}, "reason": "first"})
        yield made


def walk(api: ApiWorld, path: str, name: str, **query: Any) -> Iterator[list[Any]]:
    """The pages of a list, by their cursors."""
    asked = dict(query)
    while True:
        answer = api.call("GET", path, query=asked)
        assert answer.status == 200, answer.raw
        yield answer.body[name]
        if answer.body["next"] is None:
            return
        asked["cursor"] = answer.body["next"]


@pytest.mark.parametrize(("name", "path"), LISTS.items())
@pytest.mark.parametrize("limit", [1, 2, 5, 200])
def test_the_pages_of_a_list_are_the_list_in_order_and_each_row_once(api: ApiWorld, name: str, path: str, limit: int) -> None:
    (whole,) = walk(api, path, name, limit=200)
    pages = list(walk(api, path, name, limit=limit))
    assert [row for page in pages for row in page] == whole
    assert all(len(page) == limit for page in pages[:-1])
    assert 0 < len(pages[-1]) <= limit


def test_findings_of_a_model_come_in_pages_that_may_hold_fewer(api: ApiWorld) -> None:
    everything = [row for page in walk(api, "/v1/findings", "findings") for row in page]
    of_one = [row for page in walk(api, "/v1/findings", "findings", limit=3, model="m-001") for row in page]
    assert of_one == [row for row in everything if row["model"] == "m-001"] != []


def test_a_list_reads_one_row_more_than_its_page_and_no_further(api: ApiWorld) -> None:
    read: list[Any] = []
    whole = api.meta.list_collection
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(api.meta, "list_collection", lambda *a, **k: read.append(k["limit"]) or whole(*a, **k))
        for path in ("/v1/models", "/v1/people", "/v1/findings", "/v1/models/m-007/versions"):
            assert api.call("GET", path, query={"limit": 3}).status == 200
            assert api.call("GET", path).status == 200
    assert set(read) == {4, 101}


@pytest.mark.parametrize("limit", ["0", "201", "-1", "1e2", "", "ten", "1.0", "\u0663", "9" * 5000])
def test_a_limit_that_is_none_is_refused_by_its_field(api: ApiWorld, limit: str) -> None:
    answer = api.call("GET", "/v1/models", query={"limit": limit})
    assert (answer.status, answer.body["field"], answer.body["rule"]) == (400, "limit", "range")


def test_a_cursor_is_refused_by_every_other_list_and_query(api: ApiWorld) -> None:
    cursor = api.call("GET", "/v1/models/m-007/versions", query={"limit": 2}).body["next"]
    for path, query in (
        ("/v1/models", {}),
        ("/v1/models/m-001/versions", {}),
        ("/v1/models/m-007/versions", {"x": "y"}),
        ("/v1/people", {}),
    ):
        answer = api.call("GET", path, query={**query, "cursor": cursor})
        if path == "/v1/models/m-001/versions" and answer.status == 404:
            continue
        assert (answer.status, answer.body["field"], answer.body["rule"]) == (400, "cursor", "cursor"), path
    assert api.call("GET", "/v1/models/m-007/versions", query={"limit": 9, "cursor": cursor}).status == 200


@given(st.text(max_size=60), st.text(min_size=1, max_size=60), st.integers(0, 10_000), st.characters())
def test_a_cursor_that_was_changed_anywhere_is_refused(bound: str, place: str, where: int, other: str) -> None:
    cursor = write_cursor(bound, place.encode("utf-8", "replace").decode())
    at = where % len(cursor)
    changed = cursor[:at] + other + cursor[at + 1 :]
    if changed != cursor:
        with pytest.raises(InvalidInputError, match="cursor"):
            read_cursor(bound, changed)
    with pytest.raises(InvalidInputError):
        read_cursor(bound, cursor[:at])
    with pytest.raises(InvalidInputError):
        read_cursor(bound + "x", cursor)


def test_a_page_without_anything_said_has_a_hundred_rows() -> None:
    page = read_page(None, None, bound="x")
    assert (page.limit, page.after, page.ahead) == (100, None, 101)
    assert read_page(str(MAX_LIMIT), None, bound="x").limit == 200


@pytest.mark.parametrize("count", [0, 1, ROWS - 1, ROWS, ROWS + 1, 2 * ROWS])
def test_a_walk_over_a_collection_meets_each_row_once_and_reads_a_page_at_a_time(count: int) -> None:
    meta = MemoryMetaStore()
    for n in range(count):
        meta.transact([Put(Key(f"X#{n}"), {"n": n, "gsi_pk": "XS", "gsi_sk": f"{n:06d}"})])
    assert [row["n"] for row in each_row(meta, "XS")] == list(range(count))
    assert [row["n"] for row in each_row(meta, "XS", after="000003")] == list(range(4, count))
    meta.faults.clear()
    next(each_row(meta, "XS"), None)
    assert meta.faults.calls == ["MemoryMetaStore.list_collection"]


def test_a_parameter_that_is_given_twice_is_refused(api: ApiWorld) -> None:
    answer = api.call("GET", "/v1/models?limit=1&limit=200")
    assert (answer.status, answer.body["field"], answer.body["rule"]) == (400, "limit", "once")
    assert api.call("GET", "/v1/models?limit=1&l%69mit=200").body["rule"] == "once"
