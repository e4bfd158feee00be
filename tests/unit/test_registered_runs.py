"""Development runs in the registry: their rows and events, through the use cases and through the API, and who tries to misuse them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import rfc8785

from attestry.access.rows import grant_key, placement_key
from attestry.access.scopes import Placement
from attestry.domain.errors import ConflictError, ForbiddenError, InvalidInputError, NotFoundError, UnavailableError
from attestry.domain.paging import write_cursor
from attestry.domain.run_points import MAX_BATCH_BYTES, Batch, read_batch
from attestry.domain.run_request import read_change, read_start
from attestry.domain.runs import MAX_PART_BYTES, RunState
from attestry.ports import Put, When
from attestry.usecases.borne_out import find_unborne
from attestry.usecases.run_reading import LOOKED_AT
from attestry.usecases.run_rows import run_key
from attestry.usecases.runs import change_run, log_points, start_run
from tests.api_world import ApiWorld
from tests.fakes import MemoryMetaStore
from tests.unit.test_catalogue import events
from tests.versions import AT, DANA, ERIN

RUN, OTHER = "1" * 32, "2" * 32
EXPERIMENT = "tumour-diagnosis"
START = {"run": RUN, "experiment": EXPERIMENT, "parameters": {"C": "0.1"}, "tags": {"team": "onco"}}


def batch(number: int, *values: float | str, name: str = "loss") -> Batch:
    points = [{"name": name, "value": value, "step": step} for step, value in enumerate(values)]
    return read_batch({"batch": f"{number:032x}", "points": points})


@pytest.fixture
def meta() -> MemoryMetaStore:
    made = MemoryMetaStore()
    start_run(made, read_start(START), by=DANA, at=AT)
    return made


class TestRows:
    def test_a_run_is_told_of_once_at_its_start_and_once_at_its_end(self, meta: MemoryMetaStore) -> None:
        log_points(meta, RUN, batch(1, 0.9, 0.5), by=DANA)
        log_points(meta, RUN, batch(2, "NaN"), by=DANA)
        ended = change_run(meta, RUN, read_change({"state": "FINISHED"}), by=DANA, at=AT)
        (started,), (told,) = events(meta, "run.started"), events(meta, "run.ended")
        assert (started["subject"], started["principal"]["login"]) == (f"run/{RUN}", "dana")
        assert told["data"] == {
            "experiment": EXPERIMENT,
            "state": "FINISHED",
            "points": 3,
            "batches": 2,
            "metrics": ended.metrics,
            "sha256": ended.record_digest,
        }

    def test_digests_are_what_the_page_of_formats_says(self, meta: MemoryMetaStore) -> None:
        def sha256(value: Any) -> str:
            return hashlib.sha256(rfc8785.dumps(value)).hexdigest()

        log_points(meta, RUN, batch(1, 0.9), by=DANA)
        log_points(meta, RUN, batch(2, "Infinity"), by=DANA)
        ended = change_run(meta, RUN, read_change({"state": "FAILED", "error": "diverged"}), by=DANA, at=AT)
        start = sha256({"format": 1, "run": RUN, "experiment": EXPERIMENT, "begun": "", "environment": {}, "source": {}})
        metrics = ""
        for number, value in ((1, "0.9"), (2, "Infinity")):
            points = sha256([{"name": "loss", "value": value, "step": 0, "at": ""}])
            metrics = sha256({"batch": f"{number:032x}", "before": metrics, "points": points})
        record = {
            "format": 1,
            "run": RUN,
            "experiment": EXPERIMENT,
            "state": "FAILED",
            "error": "diverged",
            "begun": ended.begun,
            "ended": ended.ended,
            "parameters": {"C": "0.1"},
            "tags": {"team": "onco"},
            "files": {},
            "last": {"loss": {"value": "Infinity", "step": 0, "at": ""}},
            "points": 2,
            "batches": 2,
            "metrics": metrics,
            "start": start,
        }
        assert (ended.start, ended.metrics, ended.record_digest) == (start, metrics, sha256(record))

    def test_a_start_whose_answer_was_lost_is_one_run(self) -> None:
        meta = MemoryMetaStore()
        meta.faults.fail_after(method="transact")
        with pytest.raises(UnavailableError):
            start_run(meta, read_start(START), by=DANA, at=AT)
        run, made = start_run(meta, read_start(START), by=DANA, at=AT)
        assert (run.owner, made) == ("dana", False)
        assert len(events(meta, "run.started")) == 1

    @pytest.mark.parametrize("said", [{"experiment": "other"}, {"parameters": {"C": "0.2"}}, {"environment": {"python": "3.12"}}])
    def test_an_id_that_is_taken_starts_no_other_run(self, meta: MemoryMetaStore, said: dict[str, Any]) -> None:
        with pytest.raises(ConflictError, match="an ID of its own"):
            start_run(meta, read_start({**START, **said}), by=DANA, at=AT)

    def test_an_id_of_somebody_else_starts_no_run_even_if_all_else_is_the_same(self, meta: MemoryMetaStore) -> None:
        with pytest.raises(ConflictError):
            start_run(meta, read_start(START), by=ERIN, at=AT)

    def test_a_batch_whose_answer_was_lost_counts_once(self, meta: MemoryMetaStore) -> None:
        meta.faults.fail_after(method="transact")
        with pytest.raises(UnavailableError):
            log_points(meta, RUN, batch(1, 0.9), by=DANA)
        done = log_points(meta, RUN, batch(1, 0.9), by=DANA)
        assert (done.repeated, done.number, done.run.points, done.run.batches) == (True, 1, 1, 1)

    def test_a_batch_is_not_sent_again_with_other_points(self, meta: MemoryMetaStore) -> None:
        log_points(meta, RUN, batch(1, 0.9), by=DANA)
        with pytest.raises(ConflictError, match="other points"):
            log_points(meta, RUN, batch(1, 0.1), by=DANA)

    def test_a_batch_of_another_run_is_another_batch(self, meta: MemoryMetaStore) -> None:
        start_run(meta, read_start({**START, "run": OTHER}), by=DANA, at=AT)
        log_points(meta, RUN, batch(1, 0.9), by=DANA)
        done = log_points(meta, OTHER, batch(1, 0.1), by=DANA)
        assert (done.repeated, done.run.last["loss"]["value"]) == (False, "0.1")
        assert meta.rows[run_key(RUN)]["last"]["loss"]["value"] == "0.9"

    def test_batches_of_many_writers_at_once_all_count(self, meta: MemoryMetaStore) -> None:
        with ThreadPoolExecutor(8) as pool:
            done = list(pool.map(lambda n: log_points(meta, RUN, batch(n, 0.1 * n), by=DANA), range(16)))
        assert sorted(d.number for d in done) == list(range(1, 17))
        assert (meta.rows[run_key(RUN)]["points"], meta.rows[run_key(RUN)]["batches"]) == (16, 16)

    def test_an_end_whose_answer_was_lost_is_told_once(self, meta: MemoryMetaStore) -> None:
        meta.faults.fail_after(method="transact")
        end = read_change({"state": "FAILED", "error": "killed"})
        with pytest.raises(UnavailableError):
            change_run(meta, RUN, end, by=DANA, at=AT)
        assert change_run(meta, RUN, end, by=DANA, at=AT).state is RunState.FAILED
        assert len(events(meta, "run.ended")) == 1

    @pytest.mark.parametrize(
        "said",
        [{"state": "FAILED"}, {"parameters": {"late": "1"}}, {"tags": {"team": "x"}}, {"files": {"a": {"sha256": "0" * 64, "size": 1}}}],
    )
    def test_a_run_that_has_ended_changes_no_more(self, meta: MemoryMetaStore, said: dict[str, Any]) -> None:
        log_points(meta, RUN, batch(1, 0.9), by=DANA)
        change_run(meta, RUN, read_change({"state": "FINISHED"}), by=DANA, at=AT)
        before = dict(meta.rows[run_key(RUN)])
        with pytest.raises(ConflictError, match="has ended"):
            change_run(meta, RUN, read_change(said), by=DANA, at=AT)
        with pytest.raises(ConflictError, match="has ended"):
            log_points(meta, RUN, batch(2, 0.1), by=DANA)
        assert log_points(meta, RUN, batch(1, 0.9), by=DANA).repeated
        assert meta.rows[run_key(RUN)] == before

    def test_a_parameter_and_a_file_have_one_value_and_tags_are_replaced(self, meta: MemoryMetaStore) -> None:
        file = {"model.txt": {"sha256": "0" * 64, "size": 7}}
        change_run(meta, RUN, read_change({"tags": {"team": "x"}, "files": file, "parameters": {"n": "1"}}), by=DANA, at=AT)
        for said in ({"parameters": {"C": "9"}}, {"files": {"model.txt": {"sha256": "1" * 64, "size": 7}}}):
            with pytest.raises(ConflictError, match="one of each"):
                change_run(meta, RUN, read_change(said), by=DANA, at=AT)
        row = meta.rows[run_key(RUN)]
        assert (row["parameters"], row["tags"], row["files"]) == ({"C": "0.1", "n": "1"}, {"team": "x"}, file)

    def test_nobody_but_the_owner_changes_a_run(self, meta: MemoryMetaStore) -> None:
        for by in (ERIN, replace(DANA, login="dana2", person="erin")):
            with pytest.raises(ForbiddenError, match="that of dana"):
                log_points(meta, RUN, batch(1, 0.9), by=by)
            with pytest.raises(ForbiddenError):
                change_run(meta, RUN, read_change({"state": "FINISHED"}), by=by, at=AT)
        assert log_points(meta, RUN, batch(1, 0.9), by=replace(DANA, login="dana-at-home")).number == 1

    def test_who_expects_another_number_of_points_is_refused_and_told_which_it_is(self, meta: MemoryMetaStore) -> None:
        log_points(meta, RUN, replace(batch(1, 0.9, 0.8), first=0), by=DANA)
        with pytest.raises(ConflictError, match="has 2 points, not 0") as refused:
            log_points(meta, RUN, replace(batch(2, 0.7), first=0), by=DANA)
        assert refused.value.details == {"points": 2}
        assert log_points(meta, RUN, replace(batch(1, 0.9, 0.8), first=0), by=DANA).repeated

    def test_an_event_of_a_run_that_no_row_bears_out_never_enters_the_ledger(self, meta: MemoryMetaStore) -> None:
        change_run(meta, RUN, read_change({"state": "FINISHED"}), by=DANA, at=AT)
        told = [*events(meta, "run.started"), *events(meta, "run.ended")]
        assert find_unborne(meta, told) == {}
        forged = [{**e, "subject": f"run/{OTHER}"} for e in told] + [{**e, "at": "2030-01-01T00:00:00.000000Z"} for e in told]
        unborne = [find_unborne(meta, [event]) for event in [*forged, {**told[1], "kind": "run.started"}, {**told[0], "sequence": 2}]]
        assert all(unborne)

    def test_a_run_has_no_more_metrics_than_fit_into_its_row(self, meta: MemoryMetaStore) -> None:
        for number in range(4):
            points = [{"name": f"m{number}-{index}", "value": 1} for index in range(125)]
            log_points(meta, RUN, read_batch({"batch": f"{number:032x}", "points": points}), by=DANA)
        with pytest.raises(InvalidInputError, match="at most 500"):
            log_points(meta, RUN, batch(99, 1.0, name="one more"), by=DANA)


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"run": "x"}, "run", "run_id"),
    ({"run": RUN.upper() + "A"}, "run", "run_id"),
    ({"experiment": ""}, "experiment", "name"),
    ({"experiment": "a/b"}, "experiment", "name"),
    ({"begun": "yesterday"}, "begun", "time"),
    ({"parameters": {"C": 0.1}}, "parameters.C", "type"),
    ({"parameters": {"": "x"}}, "parameters", "name"),
    ({"parameters": {"C": "x" * 8001}}, "parameters.C", "max_length"),
    ({"parameters": {"C": "\ud800"}}, "parameters.C", "unicode"),
    ({"parameters": {f"p{n}": "" for n in range(501)}}, "parameters", "max_items"),
    ({"parameters": {f"p{n}": "x" * 7000 for n in range(8)}}, "parameters", "max_bytes"),
    ({"tags": []}, "tags", "type"),
    ({"environment": {"secrets": "x"}}, "environment.secrets", "unknown_field"),
    ({"environment": {"cpu_count": True}}, "environment.cpu_count", "type"),
    ({"environment": {"packages": {"numpy": 2}}}, "environment.packages.numpy", "type"),
    ({"source": {"changed": "no"}}, "source.changed", "type"),
]


class TestForm:
    @pytest.mark.parametrize(("said", "field", "rule"), REFUSED)
    def test_a_start_out_of_form_is_refused_by_field_and_rule(self, said: dict[str, Any], field: str, rule: str) -> None:
        with pytest.raises(InvalidInputError) as refused:
            read_start({**START, **said})
        assert [(p.field, p.rule) for p in refused.value.problems] == [(field, rule)]

    @pytest.mark.parametrize(
        ("value", "rule"),
        [(True, "number"), ("0.5", "number"), ("nan", "number"), (None, "number"), (10**400, "range"), ([], "number")],
    )
    def test_a_value_that_is_no_number_is_refused(self, value: Any, rule: str) -> None:
        with pytest.raises(InvalidInputError) as refused:
            read_batch({"batch": RUN, "points": [{"name": "loss", "value": value}]})
        assert [(p.field, p.rule) for p in refused.value.problems] == [("points[0].value", rule)]

    @pytest.mark.parametrize(
        ("said", "field", "rule"),
        [
            ({"batch": "1"}, "batch", "batch_id"),
            ({"points": []}, "points", "required"),
            ({"points": [{"name": "a", "value": 1}] * 1001}, "points", "max_items"),
            ({"points": [{"name": "a" * 250, "value": 1.0}] * 300}, "points", "max_bytes"),
            ({"points": [{"name": "a", "value": 1, "by": "erin"}]}, "points[0]", "type"),
            ({"points": [{"name": "a\n", "value": 1}]}, "points[0].name", "name"),
            ({"points": [{"name": "a", "value": 1, "step": 1.5}]}, "points[0].step", "range"),
            ({"points": [{"name": "a", "value": 1, "step": 2**53}]}, "points[0].step", "range"),
            ({"points": [{"name": "a", "value": 1, "at": "now"}]}, "points[0].at", "time"),
        ],
    )
    def test_a_batch_out_of_form_is_refused_by_field_and_rule(self, said: dict[str, Any], field: str, rule: str) -> None:
        with pytest.raises(InvalidInputError) as refused:
            read_batch({"batch": RUN, "points": [{"name": "a", "value": 1}], **said})
        assert [(p.field, p.rule) for p in refused.value.problems] == [(field, rule)]

    @pytest.mark.parametrize(
        ("said", "field", "rule"),
        [
            ({"state": "RUNNING"}, "state", "enum"),
            ({"error": "x"}, "state", "required"),
            ({"state": "FAILED", "error": "x" * 2001}, "error", "max_length"),
            ({"files": {"a": "0" * 64}}, "files.a", "type"),
            ({"files": {"a": {"sha256": "A" * 64, "size": 1}}}, "files.a.sha256", "sha256"),
            ({"files": {"a": {"sha256": "0" * 64, "size": -1}}}, "files.a.size", "range"),
        ],
    )
    def test_a_change_out_of_form_is_refused_by_field_and_rule(self, said: dict[str, Any], field: str, rule: str) -> None:
        with pytest.raises(InvalidInputError) as refused:
            read_change(said)
        assert [(p.field, p.rule) for p in refused.value.problems] == [(field, rule)]

    def test_whatever_a_run_may_say_of_itself_fits_into_a_row(self) -> None:
        assert 4 * MAX_PART_BYTES + 500 * 150 + 20_000 < 400_000
        assert MAX_BATCH_BYTES + 1_000 < 400_000


@pytest.fixture(scope="module")
def made() -> Iterator[ApiWorld]:
    with pytest.MonkeyPatch.context() as patch:
        yield ApiWorld.install(patch)


@pytest.fixture
def api(made: ApiWorld) -> Iterator[ApiWorld]:
    """The registry with a run of dana's; as it was made, whatever the test before did to its rows."""
    before, at = dict(made.meta.rows), made.clock.at
    assert made.call("POST", "/v1/runs", START, who="scientist/dana").status == 201
    yield made
    made.meta.rows.clear()
    made.meta.rows.update(before)
    made.clock.at = at


def start(api: ApiWorld, number: int, experiment: str = EXPERIMENT, who: str = "scientist/dana") -> str:
    api.clock.advance(seconds=1)
    run = f"{number:032x}"
    assert api.call("POST", "/v1/runs", {"run": run, "experiment": experiment}, who=who).status == 201
    return run


def grant(api: ApiWorld, login: str, role: str, scope: str) -> None:
    """Grant a role to a login; each test has one of its own, since reads may be decided on rows of a moment ago."""
    row = {"subject": f"login/{login}", "grants": [{"role": role, "scope": scope, "until": ""}]}
    api.meta.transact([Put(grant_key(f"login/{login}"), row, When())])


class TestApi:
    def test_a_run_goes_from_its_start_to_its_end(self, api: ApiWorld) -> None:
        points = [{"name": "loss", "value": value, "step": step} for step, value in enumerate((0.9, "NaN", 0.4))]
        logged = api.call("POST", f"/v1/runs/{RUN}/metrics", {"batch": OTHER, "points": points}, who="scientist/dana")
        assert (logged.status, logged.body["number"], logged.body["points"], logged.body["repeated"]) == (200, 1, 3, False)
        ended = api.call("PATCH", f"/v1/runs/{RUN}", {"state": "FINISHED"}, who="scientist/dana")
        assert (ended.status, ended.body["state"], ended.body["graded"]) == (200, "FINISHED", "claimed")
        shown = api.call("GET", f"/v1/runs/{RUN}", who="auditor/grace").body
        assert shown["metrics"] == {"loss": {"value": 0.4, "step": 2, "at": ""}}
        assert shown["digests"]["record"] == events(api.meta, "run.ended")[-1]["data"]["sha256"]
        page = api.call("GET", f"/v1/runs/{RUN}/metrics?metric=loss&limit=2", who="validator/val").body
        assert [p["value"] for p in page["points"]] == [0.9, "NaN"]
        rest = api.call("GET", f"/v1/runs/{RUN}/metrics?metric=loss&limit=2&cursor={page['next']}", who="validator/val").body
        assert ([p["value"] for p in rest["points"]], rest["next"]) == ([0.4], None)

    def test_the_same_start_again_is_answered_with_the_run(self, api: ApiWorld) -> None:
        assert api.call("POST", "/v1/runs", START, who="scientist/dana").status == 200
        taken = api.call("POST", "/v1/runs", {**START, "tags": {}}, who="scientist/dana")
        assert (taken.status, taken.body["code"]) == (409, "conflict")

    def test_an_owner_in_the_body_is_refused(self, api: ApiWorld) -> None:
        for name in ("owner", "login", "person", "created", "state"):
            refused = api.call("POST", "/v1/runs", {"run": OTHER, "experiment": "x", name: "erin"}, who="scientist/dana")
            assert (refused.status, refused.body["field"], refused.body["rule"]) == (400, name, "unknown_field")
        assert api.call("PATCH", f"/v1/runs/{RUN}", {"owner": "erin"}, who="scientist/dana").status == 400

    def test_nan_as_json_is_refused_and_as_text_is_kept(self, api: ApiWorld) -> None:
        body = f'{{"batch": "{OTHER}", "points": [{{"name": "loss", "value": NaN}}]}}'
        assert api.call("POST", f"/v1/runs/{RUN}/metrics", body, who="scientist/dana").status == 400

    @pytest.mark.parametrize("who", ["validator/val", "approver/erin", "auditor/grace", "admin/alex", "deployer/frank", "consumer/frank"])
    def test_who_is_no_scientist_logs_nothing(self, api: ApiWorld, who: str) -> None:
        assert api.call("POST", "/v1/runs", {**START, "run": OTHER}, who=who).status == 403
        assert api.call("PATCH", f"/v1/runs/{RUN}", {"state": "FINISHED"}, who=who).status == 403
        point = {"batch": OTHER, "points": [{"name": "loss", "value": 1}]}
        assert api.call("POST", f"/v1/runs/{RUN}/metrics", point, who=who).status == 403

    def test_another_scientist_reads_a_run_and_changes_nothing_of_it(self, api: ApiWorld) -> None:
        assert api.call("GET", f"/v1/runs/{RUN}", who="scientist/frank").status == 200
        point = {"batch": OTHER, "points": [{"name": "loss", "value": 1}]}
        for method, path, body in (("PATCH", "", {"state": "FAILED"}), ("POST", "/metrics", point)):
            refused = api.call(method, f"/v1/runs/{RUN}{path}", body, who="scientist/frank")
            assert (refused.status, refused.body["code"]) == (403, "forbidden")
        assert api.call("GET", f"/v1/runs/{RUN}").body["state"] == "RUNNING"

    @pytest.mark.parametrize("who", ["deployer/frank", "consumer/frank"])
    def test_who_has_no_part_in_what_is_tried_reads_no_run(self, api: ApiWorld, who: str) -> None:
        for path in ("/v1/runs", f"/v1/runs/{RUN}", f"/v1/runs/{RUN}/metrics?metric=loss"):
            assert api.call("GET", path, who=who).status == 403

    def test_a_run_that_is_not_there_is_not_found(self, api: ApiWorld) -> None:
        for run in (OTHER, "x", "..%2f..", RUN[:-1], RUN + "0"):
            assert api.call("GET", f"/v1/runs/{run}").status == 404

    def test_a_scope_narrows_which_runs_are_started_and_read(self, api: ApiWorld) -> None:
        grant(api, "sam", "scientist", "project/onco")
        api.meta.transact([Put(placement_key("onco-one"), {**Placement(project="onco").to_item(), "model": "onco-one"}, When())])
        assert api.call("POST", "/v1/runs", {**START, "run": OTHER}, who="scientist/sam").status == 403
        mine = start(api, 7, "onco-one", "scientist/sam")
        assert api.call("GET", f"/v1/runs/{RUN}", who="scientist/sam").status == 403
        assert [r["run"] for r in api.call("GET", "/v1/runs", who="scientist/sam").body["runs"]] == [mine]
        assert [r["run"] for r in api.call("GET", "/v1/runs", who="auditor/grace").body["runs"]] == [mine, RUN]

    def test_lists_are_full_of_what_may_be_read_and_cursors_name_nothing_else(self, api: ApiWorld) -> None:
        grant(api, "kim", "scientist", "model/visible")
        readable = [start(api, n, "visible") for n in (10, 20)]
        hidden = [start(api, n, "hidden") for n in range(30, 60)]
        newest = start(api, 70, "visible")
        page = api.call("GET", "/v1/runs?limit=2", who="scientist/kim").body
        assert [r["run"] for r in page["runs"]] == [newest, readable[1]]
        rest = api.call("GET", f"/v1/runs?limit=2&cursor={page['next']}", who="scientist/kim").body
        assert ([r["run"] for r in rest["runs"]], rest["next"]) == ([readable[0]], None)
        assert not any(run in json.dumps([page, rest]) for run in hidden)

    def test_a_page_that_gives_up_looking_tells_a_time_and_no_run(self, api: ApiWorld, monkeypatch: pytest.MonkeyPatch) -> None:
        assert LOOKED_AT >= 1_000
        monkeypatch.setattr("attestry.usecases.run_reading.LOOKED_AT", 25)
        grant(api, "pat", "scientist", "model/visible")
        first = start(api, 10, "visible")
        hidden = {start(api, n, "hidden") for n in range(30, 100)}
        cursor, found, pages = "", [], []
        for _ in range(5):
            page = api.call("GET", f"/v1/runs?limit=5{cursor}", who="scientist/pat").body
            pages.append(page)
            found += [r["run"] for r in page["runs"]]
            if page["next"] is None:
                break
            cursor = f"&cursor={page['next']}"
        assert (found, page["next"]) == ([first], None)
        assert not any(run in json.dumps(pages) for run in hidden)

    def test_a_list_is_asked_for_an_experiment_an_owner_or_a_state(self, api: ApiWorld) -> None:
        other = start(api, 7, "Draft runs", "scientist/frank")
        api.call("PATCH", f"/v1/runs/{other}", {"state": "FAILED", "error": "x"}, who="scientist/frank")

        def found(query: str) -> list[str]:
            return [r["run"] for r in api.call("GET", f"/v1/runs?{query}").body["runs"]]

        assert found("") == [other, RUN]
        assert found("experiment=Draft%20runs") == found("owner=frank") == found("state=FAILED") == [other]
        assert found(f"experiment={EXPERIMENT}&owner=dana&state=RUNNING") == [RUN]
        assert found(f"experiment={EXPERIMENT}&owner=frank") == []
        assert api.call("GET", "/v1/runs?state=DONE").body["field"] == "state"

    @pytest.mark.parametrize("place", ["x", "0.0", "1.-2", "1", "999999999999.1", "1.1.1", "\x00"])
    def test_a_cursor_that_somebody_made_leads_nowhere(self, api: ApiWorld, place: str) -> None:
        bound = json.dumps(["GET /v1/runs/{run}/metrics", [["run", RUN]], [["metric", "loss"]]])
        point = {"batch": OTHER, "points": [{"name": "loss", "value": 1}]}
        api.call("POST", f"/v1/runs/{RUN}/metrics", point, who="scientist/dana")
        forged = api.call("GET", f"/v1/runs/{RUN}/metrics", query={"metric": "loss", "cursor": write_cursor(bound, place)})
        assert (forged.status, forged.body["field"]) == (400, "cursor")

    def test_a_cursor_of_another_list_is_refused(self, api: ApiWorld) -> None:
        start(api, 7)
        cursor = api.call("GET", "/v1/runs?limit=1").body["next"]
        assert cursor
        assert api.call("GET", f"/v1/runs?limit=1&owner=dana&cursor={cursor}").status == 400

    def test_if_match_keeps_a_change_from_overtaking_another(self, api: ApiWorld) -> None:
        tag = api.call("GET", f"/v1/runs/{RUN}").headers["etag"]
        assert api.call("PATCH", f"/v1/runs/{RUN}", {"tags": {"a": "b"}}, who="scientist/dana", headers={"If-Match": tag}).status == 200
        late = api.call("PATCH", f"/v1/runs/{RUN}", {"tags": {"a": "c"}}, who="scientist/dana", headers={"If-Match": tag})
        assert late.status == 412
        assert api.call("GET", f"/v1/runs/{RUN}").body["tags"] == {"team": "onco", "a": "b"}

    def test_an_unknown_metric_is_named(self, api: ApiWorld) -> None:
        refused = api.call("GET", f"/v1/runs/{RUN}/metrics?metric=nothing")
        assert (refused.status, refused.body["field"]) == (400, "metric")

    def test_an_entry_that_was_planted_shows_no_run_that_may_not_be_read(self, api: ApiWorld) -> None:
        grant(api, "lou", "scientist", "model/visible")
        planted = {"run": RUN, "experiment": "visible", "gsi_pk": "RUNS", "gsi_sk": "2030-01-01T00:00:00.000000Z#x"}
        api.meta.transact([Put(replace(run_key(RUN), sort="LANE#X"), planted)])
        assert api.call("GET", "/v1/runs", who="scientist/lou").body["runs"] == []

    def test_the_run_of_nobody_is_not_found(self, meta: MemoryMetaStore) -> None:
        with pytest.raises(NotFoundError):
            log_points(meta, OTHER, batch(1, 0.5), by=DANA)
