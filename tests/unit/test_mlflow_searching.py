"""Searches of MLflow's clients: every page is what sorting everything would give, and costs the same however much there is."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from attestry.domain.catalogue import Labels, RegisteredModel, VersionSubject
from attestry.domain.events import timestamp
from attestry.domain.search_index import Entry, Lane, entries_of_labels, entries_of_model, entries_of_version
from attestry.domain.version import Version
from attestry.mlflow.entities import ShownVersion
from attestry.mlflow.errors import MlflowError
from attestry.mlflow.fields import Fields
from attestry.mlflow.filters import matches_number, matches_text
from attestry.mlflow.pages import write_token
from attestry.mlflow.places import Sorting
from attestry.mlflow.requests import Search, read_search
from attestry.ports import Item
from attestry.usecases.catalogue import change_labels, create_model, delete_tag, delete_version, rename_model, set_tag
from attestry.usecases.catalogue_rows import catalogue_key, labels_key
from attestry.usecases.index_rows import entry_key, index_writes
from attestry.usecases.mlflow_reading import RUN_TAG, find
from attestry.usecases.mlflow_searching import search_models, search_versions
from attestry.usecases.records import model_key, version_key
from tests.fakes import MemoryMetaStore
from tests.unit.test_search import CountingStore, add_version
from tests.versions import AT, DANA

NAMES = ("churn", "churn EU", "Credit_1", "fraud")
FILTERS = (
    "",
    "name = 'churn'",
    "name = 'Credit_1' AND version_number > 1",
    "name IN ('churn', 'fraud', 'nobody')",
    "name IN ('churn EU')",
    "name LIKE 'churn%'",
    "name ILIKE 'CHURN%' AND name != 'churn'",
    "name LIKE '%r%' AND name NOT IN ('fraud')",
    "run_id = 'r1'",
    "run_id != 'r1'",
    "run_id IN ('r1', 'r2') AND name LIKE 'c%'",
    "tags.env = 'eu'",
    "tags.env LIKE 'e%' AND name = 'churn'",
    "tags.env = 'eu' AND run_id = 'r2'",
    "version_number <= 2",
)
ORDERS: tuple[list[str], ...] = (
    [],
    ["name"],
    ["name DESC"],
    ["name DESC", "version_number ASC"],
    ["name", "creation_timestamp DESC"],
    ["name", "last_updated_timestamp"],
    ["creation_timestamp"],
    ["creation_timestamp DESC"],
    ["last_updated_timestamp ASC"],
    ["last_updated_timestamp DESC", "name ASC", "version_number DESC"],
    ["version_number"],
    ["version_number DESC", "name DESC"],
)


BY_NAME = ["zebra", "fraud", "churn EU", "Credit_1"]


def every(models: list[str]) -> list[str]:
    """Leave all models."""
    return models


def asked(of: Any, text: str = "", order: Sequence[str] = (), size: int = 100, token: str = "") -> Search:
    """A search as a client asks it."""
    fields: dict[str, Any] = {"filter": text, "order_by": list(order), "max_results": str(size), "page_token": token}
    return read_search(Fields({name: value for name, value in fields.items() if value}), of)


def pages(meta: MemoryMetaStore, search: Callable[..., Any], of: Any, text: str, order: Sequence[str], size: int) -> list[list[Any]]:
    """The pages of a search until one has no token."""
    found, token = [], ""
    for _ in range(100):
        question = asked(of, text, order, size, token)
        page, cursor = search(meta, question, every)
        found.append(page)
        token = write_token(question.question, cursor)
        if not token:
            return found
    raise AssertionError("the pages do not come to an end")


def told(pages_: list[list[ShownVersion]]) -> list[tuple[str, int]]:
    """Name and number of what pages show."""
    return [(version.name, version.number) for page in pages_ for version in page]


@st.composite
def registries(draw: st.DrawFn) -> list[dict[str, Any]]:
    one = st.fixed_dictionaries(
        {
            "name": st.sampled_from(NAMES),
            "created": st.integers(0, 5),
            "labelled": st.sampled_from([-1, -1, 0, 2, 4, 6]),
            "run": st.sampled_from(["r1", "r2"]),
            "env": st.sampled_from(["eu", "us"]),
        }
    )
    return draw(st.lists(one, max_size=10))


def build(specs: Sequence[dict[str, Any]]) -> MemoryMetaStore:
    """A registry of such versions; no two were made or changed in the same second."""
    meta, identities = MemoryMetaStore(), {}
    for name in NAMES:
        identities[name] = create_model(meta, name, mode="open", by=DANA, at=AT).model
    counts = dict.fromkeys(NAMES, 0)
    for index, spec in enumerate(specs):
        name = spec["name"]
        counts[name] += 1
        model, number = identities[name], counts[name]
        add_version(meta, model, number, spec["created"] * 100 + index)
        meta.rows[model_key(model)]["next"] = number + 1
        if spec["labelled"] >= 0:
            at = AT + timedelta(minutes=spec["labelled"] * 100 + index, seconds=30)
            change_labels(meta, model, number, tags={RUN_TAG: spec["run"], "env": spec["env"]}, by=DANA, at=at)
    return meta


def by_hand(meta: MemoryMetaStore, search: Search) -> list[tuple[str, int]]:
    """What MLflow's own rules give: filter everything, then sort it, ties by name and then by the highest number."""
    found: list[ShownVersion] = []
    for name in NAMES:
        for number in range(1, find(meta, name).last + 1):
            found.append(find(meta, name, number).show_version())
    kept = [v for v in found if all(_meets(v, c) for c in search.filter.conditions)]
    named = [c.value for c in search.filter.conditions if c.key == "name" and c.comparator in ("=", "IN")]
    one_model = bool(named) and (isinstance(named[0], str) or len(named[0]) == 1)
    default = ["version_number DESC"] if one_model else ["last_updated_timestamp DESC"]
    orders = search.order or asked("versions", order=default).order
    values: dict[str, Callable[[ShownVersion], Any]] = {
        "name": lambda v: v.name,
        "version_number": lambda v: v.number,
        "creation_timestamp": lambda v: v.created,
        "last_updated_timestamp": lambda v: v.updated,
    }
    kept.sort(key=lambda v: -v.number)
    kept.sort(key=lambda v: v.name)
    for order in reversed(orders):
        kept.sort(key=values[order.key], reverse=not order.ascending)
    return [(v.name, v.number) for v in kept]


def _meets(version: ShownVersion, condition: Any) -> bool:
    if condition.kind == "tag":
        return condition.key in version.tags and matches_text(version.tags[condition.key], condition.comparator, condition.value)
    if condition.key == "version_number":
        return matches_number(version.number, condition.comparator, condition.value)
    return matches_text({"name": version.name, "run_id": version.run_id}[condition.key], condition.comparator, condition.value)


@pytest.mark.parametrize("few", [200, 1], ids=["gathered", "walked"])
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(specs=registries(), text=st.sampled_from(FILTERS), order=st.sampled_from(ORDERS), size=st.integers(1, 4))
def test_the_pages_of_a_search_are_what_sorting_everything_gives(
    few: int, specs: list[dict[str, Any]], text: str, order: list[str], size: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("attestry.usecases.mlflow_lanes.FEW", few)
        meta = build(specs)
        found = pages(meta, search_versions, "versions", text, order, size)
        assert told(found) == by_hand(meta, asked("versions", text, order))
        assert all(len(page) == size for page in found[:-1])


def test_a_change_of_labels_or_of_the_version_itself_moves_it_to_the_newest_end_once() -> None:
    meta = build([{"name": "churn", "created": n, "labelled": -1, "run": "", "env": ""} for n in range(3)])
    newest = ["last_updated_timestamp DESC"]
    assert told(pages(meta, search_versions, "versions", "", newest, 10)) == [("churn", 3), ("churn", 2), ("churn", 1)]
    for minute, number in ((1000, 1), (1001, 2), (1002, 1)):
        set_tag(meta, VersionSubject("churn", number), "seen", str(minute), by=DANA, at=AT + timedelta(minutes=minute))
    assert told(pages(meta, search_versions, "versions", "", newest, 10)) == [("churn", 1), ("churn", 2), ("churn", 3)]
    delete_tag(meta, VersionSubject("churn", 2), "seen", by=DANA, at=AT + timedelta(minutes=1003))
    assert told(pages(meta, search_versions, "versions", "name = 'churn'", newest, 1)) == [("churn", 2), ("churn", 1), ("churn", 3)]
    delete_version(meta, "churn", 1, by=DANA, at=AT + timedelta(minutes=1004))
    assert told(pages(meta, search_versions, "versions", "", newest, 1)) == [("churn", 2), ("churn", 3)]
    left = [key for key, row in meta.rows.items() if key.partition.startswith("INDEX#V") and row["number"] == 1]
    assert left == []


def test_a_renamed_model_is_found_in_the_place_of_its_name() -> None:
    meta = build([{"name": name, "created": 0, "labelled": -1, "run": "", "env": ""} for name in NAMES])
    rename_model(meta, "churn", "zebra", by=DANA, at=AT + timedelta(days=1))
    by_name = ["name DESC"]
    assert [name for name, _ in told(pages(meta, search_versions, "versions", "", by_name, 1))] == BY_NAME
    found = [model.name for page in pages(meta, search_models, "models", "", by_name, 1) for model in page]
    assert found == BY_NAME
    newest = pages(meta, search_models, "models", "", ["timestamp DESC"], 1)
    assert [model.name for model in newest[0]] == ["zebra"]


@pytest.mark.parametrize("order", [[], ["name DESC"], ["timestamp DESC"], ["timestamp"], ["creation_timestamp"]], ids=lambda o: "".join(o))
@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", set(range(6))),
        ("name LIKE 'm-%'", {0, 1, 2, 3}),
        ("name LIKE 'm-_' AND name != 'm-2'", {0, 1, 3}),
        ("name ILIKE 'N-%'", {4, 5}),
        ("name = 'm-3'", {3}),
        ("name IN ('n-5', 'm-0')", {0, 5}),
        ("tags.team = 'risk'", {0, 2, 4}),
        ("tags.team != 'risk'", {1, 3, 5}),
        ("tags.team = 'nobody'", set()),
    ],
)
@pytest.mark.parametrize("few", [200, 1], ids=["gathered", "walked"])
def test_the_pages_of_models_are_what_sorting_all_of_them_gives(
    monkeypatch: pytest.MonkeyPatch, text: str, wanted: set[int], order: list[str], few: int
) -> None:
    monkeypatch.setattr("attestry.usecases.mlflow_lanes.FEW", few)
    meta, names = MemoryMetaStore(), [f"{'m' if n < 4 else 'n'}-{n}" for n in range(6)]
    for index, name in enumerate(names):
        made = AT + timedelta(minutes=(index * 5) % 6)
        create_model(meta, name, tags={"team": ("risk", "bio")[index % 2]}, by=DANA, at=made)
    key = {"name": lambda n: names[n], "time": lambda n: (n * 5) % 6}["time" if order and "timestamp" in order[0] else "name"]
    expected = [names[n] for n in sorted(wanted, key=key, reverse=bool(order) and order[0].endswith("DESC"))]
    for size in (1, 2, 10):
        assert [model.name for page in pages(meta, search_models, "models", text, order, size) for model in page] == expected


def test_what_is_added_or_deleted_between_two_pages_neither_repeats_nor_hides_what_was_there() -> None:
    for order in (["name"], ["creation_timestamp"], ["version_number"], ["last_updated_timestamp"]):
        meta = build([{"name": NAMES[n % 2], "created": n, "labelled": -1, "run": "", "env": ""} for n in range(6)])
        there = set(told(pages(meta, search_versions, "versions", "", order, 100)))
        question = asked("versions", "", order, 2)
        first, cursor = search_versions(meta, question, every)
        gone = (first[0].name, first[0].number)
        delete_version(meta, first[0].name, first[0].number, by=DANA, at=AT + timedelta(days=1))
        add_version(meta, "fraud", 1, 5000)
        meta.rows[model_key("fraud")]["next"] = 2
        found = told([first])
        while cursor:
            page, cursor = search_versions(meta, replace(question, cursor=cursor), every)
            found += told([page])
        assert len(found) == len(set(found))
        assert there <= {*found, gone}


def test_models_that_the_caller_may_not_read_are_in_no_page() -> None:
    meta = build([{"name": name, "created": 0, "labelled": 1, "run": "r1", "env": "eu"} for name in NAMES])
    for text, order in (("", []), ("", ["name"]), ("run_id = 'r1'", []), ("", ["version_number"]), ("name IN ('churn', 'fraud')", [])):
        page, _ = search_versions(meta, asked("versions", text, order), lambda models: [m for m in models if m == "fraud"])
        assert [version.name for version in page] == ["fraud"]
    page, _ = search_models(meta, asked("models"), lambda models: [m for m in models if m == "fraud"])
    assert [model.name for model in page] == ["fraud"]


def test_a_token_names_no_model_that_the_caller_may_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("attestry.usecases.mlflow_searching.READ_AT_MOST", 3)
    meta = build([{"name": NAMES[n % 2], "created": n, "labelled": -1, "run": "", "env": ""} for n in range(8)])
    for order in (["creation_timestamp"], ["name DESC"]):
        question, cursor, found = asked("versions", "", order, 2), "", []
        for _ in range(20):
            page, cursor = search_versions(meta, replace(question, cursor=cursor), lambda models: [m for m in models if m == "churn"])
            found += told([page])
            assert not any(name in cursor for name in ("churn-eu", "churn EU"))
            if not cursor:
                break
        assert sorted(found) == [("churn", n) for n in range(1, 5)]


def test_an_entry_that_was_planted_shows_nothing_that_is_not_so() -> None:
    meta = build([{"name": "churn", "created": n, "labelled": 1, "run": "r1", "env": "eu"} for n in range(2)])
    late = "2030-01-01T00:00:00.000000Z"
    for lane in (Lane("V", "all", "", "updated"), Lane("V", "all", "", "created"), Lane("V", "model", "churn", "updated")):
        planted = {Entry(lane, f"{late}#churn#000000001", "churn", 1), Entry(lane, f"{late}#ghost#000000001", "ghost", 1)}
        meta.transact(index_writes((), planted))
    by_name = Lane("M", "all", "", "name")
    meta.transact(index_writes((), {Entry(by_name, "aaa\tchurn", "churn"), Entry(by_name, "b\tghost", "ghost")}))
    for order in ORDERS:
        assert sorted(told(pages(meta, search_versions, "versions", "", order, 1))) == [("churn", 1), ("churn", 2)]
    assert [model.name for page in pages(meta, search_models, "models", "", [], 1) for model in page] == sorted(NAMES)


def test_versions_of_several_models_by_number_are_sorted_up_to_a_bound_and_refused_beyond(monkeypatch: pytest.MonkeyPatch) -> None:
    meta = build([{"name": NAMES[n % 3], "created": n, "labelled": -1, "run": "", "env": ""} for n in range(6)])
    question = asked("versions", "", ["version_number DESC"])
    assert [version.number for version in search_versions(meta, question, every)[0]] == [2, 2, 2, 1, 1, 1]
    monkeypatch.setattr("attestry.usecases.mlflow_searching.READ_AT_MOST", 5)
    with pytest.raises(MlflowError, match="order by 'name' or a timestamp first") as refused:
        search_versions(meta, question, every)
    assert refused.value.code == "INVALID_PARAMETER_VALUE"
    named = asked("versions", "name = 'churn'", ["version_number DESC"])
    assert [version.number for version in search_versions(meta, named, every)[0]] == [2, 1]


def test_a_page_ends_after_so_many_that_do_not_match_and_goes_on_by_its_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("attestry.usecases.mlflow_searching.READ_AT_MOST", 4)
    meta = build([{"name": NAMES[n % 4], "created": n, "labelled": 0, "run": "r1" if n else "r2", "env": ""} for n in range(10)])
    for order in (["creation_timestamp DESC"], ["name"], []):
        found = pages(meta, search_versions, "versions", "run_id LIKE '%2'", order, 3)
        assert told(found) == [("churn", 1)]
        assert len(found) > 2


NO_CURSORS = ["x", "[]", "{}", '"a"', "[1]", "[null]", '["a", "b"]', '[""]', '["\\ud800"]', "[true]", "[" * 5000, "9" * 5000]


@pytest.mark.parametrize("cursor", [*NO_CURSORS, json.dumps(["a" * 1025])])
def test_a_cursor_that_is_none_is_refused(cursor: str) -> None:
    question = replace(asked("versions", "", ["creation_timestamp"]), cursor=cursor)
    with pytest.raises(MlflowError, match="Invalid page token"):
        search_versions(MemoryMetaStore(), question, every)


@pytest.mark.parametrize("cursor", [["no name"], ["a\tb", "1"], ["a\tb", 10**12], ["a\tb", True], ["a\tb", 1, 1]])
def test_a_cursor_by_name_and_number_holds_a_name_and_a_number(cursor: list[Any]) -> None:
    question = replace(asked("versions", "", ["name"]), cursor=json.dumps(cursor))
    with pytest.raises(MlflowError, match="Invalid page token"):
        search_versions(MemoryMetaStore(), question, every)


def test_a_forged_cursor_reaches_nothing_that_the_search_does_not() -> None:
    meta = build([{"name": name, "created": 0, "labelled": -1, "run": "", "env": ""} for name in NAMES])
    question = replace(asked("versions", "name LIKE 'churn%'", ["name"]), cursor=json.dumps(["fraud\tfraud", 5]))
    assert search_versions(meta, question, every)[0] == []
    hidden = replace(asked("versions", "", ["name"]), cursor=json.dumps(["fraud\tfraud", 5]))
    assert search_versions(meta, hidden, lambda models: [m for m in models if m != "fraud"])[0] == []


def test_two_versions_of_one_moment_come_by_model_and_number_in_the_direction_of_the_time() -> None:
    meta = build([])
    for model in ("fraud", "churn"):
        for number in (1, 2):
            add_version(meta, model, number)
    down = [("fraud", 2), ("fraud", 1), ("churn", 2), ("churn", 1)]
    assert told(pages(meta, search_versions, "versions", "", ["creation_timestamp DESC"], 1)) == down
    assert told(pages(meta, search_versions, "versions", "", ["creation_timestamp"], 3)) == down[::-1]


def test_what_versions_are_sorted_by_ends_where_no_two_are_equal() -> None:
    def keys(order: list[str], *, one_model: bool = False) -> list[str]:
        return [o.key for o in Sorting.of_versions(asked("versions", order=order).order, one_model=one_model).orders]

    assert keys([]) == ["last_updated_timestamp"]
    assert keys([], one_model=True) == ["version_number"]
    assert keys(["name", "version_number"], one_model=True) == ["version_number"]
    assert keys(["name DESC"]) == ["name", "version_number"]
    assert keys(["version_number", "creation_timestamp", "name"]) == ["version_number", "creation_timestamp"]


def _filled(count: int) -> CountingStore:
    """A registry of so many versions of ten models, as the rows of the table have them."""
    meta, rows = CountingStore(), {}
    item = add_version(MemoryMetaStore(), "churn", 1).to_item()
    base = Version.from_item(item)

    def put(key: Any, row: Item) -> None:
        rows[key] = {**row, "pk": key.partition, "sk": key.sort}

    for index in range(10):
        model = RegisteredModel(f"model-{index}", created_at=timestamp(AT), updated_at=timestamp(AT + timedelta(seconds=index)), rev=1)
        model = replace(model, model=f"model-{index}")
        put(catalogue_key(model.model), {**model.state(), "rev": 1, "updated": model.updated_at, "deleted": None})
        put(model_key(model.model), {"model": model.model, "next": count // 10 + 1, "rev": 1})
        for entry in entries_of_model(model):
            put(entry_key(entry), {"model": entry.model})
    for n in range(count):
        name, number, at = f"model-{n % 10}", n // 10 + 1, timestamp(AT + timedelta(seconds=2 * n))
        version = replace(base, model=name, number=number, created=at, updated=at)
        tags = {RUN_TAG: f"r{n // 2}", "env": "eu"}
        labels = Labels(name, number, tags=tags, rev=1, updated_at=timestamp(AT + timedelta(seconds=2 * n + 1)))
        put(version_key(name, number), {**item, "model": name, "number": number, "created": at, "updated": at})
        put(labels_key(name, number), {"tags": tags, "rev": 1, "updated": labels.updated_at})
        for entry in entries_of_version(version) | entries_of_labels(labels, at):
            put(entry_key(entry), {"model": entry.model, "number": entry.number})
    meta.rows.update(rows)
    return meta


@pytest.fixture(scope="module")
def sizes() -> tuple[CountingStore, CountingStore]:
    """A registry of 100 versions, and one of 1,000."""
    return _filled(100), _filled(1_000)


@pytest.mark.parametrize(
    ("text", "order", "calls"),
    [
        ("", [], 8),
        ("", ["creation_timestamp DESC"], 6),
        ("", ["last_updated_timestamp"], 8),
        ("", ["name"], 4),
        ("", ["name DESC", "creation_timestamp DESC"], 6),
        ("name LIKE 'model-%'", [], 8),
        ("name IN ('model-1', 'model-2')", [], 7),
        ("name = 'model-1'", [], 2),
        ("name = 'model-1'", ["last_updated_timestamp DESC"], 5),
        ("run_id = 'r7'", [], 3),
        ("tags.env = 'eu'", ["creation_timestamp"], 4),
        ("tags.env = 'eu'", [], 9),
    ],
)
def test_a_page_costs_the_same_at_a_hundred_versions_and_at_a_thousand(
    monkeypatch: pytest.MonkeyPatch, sizes: tuple[CountingStore, CountingStore], text: str, order: list[str], calls: int
) -> None:
    monkeypatch.setattr("attestry.usecases.mlflow_lanes.FEW", 50)  # so that a tag of all versions is walked at both sizes
    question = asked("versions", text, order, 10)
    few, many = (meta.cost(lambda meta=meta: search_versions(meta, question, every)) for meta in sizes)
    shown, _ = search_versions(sizes[1], question, every)
    assert len(shown) == (2 if "run_id" in text else 10)
    assert many[0] <= calls
    assert many[0] <= few[0] * 1.2
    assert many[1] <= few[1] * 1.2
