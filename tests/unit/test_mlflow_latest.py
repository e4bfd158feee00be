"""The latest version of each stage: what going through all of the newest gives, at the cost of a few small rows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attestry.domain.catalogue import Mode
from attestry.domain.stages import Standing
from attestry.mlflow.stages import STAGE_TAG, STAGES
from attestry.ports import Item
from attestry.usecases.catalogue import create_model
from attestry.usecases.catalogue_rows import labels_key
from attestry.usecases.mlflow_latest import latest_of_stages
from attestry.usecases.mlflow_reading import LATEST_OF, find, versions_of
from attestry.usecases.records import model_key, pointer_key, version_key
from tests.fakes import MemoryMetaStore
from tests.unit.test_search import CountingStore
from tests.versions import AT, DANA, make_version

MODEL = "churn"
MODES = [mode.value for mode in Mode]
VERSIONS = st.lists(
    st.fixed_dictionaries(
        {
            "stage": st.sampled_from([*STAGES, "nonsense", ""]),
            "standing": st.sampled_from(sorted(Standing)),
            "deleted": st.booleans(),
            "finished": st.sampled_from([True, True, True, False]),
        }
    ),
    max_size=LATEST_OF + 6,
)


def put(meta: CountingStore, key: Any, **row: Any) -> None:
    meta.rows[key] = {**row, "pk": key.partition, "sk": key.sort}


def build(specs: list[dict[str, Any]], mode: str, deployed: int | None = None) -> CountingStore:
    """A registry with one model, whose versions have the stages, standings and gaps that were drawn."""
    meta, some = CountingStore(), make_version(MemoryMetaStore(), model=MODEL)
    create_model(meta, MODEL, mode=mode, by=DANA, at=AT)
    put(meta, model_key(MODEL), **meta.rows.get(model_key(MODEL), {}), model=MODEL, next=len(specs) + 1, rev=1)
    for number, spec in enumerate(specs, start=1):
        if spec["finished"]:
            put(meta, version_key(MODEL, number), **replace(some, number=number, standing=spec["standing"]).to_item())
        tags = {STAGE_TAG: spec["stage"]} if spec["stage"] else {}
        row: Item = {"tags": tags, "rev": 1, **({"deleted": True} if spec["deleted"] else {})}
        put(meta, labels_key(MODEL, number), **row)
    if deployed is not None:
        put(meta, pointer_key(MODEL, "production"), number=deployed, environment="production", rev=1)
    return meta


def by_hand(meta: CountingStore, stages: list[str], deployed: int | None) -> list[tuple[str, int]]:
    """Stage and number as they come out when all heads are read."""
    known = find(meta, MODEL)
    numbers = list(range(known.last, max(0, known.last - LATEST_OF), -1))
    if deployed is not None and numbers and deployed not in numbers:
        numbers.append(deployed)
    latest: dict[str, int] = {}
    for one in versions_of(meta, known, numbers):
        shown = one.show_version()
        latest.setdefault(shown.stage, shown.number)
    return [(stage, latest[stage]) for stage in STAGES if stage in latest and stage in stages]


@settings(max_examples=60)
@given(
    VERSIONS, st.sampled_from([mode.value for mode in Mode]), st.integers(0, 3), st.lists(st.sampled_from(STAGES), min_size=1, unique=True)
)
def test_it_is_what_reading_all_of_the_newest_gives(specs: list[dict[str, Any]], mode: str, deployed: int, stages: list[str]) -> None:
    placed = deployed if 0 < deployed <= len(specs) else None
    meta = build(specs, mode, placed)
    found = latest_of_stages(meta, find(meta, MODEL), stages)
    assert [(shown.stage, shown.number) for shown in found] == by_hand(meta, stages, placed)


def test_of_an_open_model_one_round_trip_of_small_rows_tells_it_and_another_where_there_are_more_stages() -> None:
    plain = {"stage": "", "standing": Standing.CANDIDATE, "deleted": False, "finished": True}
    meta = build([plain] * 40, "open")
    known = find(meta, MODEL)
    calls, units = meta.cost(lambda: latest_of_stages(meta, known))
    assert (calls, units) == (1, LATEST_OF + 1)
    staged = build([*[plain] * 20, {**plain, "stage": "Production"}, {**plain, "stage": "Staging"}, *[plain] * 10], "open")
    known = find(staged, MODEL)
    calls, _ = staged.cost(lambda: latest_of_stages(staged, known))
    assert calls == 2
    assert [(shown.stage, shown.number) for shown in latest_of_stages(staged, known)] == [("None", 32), ("Staging", 22), ("Production", 21)]


@pytest.mark.parametrize("mode", MODES)
def test_what_is_deployed_counts_though_it_is_not_among_the_newest(mode: str) -> None:
    plain = {"stage": "Archived", "standing": Standing.CANDIDATE, "deleted": False, "finished": True}
    placed = {**plain, "stage": "Production", "standing": Standing.DEPLOYED}
    meta = build([placed, *[plain] * (LATEST_OF + 5)], mode, deployed=1)
    shown = latest_of_stages(meta, find(meta, MODEL))
    assert ("Production", 1) in [(version.stage, version.number) for version in shown]


def test_a_model_without_versions_has_none_and_nothing_is_read() -> None:
    meta = build([], "open")
    known = find(meta, MODEL)
    assert meta.cost(lambda: latest_of_stages(meta, known)) == (0, 0)
    assert latest_of_stages(meta, known) == []
