"""Expiry: a version whose manifest sets an end leaves service on that day by itself, and nobody puts it off."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import pytest

from attestry.domain.errors import ConflictError, NotFoundError
from attestry.domain.stages import Standing
from attestry.domain.version import Version
from attestry.ports import Key
from attestry.usecases.deploy import require_deployable, swap_pointer
from attestry.usecases.expiry import RETIREMENTS
from attestry.usecases.pointer import number_in, require_deployed
from attestry.usecases.reconcile_version import _from_transitions
from attestry.usecases.records import load_version, pointer_key, transition_key
from attestry.usecases.revoke import due_retirements, retire_due, retire_version
from tests.fakes import MemoryMetaStore
from tests.versions import AT, ATTESTOR, ERIN, make_approved

MODEL = "credit-risk"


@pytest.fixture
def meta() -> MemoryMetaStore:
    return MemoryMetaStore()


def deployed(meta: MemoryMetaStore, expires: str, number: int = 1, **changes: Any) -> Version:
    make_approved(meta, number, expires=expires, **changes)
    swap(meta, number)
    return load_version(meta, MODEL, number)


def swap(meta: MemoryMetaStore, number: int, at: Any = AT) -> None:
    swap_pointer(meta, ATTESTOR, MODEL, number, environment="production", capture_rate="1", by=ERIN, reason="go", at=at)


@pytest.mark.parametrize(("expires", "day"), [("2026-03-01", "2026-03-01"), ("30", "2026-02-01")])
def test_the_end_of_the_manifest_becomes_a_retirement_when_the_version_is_put_in_place(meta, expires, day):
    version = deployed(meta, expires)
    assert (version.retires_on, version.expires) == (day, day)
    moved = meta.get(transition_key(MODEL, 1, version.transition))
    assert moved["data"]["retires_on"] == day
    assert _from_transitions([moved])["retires_on"] == day


def test_on_the_day_the_sweep_takes_it_out_of_service_and_the_place_says_why(meta):
    deployed(meta, "30")
    day = AT + timedelta(days=30)
    assert due_retirements(meta, day - timedelta(days=1)) == []
    assert retire_due(meta, ATTESTOR, at=day) == (["credit-risk@1"], [])
    assert load_version(meta, MODEL, 1).standing is Standing.RETIRED
    with pytest.raises(NotFoundError, match=r"credit-risk@1 was retired .* the manifest sets this end"):
        require_deployed(meta.get(pointer_key(MODEL, "production")), MODEL, "production")


def test_a_version_whose_day_has_come_is_not_put_in_place_though_it_never_stood_there(meta):
    version = make_approved(meta, 1, expires="2026-01-02")
    with pytest.raises(ConflictError, match="out of use from 2026-01-02 on"):
        require_deployable(version, AT)
    with pytest.raises(ConflictError):
        swap(meta, 1)


def test_days_count_from_the_first_time_in_place_and_not_anew(meta):
    deployed(meta, "30")
    make_approved(meta, 2)
    swap(meta, 2)
    swap(meta, 1, AT + timedelta(days=10))
    version = load_version(meta, MODEL, 1)
    assert version.retires_on == "2026-02-01"
    assert len(meta.query(RETIREMENTS)) == 1


def test_people_may_end_it_earlier_and_not_later_than_the_manifest(meta):
    deployed(meta, "2026-03-01")
    what = {"reason": "sooner", "by": ERIN, "at": AT, "even_if_deployed": True}
    with pytest.raises(ConflictError, match="the manifest of credit-risk@1 ends it on 2026-03-01"):
        retire_version(meta, ATTESTOR, MODEL, 1, on=date(2026, 3, 2), **what)
    assert retire_version(meta, ATTESTOR, MODEL, 1, on=date(2026, 2, 1), **what).version.retires_on == "2026-02-01"
    assert [row["on"] for row in meta.query(RETIREMENTS)] == ["2026-02-01"]


def test_a_day_that_people_set_before_stays(meta):
    make_approved(meta, 1, expires="90")
    retire_version(meta, ATTESTOR, MODEL, 1, on=date(2026, 2, 1), reason="known", by=ERIN, at=AT)
    swap(meta, 1)
    assert load_version(meta, MODEL, 1).retires_on == "2026-02-01"
    assert number_in(meta.get(pointer_key(MODEL, "production"))) == 1


def test_a_version_without_an_end_has_none(meta):
    version = deployed(meta, "")
    assert (version.retires_on, version.ends_on) == ("", "")
    assert meta.get(Key(RETIREMENTS, "x")) is None
    assert "retires_on" not in meta.get(transition_key(MODEL, 1, version.transition))["data"]
