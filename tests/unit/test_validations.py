"""Validation records: what a validator hands in, what the registry makes of it, what an approval waits for, and the attacks on it."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from attestry.domain.approvals import ApprovalPolicy, Verdict
from attestry.domain.conflicts import ConflictOfInterestError
from attestry.domain.errors import (
    ConditionFailedError,
    ConflictError,
    ForbiddenError,
    IntegrityError,
    InvalidInputError,
    SelfApprovalError,
    UnavailableError,
)
from attestry.domain.manifest_sections import RecordGate
from attestry.domain.stages import Stage, Standing, Status
from attestry.domain.validations import ValidationMissingError, read_finding, unmet
from attestry.domain.version import Version
from attestry.evidence.canonical import canonical_bytes
from attestry.evidence.ssh_signature import NAMESPACE
from attestry.evidence.validation_record import ValidationRecord, record_key
from attestry.ports import Put, Update
from attestry.usecases.conflicts import declare_conflict
from attestry.usecases.people import add_person, withdraw_keys
from attestry.usecases.records import Move, model_key, move_writes, stage_key, transition_key, version_key
from attestry.usecases.validate import Validated, record_validation
from tests.approvals import ADMIN, MODEL, ApprovalWorld
from tests.ssh_keys import SshPerson
from tests.validations import DEMAND, DEMANDING, VICTOR, VICTORS, hand_in, record_of, sign, trial
from tests.versions import AT, DANA, ERIN, session

WANDA = session("validator", "wanda", person="wanda")
SCHEMA = ({"name": "a", "type": "double"}, {"name": "b", "type": "int64"})
COLUMNS = [dict(c) for c in SCHEMA]


@pytest.fixture
def world() -> ApprovalWorld:
    made = ApprovalWorld()
    for person in ("victor", "wanda", "dana", "erin"):
        made.register_key(person, SshPerson(person))
    return made


def waiting(world: ApprovalWorld, number: int = 1, policy: ApprovalPolicy = DEMANDING, **changes: Any) -> Version:
    return world.waiting(number, policy=policy, **{"unvalidated": bool(policy.records), **changes})


def validate(world: ApprovalWorld, record: ValidationRecord | None = None, number: int = 1, **more: Any) -> Validated:
    version = world.head(number)
    return hand_in(world.meta, world.attestor, world.store, version, record or record_of(version), AT, **more)


def recorded(world: ApprovalWorld) -> list[dict[str, Any]]:
    return [e for e in world.events() if e["kind"] == "validation.recorded"]


def processed(world: ApprovalWorld, data: dict[str, Any]) -> None:
    row = {"stage": "PROCESSING", "attempt": 1, "status": "SUCCEEDED", "record": json.dumps({"data": data})}
    world.meta.transact([Put(stage_key(MODEL, 1, Stage.PROCESSING, 1), row)])


def test_a_record_is_computed_signed_kept_and_told_in_one_move(world):
    version = waiting(world)
    record = record_of(version)
    done = validate(world, record)
    head = world.head()
    facts = head.validations["champion-challenger:conversion"]
    assert (done.transition, done.missing, head.unvalidated) == (head.transition, (), False)
    assert (facts["person"], facts["record"], facts["size"], facts["better"]) == ("victor", record.sha256, 5000, "higher")
    assert float(facts["effect"]) == pytest.approx(0.012)
    assert 0.01 < float(facts["p_value"]) < 0.02
    (kept,) = world.store.versions[record_key(version.folder, record.sha256)]
    assert (kept.body, kept.retained) == (record.raw, True)
    (signature,) = world.store.versions[f"{version.folder}/evidence/signatures/victor#{record.sha256}.sig"]
    assert (signature.body, signature.retained) == (sign(record), True)
    (event,) = recorded(world)
    told = world.statement(head.transition).predicate
    assert event["data"]["evidence"] == told["evidence"] == record.sha256
    assert told["data"]["p_value"] == event["data"]["p_value"] == facts["p_value"]
    assert (head.stage, head.status, head.standing) == (version.stage, version.status, version.standing)


def test_the_approval_waits_for_the_record_and_names_it(world):
    version = waiting(world)
    with pytest.raises(ValidationMissingError, match=r"no champion-challenger was recorded.*attestry validate credit-risk@1 --record"):
        world.decide()
    assert world.head().rev == version.rev
    record = record_of(version)
    validate(world, record)
    assert world.decide().complete
    event = next(e for e in world.events() if e["kind"] == "version.approved")
    assert event["data"]["validations"] == {"champion-challenger:conversion": record.sha256}
    assert world.meta.get(transition_key(MODEL, 1, world.head().transition))["data"]["validations"] == event["data"]["validations"]


def test_approvals_before_the_last_do_not_wait_and_a_rejection_never_does(world):
    waiting(world, policy=replace(DEMANDING, count=2))
    assert not world.decide(ERIN).complete
    with pytest.raises(ValidationMissingError):
        world.decide(session("approver", "frank", person="frank"))
    waiting(world, 2)
    assert world.decide(ERIN, Verdict.REJECT, number=2).version.standing is Standing.REJECTED


def test_the_table_itself_refuses_an_approval_that_passes_over_what_is_demanded(world):
    version = waiting(world)
    move = Move(Stage.APPROVAL, Status.SUCCEEDED, Standing.APPROVED, "version.approved", ERIN, "in passing", AT)
    with pytest.raises(ConditionFailedError):
        world.meta.transact(move_writes(version, move, world.attestor, {"approved": True}))
    validate(world)
    world.meta.transact(move_writes(world.head(), move, world.attestor, {"approved": True}))


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (trial(401, 400), "p-value"),
        (trial(390, 400), "p-value"),
        (trial(90, 40, 900), "smaller arm's size"),
        ({**trial(), "better": "lower"}, "takes lower values for better"),
    ],
)
def test_a_record_that_does_not_meet_the_demand_keeps_the_approval_waiting(world, content, why):
    version = waiting(world)
    done = validate(world, record_of(version, content=content))
    assert why in done.missing[0]
    with pytest.raises(ValidationMissingError, match=why):
        world.decide()


def test_of_one_kind_the_latest_counts_and_earlier_ones_stay(world):
    version = waiting(world)
    validate(world)
    validate(world, record_of(version, content=trial(390, 400)))
    with pytest.raises(ValidationMissingError):
        world.decide()
    assert len(recorded(world)) == 2
    good_again = record_of(version, made="2026-01-02T03:04:06.000000Z")
    validate(world, good_again)
    assert world.decide().complete
    assert len([k for k in world.store.versions if "/validations/" in k]) == 3


def test_the_same_record_again_is_answered_like_the_first_and_does_not_become_the_latest(world):
    version = waiting(world)
    good = record_of(version)
    first = validate(world, good)
    validate(world, record_of(version, content=trial(390, 400)))
    again = validate(world, good)
    assert (again.transition, again.missing != ()) == (first.transition, True)
    assert len(recorded(world)) == 2
    with pytest.raises(ValidationMissingError):
        world.decide()


def test_a_demand_for_a_metric_is_not_met_by_a_trial_of_another(world):
    version = waiting(world, policy=replace(DEMANDING, records=(replace(DEMAND, metric="revenue"),)))
    assert "no champion-challenger on revenue" in validate(world).missing[0]
    validate(world, record_of(version, content={**trial(), "metric": "revenue"}))
    assert world.decide().complete
    assert set(world.head().validations) == {"champion-challenger:conversion", "champion-challenger:revenue"}


def test_a_record_of_one_version_does_not_count_for_the_next(world):
    record = record_of(waiting(world, 1))
    waiting(world, 2)
    with pytest.raises(IntegrityError, match="not of credit-risk@2"):
        validate(world, record, 2)
    renamed = ValidationRecord.make(record.kind, MODEL, 2, record.version_digest, record.made, record.content)
    with pytest.raises(IntegrityError, match="counts for the version alone that it names"):
        validate(world, renamed, 2)
    assert recorded(world) == []


def test_a_record_that_was_changed_after_it_was_signed_is_refused(world):
    version = waiting(world)
    signature = sign(record_of(version))
    with pytest.raises(IntegrityError, match="not over the record"):
        validate(world, record_of(version, content=trial(500)), signature=signature)
    loose = json.dumps(json.loads(record_of(version).raw), indent=1).encode()
    with pytest.raises(InvalidInputError, match="canonical"):
        validate(world, replace(record_of(version), raw=loose))


def test_a_signature_of_an_approval_is_none_of_a_record_and_the_other_way_round(world):
    version = waiting(world)
    record = record_of(version)
    with pytest.raises(IntegrityError, match="namespace 'attestry-approval'"):
        validate(world, record, signature=sign(record, namespace=NAMESPACE.encode()))
    with pytest.raises(IntegrityError, match="namespace 'attestry-validation'"):
        world.decide(ERIN, signature=SshPerson("erin").sign(version.packet["sha256"], namespace=b"attestry-validation"))


def test_a_signature_by_the_key_of_another_person_is_refused(world):
    version = waiting(world)
    with pytest.raises(IntegrityError, match="not registered for this person"):
        validate(world, signature=sign(record_of(version), SshPerson("wanda")))


def test_a_key_that_was_withdrawn_signs_no_record(world):
    waiting(world)
    fingerprint = next(iter(world.meta.get(version_key_of_person("victor"))["ssh_keys_added"]))
    withdraw_keys(world.meta, "victor", [fingerprint], reason="lost", by=ADMIN, at=AT)
    add_person(world.meta, "victor", ["victor"], name="", by=ADMIN, at=AT, ssh_keys=[SshPerson("another").public])
    with pytest.raises(ForbiddenError, match="was withdrawn"):
        validate(world)


def version_key_of_person(person: str) -> Any:
    from attestry.usecases.records import person_key

    return person_key(person)


def test_a_person_without_a_key_is_told_how_one_is_registered(world):
    waiting(world)
    with pytest.raises(ForbiddenError, match="attestry people add xena --ssh-key"):
        validate(world, by=session("validator", "xena", person="xena"))


def test_who_submitted_or_stands_behind_a_version_does_not_validate_it(world):
    waiting(world, barred=("wanda",))
    for by in (session("validator", "dana", person="dana"), WANDA):
        with pytest.raises(SelfApprovalError, match="cannot validate it"):
            validate(world, by=by)
    assert recorded(world) == []


def test_the_table_itself_refuses_a_record_by_who_claims_the_version_meanwhile(world, monkeypatch):
    version = waiting(world)
    from attestry.usecases import validate as module

    monkeypatch.setattr(module, "_check_may_validate", lambda *_: None)
    with pytest.raises(ConflictError):
        validate(world, record_of(version), by=session("validator", "dana", person="dana"))
    assert recorded(world) == []


@pytest.mark.parametrize("who", [ERIN, DANA, session("admin", "alex", person="alex")])
def test_who_does_not_act_as_validator_hands_in_nothing(world, who):
    waiting(world)
    with pytest.raises(ForbiddenError, match="takes the role validator"):
        validate(world, by=who)


def test_who_has_a_conflict_of_interest_does_not_validate(world):
    waiting(world)
    world.meta.transact([Update(model_key(MODEL), {"model": MODEL})])
    declare_conflict(world.meta, MODEL, person="", reason="kin", by=VICTOR, at=AT)
    with pytest.raises(ConflictOfInterestError):
        validate(world)


def test_a_version_without_digest_or_out_of_use_takes_no_record(world):
    world.judged(1, policy=DEMANDING)
    record = record_of(world.head())
    world.meta.transact([Update(version_key(MODEL, 1), {"version_digest": ""})])
    with pytest.raises(ConflictError, match="no version digest yet"):
        validate(world, record)
    world.meta.transact([Update(version_key(MODEL, 1), {"version_digest": record.version_digest, "standing": "RETIRED"})])
    with pytest.raises(ConflictError, match="was retired"):
        validate(world, record)


def test_what_two_persons_find_they_record_each_for_themselves(world):
    version = waiting(world)
    record = record_of(version)
    validate(world, record)
    with pytest.raises(ConflictError, match="victor has handed in this record already"):
        validate(world, record, by=WANDA)
    validate(world, record_of(version, made="2026-01-02T03:05:00.000000Z"), by=WANDA)
    assert world.head().validations["champion-challenger:conversion"]["person"] == "wanda"


@pytest.mark.parametrize("changed", [{"effect": "0.5"}, {"p_value": "0.0"}])
def test_what_the_computing_function_answers_has_to_follow_from_the_counts(world, changed):
    version = waiting(world)
    record = record_of(version)

    def lying(asked: Any) -> Any:
        from attestry.evaluation.evaluate import evaluate_record

        answer = evaluate_record(asked)
        return {**answer, "result": {**answer["result"], **changed}}

    what: dict[str, Any] = {"record": record.raw, "signature": sign(record), "by": VICTOR, "at": AT}
    call = lambda: record_validation(world.meta, world.attestor, world.store, lying, MODEL, 1, **what)  # noqa: E731
    if "effect" in changed:
        with pytest.raises(IntegrityError, match="does not follow from the counts"):
            call()
    else:
        # The p-value is that function's word; nothing that the caller sends can be one.
        assert call().facts["p_value"] == "0.0"


def test_rows_that_the_registry_has_counted_are_its_own_and_others_are_refused(world):
    demand = RecordGate("leakage-check", overlap_at_most=0)
    version = waiting(world, policy=replace(DEMANDING, records=(demand,)))
    processed(world, {"rows": {"train": 426, "holdout": 143}, "overlap_rows": 3})
    claimed = {"training_rows": 426, "holdout_rows": 143, "overlap_rows": 0}
    with pytest.raises(InvalidInputError, match="the registry counted 3") as refused:
        validate(world, record_of(version, "leakage-check", {"method": "exact rows", **claimed}))
    assert (refused.value.problems[0].field, refused.value.problems[0].rule) == ("content.overlap_rows", "registry_counts")
    done = validate(world, record_of(version, "leakage-check", {"method": "exact rows"}))
    assert (done.facts["overlap_rows"], done.facts["counted_by"]) == (3, "registry")
    assert done.missing == ("the overlapping rows of the leakage-check is 3, wanted at most 0",)


def test_what_the_registry_cannot_count_the_validator_counts_and_it_says_so(world):
    version = waiting(world, policy=replace(DEMANDING, records=(RecordGate("leakage-check", overlap_at_most=0),)))
    with pytest.raises(InvalidInputError, match="give the three counts"):
        validate(world, record_of(version, "leakage-check", {"method": "by patient"}))
    counts = {"training_rows": 400, "holdout_rows": 100, "overlap_rows": 0}
    done = validate(world, record_of(version, "leakage-check", {"method": "by patient", **counts}))
    assert (done.facts["counted_by"], done.missing) == ("validator", ())


def test_a_schema_check_is_held_against_the_columns_that_the_version_takes(world):
    demand = RecordGate("schema-check", violations_at_most=2)
    version = waiting(world, policy=replace(DEMANDING, records=(demand,)), schema=SCHEMA)
    said = {"source": "March", "rows": 100, "columns": COLUMNS, "violations": [{"column": "a", "rule": "not_null", "rows": 2}]}
    done = validate(world, record_of(version, "schema-check", said))
    assert (done.facts["differing_columns"], done.facts["violations"], done.missing) == (0, 2, ())
    other = {**said, "columns": [{"name": "a", "type": "string"}, {"name": "c", "type": "int64"}]}
    worse = validate(world, record_of(version, "schema-check", other))
    assert (worse.facts["differing_columns"], worse.facts["violations"]) == (3, 5)
    assert "violations of the schema-check is 5" in worse.missing[0]


@pytest.mark.parametrize(("columns", "differing"), [(COLUMNS, 0), (COLUMNS[::-1], 1), (COLUMNS[:1], 1), ([], 2)])
def test_columns_differ_by_name_type_and_order(columns, differing):
    check: Any = read_finding("schema-check", {"source": "s", "rows": 1, "columns": columns, "violations": []})
    assert check.differing(SCHEMA) == differing


@pytest.mark.parametrize(
    ("kind", "content", "field", "rule"),
    [
        ("leakage-check", {}, "method", "required"),
        ("leakage-check", {"method": " "}, "method", "text"),
        ("leakage-check", {"method": "m", "overlap_rows": 0}, "holdout_rows", "required"),
        ("leakage-check", {"method": "m", "training_rows": 1, "holdout_rows": 1, "overlap_rows": 2}, "overlap_rows", "range"),
        ("schema-check", {"source": "s", "rows": 0, "columns": [], "violations": []}, "rows", "range"),
        ("schema-check", {"source": "s", "rows": 1, "columns": {}, "violations": []}, "columns", "type"),
        ("schema-check", {"source": "s", "rows": 1, "columns": [{"name": "a"}], "violations": []}, "columns[0].type", "required"),
        ("schema-check", {"source": "s", "rows": 1, "columns": COLUMNS[:1] * 2, "violations": []}, "columns", "unique"),
        (
            "schema-check",
            {"source": "s", "rows": 1, "columns": [], "violations": [{"column": "a", "rule": "r", "rows": 2}]},
            "violations[0].rows",
            "range",
        ),
    ],
)
def test_a_check_that_breaks_a_rule_is_refused_with_field_and_rule(kind, content, field, rule):
    with pytest.raises(InvalidInputError) as refused:
        read_finding(kind, content)
    assert (refused.value.problems[0].field, refused.value.problems[0].rule) == (f"content.{field}", rule)


@pytest.mark.parametrize(
    ("changed", "field", "rule"),
    [
        ({"kind": "vibes"}, "kind", "enum"),
        ({"format": 2}, "format", "known"),
        ({"made": "yesterday"}, "made", "time"),
        ({"number": True}, "number", "type"),
        ({"extra": 1}, "record", "fields"),
        ({"content": []}, "content", "type"),
    ],
)
def test_a_document_that_is_no_record_is_refused_with_field_and_rule(world, changed, field, rule):
    document = {**json.loads(record_of(waiting(world)).raw), **changed}
    with pytest.raises(InvalidInputError) as refused:
        ValidationRecord.parse(canonical_bytes(document))
    assert (refused.value.problems[0].field, refused.value.problems[0].rule) == (field, rule)


@pytest.mark.parametrize("kind", ["before", "after"])
def test_a_record_that_is_cut_off_at_any_call_is_finished_by_a_retry(kind):
    calls = 0
    while True:
        world = ApprovalWorld()
        world.register_key("victor", VICTORS)
        record = record_of(waiting(world))
        world.faults.clear()
        getattr(world.faults, f"fail_{kind}")(calls + 1)
        try:
            done = validate(world, record)
        except UnavailableError:
            world.faults.clear()
            done = validate(world, record)
        else:
            assert calls > 5
            break
        assert (done.missing, len(recorded(world)), world.head().unvalidated) == ((), 1, False)
        assert world.decide().complete
        calls += 1


def test_a_decision_in_between_makes_the_record_be_written_anew_on_what_is_there_then(world):
    version = waiting(world, policy=replace(DEMANDING, count=2))
    record = record_of(version)

    def meanwhile(asked: Any) -> Any:
        from attestry.evaluation.evaluate import evaluate_record

        world.decide(ERIN)
        return evaluate_record(asked)

    what: dict[str, Any] = {"record": record.raw, "signature": sign(record), "by": VICTOR, "at": AT + timedelta(seconds=1)}
    done = record_validation(world.meta, world.attestor, world.store, meanwhile, MODEL, 1, **what)
    assert done.transition == version.transition + 2
    assert world.head().validations["champion-challenger:conversion"]["transition"] == done.transition


def test_what_was_recorded_stays_with_the_version_after_its_approval(world):
    waiting(world)
    validate(world)
    world.decide()
    assert unmet(DEMANDING.records, world.head().validations) == []
    worse = validate(world, record_of(world.head(), content=trial(390, 400)))
    assert (world.head().standing, worse.missing != ()) == (Standing.APPROVED, True)


def test_the_packet_shows_the_records_that_stood_when_it_was_frozen(world):
    version = world.judged(1, policy=DEMANDING, unvalidated=True)
    record = record_of(version)
    validate(world, record)
    world.open(1)
    shown = world.packet().content["validations"]["champion-challenger:conversion"]
    assert shown["record"] == record.sha256
    page = world.store.versions[f"{version.folder}/evidence/packet-{world.head().opening:06d}.html"][0].body.decode()
    assert "Validation records, signed by validators" in page
    assert "p value at most 0.05" in page


def test_a_policy_with_demands_is_read_back_from_its_row_and_one_without_keeps_its_digest():
    assert ApprovalPolicy.from_item(DEMANDING.to_item()) == DEMANDING
    assert DEMANDING.to_item()["records"][0]["p_value_at_most"] == "0.05"
    plain = replace(DEMANDING, records=())
    assert "records" not in plain.to_item()
    assert plain.digest != DEMANDING.digest


@pytest.mark.parametrize("zero", [0, 0.0])
def test_a_demand_has_one_digest_however_its_number_is_written(zero):
    demand = RecordGate("ab-test", p_value_at_most=zero, effect_at_least=zero)
    asked = replace(DEMANDING, records=(demand,))
    assert asked.digest == replace(DEMANDING, records=(RecordGate("ab-test", p_value_at_most=0.0, effect_at_least=0.0),)).digest
