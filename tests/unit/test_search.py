"""Search: every answer is what going through everything would give, in the same order, at a cost that does not grow."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from time import process_time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from attestry.domain.catalogue import Labels, ModelSubject, VersionSubject
from attestry.domain.errors import InvalidInputError, UnavailableError
from attestry.domain.events import timestamp
from attestry.domain.search import (
    Condition,
    HasLabel,
    HasTag,
    Is,
    MetricIn,
    NameLike,
    Order,
    Query,
    Text,
    matches_version,
    read_cursor,
)
from attestry.domain.search_index import VERSIONS, entries_of_labels, entries_of_version, number_place
from attestry.domain.stages import Stage, Standing, Status
from attestry.domain.version import Version
from attestry.ports import Item, Key, Put, When
from attestry.usecases.catalogue import (
    change_labels,
    create_model,
    delete_tag,
    delete_version,
    read_labels,
    set_alias,
    set_tag,
)
from attestry.usecases.catalogue_rows import labels_key
from attestry.usecases.index_rows import entry_key, index_writes
from attestry.usecases.records import Move, load_version, move_writes, version_key
from attestry.usecases.search import ModelHit, Page, VersionHit, earlier_like, search_models, search_versions
from tests.fakes import Faults, MemoryMetaStore
from tests.versions import AT, ATTESTOR, DANA, make_version

MODELS = ("churn", "churn-eu", "credit")
FRAMEWORKS = ("scikit-learn", "torch")
SPRING, SUMMER = "a1" * 32, "b2" * 32


class CountingStore(MemoryMetaStore):
    """Counts what a table would bill: calls, and units of 4 KB for what is read."""

    def __init__(self, faults: Faults | None = None) -> None:
        super().__init__(faults)
        self.units = 0

    def query(self, partition: str, **options: Any) -> list[Item]:
        rows = super().query(partition, **options)
        self.units += -(-sum(_size(self.rows[Key(partition, row["sk"])]) for row in rows) // 4096) or 1
        return rows

    def get_many(self, keys: Any, **options: Any) -> dict[Any, Item]:
        rows = super().get_many(keys, **options)
        self.units += sum(-(-_size(self.rows[key]) // 4096) for key in rows)  # whole rows, whatever is read of them
        return rows

    def cost(self, act: Callable[[], object]) -> tuple[int, int]:
        """Return calls and units of an act."""
        calls, units = len(self.faults.calls), self.units
        act()
        return len(self.faults.calls) - calls, self.units - units


def _size(row: Item) -> int:
    return len(json.dumps(row, default=str))


def add_version(meta: MemoryMetaStore, model: str, number: int, minute: int = 0, **changes: Any) -> Version:
    """A version with its entries, as the registry would have written both."""
    made = timestamp(AT + timedelta(minutes=minute))
    traits = {"owner": "dana", "risk_tier": "low", "framework": "torch", "labels": {}, "sources": [], **changes.pop("traits", {})}
    version = make_version(meta, model=model, number=number, created=made, traits=traits, **changes)
    version = replace(version, updated=made)
    before = entries_of_version(load_version(meta, model, number))
    put = Put(version_key(model, number), version.to_item(), When())
    meta.transact([put, *index_writes(before, entries_of_version(version))])
    return version


def references(page: Page) -> list[str]:
    """What a page has found."""
    return [hit.version.reference if isinstance(hit, VersionHit) else hit.model.name for hit in page.results]


def every_page(search: Callable[[Any, Query], Page], meta: MemoryMetaStore, query: Query) -> list[str]:
    """All results of a query, page by page."""
    found: list[str] = []
    cursor: str | None = None
    for _ in range(200):
        page = search(meta, replace(query, cursor=cursor))
        found += references(page)
        cursor = page.cursor
        if cursor is None:
            return found
    raise AssertionError("the pages do not come to an end")


@st.composite
def registries(draw: st.DrawFn) -> list[dict[str, Any]]:
    one = st.fixed_dictionaries(
        {
            "model": st.sampled_from(MODELS),
            "standing": st.sampled_from([Standing.CANDIDATE, Standing.APPROVED, Standing.RETIRED]),
            "framework": st.sampled_from(FRAMEWORKS),
            "minute": st.integers(0, 3),
            "accuracy": st.sampled_from(["", "0.5", "0.75", "-1", "0.9"]),
            "sources": st.sampled_from([[], [SPRING], [SUMMER, SPRING]]),
            "tags": st.sampled_from([{}, {"env": "eu"}, {"env": "us", "note": "spring sale"}]),
        }
    )
    return draw(st.lists(one, max_size=12))


CONDITIONS: tuple[tuple[Condition, ...], ...] = (
    (),
    (Is("model", "churn"),),
    (Is("standing", "APPROVED"),),
    (Is("framework", "torch"), Is("standing", "CANDIDATE")),
    (Is("data", SPRING),),
    (HasTag("env", "eu"),),
    (HasTag("env", "eu", negated=True), Is("model", "churn")),
    (HasLabel("domain", "retail"),),
    (Text("spring"),),
    (NameLike("churn%"),),
    (NameLike("churn%"), HasTag("env", "us")),
    (MetricIn("accuracy", 0.5, 0.75),),
    (MetricIn("accuracy", 0.6), Is("model", "churn-eu")),
)
ORDERS = (None, Order("name"), Order("created"), Order("created", True), Order("updated", True), Order("metric", True, "accuracy"))


def build(specs: Sequence[dict[str, Any]]) -> tuple[MemoryMetaStore, list[tuple[Version, Labels]]]:
    """A registry, and a list of what is in it."""
    meta, listed, counts = MemoryMetaStore(), [], dict.fromkeys(MODELS, 0)
    for spec in specs:
        model = spec["model"]
        counts[model] += 1
        metrics = {"accuracy": spec["accuracy"]} if spec["accuracy"] else {}
        traits = {"framework": spec["framework"], "sources": spec["sources"], "labels": {"domain": "retail"} if spec["minute"] else {}}
        version = add_version(meta, model, counts[model], spec["minute"], standing=spec["standing"], metrics=metrics, traits=traits)
        for key, value in spec["tags"].items():
            set_tag(meta, VersionSubject(model, version.number), key, value, by=DANA, at=AT)
        listed.append((version, read_labels(meta, model, version.number)))
    return meta, listed


def by_hand(listed: Sequence[tuple[Version, Labels]], conditions: Sequence[Condition], order: Order) -> list[str]:
    """What going through everything gives."""
    found = [v for v, labels in listed if matches_version(conditions, v, labels)]
    keys: dict[str, Callable[[Version], Any]] = {
        "name": lambda v: (),
        "created": lambda v: v.created,
        "updated": lambda v: v.updated,
        "metric": lambda v: float(v.metrics["accuracy"]),
    }
    if order.by == "metric":
        found = [v for v in found if "accuracy" in v.metrics]
    return [v.reference for v in sorted(found, key=lambda v: (keys[order.by](v), v.model, v.number), reverse=order.descending)]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(registries(), st.sampled_from(CONDITIONS), st.sampled_from(ORDERS), st.integers(1, 4), st.booleans())
def test_pages_together_are_what_going_through_everything_gives(
    specs: list[dict[str, Any]], conditions: tuple[Condition, ...], order: Order | None, size: int, walk: bool
) -> None:
    meta, listed = build(specs)
    query = Query(conditions, order, size, walk=walk)
    try:
        found = every_page(search_versions, meta, query)
    except InvalidInputError as error:
        refused = (walk, error.problems[0].rule)
    else:
        refused = None
    if refused:
        assert refused == (False, "needs_scan")
        return
    if order is None:
        assert sorted(found) == sorted(by_hand(listed, conditions, Order("name")))
    else:
        assert found == by_hand(listed, conditions, order)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=2, max_size=6))
def test_the_places_of_numbers_sort_as_the_numbers_do(numbers: list[float]) -> None:
    assert [number_place(n) for n in sorted(numbers)] == sorted(number_place(n) for n in numbers)


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 5), st.booleans(), st.integers(0, 20))
def test_what_is_added_between_two_pages_neither_repeats_nor_hides_what_was_there(size: int, descending: bool, cut: int) -> None:
    meta = MemoryMetaStore()
    there = [add_version(meta, "churn", n, n).reference for n in range(2, 12)]
    query = Query((Is("model", "churn"),), Order("created", descending), size)
    found: list[str] = []
    cursor, added = None, 0
    while True:
        page = search_versions(meta, replace(query, cursor=cursor))
        found += references(page)
        cursor = page.cursor
        if cursor is None:
            break
        added += 1
        add_version(meta, "churn", 100 + added, (cut * added) % 15)
    assert len(found) == len(set(found))
    assert [r for r in found if r in there] == (there[::-1] if descending else there)


def test_a_version_is_found_as_what_it_is_after_each_move_and_not_as_what_it_was() -> None:
    meta = MemoryMetaStore()
    version = add_version(meta, "churn", 1)
    move = Move(Stage.APPROVAL, Status.SUCCEEDED, Standing.APPROVED, "version.approved", DANA, "good", AT + timedelta(hours=1))
    meta.transact(move_writes(version, move, ATTESTOR, {"metrics": {"accuracy": "0.9"}}))
    assert references(search_versions(meta, Query((Is("standing", "CANDIDATE"),)))) == []
    assert references(search_versions(meta, Query((Is("standing", "APPROVED"),)))) == ["churn@1"]
    assert references(search_versions(meta, Query((MetricIn("accuracy", 0.9, 0.9),)))) == ["churn@1"]
    lanes = [k for k, row in meta.rows.items() if k.partition.startswith("INDEX#") and row.get("number") == 1]
    assert len({k.partition for k in lanes}) == len(lanes), "one entry in each lane"


def test_a_version_of_former_times_is_indexed_with_its_next_move() -> None:
    meta = MemoryMetaStore()
    version = make_version(meta)
    for key in [k for k in meta.rows if k.partition.startswith("INDEX#")]:
        del meta.rows[key]
    version = replace(version, indexed=False)
    meta.transact([Put(version_key(version.model, 1), version.to_item(), When())])
    move = Move(Stage.APPROVAL, Status.SUCCEEDED, Standing.APPROVED, "version.approved", DANA, "good", AT)
    meta.transact(move_writes(version, move, ATTESTOR))
    for order in ("name", "created", "updated"):
        assert references(search_versions(meta, Query(order_by=Order(order)))) == [version.reference]


def test_an_entry_that_was_planted_shows_nothing_that_is_not_so() -> None:
    meta = MemoryMetaStore()
    version = add_version(meta, "churn", 1)
    meta.transact(index_writes((), entries_of_version(replace(version, standing=Standing.DEPLOYED))))
    meta.transact(index_writes((), entries_of_version(replace(version, number=7))))
    meta.transact(index_writes((), entries_of_version(replace(version, updated="2030-01-01T00:00:00.000000Z"))))
    assert references(search_versions(meta, Query((Is("standing", "DEPLOYED"),)))) == []
    for order in ("name", "created", "updated"):
        assert references(search_versions(meta, Query((Is("model", "churn"),), Order(order)))) == ["churn@1"]


def test_models_are_found_by_name_words_tags_and_owner_with_their_aliases() -> None:
    meta = MemoryMetaStore()
    create_model(meta, "Default risk", description="Who pays back, and when", tags={"tier": "low"}, by=DANA, at=AT)
    create_model(meta, "churn", description="who leaves", by=DANA, at=AT)
    add_version(meta, "churn", 1)
    set_alias(meta, "churn", "champion", 1, by=DANA, at=AT)
    found: dict[tuple[Condition, ...], list[str]] = {
        (): ["Default risk", "churn"],
        (Is("name", "churn"),): ["churn"],
        (NameLike("De%risk"),): ["Default risk"],
        (Text("WHO back"),): ["Default risk"],
        (HasTag("tier", "low"),): ["Default risk"],
        (HasTag("tier", "high"),): [],
        (Is("mode", "open"),): [],
    }
    for conditions, names in found.items():
        assert references(search_models(meta, Query(conditions))) == names
    (hit,) = search_models(meta, Query((Is("name", "churn"),))).results
    assert isinstance(hit, ModelHit)
    assert hit.to_dict()["aliases"] == {"champion": 1}
    assert references(search_models(meta, Query((NameLike("%RISK", ignore_case=True),), walk=True))) == ["Default risk"]
    set_tag(meta, ModelSubject("churn"), "tier", "low", by=DANA, at=AT)
    delete_tag(meta, ModelSubject("churn"), "tier", by=DANA, at=AT)
    assert references(search_models(meta, Query((HasTag("tier", "low"),)))) == ["Default risk"]


@pytest.mark.parametrize("ignore_case", [False, True])
def test_no_pattern_of_a_name_takes_longer_than_name_and_pattern_are_long(ignore_case: bool) -> None:
    before = process_time()
    assert not NameLike("%a" * 124 + "%b", ignore_case).matches("a" * 250)
    assert process_time() - before < 1


@settings(max_examples=20, deadline=None)
@given(st.lists(st.sampled_from(["a", "a b", "a-b", "a0", "A", "a!", "ä", "a\u0301"]), unique=True), st.booleans(), st.integers(1, 3))
def test_models_come_in_the_order_of_their_names(names: list[str], descending: bool, size: int) -> None:
    meta = MemoryMetaStore()
    for name in names:
        create_model(meta, name, by=DANA, at=AT)
    query = Query(order_by=Order("name", descending), max_results=size)
    assert every_page(search_models, meta, query) == sorted(names, key=lambda n: n.encode(), reverse=descending)


@pytest.mark.parametrize(
    "query",
    [
        Query((Is("standing", "APPROVED"),), Order("updated")),
        Query((HasTag("a", "b", negated=True),)),
        Query((NameLike("%risk"),)),
        Query((Is("framework", "torch"),), Order("metric", True, "accuracy")),
        Query((MetricIn("accuracy", 0.5),), Order("created")),
    ],
)
def test_a_query_that_would_go_through_everything_is_refused_and_says_so(query: Query) -> None:
    with pytest.raises(InvalidInputError) as refused:
        search_versions(MemoryMetaStore(), query)
    assert refused.value.problems[0].rule == "needs_scan"
    assert search_versions(MemoryMetaStore(), replace(query, walk=True)).results == ()


@pytest.mark.parametrize(
    ("query", "field"),
    [
        (Query(max_results=0), "max_results"),
        (Query(max_results=201), "max_results"),
        (Query((Is("standing", "BEST"),)), "standing"),
        (Query((Is("secret", "x"),)), "secret"),
        (Query((Is("owner", ""),)), "owner"),
        (Query((MetricIn("accuracy", float("nan")),)), "metric"),
        (Query((Text("-"),)), "text"),
        (Query((NameLike(""),)), "name"),
        (Query(order_by=Order("size")), "order_by"),
        (Query(tuple(Is("owner", str(n)) for n in range(11))), "filter"),
    ],
)
def test_a_query_out_of_form_names_the_field(query: Query, field: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        search_versions(MemoryMetaStore(), query)
    assert refused.value.problems[0].field == field


def _forged(told: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(told, separators=(",", ":")).encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    "cursor", ["x", "!!", "a" * 3000, _forged([]), _forged({"q": "1"}), _forged({"q": "1", "p": 3}), _forged({"p": "\n", "q": "1"})]
)
def test_a_cursor_that_was_never_given_out_is_refused(cursor: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        search_versions(MemoryMetaStore(), Query(cursor=cursor))
    assert refused.value.problems[0].field == "cursor"


def test_a_cursor_of_one_query_serves_no_other() -> None:
    meta = MemoryMetaStore()
    for n in range(1, 4):
        add_version(meta, "churn", n)
    cursor = search_versions(meta, Query((Is("model", "churn"),), max_results=1)).cursor
    assert search_versions(meta, Query((Is("model", "churn"),), max_results=2, cursor=cursor)).results, "another size is the same query"
    for other in (
        Query((Is("model", "credit"),), cursor=cursor),
        Query(cursor=cursor),
        Query((Is("model", "churn"),), Order("name"), cursor=cursor),
    ):
        with pytest.raises(InvalidInputError) as refused:
            search_versions(meta, other)
        assert refused.value.problems[0].rule == "other_query"


def test_a_deleted_version_is_found_by_nothing() -> None:
    meta = MemoryMetaStore()
    create_model(meta, "churn", mode="open", by=DANA, at=AT)
    add_version(meta, "churn", 1)
    change_labels(meta, "churn", 1, description="spring", tags={"env": "eu"}, by=DANA, at=AT)
    delete_version(meta, "churn", 1, by=DANA, at=AT)
    assert references(search_versions(meta, Query())) == []
    assert not [k for k, row in meta.rows.items() if k.partition.startswith("INDEX#V") and row.get("number") == 1]


def test_replacing_all_of_fifty_tags_is_more_than_one_transaction_holds_and_still_done() -> None:
    meta = MemoryMetaStore()
    add_version(meta, "churn", 1)
    change_labels(meta, "churn", 1, tags={f"a{n}": f"first{n}" for n in range(50)}, by=DANA, at=AT)
    change_labels(meta, "churn", 1, tags={f"b{n}": f"second{n}" for n in range(50)}, by=DANA, at=AT)
    assert references(search_versions(meta, Query((HasTag("a0", "first0"),)))) == []
    assert references(search_versions(meta, Query((HasTag("b49", "second49"),)))) == ["churn@1"]


def test_a_crash_between_the_two_transactions_shows_nothing_that_is_not_so() -> None:
    meta = MemoryMetaStore()
    add_version(meta, "churn", 1)
    change_labels(meta, "churn", 1, tags={f"a{n}": f"first{n}" for n in range(50)}, by=DANA, at=AT)
    meta.faults.fail_before(2, method="transact")
    with pytest.raises(UnavailableError):
        change_labels(meta, "churn", 1, tags={f"b{n}": f"second{n}" for n in range(50)}, by=DANA, at=AT)
    assert references(search_versions(meta, Query((HasTag("a0", "first0"),)))) == []
    assert read_labels(meta, "churn", 1).tags["b0"] == "second0"


def test_an_experiment_that_was_made_before_is_told_but_not_its_own_refreshes() -> None:
    meta = MemoryMetaStore()
    same = {"experiment": "e" * 64}
    first = add_version(meta, "churn", 1, 1, traits=same)
    second = add_version(meta, "churn", 2, 2, traits=same)
    refreshed = add_version(meta, "churn", 3, 3, traits=same, candidate=second.candidate)
    assert [v.reference for v in earlier_like(meta, first)] == []
    assert [v.reference for v in earlier_like(meta, second)] == ["churn@1"]
    assert [v.reference for v in earlier_like(meta, refreshed)] == ["churn@1"]


def _filled(count: int) -> CountingStore:
    """A registry of many versions, without the moves that led to them."""
    meta = CountingStore()
    base = add_version(MemoryMetaStore(), "churn", 1, traits={"sources": [SPRING]})
    item = base.to_item()
    for number in range(1, count + 1):
        at = timestamp(AT + timedelta(seconds=number))
        version = replace(
            base, model=f"model-{number % 50}", number=number, created=at, updated=at, metrics={"accuracy": f"0.{number % 97}"}
        )
        for entry in entries_of_version(version) | entries_of_labels(Labels(version.model, number, tags={"env": "eu"}), at):
            key = entry_key(entry)
            meta.rows[key] = {"model": entry.model, "number": entry.number, "pk": key.partition, "sk": key.sort}
        own = {"model": version.model, "number": number, "created": at, "updated": at, "metrics": dict(version.metrics)}
        key = version_key(version.model, number)
        meta.rows[key] = {**item, **own, "pk": key.partition, "sk": key.sort}
        key = labels_key(version.model, number)
        meta.rows[key] = {"tags": {"env": "eu"}, "rev": 1, "pk": key.partition, "sk": key.sort}
    return meta


@pytest.fixture(scope="module")
def sizes() -> tuple[CountingStore, CountingStore]:
    """A small registry, and one that is much larger."""
    return _filled(100), _filled(1_500)


QUERIES = pytest.mark.parametrize(
    "query",
    [
        Query((), Order("created", True), 20),
        Query((), Order("updated", True), 20),
        Query((), Order("name"), 20),
        Query((Is("standing", "CANDIDATE"),), max_results=20),
        Query((Is("data", SPRING),), max_results=20),
        Query((HasTag("env", "eu"), Is("framework", "torch")), max_results=20),
        Query((MetricIn("accuracy", 0.2, 0.8),), max_results=20),
        Query((NameLike("model-1%"),), max_results=20),
    ],
    ids=lambda query: "/".join(type(c).__name__ for c in query.conditions) or query.order_by.by,
)


@QUERIES
def test_a_page_costs_the_same_in_a_registry_that_is_much_larger(sizes: tuple[CountingStore, CountingStore], query: Query) -> None:
    small, large = (meta.cost(lambda meta=meta: search_versions(meta, query)) for meta in sizes)
    assert len(search_versions(sizes[1], query).results) == 20
    assert large[0] <= small[0] * 1.2
    assert large[1] <= small[1] * 1.2


@pytest.mark.long
def test_a_page_costs_the_same_at_a_hundred_times_the_size() -> None:
    small, large = _filled(100), _filled(10_000)
    for query in QUERIES.args[1]:
        few, many = (meta.cost(lambda meta=meta, query=query: search_versions(meta, query)) for meta in (small, large))
        assert (many[0] <= few[0] * 1.2, many[1] <= few[1] * 1.2) == (True, True)


def test_a_later_page_costs_what_the_first_one_does(sizes: tuple[CountingStore, CountingStore]) -> None:
    _, meta = sizes
    query = Query((Is("standing", "CANDIDATE"),), Order("created"), 20)
    first = meta.cost(lambda: search_versions(meta, query))
    far = query
    for _ in range(5):
        far = replace(far, cursor=search_versions(meta, far).cursor)
    assert meta.cost(lambda: search_versions(meta, far))[1] <= first[1] * 1.2


def test_a_condition_that_nothing_meets_ends_a_page_at_a_bounded_cost(sizes: tuple[CountingStore, CountingStore]) -> None:
    _, meta = sizes
    page = search_versions(meta, Query((NameLike("%nothing%"),), Order("name"), walk=True))
    assert page.results == ()
    assert page.cursor is not None
    assert page.looked_at <= 500


@pytest.mark.parametrize("order", [Order("name"), Order("created", True), Order("updated")], ids=lambda order: order.by)
def test_pages_are_full_of_what_the_caller_may_read_and_no_cursor_names_anything_else(
    sizes: tuple[CountingStore, CountingStore], order: Order
) -> None:
    meta, mine = sizes[1], {f"model-{n}" for n in range(0, 50, 7)}
    query, found = Query((), order, 10, walk=True), list[str]()

    def readable(models: list[str]) -> list[str]:
        return [model for model in models if model in mine]

    while True:
        page = search_versions(meta, query, readable)
        found += references(page)
        if page.cursor is None:
            break
        assert len(page.results) == 10
        query = replace(query, cursor=page.cursor)
        assert re.findall(r"model-\d+", read_cursor(query, VERSIONS)) in [[model] for model in mine]
    everything = every_page(search_versions, meta, Query((), order, 100, walk=True))
    assert found == [reference for reference in everything if reference.partition("@")[0] in mine]


def test_a_search_of_one_who_may_read_nothing_finds_nothing_and_ends(sizes: tuple[CountingStore, CountingStore]) -> None:
    query, pages = Query((), Order("created"), 10), 0
    while True:
        page = search_versions(sizes[1], query, lambda models: [])
        pages += 1
        assert page.results == ()
        if page.cursor is None:
            break
        query = replace(query, cursor=page.cursor)
    assert pages == 1_500 // 500 + 1
