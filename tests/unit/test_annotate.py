"""Remarks on versions and moves, and models that are described by their manifests."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from attestry.domain.errors import InvalidInputError, NotFoundError, UnavailableError
from attestry.domain.search import Is, Query, Text
from attestry.ports import Update
from attestry.usecases.annotate import annotate, list_annotations
from attestry.usecases.catalogue import create_model, describe_model, read_model
from attestry.usecases.records import model_key
from attestry.usecases.search import ModelHit, search_models
from tests.fakes import MemoryMetaStore
from tests.unit.test_catalogue import MODEL, events
from tests.versions import AT, DANA, ERIN, make_version


def test_a_remark_is_kept_with_its_event_and_read_in_order() -> None:
    meta = MemoryMetaStore()
    make_version(meta)
    annotate(meta, MODEL, 1, " why so fast? ", transition=2, by=ERIN, at=AT)
    annotate(meta, MODEL, 1, "cached data", by=DANA, at=AT)
    assert [(r.sequence, r.transition, r.text, r.by) for r in list_annotations(meta, MODEL, 1)] == [
        (1, 2, "why so fast?", "erin"),
        (2, 0, "cached data", "dana"),
    ]
    assert [r.text for r in list_annotations(meta, MODEL, 1, after=1)] == ["cached data"]
    told = events(meta, "version.annotated")
    assert [(e["sequence"], e["data"]["transition"]) for e in told] == [(1, 2), (2, 0)]
    assert "why so fast" not in str(told), "an event names evidence by digest"


def test_a_remark_whose_answer_was_lost_is_written_once_by_the_retry() -> None:
    meta = MemoryMetaStore()
    make_version(meta)
    meta.faults.fail_after(method="transact")
    with pytest.raises(UnavailableError):
        annotate(meta, MODEL, 1, "late", by=ERIN, at=AT)
    assert annotate(meta, MODEL, 1, "late", by=ERIN, at=AT).sequence == 1
    assert annotate(meta, MODEL, 1, "late", by=DANA, at=AT).sequence == 2, "somebody else may say the same"


def test_remarks_at_once_are_all_kept() -> None:
    meta = MemoryMetaStore()
    make_version(meta)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: annotate(meta, MODEL, 1, f"remark {n}", by=ERIN, at=AT), range(16)))
    assert sorted(r.text for r in list_annotations(meta, MODEL, 1)) == sorted(f"remark {n}" for n in range(16))


@pytest.mark.parametrize("text", ["", "  ", "x" * 2001, "\ud800"])
def test_a_remark_out_of_form_is_refused(text: str) -> None:
    meta = MemoryMetaStore()
    make_version(meta)
    with pytest.raises(InvalidInputError):
        annotate(meta, MODEL, 1, text, by=ERIN, at=AT)


def test_a_remark_on_what_is_not_there_is_refused() -> None:
    meta = MemoryMetaStore()
    make_version(meta)
    for number, transition in ((2, 0), (1, 9)):
        with pytest.raises(NotFoundError):
            annotate(meta, MODEL, number, "x", transition=transition, by=ERIN, at=AT)


def test_a_model_is_found_by_what_its_latest_manifest_says_and_keeps_what_people_said() -> None:
    meta = MemoryMetaStore()
    create_model(meta, MODEL, description="who pays back", tags={"a": "b"}, by=DANA, at=AT)
    make_version(meta)
    meta.transact([Update(model_key(MODEL), {"owner": "risk", "purpose": "lending"})])
    described = describe_model(meta, MODEL, by=DANA, at=AT)
    assert describe_model(meta, MODEL, by=DANA, at=AT) == described
    assert (described.owner, described.description, described.tags, described.rev) == ("risk", "who pays back", {"a": "b"}, 2)
    for condition in (Is("owner", "risk"), Text("lending back")):
        (hit,) = search_models(meta, Query((condition,))).results
        assert isinstance(hit, ModelHit)
        assert hit.model == read_model(meta, MODEL)


def test_a_model_that_came_by_a_manifest_alone_is_listed_once_it_is_described() -> None:
    meta = MemoryMetaStore()
    make_version(meta)
    assert search_models(meta, Query()).results == ()
    describe_model(meta, MODEL, by=DANA, at=AT)
    assert len(search_models(meta, Query()).results) == 1
    with pytest.raises(NotFoundError):
        describe_model(meta, "none", by=DANA, at=AT)
