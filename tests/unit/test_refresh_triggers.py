"""Triggers: data that come in, schedules, alarms and people; each makes one version, or says why it makes none."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import pytest

from attestry.domain.errors import InvalidInputError, NotFoundError, UnavailableError, UnprovenIdentityError
from attestry.domain.stages import Stage
from attestry.ports import AlarmState
from attestry.usecases.records import candidate_key, load_version
from attestry.usecases.refresh import Refreshed
from attestry.usecases.refresh_by_hand import read_brought, refresh_by_hand, show_refreshes
from attestry.usecases.refresh_data import DataWatcher, Drop, person_behind
from attestry.usecases.refresh_watch import Watcher
from attestry.usecases.upload import grant_upload, read_files
from tests.fakes import Faults
from tests.flow import Flow, example_manifest, example_source
from tests.unit.test_refresh import GRACE, MODEL, MORE, SOURCE
from tests.versions import session

USER = "AROADATA:erin"


class Alarms:
    """CloudWatch, as a test sets it."""

    def __init__(self, **states: str) -> None:
        self.states = states
        self.asked: list[str] = []

    def find(self, name: str) -> AlarmState | None:
        self.asked.append(name)
        state = self.states.get(name)
        return AlarmState(name, state, "2026-01-02T03:04:05.000000Z") if state else None


def asking(**refresh: Any) -> Any:
    """An edit of the example that asks for refreshes."""

    def edit(draft: dict[str, Any]) -> None:
        draft["refresh"] = refresh

    return edit


def flow_of(faults: Faults | None = None, **refresh: Any) -> Flow:
    flow = Flow(faults or Faults())
    flow.register_example(edit=asking(**refresh))
    return flow


def watcher(flow: Flow) -> DataWatcher:
    return DataWatcher(flow.meta, flow.store, flow.refresher)


def drop(flow: Flow, body: bytes = MORE, *, name: str = "new.csv", source: str = SOURCE, came: datetime | None = None) -> Refreshed:
    key = f"datasets-in/{MODEL}/{source}/{USER}/{name}"
    flow.store.put(key, body)
    found = Drop.parse(key)
    assert found is not None
    return watcher(flow).arrived(found, None, came or flow.clock.now(), flow.clock.now())


def finish(flow: Flow, number: int) -> None:
    """Take a version as far as its approval."""
    flow.to_approval(load_version(flow.meta, MODEL, number))


class TestData:
    def test_a_single_file_makes_a_version_at_once(self):
        flow = flow_of(data=True)
        made = drop(flow)
        assert (made.state, made.number) == ("MADE", 2)
        version = load_version(flow.meta, MODEL, 2)
        assert version.cause["brought_by"] == [USER]
        assert version.inputs[0]["from"] == f"datasets-in/{MODEL}/{SOURCE}/{USER}/new.csv"
        assert version.inputs[0]["key"] == f"datasets/{hashlib.sha256(MORE).hexdigest()}/breast_cancer.csv"
        assert flow.meta.query(f"REFRESH#{MODEL}", prefix="DROP#") == []

    def test_the_person_whose_session_brought_the_data_is_barred(self):
        flow = flow_of(data=True)
        flow.meta.transact([_login("erin", "erin-smith")])
        drop(flow)
        assert load_version(flow.meta, MODEL, 2).barred == ("dana", "erin-smith")
        assert person_behind(flow.meta, "AIDAUSER") == ""

    def test_ten_deliveries_of_one_file_at_once_make_one_version(self):
        flow = flow_of(data=True)
        with ThreadPoolExecutor(10) as pool:
            outcomes = list(pool.map(lambda _: drop(flow), range(10)))
        assert [o.state for o in outcomes].count("MADE") == 1
        assert load_version(flow.meta, MODEL, 2).number == 2
        with pytest.raises(NotFoundError):
            load_version(flow.meta, MODEL, 3)

    def test_files_are_taken_together_when_no_further_one_has_come_for_the_quiet_time(self):
        flow = flow_of(data=True, quiet_seconds=300)
        assert drop(flow).state == "WAITS"
        flow.clock.advance(seconds=200)
        assert drop(flow, MORE + b"7,8,1\n", name="later.csv").state == "WAITS"
        flow.clock.advance(seconds=299)
        assert [o.state for o in watcher(flow).take_all(flow.clock.now())] == ["WAITS"]
        flow.clock.advance(seconds=1)
        assert [o.state for o in watcher(flow).take_all(flow.clock.now())] == ["MADE"]
        assert load_version(flow.meta, MODEL, 2).inputs[0]["from"].endswith("later.csv")
        assert watcher(flow).take_all(flow.clock.now()) == []

    def test_a_marker_ends_the_quiet_time(self):
        flow = flow_of(data=True, quiet_seconds=300)
        drop(flow)
        assert drop(flow, b"", name="_COMPLETE").state == "MADE"

    def test_of_two_files_the_one_that_came_later_counts_whichever_is_told_of_first(self):
        flow = flow_of(data=True, quiet_seconds=300)
        came = flow.clock.now()
        drop(flow, MORE + b"1,1,1\n", name="second.csv", came=came + timedelta(seconds=9))
        drop(flow, name="first.csv", came=came)
        assert drop(flow, b"", name="_COMPLETE").state == "MADE"
        assert load_version(flow.meta, MODEL, 2).inputs[0]["from"].endswith("second.csv")

    def test_data_that_come_while_a_version_is_on_its_way_are_taken_afterwards(self):
        flow = flow_of(data=True)
        finish(flow, 1)
        drop(flow)
        assert drop(flow, MORE + b"7,8,1\n", name="later.csv").state == "WAITS"
        assert [o.state for o in watcher(flow).take_all(flow.clock.now())] == ["WAITS"]
        finish(flow, 2)
        assert [o.state for o in watcher(flow).take_all(flow.clock.now())] == ["MADE"]
        assert load_version(flow.meta, MODEL, 3).cause["parent"] == 2

    def test_identical_data_make_nothing_and_say_so(self):
        from tests.flow import DATA

        flow = flow_of(data=True)
        outcome = drop(flow, DATA)
        assert outcome.state == "NOTHING"
        assert "made of these data already" in outcome.reason

    @pytest.mark.parametrize(
        ("refresh", "source", "why"),
        [({"data": True}, "other", "no source"), ({"data": False}, SOURCE, "does not ask for new data"), ({}, SOURCE, "does not ask")],
    )
    def test_data_that_nobody_asked_for_are_recorded_as_skipped(self, refresh, source, why):
        flow = flow_of(**refresh)
        assert drop(flow, source=source).state == "SKIPPED"
        shown = show_refreshes(flow.meta, MODEL)
        assert why in shown["skipped"][0]["reason"]
        assert shown["waiting"] == []

    @pytest.mark.parametrize(
        "key",
        [
            "datasets-in/m",
            "datasets-in/m/s/u",
            "datasets-in/m/s/u/",
            "datasets-in//s/u/f",
            "datasets-in/M/s/u/f",
            "datasets-in/m/s/u/../f",
            "datasets-in/m/s/u/a//f",
        ],
    )
    def test_a_key_that_is_not_where_files_come_in_is_refused(self, key):
        with pytest.raises(InvalidInputError):
            Drop.parse(key)

    def test_other_objects_are_no_drops(self):
        assert Drop.parse("candidates/u/s/manifest.json") is None

    @pytest.mark.parametrize("kind", ["before", "after"])
    def test_a_drop_killed_at_any_call_is_finished_by_the_next_delivery(self, kind):
        tried = 0
        for point in range(1, 120):
            faults = Faults()
            flow = flow_of(faults, data=True)
            flow.store.put(f"datasets-in/{MODEL}/{SOURCE}/{USER}/new.csv", MORE)
            found = Drop.parse(f"datasets-in/{MODEL}/{SOURCE}/{USER}/new.csv")
            assert found is not None
            faults.clear()
            getattr(faults, f"fail_{kind}")(point)
            came = flow.clock.now()
            try:
                watcher(flow).arrived(found, None, came, came)
            except UnavailableError:
                tried += 1
                faults.clear()
                assert watcher(flow).arrived(found, None, came, came).state in ("MADE", "MADE_BEFORE", "NOTHING")
            else:
                break
            assert len(flow.pipeline.executions) == 2
            assert flow.meta.query(f"REFRESH#{MODEL}", prefix="DROP#") == []
            assert [m["next"] for m in flow.meta.list_collection("MODELS")] == [3]
        assert tried >= 18


class TestSchedule:
    def due(self, flow: Flow) -> list[Refreshed]:
        return Watcher(flow.meta, flow.refresher).run_due(flow.clock.now())

    def test_a_candidate_is_refreshed_when_it_is_due_and_once_for_all_that_was_missed(self):
        flow = flow_of(schedule="rate(6 hours)")
        assert self.due(flow) == []
        flow.clock.advance(days=3, hours=1)
        assert [o.state for o in self.due(flow)] == ["MADE"]
        cause = load_version(flow.meta, MODEL, 2).cause
        assert cause["due"] == "2026-01-02T09:04:00.000000Z"
        assert self.due(flow) == []
        assert show_refreshes(flow.meta, MODEL)["due"] == "2026-01-05T09:04:00.000000Z"

    def test_two_who_look_at_once_make_one_version(self):
        flow = flow_of(schedule="rate(6 hours)")
        flow.clock.advance(hours=7)
        with ThreadPoolExecutor(4) as pool:
            outcomes = [o for done in pool.map(lambda _: self.due(flow), range(4)) for o in done]
        assert [o.state for o in outcomes].count("MADE") == 1

    def test_a_candidate_that_is_not_in_force_any_more_is_skipped_with_the_reason(self):
        flow = flow_of(schedule="rate(6 hours)")

        def other(draft: dict[str, Any]) -> None:
            draft["training"]["hyperparameters"]["C"] = 0.3

        flow.register_example(edit=other)
        flow.clock.advance(hours=7)
        assert [o.state for o in self.due(flow)] == ["SKIPPED"]
        assert "another candidate, is in force" in show_refreshes(flow.meta, MODEL)["skipped"][0]["reason"]
        assert flow.meta.list_collection("REFRESHES")[0]["due"] > "2026-01-02T10:00"

    @pytest.mark.parametrize("kind", ["before", "after"])
    def test_a_run_killed_at_any_call_is_finished_by_the_next(self, kind):
        tried = 0
        for point in range(1, 120):
            faults = Faults()
            flow = flow_of(faults, schedule="rate(6 hours)")
            flow.clock.advance(hours=7)
            faults.clear()
            getattr(faults, f"fail_{kind}")(point)
            before = len(faults.calls)
            try:
                done = self.due(flow)
            except UnavailableError:
                done = [Refreshed("UNAVAILABLE", MODEL)]
            reached = any("injected" in o.reason or o.state == "UNAVAILABLE" for o in done)
            if not reached and len(faults.calls) - before < point:
                break
            tried += 1
            faults.clear()
            self.due(flow)
            assert [m["next"] for m in flow.meta.list_collection("MODELS")] == [3]
            assert len(flow.pipeline.executions) == 2
        assert tried >= 15

    def test_a_manifest_without_a_schedule_is_never_due(self):
        flow = flow_of(data=True)
        assert "due" not in (flow.meta.get(candidate_key(load_version(flow.meta, MODEL, 1).candidate)) or {})


class TestAlarm:
    def test_an_alarm_that_a_manifest_names_makes_a_version_that_names_it(self):
        flow = flow_of(alarms=["drift"])
        done = Watcher(flow.meta, flow.refresher).ring(Alarms(drift="ALARM"), "drift", flow.clock.now())
        assert [o.state for o in done] == ["MADE"]
        assert load_version(flow.meta, MODEL, 2).cause["alarm"] == {
            "name": "drift",
            "state": "ALARM",
            "at": "2026-01-02T03:04:05.000000Z",
        }

    @pytest.mark.parametrize("states", [{}, {"drift": "OK"}, {"drift": "INSUFFICIENT_DATA"}])
    def test_a_message_that_an_alarm_rang_which_does_not_ring_makes_nothing(self, states):
        flow = flow_of(alarms=["drift"])
        done = Watcher(flow.meta, flow.refresher).ring(Alarms(**states), "drift", flow.clock.now())
        assert [o.state for o in done] == ["SKIPPED"]
        assert len(flow.pipeline.executions) == 1

    def test_an_alarm_that_no_manifest_names_is_not_even_asked_about(self):
        alarms = Alarms(other="ALARM")
        flow = flow_of(alarms=["drift"])
        assert Watcher(flow.meta, flow.refresher).ring(alarms, "other", flow.clock.now()) == []
        assert alarms.asked == []

    def test_the_same_ringing_told_ten_times_at_once_makes_one_version(self):
        flow = flow_of(alarms=["drift"])
        with ThreadPoolExecutor(10) as pool:
            ring = Watcher(flow.meta, flow.refresher).ring
            done = [o for outcome in pool.map(lambda _: ring(Alarms(drift="ALARM"), "drift", flow.clock.now()), range(10)) for o in outcome]
        assert [o.state for o in done].count("MADE") == 1
        assert [m["next"] for m in flow.meta.list_collection("MODELS")] == [3]


class TestByHand:
    def ask(self, flow: Flow, **kwargs: Any) -> Refreshed:
        given: dict[str, Any] = {"number": None, "data": {}, "request": "r1", "reason": "asked for", "by": GRACE, **kwargs}
        return refresh_by_hand(flow.refresher, MODEL, at=flow.clock.now(), **given)

    def bring(self, flow: Flow, body: bytes = MORE) -> dict[str, Any]:
        files = read_files({"files": [{"name": "data/x.csv", "size": len(body), "sha256": hashlib.sha256(body).hexdigest()}]})
        grant = grant_upload(flow.meta, flow.store, files, by=GRACE, at=flow.clock.now())
        flow.store.put(grant.uploads[0].key, body)
        return {SOURCE: {"submission": grant.submission, "name": "data/x.csv"}}

    def test_a_person_asks_with_data_of_their_own(self):
        flow = Flow()
        flow.register_example()
        brought = read_brought(flow.store, self.bring(flow), by=GRACE)
        made = self.ask(flow, data=brought)
        version = load_version(flow.meta, MODEL, made.number or 0)
        assert version.cause["kind"] == "manual"
        assert version.submitter_person == "grace"
        assert version.barred == ("dana", "grace")
        assert version.inputs[0]["by"] == "grace"

    def test_a_request_that_is_sent_twice_is_one(self):
        flow = Flow()
        flow.register_example()
        assert self.ask(flow).state == "MADE"
        flow.build_environments(load_version(flow.meta, MODEL, 2))
        again = self.ask(flow)
        assert (again.state, again.number) == ("MADE_BEFORE", 2)

    def test_nobody_brings_what_another_uploaded(self):
        flow = Flow()
        flow.register_example()
        value = self.bring(flow)
        with pytest.raises(InvalidInputError, match="you have uploaded no"):
            read_brought(flow.store, value, by=session("scientist", "mallory", person="mallory"))

    @pytest.mark.parametrize(
        "value",
        [[], {"s": "x"}, {"s": {"submission": "../x", "name": "f"}}, {"s": {"submission": "ab" * 12, "name": "../../other/f"}}],
    )
    def test_a_place_that_leaves_the_callers_prefix_is_refused(self, value):
        with pytest.raises(InvalidInputError):
            read_brought(Flow().store, value, by=GRACE)

    def test_who_maps_to_no_person_brings_nothing(self):
        flow = Flow()
        flow.register_example()
        with pytest.raises(UnprovenIdentityError):
            read_brought(flow.store, self.bring(flow), by=session("scientist", "grace"))

    def test_files_without_a_manifest_are_data_alone(self):
        digest = hashlib.sha256(b"").hexdigest()
        with pytest.raises(InvalidInputError, match="exactly one of"):
            read_files({"files": [{"name": "source.tar.gz", "size": 0, "sha256": digest}, {"name": "data/x", "size": 0, "sha256": digest}]})


def test_a_refreshed_version_takes_its_name_for_the_file_from_the_manifest_so_that_scripts_find_it():
    flow = flow_of(data=True)
    drop(flow, name="anything at all.csv")
    version = load_version(flow.meta, MODEL, 2)
    flow.build_environments(version)
    flow.prepare(version, Stage.PROCESSING)
    assert flow.head(version).dataset(f"source/{SOURCE}").files[0].path == "breast_cancer.csv"


def test_the_upload_of_a_manifest_that_asks_for_refreshes_again_changes_nothing_of_its_schedule():
    flow = flow_of(schedule="rate(6 hours)")
    before = flow.meta.list_collection("REFRESHES")
    source = example_source()
    flow.clock.advance(hours=1)
    flow.register(flow.upload(example_manifest(source, edit=asking(schedule="rate(6 hours)")), source))
    assert flow.meta.list_collection("REFRESHES") == before


def _login(login: str, person: str) -> Any:
    from attestry.ports import Put
    from attestry.usecases.records import login_key

    return Put(login_key(login), {"person": person, "login": login})
