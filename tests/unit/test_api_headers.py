"""ETag, If-Match, If-None-Match and Idempotency-Key through the handlers, and a caller's share of requests."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from attestry.api.headers import MATCHED, TAGGED, UNKEYED
from attestry.api.operations import BY_ID, OPERATIONS
from attestry.aws import http
from attestry.aws.idempotency import KEPT, LEASE
from attestry.aws.rate_limit import COSTS, CallerShares
from attestry.client.connection import _WITHOUT_KEY, _WITHOUT_KEY_BELOW
from attestry.domain.errors import PreconditionFailedError, TooManyRequestsError, UnavailableError
from attestry.domain.stages import Standing
from attestry.ports import ABSENT, Key, Put, Update, When
from attestry.usecases.matched import MatchedMeta
from attestry.usecases.records import load_version, pointer_key, version_key
from tests.api_world import MODULES, Answer, ApiWorld
from tests.api_world import ROUTES as SERVED
from tests.fakes import MemoryMetaStore

WHO = "deployer/frank"
HOLD = {"reason": "a doubt"}


@pytest.fixture(scope="module")
def made() -> Iterator[ApiWorld]:
    with pytest.MonkeyPatch.context() as patch:
        yield ApiWorld.install(patch)


@pytest.fixture
def api(made: ApiWorld) -> Iterator[ApiWorld]:
    """The registry as it was made, whatever the test before did to its rows."""
    before, at = dict(made.meta.rows), made.clock.at
    yield made
    made.meta.faults.clear()
    made.meta.rows.clear()
    made.meta.rows.update(before)
    made.clock.at = at


def path(api: ApiWorld, act: str = "") -> str:
    return f"/v1/models/{api.model}/versions/1{act and '/'}{act}"


def hold(api: ApiWorld, act: str = "hold", body: Any = None, **headers: str) -> Answer:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return api.call("POST", path(api, act), body or HOLD, who=WHO, headers=names)


class TestDescription:
    def test_what_the_handlers_heed_is_what_is_described(self) -> None:
        heeded = {route for module in MODULES.values() for route in getattr(module, "MATCHED", ())}
        assert heeded == {BY_ID[id_].route for id_ in MATCHED}
        assert set(MATCHED.values()) <= TAGGED <= {o.id for o in OPERATIONS if o.method == "GET"}

    def test_the_client_makes_up_a_key_for_exactly_the_operations_that_take_one(self) -> None:
        changes = [o for o in OPERATIONS if o.method != "GET"]
        without = {o.id for o in changes if o.path.endswith(_WITHOUT_KEY) or o.path.startswith(_WITHOUT_KEY_BELOW)}
        assert without == set(UNKEYED)

    @pytest.mark.parametrize("operation", [o for o in OPERATIONS if o.method != "GET"], ids=lambda o: o.id)
    def test_a_header_that_an_operation_does_not_heed_is_refused_and_not_passed_over(self, api: ApiWorld, operation: Any) -> None:
        values = {**dict.fromkeys(operation.path_parameters, "1"), "model": api.model}
        who, target = f"{operation.roles[0]}/grace", operation.path.format(**values)
        matched = api.call(operation.method, target, {"x": 1}, who=who, headers={"If-Match": "*"})
        keyed = api.call(operation.method, target, {"x": 1}, who=who, headers={"Idempotency-Key": "k"})
        assert (matched.body.get("rule") == "not_here") == (operation.id not in MATCHED)
        assert (keyed.body.get("rule") == "not_here") == (operation.id in UNKEYED)
        assert SERVED[operation.route] in MODULES


class TestEntityTags:
    def test_an_answer_is_not_sent_again_to_who_knows_it(self, api: ApiWorld) -> None:
        first = api.call("GET", path(api))
        known = api.call("GET", path(api), headers={"If-None-Match": f'"other", W/{first.headers["etag"]}'})
        assert (known.status, known.raw, known.headers["etag"]) == (304, "", first.headers["etag"])
        assert "content-type" not in known.headers
        assert api.call("GET", path(api), headers={"If-None-Match": "*"}).status == 304
        assert hold(api).status == 200
        changed = api.call("GET", path(api), headers={"If-None-Match": first.headers["etag"]})
        assert (changed.status, changed.headers["etag"] == first.headers["etag"]) == (200, False)

    def test_an_act_is_done_while_the_record_stands_as_it_was_read(self, api: ApiWorld) -> None:
        tag = api.call("GET", path(api)).headers["etag"]
        assert hold(api, If_Match=tag).status == 200
        late = hold(api, "release", If_Match=tag)
        assert (late.status, late.body["code"]) == (412, "precondition_failed")
        assert load_version(api.meta, api.model, 1).held
        assert hold(api, "release", If_Match=api.call("GET", path(api)).headers["etag"]).status == 200
        assert hold(api, If_Match="*").status == 200

    @pytest.mark.parametrize("tag", ["7", '"x"', '"1"', 'W/"1-0123456789abcdef"', '"1-0123456789abcdef", "2-0123456789abcdef"', ""])
    def test_an_if_match_that_is_no_tag_of_ours_is_refused_and_nothing_is_changed(self, api: ApiWorld, tag: str) -> None:
        before = dict(api.meta.rows)
        answer = hold(api, If_Match=tag)
        assert (answer.status, answer.body["field"], answer.body["rule"]) == (400, "If-Match", "etag")
        assert {k: v for k, v in api.meta.rows.items() if k.partition.startswith("VERSION#")} == {
            k: v for k, v in before.items() if k.partition.startswith("VERSION#")
        }

    def test_a_place_in_an_environment_has_a_tag_of_its_own(self, api: ApiWorld) -> None:
        where = f"/v1/models/{api.model}"
        tag = api.call("GET", f"{where}/rollout", who=WHO).headers["etag"]
        body = {"rate": "0.25", "reason": "sampling"}
        assert api.call("POST", f"{where}/capture", body, who=WHO, headers={"If-Match": tag}).status == 200
        body = {"rate": "0.75", "reason": "sampling"}
        late = api.call("POST", f"{where}/capture", body, who=WHO, headers={"If-Match": tag})
        assert late.status == 412
        assert api.meta.rows[pointer_key(api.model, "production")]["capture_rate"] == "0.25"

    def test_two_admins_do_not_overwrite_each_other_s_policy(self, api: ApiWorld) -> None:
        def publish(text: str, **headers: str) -> Answer:
            document = {"name": "standard", "rules": [], "description": text}
            return api.call("POST", "/v1/policies", {"document": document, "reason": "r"}, headers=headers)

        publish("first")
        tag = api.call("GET", "/v1/policies/standard").headers["etag"]
        assert publish("second", **{"If-Match": tag}).body["number"] == 2
        assert publish("third", **{"If-Match": tag}).status == 412

    def test_nobody_comes_between_the_look_and_the_write(self) -> None:
        meta, key = MemoryMetaStore(), Key("VERSION#m#1")
        meta.transact([Put(key, {"rev": 1}, ABSENT)])
        matched = MatchedMeta(meta, key, 1)
        assert matched.get(key) is not None
        meta.transact([Update(key, {"rev": 2})])
        with pytest.raises(PreconditionFailedError, match="at revision 2, not at 1"):
            matched.transact([Put(Key("OTHER"), {"x": 1}, ABSENT)])
        with pytest.raises(PreconditionFailedError):
            MatchedMeta(meta, key, 1).transact([Update(key, {"rev": 3}, When(exists=True))])
        assert set(meta.rows) == {key}

    def test_a_record_that_is_read_in_part_is_still_held_to_its_revision(self) -> None:
        meta, key = MemoryMetaStore(), Key("VERSION#m#1")
        meta.transact([Put(key, {"rev": 2, "stage": "TRAINING"}, ABSENT)])
        for read in (lambda m: m.get_many([key], only=["stage"]), lambda m: m.query("VERSION#m#1", only=["stage"])):
            with pytest.raises(PreconditionFailedError, match="at revision 2, not at 1"):
                read(MatchedMeta(meta, key, 1))
            assert read(MatchedMeta(meta, key, 2))

    def test_what_an_act_writes_after_its_first_transaction_goes_on_from_its_own_revision(self) -> None:
        meta, key = MemoryMetaStore(), Key("VERSION#m#1")
        meta.transact([Put(key, {"rev": 1}, ABSENT)])
        matched = MatchedMeta(meta, key, 1)
        matched.transact([Update(key, {"rev": 2}, When(exists=True, equals={"rev": 1}))])
        matched.transact([Update(key, {"rev": 3}, When(exists=True, equals={"rev": 2}))])
        assert meta.rows[key]["rev"] == 3

    def test_one_of_many_who_saw_the_same_acts(self, api: ApiWorld) -> None:
        tag = api.call("GET", path(api)).headers["etag"]
        answers: list[int] = []
        acts = [threading.Thread(target=lambda: answers.append(hold(api, If_Match=tag).status)) for _ in range(8)]
        for act in acts:
            act.start()
        for act in acts:
            act.join()
        assert sorted(answers) == [200] + [412] * 7


class TestIdempotencyKeys:
    def answers(self, api: ApiWorld) -> list[dict[str, Any]]:
        return [row for key, row in api.meta.rows.items() if key.partition.startswith("IDEMPOTENCY#")]

    def test_the_same_request_is_done_once_and_answered_alike(self, api: ApiWorld) -> None:
        first = hold(api, Idempotency_Key="k-1")
        transitions = load_version(api.meta, api.model, 1).transition
        assert hold(api, "release").status == 200
        again = hold(api, Idempotency_Key="k-1")
        assert (again.status, again.raw) == (first.status, first.raw)
        assert (first.headers.get("idempotency-replayed"), again.headers["idempotency-replayed"]) == (None, "true")
        assert (load_version(api.meta, api.model, 1).transition, load_version(api.meta, api.model, 1).held) == (transitions + 1, {})

    def test_another_request_with_the_same_key_is_refused_and_changes_nothing(self, api: ApiWorld) -> None:
        hold(api, Idempotency_Key="k-1")
        other = hold(api, body={"reason": "another"}, Idempotency_Key="k-1")
        assert (other.status, other.body["code"]) == (422, "idempotency_key_reused")
        assert hold(api, Idempotency_Key="k-1", If_Match="*").status == 422

    def test_a_key_is_its_caller_s_and_its_route_s_own(self, api: ApiWorld) -> None:
        first = hold(api, Idempotency_Key="k-1")
        elsewhere = api.call("POST", path(api, "release"), HOLD, who=WHO, headers={"Idempotency-Key": "k-1"})
        somebody = api.call("POST", path(api, "hold"), HOLD, who="approver/erin", headers={"Idempotency-Key": "k-1"})
        assert (first.status, elsewhere.status, somebody.status) == (200, 200, 200)
        assert not any("idempotency-replayed" in answer.headers for answer in (first, elsewhere, somebody))

    def test_what_somebody_may_not_do_is_not_told_by_a_key_either(self, api: ApiWorld) -> None:
        hold(api, Idempotency_Key="k-1")
        assert api.call("POST", path(api, "hold"), HOLD, who="consumer/frank", headers={"Idempotency-Key": "k-1"}).status == 403

    def test_while_the_first_request_is_answered_the_second_is_told_to_come_back(self, api: ApiWorld, monkeypatch: Any) -> None:
        seen: list[Answer] = []
        whole = api.functions.send
        monkeypatch.setattr(api.functions, "send", lambda *a: (seen.append(kill(api)), whole(*a)))

        def kill(api: ApiWorld) -> Answer:
            return hold(api, "kill", Idempotency_Key="k-1")

        version = load_version(api.meta, api.model, 1)
        api.meta.transact([Update(version_key(api.model, 1), {"token": "t"}, When(exists=True, equals={"rev": version.rev}))])
        assert kill(api).status == 200
        assert (seen[0].status, seen[0].body["code"]) == (409, "in_progress")
        assert 1 <= int(seen[0].headers["retry-after"]) <= 5
        assert load_version(api.meta, api.model, 1).standing is Standing.RETIRED

    @pytest.mark.parametrize("n", range(1, 12))
    @pytest.mark.parametrize("when", ["fail_before", "fail_after"])
    def test_a_crash_between_any_two_calls_leaves_a_key_that_a_retry_goes_on_with(self, api: ApiWorld, n: int, when: str) -> None:
        class Crash(BaseException):
            pass

        getattr(api.meta.faults, when)(n, error=Crash())
        try:
            hold(api, Idempotency_Key="k-1")
        except Crash:
            api.clock.at += LEASE + timedelta(seconds=1)
        api.meta.faults.clear()
        again = hold(api, Idempotency_Key="k-1")
        assert again.status == 200, again.raw
        kinds = [
            r["kind"] for k, r in api.meta.rows.items() if k.partition == f"VERSION#{api.model}#1" and k.sort.startswith("TRANSITION#")
        ]
        assert kinds.count("version.held") == 1

    def test_an_error_is_not_kept_so_that_the_key_may_be_tried_again(self, api: ApiWorld) -> None:
        assert hold(api, "release", Idempotency_Key="k-1").status in (200, 409)
        refused = hold(api, "retry", Idempotency_Key="k-2")
        assert refused.status >= 400
        assert all(row["status"] == 200 for row in self.answers(api))
        api.meta.faults.fail_before(3, error=UnavailableError("no answer"))
        assert hold(api, Idempotency_Key="k-3").status == 503
        assert hold(api, Idempotency_Key="k-3").status == 200

    def test_an_answer_is_kept_for_a_day(self, api: ApiWorld) -> None:
        hold(api, Idempotency_Key="k-1")
        api.clock.at += KEPT - timedelta(minutes=1)
        assert hold(api, Idempotency_Key="k-1").headers.get("idempotency-replayed") == "true"
        api.clock.at += timedelta(minutes=2)
        assert "idempotency-replayed" not in hold(api, Idempotency_Key="k-1").headers
        assert hold(api, body={"reason": "another"}, Idempotency_Key="k-1").status == 422

    def test_nothing_of_the_request_is_kept_but_its_digest(self, api: ApiWorld) -> None:
        hold(api, body={"reason": "a telling reason"}, Idempotency_Key="a-telling-key")
        (row,) = self.answers(api)
        assert set(row) == {"pk", "sk", "begun", "request", "expires", "status", "content", "headers"}
        told = json.dumps({k: v for k, v in row.items() if k != "content"})
        assert "telling" not in told

    @pytest.mark.parametrize("key", ["", "x" * 256, "a b", "k\u00e9", "a\tb", "a\nb", "\x7f"])
    def test_a_key_out_of_form_is_refused(self, api: ApiWorld, key: str) -> None:
        answer = hold(api, Idempotency_Key=key)
        assert (answer.status, answer.body["field"], answer.body["rule"]) == (400, "Idempotency-Key", "idempotency_key")

    def test_one_of_many_at_once_acts(self, api: ApiWorld) -> None:
        answers: list[Answer] = []
        acts = [threading.Thread(target=lambda: answers.append(hold(api, Idempotency_Key="k-1"))) for _ in range(8)]
        for act in acts:
            act.start()
        for act in acts:
            act.join()
        assert {a.status for a in answers} <= {200, 409}
        assert len({a.raw for a in answers if a.status == 200}) == 1
        assert [a.headers.get("idempotency-replayed") for a in answers if a.status == 200].count(None) == 1


class TestShares:
    def test_a_caller_has_a_share_and_is_told_when_there_is_more(self) -> None:
        now = [0.0]
        shares = CallerShares(10, 20, lambda: now[0])
        for _ in range(20):
            shares.take(caller("dana"), "GET /v1/me")
        with pytest.raises(TooManyRequestsError) as caught:
            shares.take(caller("dana"), "GET /v1/me")
        assert caught.value.retry_after_seconds == 1
        shares.take(caller("erin"), "GET /v1/me")
        now[0] = 1.0
        for _ in range(10):
            shares.take(caller("dana"), "GET /v1/me")
        with pytest.raises(TooManyRequestsError):
            shares.take(caller("dana"), "GET /v1/me")

    def test_a_dear_request_counts_as_several(self) -> None:
        shares = CallerShares(10, 40, lambda: 0.0)
        shares.take(caller("dana"), "GET /v1/compliance")
        with pytest.raises(TooManyRequestsError):
            shares.take(caller("dana"), "GET /v1/me")
        assert set(COSTS) <= {o.route for o in OPERATIONS}

    def test_callers_without_number_do_not_fill_the_memory(self) -> None:
        shares = CallerShares(10, 20, lambda: 0.0)
        for n in range(5000):
            shares.take(caller(str(n)), "GET /v1/me")
        assert len(shares._buckets) == 4096

    def test_who_asks_for_too_much_is_answered_429_before_anything_is_read(self, api: ApiWorld, monkeypatch: Any) -> None:
        monkeypatch.setattr(http, "SHARES", CallerShares(1, 1, lambda: 0.0))
        assert api.call("GET", "/v1/me").status == 200
        api.meta.faults.clear()
        refused = api.call("GET", "/v1/me")
        assert (refused.status, refused.body["code"], refused.headers["retry-after"]) == (429, "too_many_requests", "1")
        assert api.meta.faults.calls == []


def caller(name: str) -> dict[str, Any]:
    return {"authorizer": {"iam": {"userId": name}}}
