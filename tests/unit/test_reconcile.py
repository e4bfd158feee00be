"""Reconcile: each edit by hand is exactly one finding, repaired it is closed; an untouched registry has none, whatever it went through."""

from __future__ import annotations

import copy
import hmac
import json
from collections.abc import Callable
from datetime import date
from typing import Any

import pytest

from attestry.access.rows import POLICIES_KEY, access_policy_key, grant_key, placement_key
from attestry.access.scopes import Placement
from attestry.access.standing import Grant
from attestry.aws.settings import Settings
from attestry.aws.world import World
from attestry.domain.catalogue import ModelSubject
from attestry.domain.errors import NotFoundError, UnavailableError
from attestry.domain.policies import Policy
from attestry.domain.run_points import chain, read_batch
from attestry.domain.run_request import read_change, read_start
from attestry.evidence.digests import sha256_hex
from attestry.evidence.leaf import event_id
from attestry.evidence.ssh_signature import SshKey
from attestry.ports import Delete, Key, Put, Update, When
from attestry.usecases.access_policies import publish_access_policy
from attestry.usecases.annotate import annotate
from attestry.usecases.artifact_copy import artifact_key
from attestry.usecases.capture import set_capture_rate
from attestry.usecases.catalogue import change_labels, create_model, describe_model, rename_model, set_alias, set_tag
from attestry.usecases.catalogue_rows import aliases_key, annotation_key, catalogue_key, labels_key, name_key
from attestry.usecases.findings import Observed, Scope, findings_of, list_findings, settle
from attestry.usecases.grants import give_grant, withdraw_grant
from attestry.usecases.ledger_head import COMMIT, LIVE, leaf_key
from attestry.usecases.people import add_person, withdraw_keys
from attestry.usecases.placement import place_model
from attestry.usecases.policies import edition_key, policy_key, publish_policy
from attestry.usecases.reconcile import CURSOR, Reconciled, Reconciler
from attestry.usecases.reconcile_runs import CHANGED as RUN_CHANGED
from attestry.usecases.recorded import event_digest, event_of_transition
from attestry.usecases.records import approval_key, login_key, model_key, person_key, pointer_key, transition_key, version_key
from attestry.usecases.root import ROOT_KEY
from attestry.usecases.run_rows import batch_key, environment_key, lane_key, points_key, run_key
from attestry.usecases.runs import change_run, log_points, start_run
from attestry.usecases.trace import trace_prediction
from attestry.usecases.webhooks import Wish, add_webhook, remove_webhook, rotate_webhook, webhook_key
from lambdas import reconcile as reconcile_function
from tests.evidence_world import ADMIN, DEPLOYER, ERIN, EvidenceWorld
from tests.root_of_trust import REGISTRY
from tests.ssh_keys import SshPerson
from tests.versions import session

MODEL = "tumour-diagnosis"
HEAD, POINTER = version_key(MODEL, 1), pointer_key(MODEL, "production")


class Gateway:
    """What the gateway counted; None where it does not say."""

    def __init__(self, answered: int | None = None) -> None:
        self.count = answered

    def answered(self, day: date) -> int | None:
        return self.count


def make_world() -> EvidenceWorld:
    world = EvidenceWorld()
    for few in (1, 2):
        document = {
            "format": 1,
            "name": "standard",
            "rules": [{"name": "all", "gates": {"required": ["model.purpose", "model.owner"][:few]}}],
        }
        publish_policy(world.meta, Policy.from_mapping(document), by=ADMIN, reason="the board wants it", at=world.clock.now())
    world.deploy()
    describe(world)
    decide_access(world)
    change_webhooks(world)
    log_runs(world)
    for _ in range(3):
        world.predict()
    world.seal()
    return world


def describe(world: EvidenceWorld) -> None:
    """Let people say something of everything in the catalogue, some of it twice."""
    told: Any = {"by": ERIN, "at": world.clock.now()}
    describe_model(world.meta, MODEL, **told)
    for tier in ("high", "low"):
        set_tag(world.meta, ModelSubject(MODEL), "tier", tier, **told)
        change_labels(world.meta, MODEL, 1, description=f"a {tier} one", **told)
    for alias in ("champion", "challenger"):
        set_alias(world.meta, MODEL, alias, 1, **told)
    annotate(world.meta, MODEL, 1, "why so fast?", transition=1, **told)
    create_model(world.meta, "drafts", mode="open", **told)
    rename_model(world.meta, "drafts", "Draft models", **told)


def entry(world: EvidenceWorld, start: str) -> Key:
    return next(key for key in world.meta.rows if key.partition.startswith(start))


def set_tags_back(world: EvidenceWorld) -> None:
    """Give the model's row the state that its event before the last told of."""
    edit(world, catalogue_key(MODEL), tags={"tier": "high"}, rev=2, kind="tag.set")


def decide_access(world: EvidenceWorld) -> None:
    """Grant, withdraw, place a model and add a policy, each of them twice."""
    told: Any = {"reason": "asked for", "by": ERIN, "at": world.clock.now()}
    for scope in ("model/a", "tag/tier=low"):
        give_grant(world.meta, HOLDER, Grant("approver", scope), **told)
    withdraw_grant(world.meta, HOLDER, "approver", "model/a", **told)
    for tier in ("high", "low"):
        place_model(world.meta, MODEL, Placement({"tier": tier}), **told)
    for action in ("models.capture", "versions.kill"):
        text = f'forbid (principal, action == Attestry::Action::"{action}", resource);'
        publish_access_policy(world.meta, "low-alone", text, **told)


class Mac:
    """A key for message authentication codes."""

    def mac(self, message: bytes) -> bytes:
        return hmac.digest(b"k" * 32, message, "sha256")


def change_webhooks(world: EvidenceWorld) -> None:
    """Add two webhooks, give one another secret, and remove the other."""
    for name in ("chat", "gone"):
        wish = Wish(name, "https://hooks.example.org/x?token=1", ("version.*",), ("*",), "the team wants to know")
        add_webhook(world.meta, Mac(), wish, by=ERIN, at=world.clock.now())
    rotate_webhook(world.meta, Mac(), "chat", reason="it leaked", by=ERIN, at=world.clock.now())
    remove_webhook(world.meta, "gone", reason="nobody listens", by=ERIN, at=world.clock.now())


ENDED_RUN, RUNNING_RUN = "a" * 32, "b" * 32


def log_runs(world: EvidenceWorld) -> None:
    """Tell of two development runs, one of which has ended."""
    for run in (ENDED_RUN, RUNNING_RUN):
        said = {"run": run, "experiment": MODEL, "parameters": {"C": "0.1"}, "environment": {"python": "3.12.1"}}
        start_run(world.meta, read_start(said), by=ERIN, at=world.clock.now())
        for step in range(2):
            points = [{"name": "loss", "value": 1 / (step + 1), "step": step}]
            log_points(world.meta, run, read_batch({"batch": f"{step:032x}", "points": points}), by=ERIN)
    change_run(world.meta, ENDED_RUN, read_change({"state": "FINISHED"}), by=ERIN, at=world.clock.now())


def insert_run(world: EvidenceWorld) -> None:
    for key, row in list(world.meta.rows.items()):
        if key.partition == run_key(ENDED_RUN).partition:
            told = {n: v for n, v in row.items() if n not in ("pk", "sk")}
            world.meta._apply([Put(Key(run_key("c" * 32).partition, key.sort), {**told, **({"run": "c" * 32} if "run" in told else {})})])


def better_points(world: EvidenceWorld) -> None:
    """Change a batch, and everything in the table that follows from it."""
    key, head = points_key(ENDED_RUN, 2), world.meta.rows[run_key(ENDED_RUN)]
    before = world.meta.rows[points_key(ENDED_RUN, 1)]
    forged = read_batch({"batch": f"{1:032x}", "points": [{"name": "loss", "value": 0.001, "step": 1}]})
    first = chain("", str(before["batch"]), sha256_hex(str(before["points"]).encode()))
    edit(world, key, points=forged.data.decode())
    edit(world, batch_key(ENDED_RUN, forged.id), sha256=forged.digest)
    last = {"loss": {**head["last"]["loss"], "value": "0.001"}}
    edit(world, run_key(ENDED_RUN), last=last, metrics=forged.chained(first))


def insert_webhook(world: EvidenceWorld) -> None:
    row = {k: v for k, v in world.meta.rows[webhook_key("chat")].items() if k not in ("pk", "sk")}
    world.meta._apply([Put(webhook_key("planted"), {**row, "name": "planted", "gsi_sk": "planted"})])


@pytest.fixture(scope="module")
def made() -> EvidenceWorld:
    return make_world()


@pytest.fixture
def world(made: EvidenceWorld) -> EvidenceWorld:
    """The same registry for each test, with rows, objects and time as they were when it was made."""
    return _restored(made)


_SNAPSHOT: dict[int, tuple[Any, Any, Any]] = {}


def _restored(made: EvidenceWorld) -> EvidenceWorld:
    rows, versions, at = _SNAPSHOT.setdefault(id(made), (copy.deepcopy(made.meta.rows), copy.deepcopy(made.store.versions), made.clock.at))
    made.meta.rows, made.store.versions, made.clock.at = copy.deepcopy(rows), copy.deepcopy(versions), at
    return made


def reconcile(world: EvidenceWorld, gateway: Gateway | None = None, **changes: Any) -> Reconciled:
    given = {"verifiers": [world.log_key], **changes}
    done = Reconciler(world.meta, world.store, gateway or Gateway(), world.clock, **given).run()
    assert done.errors == []
    return done


def found(world: EvidenceWorld) -> list[str]:
    return sorted(str(f["what"]) for f in list_findings(world.meta))


def serve_and_prove(world: EvidenceWorld) -> dict[str, Any]:
    """Put in place what waits for its approval, and return the deep trace of a prediction by it.

    Reconciliation must find nothing, the prediction's bundle must be PROVEN, and no step of the trace may fail.
    """
    world.open()
    world.approve()
    world.swap()
    prediction = world.predict()
    world.seal()
    assert reconcile(world).errors == []
    assert found(world) == []
    verification = world.verify(world.bundle(prediction))
    assert verification.verdict == "PROVEN", verification.steps
    document: dict[str, Any] = trace_prediction(
        world.meta, world.store, prediction, delegator_key=world.delegator.public_key_der, deep=True
    )
    assert {s["outcome"] for s in document["steps"]} <= {"passed", "pending"}, document["steps"]
    return document


def edit(world: EvidenceWorld, key: Key, **changes: Any) -> None:
    world.meta._apply([Update(key, changes)])


def drop(world: EvidenceWorld, key: Key) -> None:
    world.meta._apply([Delete(key)])


HOLDER = "person/grace"


def transition(world: EvidenceWorld, kind: str) -> Key:
    return next(k for k, r in world.meta.rows.items() if k.partition == HEAD.partition and r.get("kind") == kind)


def last_transition(world: EvidenceWorld) -> Key:
    return max((k for k in world.meta.rows if k.partition == HEAD.partition and k.sort.startswith("TRANSITION#")), key=lambda k: k.sort)


def object_key(world: EvidenceWorld, part: str) -> str:
    return next(key for key in sorted(world.store.versions) if part in key)


def edit_data(world: EvidenceWorld, key: Key, name: str, **changes: Any) -> None:
    edit(world, key, **{name: {**world.meta.rows[key][name], **changes}})


def double_approval(world: EvidenceWorld) -> None:
    row = world.meta.rows[approval_key(MODEL, 1, "erin")]
    world.meta._apply([Put(approval_key(MODEL, 1, "mallory"), {**row, "sk": "APPROVAL#mallory"}, When())])


def insert_approval(world: EvidenceWorld) -> None:
    row = next(r for k, r in world.meta.rows.items() if k.partition == HEAD.partition and k.sort.startswith("APPROVAL#"))
    world.meta._apply([Put(approval_key(MODEL, 1, "mallory"), {**row, "sk": "APPROVAL#mallory", "person": "mallory"}, When())])


def insert_transition(world: EvidenceWorld) -> None:
    last = last_transition(world)
    number = int(world.meta.rows[last]["number"]) + 1
    key = transition_key(MODEL, 1, number)
    world.meta._apply([Put(key, {**world.meta.rows[last], "sk": key.sort, "number": number}), Update(HEAD, {"transition": number})])


def set_history_back(world: EvidenceWorld) -> None:
    last = last_transition(world)
    row = world.meta.rows[last]
    world.meta._apply([Delete(last), Update(HEAD, {"transition": int(row["number"]) - 1, **row["from"]})])


def overwrite(world: EvidenceWorld, part: str) -> None:
    world.store.put(object_key(world, part), b"something else")


def forge_index(world: EvidenceWorld) -> None:
    """Insert an approval with transition and index row, and no leaf."""
    insert_transition(world)
    event = event_of_transition(MODEL, 1, world.meta.rows[last_transition(world)])
    world.meta._apply([Put(leaf_key(event.event_id), {"index": 0, "sha256": event_digest(event), "logged": "x"})])


def insert_grant(world: EvidenceWorld) -> None:
    row = {k: v for k, v in world.meta.rows[grant_key(HOLDER)].items() if k not in ("pk", "sk")}
    world.meta._apply([Put(grant_key("login/mallory"), {**row, "subject": "login/mallory", "gsi_sk": "login/mallory"})])


def insert_person(world: EvidenceWorld) -> None:
    row = {**world.meta.rows[person_key("grace")], "person": "mallory", "gsi_sk": "mallory", "logins": ["mallory"]}
    world.meta._apply([Put(person_key("mallory"), {k: v for k, v in row.items() if k not in ("pk", "sk")})])


EDITION = edition_key("standard", 2)


def unlist_policy(world: EvidenceWorld) -> None:
    row = world.meta.rows[policy_key("standard")]
    world.meta._apply([Put(policy_key("standard"), {k: v for k, v in row.items() if k not in ("pk", "sk", "gsi_pk", "gsi_sk")}, When())])


def set_policy_back(world: EvidenceWorld) -> None:
    first = world.meta.rows[edition_key("standard", 1)]
    edit(world, policy_key("standard"), **{name: first[name] for name in ("number", "sha256", "at")})


def plant_edition(world: EvidenceWorld) -> None:
    row = world.meta.rows[edition_key("standard", 1)]
    world.meta._apply([Put(edition_key("standard", 3), {**row, "sk": "EDITION#000003", "number": 3}, When())])


def plant_policy(world: EvidenceWorld) -> None:
    for key in (policy_key("standard"), edition_key("standard", 1)):
        row = world.meta.rows[key]
        listed = {"gsi_sk": "planted"} if "gsi_sk" in row else {}
        told = {k: v for k, v in row.items() if k not in ("pk", "sk")}
        world.meta._apply([Put(Key("POLICY#planted", key.sort), {**told, **listed, "name": "planted", "number": 1}, When())])


EDITS: list[tuple[str, Callable[[EvidenceWorld], Any], list[str]]] = [
    ("standing", lambda w: edit(w, HEAD, standing="APPROVED"), ["head.standing", "pointer.moved"]),
    ("status", lambda w: edit(w, HEAD, status="RUNNING"), ["head.status"]),
    (
        "validations",
        lambda w: edit(w, HEAD, validations={"leakage-check": {"check": "leakage-check", "overlap_rows": 0}}),
        ["head.validations"],
    ),
    ("what is demanded", lambda w: edit(w, HEAD, unvalidated=True), ["head.unvalidated"]),
    ("traits", lambda w: edit_data(w, HEAD, "traits", owner="mallory"), ["head.traits"]),
    ("tag by hand", lambda w: edit(w, catalogue_key(MODEL), tags={"tier": "none"}), ["catalogue.changed"]),
    ("tag set back", set_tags_back, ["catalogue.set_back"]),
    ("mode", lambda w: edit(w, catalogue_key(MODEL), mode="open"), ["catalogue.changed"]),
    (
        "alias moved",
        lambda w: edit_data(w, aliases_key(MODEL), "aliases", champion={"number": 7, "rev": 1, "at": "", "by": ""}),
        ["catalogue.changed"],
    ),
    ("aliases deleted", lambda w: drop(w, aliases_key(MODEL)), ["catalogue.gone"]),
    ("description of a version", lambda w: edit(w, labels_key(MODEL, 1), description="the best"), ["catalogue.changed"]),
    ("version hidden", lambda w: edit(w, labels_key(MODEL, 1), deleted=True), ["catalogue.changed"]),
    ("revision of labels", lambda w: edit(w, labels_key(MODEL, 1), rev=9), ["catalogue.without_event"]),
    ("remark", lambda w: edit(w, annotation_key(MODEL, 1, 1), text="all is well"), ["catalogue.changed"]),
    ("remark deleted", lambda w: drop(w, annotation_key(MODEL, 1, 1)), ["catalogue.gone"]),
    ("name that leads elsewhere", lambda w: edit(w, name_key("Draft models"), model=MODEL), ["catalogue.name"]),
    ("row of the catalogue deleted", lambda w: drop(w, catalogue_key(MODEL)), ["catalogue.gone"]),
    ("entry of the index deleted", lambda w: drop(w, entry(w, "INDEX#V#standing#DEPLOYED")), ["search.deleted"]),
    ("entry of the index changed", lambda w: edit(w, entry(w, "INDEX#M#tag#"), model="other"), ["search.changed"]),
    ("metric of a run", lambda w: edit_data(w, run_key(ENDED_RUN), "last", loss={"value": "0", "step": 1, "at": ""}), [RUN_CHANGED]),
    ("parameter of a run", lambda w: edit_data(w, run_key(ENDED_RUN), "parameters", C="9"), [RUN_CHANGED]),
    ("owner of a run", lambda w: edit(w, run_key(RUNNING_RUN), login="mallory"), [RUN_CHANGED]),
    ("environment of a run", lambda w: edit_data(w, environment_key(RUNNING_RUN), "environment", python="2.7"), [RUN_CHANGED]),
    ("points of a run, and all that follows from them", better_points, [RUN_CHANGED]),
    ("points of a run that goes on", lambda w: edit(w, points_key(RUNNING_RUN, 1), points="[]"), [RUN_CHANGED]),
    ("points of a run deleted", lambda w: drop(w, points_key(ENDED_RUN, 2)), [RUN_CHANGED]),
    ("batch that could be sent again", lambda w: drop(w, batch_key(ENDED_RUN, "0" * 32)), [RUN_CHANGED]),
    ("run set back", lambda w: edit(w, run_key(ENDED_RUN), state="RUNNING", closed=""), ["development_run.set_back"]),
    ("run ended by hand", lambda w: edit(w, run_key(RUNNING_RUN), state="FINISHED"), ["development_run.without_event"]),
    ("run of another experiment", lambda w: edit(w, lane_key(ENDED_RUN, "EXPERIMENT"), gsi_pk="RUNS#experiment#x"), [RUN_CHANGED]),
    ("run unlisted", lambda w: drop(w, lane_key(ENDED_RUN, "ALL")), ["development_run.unlisted"]),
    ("run listed elsewhere", lambda w: edit(w, lane_key(ENDED_RUN, "ALL"), gsi_pk="RUNS#x"), ["development_run.unlisted"]),
    ("run deleted", lambda w: drop(w, run_key(ENDED_RUN)), ["development_run.gone"]),
    ("run inserted", insert_run, ["development_run.without_event"]),
    (
        "row below a run",
        lambda w: w.meta._apply([Put(Key(run_key(ENDED_RUN).partition, "VERDICT"), {"state": "best"})]),
        ["development_run.without_event"],
    ),
    ("metrics", lambda w: edit_data(w, HEAD, "metrics", accuracy="0.999"), ["head.metrics"]),
    ("gates", lambda w: edit(w, HEAD, gates=[]), ["head.gates"]),
    ("submitter", lambda w: edit(w, HEAD, submitter_person="mallory"), ["head.submitter_person"]),
    ("approved", lambda w: edit(w, HEAD, approved=False), ["head.approved"]),
    ("schema", lambda w: edit(w, HEAD, schema=w.meta.rows[HEAD]["schema"][::-1]), ["head.schema"]),
    ("retires_on", lambda w: edit(w, HEAD, retires_on="2030-01-01"), ["head.retires_on"]),
    ("datasets", lambda w: edit(w, HEAD, datasets=[{**d, "digest": "0" * 64} for d in w.meta.rows[HEAD]["datasets"]]), ["head.datasets"]),
    ("head deleted", lambda w: drop(w, HEAD), ["head.deleted", "pointer.moved"]),
    ("transition's reason", lambda w: edit(w, transition(w, "version.approved"), reason="better"), ["transition.changed"]),
    ("transition's kind", lambda w: edit(w, last_transition(w), kind="version.rolled_back"), ["transition.without_event"]),
    ("transition's attestation", lambda w: edit_data(w, last_transition(w), "attestation", sha256="0" * 64), ["transition.changed"]),
    ("transition malformed", lambda w: edit(w, last_transition(w), data=None), ["transition.changed"]),
    ("transition deleted", lambda w: drop(w, transition(w, "candidate.registered")), ["transition.deleted"]),
    ("transition added", insert_transition, ["transition.without_event"]),
    ("transition with a forged index row", forge_index, ["transition.without_event"]),
    ("history set back", set_history_back, ["pointer.moved", "transition.deleted"]),
    ("approval inserted", insert_approval, ["decision.without_event"]),
    ("approval doubled", double_approval, ["decision.without_event"]),
    ("approval changed", lambda w: edit(w, approval_key(MODEL, 1, "erin"), reason="better"), ["decision.changed"]),
    ("approval deleted", lambda w: drop(w, approval_key(MODEL, 1, "erin")), ["decision.deleted"]),
    ("record changed", lambda w: edit(w, Key(HEAD.partition, "STAGE#VALIDATION#001"), record="{}"), ["run.changed"]),
    ("record deleted", lambda w: drop(w, Key(HEAD.partition, "STAGE#TRAINING#001")), ["run.deleted"]),
    ("artifact manifest's copy changed", lambda w: edit(w, artifact_key(MODEL, 1), data=b"{}"), ["artifact.copy"]),
    ("artifact manifest's copy deleted", lambda w: drop(w, artifact_key(MODEL, 1)), ["artifact.copy"]),
    ("run added", lambda w: w.meta._apply([Put(Key(HEAD.partition, "STAGE#TRAINING#007"), {"status": "RUNNING"})]), ["run.without_event"]),
    ("pointer's digest", lambda w: edit(w, POINTER, version_digest="0" * 64), ["pointer.version_digest"]),
    ("pointer's folder", lambda w: edit(w, POINTER, folder="models/other"), ["pointer.folder"]),
    ("pointer moved", lambda w: edit(w, POINTER, number=7), ["pointer.moved"]),
    ("pointer emptied", lambda w: edit(w, POINTER, number=None), ["pointer.moved", "pointer.without_event"]),
    ("pointer deleted", lambda w: drop(w, POINTER), ["pointer.deleted"]),
    ("pointer's previous", lambda w: edit(w, POINTER, previous=1), ["pointer.previous"]),
    ("capture rate", lambda w: edit(w, POINTER, capture_rate="0"), ["pointer.capture_rate"]),
    ("number that could be used again", lambda w: edit(w, model_key(MODEL), next=1), ["model.next"]),
    ("frozen file overwritten", lambda w: overwrite(w, "/frozen/model/"), ["object.overwritten"]),
    ("frozen file deleted", lambda w: w.store.delete(object_key(w, "/frozen/model/")), ["object.deleted"]),
    ("frozen file added", lambda w: w.store.put(f"{w.head.folder}/frozen/model/extra.py", b"x"), ["object.added"]),
    ("frozen file gone", lambda w: w.store.versions.pop(object_key(w, "/frozen/model/")), ["object.deleted"]),
    ("attestation overwritten", lambda w: overwrite(w, w.meta.rows[last_transition(w)]["attestation"]["key"]), ["object.overwritten"]),
    ("packet deleted", lambda w: w.store.delete(w.meta.rows[HEAD]["packet"]["key"]), ["object.deleted"]),
    ("record object deleted", lambda w: w.store.delete(object_key(w, "/stages/TRAINING/1/record.json")), ["object.deleted"]),
    ("receipts overwritten", lambda w: overwrite(w, "000000000003.jsonl"), ["object.overwritten"]),
    ("receipts deleted", lambda w: w.store.versions.pop(object_key(w, "000000000003.jsonl")), ["object.deleted"]),
    (
        "receipts added",
        lambda w: w.store.put(
            object_key(w, "000000000003.jsonl").replace("000000000001-000000000003", "000000000004-000000000004"), b"{}\n"
        ),
        ["receipts.unsealed"],
    ),
    ("receipts tampered", lambda w: w.store.tamper(object_key(w, "000000000003.jsonl"), b"{}\n"), ["receipts.changed"]),
    ("delegation changed", lambda w: edit(w, delegation(w), capture_rate="0"), ["delegation.changed"]),
    ("delegation deleted", lambda w: drop(w, delegation(w)), ["delegation.deleted"]),
    ("index row changed", lambda w: edit(w, leaf_row(w), sha256="0" * 64), ["index.changed"]),
    ("index row deleted", lambda w: drop(w, leaf_row(w)), ["index.deleted", "person.without_event"]),
    (
        "checkpoint forged",
        lambda w: w.store.put(LIVE, w.store.versions[LIVE][-1].body.replace(b"\n\n", b"\nx\n\n", 1)),
        ["checkpoint.signature"],
    ),
    ("head of the ledger set back", lambda w: edit(w, COMMIT, size=3), ["checkpoint.row_changed"]),
    ("ledger's leaves changed", lambda w: w.store.tamper(object_key(w, "ledger/tile/0/"), b"\0" * 32), ["ledger.changed"]),
    ("source data overwritten", lambda w: overwrite(w, "datasets/"), ["object.overwritten"]),
    ("source data deleted", lambda w: w.store.delete(object_key(w, "datasets/")), ["object.deleted"]),
    ("prepared data overwritten", lambda w: overwrite(w, "/data/train/"), ["object.overwritten"]),
    ("environment overwritten", lambda w: overwrite(w, "/environment.zip"), ["object.overwritten"]),
    ("lineage row changed", lambda w: edit(w, edge(w), role="nothing"), ["lineage.changed"]),
    ("lineage row deleted", lambda w: drop(w, edge(w)), ["lineage.deleted"]),
    ("login of another", lambda w: edit(w, login_key("erin"), person="mallory"), ["login.changed"]),
    ("login deleted", lambda w: drop(w, login_key("grace")), ["login.deleted"]),
    ("SSH key of another", lambda w: edit(w, ssh_row(w), person="mallory"), ["ssh_key.changed"]),
    ("SSH key deleted", lambda w: drop(w, ssh_row(w)), ["ssh_key.deleted"]),
    ("login added to a person", lambda w: edit(w, person_key("grace"), logins=["grace", "mallory"]), ["person.changed"]),
    ("SSH key added to a person", lambda w: edit(w, person_key("grace"), ssh_keys=[SshPerson("m").public]), ["person.changed"]),
    ("person set back", lambda w: edit(w, person_key("grace"), rev=0, changed=[]), ["person.changed"]),
    ("person deleted", lambda w: drop(w, person_key("grace")), ["person.gone"]),
    ("person inserted", insert_person, ["person.without_event"]),
    ("grant added to a row", lambda w: edit(w, grant_key(HOLDER), grants=[Grant("admin", "registry").to_item()]), ["grant.changed"]),
    ("grants set back", lambda w: edit(w, grant_key(HOLDER), rev=0, changed=[]), ["grant.changed"]),
    ("grants deleted", lambda w: drop(w, grant_key(HOLDER)), ["grant.gone"]),
    ("grants inserted", insert_grant, ["grant.without_event"]),
    ("model placed by hand", lambda w: edit(w, placement_key(MODEL), tags={"tier": "none"}), ["placement.changed"]),
    ("placement deleted", lambda w: drop(w, placement_key(MODEL)), ["placement.gone"]),
    ("access policies taken out", lambda w: edit(w, POLICIES_KEY, policies={}), ["access.changed"]),
    ("access policies deleted", lambda w: drop(w, POLICIES_KEY), ["access.gone"]),
    (
        "access policy edited",
        lambda w: edit(w, access_policy_key("low-alone", 2), text="permit (principal, action, resource);"),
        ["access.text_changed"],
    ),
    ("access policy's text deleted", lambda w: drop(w, access_policy_key("low-alone", 1)), ["access.text_deleted"]),
    ("webhook led elsewhere", lambda w: edit(w, webhook_key("chat"), url="https://attacker.example.org/"), ["webhook.changed"]),
    ("webhook told less", lambda w: edit(w, webhook_key("chat"), kinds=["alias.set"]), ["webhook.changed"]),
    ("webhook silenced", lambda w: edit(w, webhook_key("chat"), state="DISABLED"), ["webhook.changed"]),
    ("webhook brought back", lambda w: edit(w, webhook_key("gone"), state="ACTIVE"), ["webhook.changed"]),
    ("webhook's secret set back", lambda w: edit(w, webhook_key("chat"), secret_number=1, rotated=""), ["webhook.changed"]),
    ("webhook deleted", lambda w: drop(w, webhook_key("chat")), ["webhook.gone"]),
    ("webhook planted", insert_webhook, ["webhook.without_event"]),
    ("root's row changed", lambda w: edit(w, ROOT_KEY, files=other_root(w)), ["root.changed"]),
    ("root's row deleted", lambda w: drop(w, ROOT_KEY), ["root.gone"]),
    ("root metadata overwritten", lambda w: w.store.put("root/1.targets.json", b"{}"), ["object.overwritten"]),
    ("root metadata deleted", lambda w: w.store.delete("root/timestamp.json"), ["object.deleted"]),
    ("policy taken from its collection", unlist_policy, ["policy.unlisted"]),
    ("policy deleted", lambda w: drop(w, policy_key("standard")), ["policy.gone"]),
    ("policy set back", set_policy_back, ["policy.set_back"]),
    ("policy set back without a trace", lambda w: (set_policy_back(w), drop(w, EDITION)), ["policy.edition_deleted"]),
    ("edition of a policy deleted", lambda w: drop(w, EDITION), ["policy.edition_deleted"]),
    ("edition of a policy changed", lambda w: edit(w, EDITION, document=b"{}"), ["policy.changed"]),
    ("edition of a policy with another reason", lambda w: edit(w, EDITION, reason="nothing"), ["policy.changed"]),
    ("edition of a policy planted", plant_edition, ["policy.without_event"]),
    ("policy planted", plant_policy, ["policy.without_event"]),
    ("outbox event set aside", lambda w: w.meta._apply([Put(Key("CONFLICT", "x#1"), {"reason": "other bytes"})]), ["outbox.conflict"]),
]


def edge(world: EvidenceWorld) -> Key:
    return min((k for k in world.meta.rows if k.partition.startswith("EDGE#")), key=lambda k: (k.partition, k.sort))


def ssh_row(world: EvidenceWorld) -> Key:
    return min((k for k in world.meta.rows if k.partition.startswith("SSHKEY#")), key=lambda k: k.partition)


def other_root(world: EvidenceWorld) -> dict[str, bytes]:
    files: dict[str, bytes] = world.meta.rows[ROOT_KEY]["files"]
    return {**files, "trusted_root.json": files["trusted_root.json"].replace(b'"demo":false', b'"demo":true ')}


def delegation(world: EvidenceWorld) -> Key:
    return next(k for k in world.meta.rows if k.sort == "DELEGATION")


def leaf_row(world: EvidenceWorld) -> Key:
    """The index row of the one event about a person."""
    return leaf_key(event_id("person.changed", "person/grace", 1))


def test_an_untouched_registry_has_no_findings(world: EvidenceWorld) -> None:
    done = reconcile(world)
    assert (done.opened, done.finished) == (0, True)
    assert found(world) == []


@pytest.mark.parametrize(("act", "expected"), [e[1:] for e in EDITS], ids=[e[0] for e in EDITS])
def test_an_edit_by_hand_is_found_once_and_closed_when_it_is_repaired(
    world: EvidenceWorld, act: Callable[[EvidenceWorld], Any], expected: list[str]
) -> None:
    rows, versions = copy.deepcopy(world.meta.rows), copy.deepcopy(world.store.versions)
    act(world)
    assert reconcile(world).opened == len(expected)
    assert found(world) == expected
    assert reconcile(world).opened == 0
    kept = {k: r for k, r in world.meta.rows.items() if k.partition.startswith(("FINDINGS", "OUTBOX"))}
    world.meta.rows, world.store.versions = {**rows, **kept}, versions
    assert reconcile(world).closed == len(expected)
    assert found(world) == []
    events = [json.loads(r["event"]) for k, r in world.meta.rows.items() if k.partition == "OUTBOX"]
    assert sorted(e["kind"] for e in events) == ["finding.closed"] * len(expected) + ["finding.opened"] * len(expected)
    assert {e["data"]["what"] for e in events} == set(expected)


def test_whatever_a_registry_goes_through_in_order_it_has_no_findings() -> None:
    world = make_world()
    world.deploy(edit=_other)
    world.predict()
    set_capture_rate(world.meta, MODEL, "production", "0.5", reason="costs", by=DEPLOYER, at=world.clock.now())
    reconcile(world)
    assert found(world) == []
    world.roll_back()
    world.seal()
    reconcile(world)
    assert found(world) == []
    world.kill(1)
    world.kill(2)
    reconcile(world)
    assert found(world) == []
    world.clock.advance(hours=3)
    world.seal()
    assert reconcile(world).finished
    assert found(world) == []


def _other(draft: dict[str, Any]) -> None:
    draft["training"]["hyperparameters"]["max_iter"] = 4321


def test_a_capture_rate_set_through_the_registry_is_compared_with_its_event(world: EvidenceWorld) -> None:
    set_capture_rate(world.meta, MODEL, "production", "0.5", reason="costs", by=DEPLOYER, at=world.clock.now())
    world.sequence()
    edit(world, POINTER, capture_rate="0.1")
    reconcile(world)
    assert found(world) == ["pointer.capture_rate"]


def test_a_vacant_pointer_that_tells_another_story_is_found(world: EvidenceWorld) -> None:
    world.kill(1)
    edit_data(world, POINTER, "vacant", reason="nothing happened")
    reconcile(world)
    assert found(world) == ["pointer.without_event"]


def test_a_model_that_was_deleted_altogether_is_told_by_the_ledger(world: EvidenceWorld) -> None:
    gone = [k for k in world.meta.rows if k.partition in (model_key(MODEL).partition, HEAD.partition)]
    world.meta._apply([Delete(k) for k in gone])
    reconcile(world)
    assert found(world) == ["model.gone", "version.gone"]


def test_an_event_that_waits_too_long_is_found_and_closed_once_it_is_logged(world: EvidenceWorld) -> None:
    set_capture_rate(world.meta, MODEL, "production", "0.5", reason="costs", by=DEPLOYER, at=world.clock.now())
    world.clock.advance(minutes=31)
    reconcile(world)
    assert found(world) == ["outbox.stuck"]
    world.sequence()
    reconcile(world)
    assert found(world) == []


def test_a_closed_key_is_compared_with_its_closing(world: EvidenceWorld) -> None:
    world.clock.advance(hours=3)
    world.seal()
    assert reconcile(world).opened == 0
    edit(world, delegation(world), count=99)
    assert reconcile(world).opened == 0, "the closing in the ledger counts, not its copy"


def test_what_was_seen_only_once_is_no_finding(world: EvidenceWorld) -> None:
    """A version that moves between the reading of its rows and of the ledger."""
    query, state = world.meta.query, {"left": 1}

    def torn(partition: str, **kwargs: Any) -> Any:
        rows = query(partition, **kwargs)
        if partition == HEAD.partition and state["left"]:
            state["left"] = 0
            return [r for r in rows if r["sk"] != last_transition(world).sort]
        return rows

    world.meta.query = torn  # type: ignore[method-assign]
    try:
        assert reconcile(world).opened == 0
    finally:
        del world.meta.query  # type: ignore[attr-defined]


def test_an_edit_is_found_although_the_ledger_is_just_being_published(world: EvidenceWorld) -> None:
    """At the first reading the checkpoint is committed and its entries are not there yet, so that nothing that rests on them is judged."""
    edit(world, HEAD, standing="APPROVED")
    world.meta.transact([Put(CURSOR, {"after": f"3/{MODEL}#000000000"}, When())])
    read, query, readings = world.store.read, world.meta.query, []

    def unpublished(key: str, *args: Any, **kwargs: Any) -> Any:
        if key.startswith("ledger/tile/entries/") and len(readings) == 1:
            raise NotFoundError(key)
        return read(key, *args, **kwargs)

    def counted(partition: str, **kwargs: Any) -> Any:
        if partition == HEAD.partition:
            readings.append(partition)
        return query(partition, **kwargs)

    world.store.read, world.meta.query = unpublished, counted  # type: ignore[method-assign]
    try:
        reconcile(world)
    finally:
        del world.store.read, world.meta.query  # type: ignore[attr-defined]
    assert len(readings) == 3
    assert found(world) == ["head.standing"]


def test_a_run_goes_on_where_the_last_one_stopped(world: EvidenceWorld) -> None:
    edit(world, HEAD, status="RUNNING")
    seen, rounds = 0, 0
    while True:
        ticks = iter([0.0, 0.0, 1000.0, 1000.0])
        done = reconcile(world, monotonic=lambda ticks=ticks: next(ticks)) if rounds < 50 else pytest.fail("it does not get on")
        rounds += 1
        seen += done.units
        assert done.units <= 1
        if done.finished:
            break
    assert rounds > 5
    assert found(world) == ["head.status"]
    assert world.meta.rows[CURSOR]["after"] == ""


def test_the_trouble_of_one_unit_does_not_hold_up_the_others(world: EvidenceWorld) -> None:
    edit(world, POINTER, capture_rate="0")
    world.meta.faults.fail_before(method="MemoryObjectStore.list_versions")
    world.meta.faults.fail_before(method="MemoryObjectStore.list_versions")
    done = Reconciler(world.meta, world.store, Gateway(), world.clock, verifiers=[world.log_key]).run()
    world.meta.faults.clear()
    assert len(done.errors) == 1
    assert found(world) == ["pointer.capture_rate"]


@pytest.mark.parametrize(
    ("answered", "outcome", "expected"),
    [
        (None, "not available", []),
        (3, "every answer has its receipt", []),
        (2, "every answer has its receipt", []),
        (4, "answers without receipts", ["predictions.unsealed"]),
    ],
)
def test_what_was_sealed_is_compared_with_the_gateways_own_count(
    world: EvidenceWorld, answered: int | None, outcome: str, expected: list[str]
) -> None:
    day = world.clock.at.date()
    world.clock.advance(days=1, hours=4)
    world.seal()

    class OneDay(Gateway):
        def answered(self, asked: date) -> int | None:
            return self.count if asked == day else None if self.count is None else 0

    reconcile(world, OneDay(answered))
    row = world.meta.rows[Key("RECONCILE", f"COUNTS#{day.isoformat()}")]
    assert (row["sealed"], row["answered"], row["outcome"]) == ({MODEL: 3}, answered, outcome)
    assert found(world) == expected


def test_a_finding_is_opened_again_when_it_comes_back_also_where_its_row_was_deleted(world: EvidenceWorld) -> None:
    scope, one = Scope("u", MODEL, 1), Observed("head.status", "x", "a", "b")
    for _ in range(2):
        assert settle(world.meta, scope, [one], world.clock.now()).opened == 1
        assert settle(world.meta, scope, [], world.clock.now()).closed == 1
    settle(world.meta, scope, [one], world.clock.now())
    drop(world, Key(scope.partition, f"FINDING#{one.id}"))
    assert settle(world.meta, scope, [one], world.clock.now()).opened == 1
    waiting = [json.loads(r["event"]) for k, r in world.meta.rows.items() if k.partition == "OUTBOX"]
    assert len({e["id"] for e in waiting}) == len(waiting) == 6


def test_a_unit_closes_only_what_it_opened(world: EvidenceWorld) -> None:
    settle(world.meta, Scope("one", MODEL, 1), [Observed("a", "x", "", "")], world.clock.now())
    assert settle(world.meta, Scope("two", MODEL, 1), [], world.clock.now()).closed == 0
    assert [f["what"] for f in findings_of(world.meta, MODEL, 1)] == ["a"]


@pytest.mark.parametrize("after", [False, True])
def test_a_finding_and_its_event_are_one_transaction(world: EvidenceWorld, after: bool) -> None:
    (world.meta.faults.fail_after if after else world.meta.faults.fail_before)(method="transact")
    with pytest.raises(UnavailableError):
        settle(world.meta, Scope("u", MODEL, 1), [Observed("a", "x", "", "")], world.clock.now())
    settle(world.meta, Scope("u", MODEL, 1), [Observed("a", "x", "", "")], world.clock.now())
    assert [k.partition for k in world.meta.rows].count("OUTBOX") == 1
    assert len(findings_of(world.meta, MODEL, 1)) == 1


def test_units_of_models_whose_names_begin_alike_are_all_looked_at(world: EvidenceWorld) -> None:
    for name in (f"{MODEL}-b", f"{MODEL}0", "a"):
        row = {"model": name, "next": 1, "rev": 1, "gsi_pk": "MODELS", "gsi_sk": name}
        world.meta._apply([Put(model_key(name), row)])
    names: list[str] = []
    units = 0
    for _ in range(40):
        ticks = iter([0.0, 0.0, 1000.0, 1000.0])
        done = reconcile(world, monotonic=lambda ticks=ticks: next(ticks))
        units += done.units
        names.append(str(world.meta.rows[CURSOR]["after"]))
        if done.finished:
            break
    # The last unit ends the round.
    assert [n for n in names if n.endswith("#000000000")] == [f"3/{n}#000000000" for n in ("a", "drafts", MODEL, f"{MODEL}-b", f"{MODEL}0")]
    assert units == reconcile(world).units


def test_the_function_reconciles_counts_and_says_what_it_opened(
    world: EvidenceWorld, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {"ATTESTRY_API_ID": "a1", "ATTESTRY_LEDGER_ORIGIN": REGISTRY}
    ports = World(Settings(settings))
    ports.__dict__.update(meta=world.meta, store=world.store, clock=world.clock, ledger_signer=world.ledger_signer)
    monkeypatch.setattr(reconcile_function, "world", ports)
    monkeypatch.setattr(reconcile_function, "CloudWatchCounts", lambda _client, _api: Gateway())
    monkeypatch.setattr(ports, "clients", type("Clients", (), {"cloudwatch": None})())
    monkeypatch.setenv("POWERTOOLS_SERVICE_NAME", "reconcile")
    reconcile_function.verifiers.cache_clear()
    edit(world, HEAD, status="RUNNING")
    answer = reconcile_function.handler({}, None)
    reconcile_function.verifiers.cache_clear()
    assert (answer["opened"], answer["finished"], answer["errors"]) == (1, True, [])
    assert '"FindingsOpened":[1.0]' in capsys.readouterr().out.replace(" ", "")


def test_a_decision_by_a_login_that_was_planted_for_a_person_is_found() -> None:
    """An administrator maps a second login of one human to another person, and decides by it."""
    world = EvidenceWorld()
    world.validate()
    world.open()
    world.meta._apply([Put(login_key("dana-2"), {"person": "erin", "login": "dana-2"})])
    world.approve(session("approver", "dana-2", person="erin"), signed=False)
    world.sequence()
    reconcile(world)
    assert found(world) == ["decision.login"]


def test_what_happens_to_persons_and_root_in_order_is_no_finding() -> None:
    world = make_world()
    add_person(world.meta, "heidi", ["heidi"], name="Heidi", by=ADMIN, at=world.clock.now())
    add_person(world.meta, "heidi", ["heidi-2"], name="", by=ADMIN, at=world.clock.now(), ssh_keys=[SshPerson("heidi").public])
    fingerprint = SshKey.parse(SshPerson("heidi").public).fingerprint
    reconcile(world)
    assert found(world) == [], "while the events wait"
    withdraw_keys(world.meta, "heidi", [fingerprint], reason="lost", by=ADMIN, at=world.clock.now())
    world.sequence()
    world.rotate_keys()
    reconcile(world, verifiers=world.log_keys)
    world.sequence()
    reconcile(world, verifiers=world.log_keys)
    assert found(world) == []


def test_a_root_that_was_set_back_to_an_earlier_publication_is_found() -> None:
    world = make_world()
    earlier = copy.deepcopy(world.meta.rows[ROOT_KEY])
    world.rotate_keys()
    world.sequence()
    world.meta.rows[ROOT_KEY] = earlier
    reconcile(world, verifiers=world.log_keys)
    assert found(world) == ["root.set_back"]
