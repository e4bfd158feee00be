"""Imported versions: frozen, signed, approved and proven like any other, and honest about what nobody here has seen."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from attestry.cli import render, render_packet
from attestry.domain.approvals import Verdict
from attestry.domain.errors import ConflictError, NotFoundError, SelfApprovalError, UnavailableError
from attestry.domain.stages import Stage, Standing, Status
from attestry.domain.version import Version
from attestry.evidence.bundle import BundleIndex, read_bundle, write_bundle
from attestry.evidence.readme import render_readme
from attestry.evidence.report import render_report
from attestry.evidence.verdict import Verdict as Proof
from attestry.ports import Key, Put, Update
from attestry.usecases.begin_import import import_prefix
from attestry.usecases.browse import diff_versions, list_files, show_version
from attestry.usecases.decide import decide_approval
from attestry.usecases.deploy import begin_deployment
from attestry.usecases.executions import start_attempt
from attestry.usecases.freeze_import import freeze_import
from attestry.usecases.gate import open_import, send_on
from attestry.usecases.import_version import import_version
from attestry.usecases.lineage import LineageWalker
from attestry.usecases.manual import Hand, check_redo, retry_version
from attestry.usecases.packet import load_packet
from attestry.usecases.reconcile import Reconciler
from attestry.usecases.records import load_version, version_key
from attestry.usecases.refresh import version_in_force
from attestry.usecases.serving import load_request
from attestry.usecases.sweep import GRACE, sweep
from attestry.usecases.trace import trace_version
from tests.evidence_world import DEPLOYER, EvidenceWorld
from tests.fakes import Faults, MemoryFunctions, MemoryObjectStore
from tests.flow import Flow
from tests.imports import FILES, MODEL, RUN, request_of, submit
from tests.unit.test_reconcile import Gateway
from tests.versions import DANA, FRANK, session


def destroy(store: MemoryObjectStore, key: str) -> None:
    """Remove an object with all of its versions, as somebody with rights over the bucket could."""
    del store.versions[key]


def freeze(flow: Flow, version: Version, attestor: Any = None) -> Version:
    """Do what the function that records stages does with an import."""
    return freeze_import(
        flow.meta,
        attestor or flow.attestor,
        flow.store,
        flow.notifier,
        model=version.model,
        number=version.number,
        sign_artifact=flow.sign_artifact,
        at=flow.clock.now(),
    )


@dataclass
class ImportedWorld(EvidenceWorld):
    """A registry with all of its evidence, into which versions are imported, each function signing with its own key."""

    model: str = field(default=MODEL)

    def bring(self, files: dict[str, bytes] | None = None, **claims: Any) -> Version:
        flow = self.flow
        request = request_of(submit(flow, files), self.model, **claims)
        at, keys = self.clock.now(), flow.attestors
        self.version = import_version(self.meta, self.store, keys["register"], request, by=DANA, at=at)
        return self.version

    def freeze(self) -> Version:
        return freeze(self.flow, self.head, self.flow.attestors["record_stage"])

    def open_it(self) -> Version:
        flow, version = self.flow, self.head
        ports = (self.meta, flow.attestors["gate"], self.store, flow.notifier)
        return open_import(*ports, model=version.model, number=version.number, at=self.clock.now())

    def approved(self, files: dict[str, bytes] | None = None, **claims: Any) -> Version:
        self.bring(files, **claims)
        self.freeze()
        self.open_it()
        self.approve()
        return self.head

    def reconcile(self) -> list[str]:
        done = Reconciler(self.meta, self.store, Gateway(), self.clock).run()
        assert (done.finished, done.errors) == (True, [])
        return sorted(str(r["what"]) for r in self.meta.list_collection("FINDINGS"))


def hand(world: ImportedWorld, by: Any = DEPLOYER) -> Hand:
    flow = world.flow
    flow.functions = MemoryFunctions({"gate": lambda event: {}})
    at = world.clock.now()
    return Hand(world.meta, flow.attestors["operate"], flow.pipeline, flow.functions, "gate", by, "once more", at)


@pytest.fixture(scope="module")
def approved() -> ImportedWorld:
    """A world whose first version was imported and approved; only read."""
    world = ImportedWorld()
    world.approved()
    world.sequence()
    return world


def test_a_frozen_import_has_a_version_digest_over_exactly_the_files_that_were_brought():
    flow = Flow()
    version = freeze(flow, import_version(flow.meta, flow.store, flow.attestor, request_of(submit(flow)), by=DANA, at=flow.clock.now()))
    assert (version.stage, version.status, version.standing) == (Stage.IMPORTED, Status.SUCCEEDED, Standing.CANDIDATE)
    assert {f.path for f in version.frozen} == {"import.json", *(f"model/{name}" for name in FILES)}
    for file in version.frozen:
        if file.path.startswith("model/"):
            assert flow.store.read(file.key, file.version_id, max_bytes=10**6) == FILES[file.path.removeprefix("model/")]
    assert version.artifact is not None
    assert version.artifact.sha256 == version.version_digest
    assert flow.store.stat(f"{version.folder}/evidence/model.sig") is not None


def test_an_import_that_was_frozen_is_not_frozen_again():
    flow = Flow()
    made = import_version(flow.meta, flow.store, flow.attestor, request_of(submit(flow)), by=DANA, at=flow.clock.now())
    assert freeze(flow, made).transition == freeze(flow, made).transition == 2


@pytest.mark.parametrize("kind", ["before", "after"])
def test_a_freeze_killed_at_any_call_is_finished_by_the_next_one_with_one_version_and_no_half_one(kind):
    tried = 0
    for point in range(1, 200):
        faults = Faults()
        flow = Flow(faults)
        made = import_version(flow.meta, flow.store, flow.attestor, request_of(submit(flow)), by=DANA, at=flow.clock.now())
        faults.clear()
        getattr(faults, f"fail_{kind}")(point)
        try:
            freeze(flow, made)
        except UnavailableError:
            tried += 1
            faults.clear()
            version = freeze(flow, made)
            assert (version.stage, version.status, version.transition) == (Stage.IMPORTED, Status.SUCCEEDED, 2)
            listed = [v.key for v in flow.store.list_versions(f"{version.folder}/frozen/")]
            assert len(listed) == len(FILES) + 2
        else:
            break
    assert tried > 15


def test_what_the_uploader_writes_over_a_file_afterwards_is_not_what_is_frozen():
    flow = Flow()
    submission = submit(flow)
    made = import_version(flow.meta, flow.store, flow.attestor, request_of(submission), by=DANA, at=flow.clock.now())
    flow.store.put(import_prefix(DANA.user_id, submission) + "model.pkl", b"another model, of the very same name")
    version = freeze(flow, made)
    (pickled,) = [f for f in version.frozen if f.path == "model/model.pkl"]
    assert flow.store.read(pickled.key, pickled.version_id, max_bytes=10**6) == FILES["model.pkl"]


def test_a_file_that_is_gone_ends_the_version_with_its_reason_and_nothing_is_half_frozen():
    flow = Flow()
    submission = submit(flow)
    made = import_version(flow.meta, flow.store, flow.attestor, request_of(submission), by=DANA, at=flow.clock.now())
    destroy(flow.store, import_prefix(DANA.user_id, submission) + "model.pkl")
    version = freeze(flow, made)
    assert (version.stage, version.status, version.version_digest) == (Stage.IMPORTED, Status.FAILED, "")
    assert version.error
    assert freeze(flow, made).status is Status.FAILED
    with pytest.raises(NotFoundError):
        list_files(flow.meta, flow.store, MODEL, 1)


def test_a_version_that_was_killed_before_it_was_frozen_stays_killed():
    world = ImportedWorld()
    world.bring()
    world.kill()
    assert world.freeze().standing is Standing.RETIRED
    assert world.head.version_digest == ""


def test_an_import_waits_for_a_person_who_is_not_its_submitter():
    world = ImportedWorld()
    world.bring()
    world.freeze()
    version = world.open_it()
    assert (version.stage, version.status, version.standing) == (Stage.APPROVAL, Status.RUNNING, Standing.CANDIDATE)
    dana_as_approver = session("approver", "dana", person="dana")
    with pytest.raises(SelfApprovalError):
        world.approve(dana_as_approver, signed=False)
    world.approve()
    assert world.head.standing is Standing.APPROVED
    assert not world.flow.pipeline.executions


def test_opening_the_approval_again_changes_nothing():
    world = ImportedWorld()
    world.bring()
    world.freeze()
    assert world.open_it().transition == world.open_it().transition == 3


def test_an_approval_is_not_opened_before_the_files_are_frozen():
    world = ImportedWorld()
    world.bring()
    assert world.open_it().stage is Stage.IMPORTED
    assert not world.head.packet


def test_a_rejected_import_is_rejected_for_good():
    world = ImportedWorld()
    world.bring()
    world.freeze()
    world.open_it()
    world.approve(verdict=Verdict.REJECT, signed=False)
    assert world.head.standing is Standing.REJECTED
    assert world.open_it().standing is Standing.REJECTED


def test_the_gate_sends_no_pipeline_on_for_an_import(approved):
    flow = approved.flow
    ports = (approved.meta, flow.attestors["gate"], approved.store, flow.pipeline)
    assert send_on(*ports, model=MODEL, number=1, at=approved.clock.now()) == "sent"
    assert not flow.pipeline.executions


def test_the_bundle_of_an_import_is_proven_and_says_that_it_was_made_elsewhere(approved):
    verification = approved.verify(approved.version_bundle())
    assert verification.verdict is Proof.PROVEN, verification.reason
    assert any(note.startswith("MADE ELSEWHERE") for note in verification.notes)
    assert verification.facts["claimed"]["run"] == RUN["id"]
    report = read_bundle(approved.version_bundle()).files["REPORT.md"].decode()
    assert "made elsewhere and imported" in report
    assert "How it was trained" not in report


def test_the_bundle_of_an_import_that_waits_is_proven_as_well():
    world = ImportedWorld()
    for step in (world.bring, world.freeze, world.open_it):
        step()
        world.sequence()
        verification = world.verify(world.version_bundle())
        assert verification.verdict is Proof.PROVEN, (step.__name__, verification.reason)


def test_reconciliation_finds_nothing_about_an_import(approved):
    assert approved.reconcile() == []


def forged(world: ImportedWorld, name: str, edit: Any) -> bytes:
    """The version's bundle with one file changed and the documents written anew, as a forger would."""
    bundle = read_bundle(world.version_bundle())
    files = {n: b for n, b in bundle.files.items() if n not in ("REPORT.md", "README.md")}
    files[name] = edit(files[name])
    index: BundleIndex = bundle.index
    documents = {"REPORT.md": render_report(index, files).encode(), "README.md": render_readme(index, files).encode()}
    return write_bundle(index, {**files, **documents})


@pytest.mark.parametrize(
    ("name", "edit"),
    [
        ("version/import.json", lambda raw: raw.replace(b'"auc":"0.91"', b'"auc":"0.99"')),
        ("version/import.json", lambda raw: raw.replace(b'"count":1', b'"count":0')),
        ("version/records/IMPORTED-1.json", lambda raw: raw.replace(b'"claimed"', b'"attested"')),
        ("version/artifact-manifest.json", lambda raw: raw.replace(b'"origin":"import"', b'"origin":"trained"')),
    ],
)
def test_a_bundle_in_which_something_that_was_said_is_changed_is_broken(approved, name, edit):
    assert approved.verify(forged(approved, name, edit)).verdict is Proof.BROKEN


@pytest.mark.parametrize(
    ("key", "changes", "what"),
    [
        (version_key(MODEL, 1), {"cause": {"kind": "registration", "parent": None}}, "head.changed"),
        (version_key(MODEL, 1), {"submitter_person": "mallory"}, "head.submitter_person"),
        (version_key(MODEL, 1), {"candidate": "ab" * 32}, "head.candidate"),
        (Key(f"VERSION#{MODEL}#1", "STAGE#IMPORTED#001"), {"record": "{}"}, "run.changed"),
        (Key(f"VERSION#{MODEL}#1", "STAGE#IMPORTED#001"), {"status": "FAILED"}, "run.changed"),
    ],
)
def test_a_row_of_an_import_that_was_edited_is_found(key, changes, what):
    world = ImportedWorld()
    world.approved()
    world.sequence()
    world.meta.transact([Update(key, changes)])
    assert what in world.reconcile()


def test_every_check_of_a_trace_passes_and_nothing_claimed_is_graded_better(approved):
    steps = trace_version(approved.meta, approved.store, MODEL, 1, deep=True)
    assert {s["outcome"] for s in steps} == {"passed"}, steps
    assert "record of IMPORTED" in {s["step"] for s in steps}
    assert "record of TRAINING" not in {s["step"] for s in steps}


def test_what_is_shown_keeps_what_is_verified_and_what_is_claimed_apart(approved):
    shown = show_version(approved.meta, approved.store, MODEL, 1)
    assert shown["manifest_content"] is None
    assert {f["path"]: len(f["sha256"]) for f in shown["import"]["verified"]["files"]} == dict.fromkeys(FILES, 64)
    assert shown["import"]["claimed"]["run"]["id"] == RUN["id"]
    assert sorted(shown["import"]["mlmodel"]["reading"]["flavors"]) == ["python_function", "sklearn"]
    assert shown["metrics"] == {}


def test_the_command_line_shows_version_and_packet_with_what_is_claimed_set_apart(approved):
    shown, packet = show_version(approved.meta, approved.store, MODEL, 1), load_packet(approved.store, approved.head)
    for printed in (render.version(shown), render_packet.packet(packet)):
        console = Console(record=True, width=200, file=StringIO())
        console.print(printed)
        verified, _, claimed = console.export_text().partition("claimed, which nobody here saw")
        assert "made elsewhere" in verified
        assert "model.pkl" in verified
        assert RUN["id"] in claimed
        assert RUN["id"] not in verified


def test_a_run_of_somebody_else_stays_a_claim_in_everything_that_is_signed(approved):
    attestations = [json.loads(b) for n, b in read_bundle(approved.version_bundle()).files.items() if n.startswith("attestations/")]
    assert attestations
    packet = load_packet(approved.store, approved.head).content
    assert (packet["metrics"], packet["gates"]) == ({}, [])
    assert packet["import"]["claimed"]["run"]["metrics"] == {"auc": "0.91"}
    rows = approved.meta.query(version_key(MODEL, 1).partition, prefix="TRANSITION#")
    assert RUN["id"] not in json.dumps([r["data"] for r in rows])
    assert approved.meta.query("EDGE#commit:") == []


def test_the_packet_page_warns_that_nothing_was_seen_here(approved):
    page = approved.store.read(f"{approved.head.folder}/evidence/packet-000003.html", max_bytes=10**6).decode()
    assert "Made elsewhere" in page
    assert "Claimed: metrics" in page
    assert "Computed by the registry on the hold-out" not in page


def test_an_approved_import_is_not_put_behind_the_built_in_inference_and_says_what_is_missing(approved):
    with pytest.raises(ConflictError, match="no inference script"):
        begin_deployment(
            approved.meta, approved.flow.attestors["operate"], approved.head, by=DEPLOYER, reason="try", at=approved.clock.now()
        )
    with pytest.raises(ConflictError, match="no inference script"):
        load_request(approved.store, approved.head, deadline_seconds=5)


def test_an_import_that_nobody_approved_is_refused_for_that_first():
    world = ImportedWorld()
    world.bring()
    world.freeze()
    with pytest.raises(ConflictError, match="not approved"):
        begin_deployment(world.meta, world.flow.attestors["operate"], world.head, by=DEPLOYER, reason="try", at=world.clock.now())


def test_the_frozen_files_are_listed_with_urls_of_exactly_their_bytes(approved):
    listed = list_files(approved.meta, approved.store, MODEL, 1)
    assert {f["path"] for f in listed["files"]} == {"artifact-manifest.json", "import.json", *(f"model/{n}" for n in FILES)}
    assert all(f["url"] and len(f["sha256"]) == 64 for f in listed["files"])
    assert listed["version_digest"] == approved.head.version_digest


def test_nothing_of_an_import_is_run_again(approved):
    with pytest.raises(ConflictError, match="made elsewhere"):
        check_redo(approved.head, Stage.VALIDATION)
    with pytest.raises(ConflictError, match="made elsewhere"):
        start_attempt(approved.flow.pipeline, approved.head)
    with pytest.raises(NotFoundError, match="nothing to refresh"):
        version_in_force(approved.meta, MODEL)


def test_a_manifest_is_refreshed_although_an_import_is_younger():
    flow = Flow()
    made = flow.register_example()
    import_version(flow.meta, flow.store, flow.attestor, request_of(submit(flow), made.model), by=DANA, at=flow.clock.now())
    assert version_in_force(flow.meta, made.model).number == 1


def test_a_manifest_submitted_to_a_model_that_was_imported_is_a_registration():
    flow = Flow()
    import_version(flow.meta, flow.store, flow.attestor, request_of(submit(flow), "tumour-diagnosis"), by=DANA, at=flow.clock.now())
    version = flow.register_example()
    assert (version.number, version.cause["kind"]) == (2, "registration")


def test_two_imports_differ_in_their_files_and_in_what_is_claimed():
    flow = Flow()
    for weights in (b"one", b"two"):
        submission = submit(flow, {**FILES, "model.pkl": weights})
        freeze(flow, import_version(flow.meta, flow.store, flow.attestor, request_of(submission), by=DANA, at=flow.clock.now()))
    rows = diff_versions(flow.meta, flow.store, MODEL, 1, 2)
    assert [(r["section"], r["field"]) for r in rows] == [("files", "model/model.pkl")]


def test_the_lineage_of_an_import_holds_no_commit_and_no_data(approved):
    graph = LineageWalker(approved.meta, approved.store).walk(f"{MODEL}@1").to_item()
    assert {n["kind"] for n in graph["nodes"]} <= {"version", "candidate"}


def test_an_import_cut_off_before_it_was_frozen_or_opened_is_swept_on():
    world = ImportedWorld()
    world.bring()
    later = world.clock.now() + GRACE * 2
    functions = MemoryFunctions({"gate": lambda e: {}, "record": lambda e: {}})
    sweep(world.meta, functions, world.flow.pipeline, gate_function="gate", record_function="record", at=later)
    world.freeze()
    sweep(world.meta, functions, world.flow.pipeline, gate_function="gate", record_function="record", at=later + GRACE * 2)
    world.open_it()
    sweep(world.meta, functions, world.flow.pipeline, gate_function="gate", record_function="record", at=later + GRACE * 4)
    asked = {"model": MODEL, "version": 1}
    assert functions.sent == [("record", {"action": "freeze_import", **asked}), ("gate", {"action": "open_import", **asked})]
    assert not world.flow.pipeline.executions


def test_a_failed_import_is_not_retried_but_uploaded_again():
    world = ImportedWorld()
    submission = submit(world.flow)
    world.version = import_version(
        world.meta, world.store, world.flow.attestors["register"], request_of(submission), by=DANA, at=world.clock.now()
    )
    destroy(world.store, import_prefix(DANA.user_id, submission) + "MLmodel")
    world.freeze()
    with pytest.raises(ConflictError, match="another import"):
        retry_version(hand(world), MODEL, 1)
    world.sequence()
    assert world.reconcile() == []
    assert world.verify(world.version_bundle()).verdict is Proof.PROVEN


def test_a_model_that_is_open_has_its_imports_approved_by_itself_with_the_rule_named():
    world = ImportedWorld()
    world.bring()
    world.meta.transact([Put(Key(f"CATALOGUE#{MODEL}"), {"mode": "open"})])
    world.bring()
    world.freeze()
    version = world.open_it()
    assert version.standing is Standing.APPROVED
    (moved,) = [r for r in world.meta.query(version_key(MODEL, 2).partition, prefix="TRANSITION#") if r["kind"] == "version.approved"]
    assert "open" in moved["reason"]
    world.sequence()
    assert world.verify(world.version_bundle(2)).verdict is Proof.PROVEN


def test_an_import_with_a_hostile_mlmodel_is_kept_and_says_that_it_could_not_be_read():
    world = ImportedWorld()
    bomb = b"a: &a [x, x]\nflavors: {x: [*a, *a]}\n"
    version = world.approved({"MLmodel": bomb, "model.bin": b"x"})
    shown = show_version(world.meta, world.store, MODEL, 1)
    assert "alias" in shown["import"]["mlmodel"]["problem"]
    assert version.standing is Standing.APPROVED
    world.sequence()
    assert world.verify(world.version_bundle()).verdict is Proof.PROVEN


def test_names_with_markup_do_not_pass_for_the_pages_own():
    world = ImportedWorld()
    world.approved({"<script>alert(1)</script>.bin": b"x"}, source="<b>trusted</b>", description="`code` | table")
    page = world.store.read(f"{world.head.folder}/evidence/packet-000003.html", max_bytes=10**6).decode()
    assert "<script>alert" not in page
    assert "<b>trusted" not in page
    world.sequence()
    assert world.verify(world.version_bundle()).verdict is Proof.PROVEN


def test_an_approval_of_an_import_serves_for_no_other_one():
    world = ImportedWorld()
    world.approved()
    packet = world.head.packet["sha256"]
    world.bring({**FILES, "model.pkl": b"another"})
    world.freeze()
    world.open_it()
    with pytest.raises(ConflictError, match="packet"):
        decide_approval(
            world.meta,
            world.flow.attestors["decide"],
            world.store,
            MODEL,
            2,
            Verdict.APPROVE,
            reason="the same",
            by=FRANK,
            at=world.clock.now(),
            packet_sha256=packet,
        )
    assert load_version(world.meta, MODEL, 2).standing is Standing.CANDIDATE


def test_an_import_document_that_was_swapped_in_the_store_stops_the_freeze():
    world = ImportedWorld()
    world.bring()
    world.meta.transact([Update(version_key(MODEL, 1), {"candidate": "cd" * 32})])
    assert world.freeze().status is Status.FAILED
