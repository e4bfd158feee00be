"""What a search shows of versions is read out of few attributes, and is what the whole rows would show."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestry.domain.catalogue import Labels
from attestry.domain.search_index import current_places
from attestry.domain.stages import Stage, Standing, Status
from attestry.domain.version import Version
from attestry.ports import Delete, Item, Update, When
from attestry.usecases.catalogue_rows import labels_key
from attestry.usecases.mlflow_outline import AT_ONCE, OF_HEADS, OF_LABELS, TOGETHER, Outline, load_outlines
from attestry.usecases.records import version_key
from tests.fakes import MemoryMetaStore
from tests.versions import DANA, make_version

MODEL = "credit-risk"
BASE = make_version(MemoryMetaStore(), model=MODEL)
ENDS: list[dict[str, str]] = [
    {},
    {"kind": "version.killed", "at": "2026-01-02", "by": "frank", "reason": "wrong"},
    {"kind": "version.retired", "at": "2026-01-02", "by": "dana", "reason": ""},
]


@given(
    st.sampled_from(Stage),
    st.sampled_from(Status),
    st.sampled_from(Standing),
    st.sampled_from(ENDS),
    st.sampled_from(["", "ab" * 32]),
    st.sampled_from([None, "dana"]),
    st.sampled_from(["", "the script failed"]),
)
def test_the_outline_of_a_row_in_part_is_that_of_the_whole_version(
    stage: Stage, status: Status, standing: Standing, retirement: dict[str, str], digest: str, person: str | None, error: str
) -> None:
    told: dict[str, Any] = {"stage": stage, "status": status, "standing": standing, "retirement": retirement, "error": error}
    version = replace(BASE, version_digest=digest, submitter_person=person, submitter=DANA, **told)
    row = {name: value for name, value in version.to_item().items() if name in OF_HEADS}
    outline = Outline.from_item(MODEL, 1, row)
    assert outline == Outline.of(version)
    assert outline.reference == version.reference
    labels = Labels(MODEL, 1, updated_at="2030-01-02T03:04:05.000000Z")
    assert current_places(outline, labels) == current_places(version, labels)


def test_a_row_of_former_times_is_read_as_a_version_is() -> None:
    kept = ("model", "number", "candidate", "execution_id", "folder", "submitter", "submitter_person", "manifest", "created", "updated")
    row = {name: BASE.to_item()[name] for name in kept}
    assert Outline.from_item(MODEL, 1, row) == Outline.of(Version.from_item({**row, "cause": {"kind": "import"}}))


@pytest.fixture(scope="module")
def registry() -> MemoryMetaStore:
    """Versions 1 to 260 of one model and 1 to 3 of another; without 7; 8 deleted; labels of every third, and a remark between them."""
    meta = MemoryMetaStore()
    item = BASE.to_item()
    for model, last in ((MODEL, 260), ("other", 3)):
        for number in range(1, last + 1):
            meta._apply([Update(version_key(model, number), {**item, "model": model, "number": number}, When())])
            if number % 3 == 0:
                meta._apply([Update(labels_key(model, number), {"tags": {"n": str(number)}, "rev": 1, "updated": "2030"}, When())])
    meta._apply([Delete(version_key(MODEL, 7)), Update(labels_key(MODEL, 8), {"deleted": True, "rev": 1}, When())])
    meta.faults.clear()
    return meta


def calls(meta: MemoryMetaStore) -> list[str]:
    made = sorted(call.rpartition(".")[2] for call in meta.faults.calls)
    meta.faults.clear()
    return made


@pytest.mark.parametrize(
    ("first", "last", "made"),
    [
        (1, TOGETHER, ["get_many"]),
        (1, TOGETHER + 1, ["get_many", "query"]),
        (100, 99 + AT_ONCE, ["get_many", "query"]),
        (261, 260 + AT_ONCE, ["get_many", "query"]),
        (1, 260, ["get_many"] * 3 + ["query"]),
    ],
)
def test_however_many_are_read_the_same_comes_in_few_round_trips(registry: MemoryMetaStore, first: int, last: int, made: list[str]) -> None:
    subjects = [(MODEL, number) for number in range(first, last + 1)]
    registry.faults.clear()
    found = load_outlines(registry, subjects)
    assert calls(registry) == made
    there = [number for number in range(first, min(last, 260) + 1) if number not in (7, 8)]
    assert list(found) == [(MODEL, number) for number in there]
    for number in there:
        outline, labels = found[MODEL, number]
        assert (outline.model, outline.number) == (MODEL, number)
        assert labels.tags == ({"n": str(number)} if number % 3 == 0 else {})


def test_versions_of_several_models_keep_apart(registry: MemoryMetaStore) -> None:
    registry.faults.clear()
    found = load_outlines(registry, [*((MODEL, n) for n in range(1, 70)), ("other", 3), ("other", 4), ("nobody", 1), ("other", 3)])
    assert calls(registry) == ["get_many", "get_many", "query"]
    assert [subject for subject in found if subject[0] != MODEL] == [("other", 3)]
    assert (found["other", 3][1].model, found["other", 3][1].tags) == ("other", {"n": "3"})
    assert len(found) == 68


def test_no_more_is_read_of_a_row_than_is_shown(registry: MemoryMetaStore, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Item] = []
    for name in ("get_many", "query"):
        original = getattr(registry, name)

        def watched(*asked: Any, original: Any = original, **how: Any) -> Any:
            rows = original(*asked, **how)
            read.extend(rows.values() if isinstance(rows, dict) else rows)
            return rows

        monkeypatch.setattr(registry, name, watched)
    load_outlines(registry, [(MODEL, number) for number in range(1, 100)])
    assert read
    assert {name for row in read for name in row} <= {"pk", "sk", *OF_HEADS, *OF_LABELS}


def test_a_read_that_fails_ends_the_search(registry: MemoryMetaStore) -> None:
    registry.faults.clear()
    registry.faults.fail_before(2, error=RuntimeError("no answer"))
    with pytest.raises(RuntimeError, match="no answer"):
        load_outlines(registry, [(MODEL, number) for number in range(1, 200)])
    registry.faults.clear()
