"""Invariants 1 to 6 of the design, checked on what is in the model store alone: the ledger, and the objects that it names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any, cast

from attestry.domain.approvals import ApprovalPolicy
from attestry.evidence.note import Checkpoint
from attestry.evidence.predicates import APPROVAL, read_move
from attestry.evidence.receipt import Receipt
from attestry.evidence.seal import CLOSED, Closing, Seal, parse_batch, verify_closing
from attestry.usecases.audit import read_batch
from tests.crash.evidence import Entry, Evidence, milliseconds, parse_packet, policy_in, read_artifact, read_statement, sha256
from tests.fakes import MemoryObjectStore
from tests.root_of_trust import REGISTRY, WITNESS
from tests.unit.ledger_world import Tree, check_leaves, check_tiles

ARRIVALS = ("version.deployed", "version.rolled_back")
DEPARTURES = ("version.killed", "version.retired", "approval.lapsed", "promotion.lapsed")
PLACINGS = (*ARRIVALS, "version.canaried", "version.shadowed")
APPROVING, DECISIONS = ("approval.given", "version.approved"), ("approval.given", "version.approved", "version.rejected")
OVERWRITTEN = re.compile(r"ledger/checkpoint|root/timestamp\.json|candidates/.*\.status\.json")
RETAINED = re.compile(
    r"(registered|datasets)/.*|models/[^/]+/[^/]+/(frozen|evidence)/.*|models/.*/(record(\.\d+)?\.json|delegation\.jwt|.*\.jsonl)"
)
FOLDER = re.compile(r"models/([^/]+)/(\d+)-[^/]+")


def check_invariants(store: MemoryObjectStore, *, pin: bytes, acknowledged: Sequence[Mapping[str, Any]]) -> Evidence:
    """Check invariants 1 to 6 by the store alone.

    Args:
        store: the model store.
        pin: the root that the reader pinned.
        acknowledged: the answers that callers of predictions were given.
    """
    evidence = Evidence(store, pin)
    check_ledger(evidence)
    check_objects(evidence)
    check_moves(evidence)
    check_approvals(evidence)
    check_promotions(evidence)
    check_standings(evidence)
    check_predictions(evidence, acknowledged)
    return evidence


def check_ledger(evidence: Evidence) -> None:
    """Invariant 6: every checkpoint is a prefix of every later one; and 3: no event is there twice."""
    archived = sorted(k for k in evidence.objects if k.startswith("ledger/checkpoints/"))
    checkpoints = {int(k.rpartition("/")[2]): Checkpoint.parse(evidence.open_checkpoint(k).text) for k in archived}
    assert max(checkpoints) == evidence.live.size
    assert checkpoints[evidence.live.size] == evidence.live
    assert {REGISTRY, WITNESS} <= evidence.signers, "the live checkpoint is not cosigned"
    tree = Tree()
    for size in range(evidence.live.size + 1):
        if size in checkpoints:
            assert checkpoints[size] == Checkpoint(REGISTRY, size, tree.root()), f"checkpoint {size}"
        if size < evidence.live.size:
            tree.add(evidence.leaves[size])
    check_leaves(evidence.leaves)
    check_tiles(evidence.published, evidence.leaves, checkpoints)


def check_objects(evidence: Evidence) -> None:
    """Invariant 1: numbers are not reused, frozen folders are what closes them says, and what is kept is written once."""
    registered = [entry.subject.split("@") for entry in evidence.of_kind("candidate.registered")]
    for model in {name for name, _ in registered}:
        assert sorted(int(n) for name, n in registered if name == model) == list(range(1, sum(name == model for name, _ in registered) + 1))
    for key, versions in evidence.objects.items():
        if not OVERWRITTEN.fullmatch(key):
            assert len(versions) == 1, f"{key} was written {len(versions)} times"
            assert not versions[0].is_delete_marker
        if RETAINED.fullmatch(key):
            assert versions[0].retained, f"{key} is not retained"
        # A registration that was cut off behind its attestation leaves that, which no event names.
        named = None if "/evidence/attestations/" in key else FOLDER.match(key)
        assert named is None or [named[1], named[2]] in registered, f"{key} lies in the folder of a version that is none"
    batches = evidence.of_kind("audit.batch")
    assert [entry.sequence for entry in batches] == list(range(1, len(batches) + 1))
    for entry in batches:
        acts = read_batch(evidence.body(str(entry.data["object"])), str(entry.data["sha256"]))
        assert len(acts) == entry.data["count"]
    for folder in (folder for folders in evidence.closed.values() for folder in folders):
        check_frozen(evidence, f"{folder}/frozen/")
    for reference, moves in evidence.versions.items():
        if moves[-1].data["version_digest"]:
            assert evidence.folder_of(reference)


def check_frozen(evidence: Evidence, base: str) -> None:
    """Check that a closed folder holds exactly what its artifact manifest lists."""
    artifact = read_artifact(evidence.body(f"{base}artifact-manifest.json"))
    assert base.startswith(f"models/{artifact.model}/{artifact.number}-")
    there = {k.removeprefix(base): evidence.body(k) for k in evidence.objects if k.startswith(base)}
    del there["artifact-manifest.json"]
    assert {f.path: (f.size, f.sha256) for f in artifact.files} == {path: (len(body), sha256(body)) for path, body in there.items()}, base


def check_moves(evidence: Evidence) -> None:
    """Invariant 3: each version's moves are 1, 2, 3, ..., each goes on where the one before ended, each is attested."""
    for reference, moves in evidence.versions.items():
        assert [entry.sequence for entry in sorted(moves, key=lambda e: e.sequence)] == list(range(1, len(moves) + 1)), reference
        assert moves == sorted(moves, key=lambda e: e.sequence), f"the moves of {reference} are logged in another order"
        assert (moves[0].kind, moves[0].data["from"]) == ("candidate.registered", None)
        for before, after in pairwise(moves):
            assert after.data["from"] == before.data["to"], f"{after.kind} of {reference}"
            assert before.at <= after.at
        for entry in moves:
            key = evidence.attestations[str(entry.data["attestation"])]
            assert key.startswith(f"models/{reference.replace('@', '/')}-"), key
            evidence.root.attested(evidence.body(key), evidence.leaves[entry.index], str(moves[0].data["candidate"]))


def check_approvals(evidence: Evidence) -> None:
    """Invariant 2: what is deployed or delegated to has the approvals that its policy asks for, on its packet, by others."""
    for entry in evidence.of_kind(*ARRIVALS):
        require_approved(evidence, entry, entry.subject)
    for entry in evidence.of_kind("key.delegated"):
        _, _, model, number, _, digest = str(entry.data["version"]).split(":")
        reference = f"{model}@{number}"
        moves = require_approved(evidence, entry, reference)
        assert digest == moves[-1].data["version_digest"]
        last = [move for move in moves if move.is_before(entry)][-1]
        assert last.data["to"]["standing"] == "DEPLOYED", f"{reference} was delegated to as {last.data['to']['standing']}"


def require_approved(evidence: Evidence, entry: Entry, reference: str) -> list[Entry]:
    """Check the approvals of a version as they were when an event was committed; return the version's moves."""
    moves = evidence.versions[reference]
    before = [move for move in moves if move.is_before(entry)]
    policy, folder = policy_of(evidence, moves), evidence.folder_of(reference)
    decisions = [move for move in before if move.kind in DECISIONS and move.data["to"]["stage"] == "APPROVAL"]
    (opened,) = [move for move in before if move.kind == "stage.started" and move.data["to"]["stage"] == "APPROVAL"]
    packet = parse_packet(evidence.body(f"{folder}/evidence/packet-{opened.sequence:06d}.json"))
    digest = before[-1].data["version_digest"]
    assert (packet.sha256, packet.reference) == (opened.data["evidence"], reference)
    assert (packet.content["version_digest"], packet.content["policy_sha256"]) == (digest, policy.digest)
    for move in decisions:
        assert move.kind in APPROVING, f"{reference} was rejected"
        said = {name: move.data[name] for name in ("evidence", "version_digest", "policy_sha256", "opened")}
        assert said == {"evidence": packet.sha256, "version_digest": digest, "policy_sha256": policy.digest, "opened": opened.sequence}
        statement = read_statement(evidence.body(evidence.attestations[str(move.data["attestation"])]))
        content = read_move(statement)[1]
        assert (statement.predicate_type, content["stage"], content["packet_sha256"]) == (APPROVAL, "APPROVAL", packet.sha256)
        if move.data["signed_by_person"]:
            assert sha256(evidence.body(f"{folder}/evidence/signatures/{move.data['person']}.sig")) == move.data["signature"]["sha256"]
    persons = [str(move.data["person"]) for move in decisions]
    assert len(set(persons)) == len(persons)
    assert submitter_of(before) not in persons
    if policy.automatic:
        assert persons == ["attestry:approval-policy"]
    else:
        assert len(persons) == policy.count
    assert [move.kind for move in decisions] == ["approval.given"] * (len(decisions) - 1) + ["version.approved"]
    return moves


def check_promotions(evidence: Evidence) -> None:
    """Invariant 2, of an environment that asks people first: nothing comes to it but by them, none of whom asked for it or submitted it."""
    for entry in evidence.of_kind(*PLACINGS):
        moves = evidence.versions[entry.subject]
        asked = policy_of(evidence, moves).for_promotion(str(entry.data["environment"]))
        if asked is None:
            assert "promotion" not in entry.data
            continue
        there = [m for m in moves if m.kind.startswith("promotion.") and m.data["environment"] == entry.data["environment"]]
        about = [m for m in there if m.is_before(entry)]
        opened = [m for m in about if m.kind == "promotion.opened"][-1]
        decisions = about[about.index(opened) + 1 :]
        assert [m.kind for m in decisions] == ["promotion.given"] * (asked.count - 1) + ["promotion.approved"], entry.subject
        persons = {str(m.data["person"]) for m in decisions}
        assert len(persons) == asked.count
        assert not persons & {str(submitter_of(moves)), str(opened.data["asked_by"])}
        assert entry.data["promotion"] == {"opened": opened.sequence, "approved_by": sorted(persons)}
        folder = f"{evidence.folder_of(entry.subject)}/evidence/packet-promotion-{opened.data['packet_sha256']}"
        assert sha256(evidence.body(f"{folder}.json")) == opened.data["packet_sha256"]
        assert sha256(evidence.body(f"{folder}.html")) == opened.data["page_sha256"]
        assert all(m.data["evidence"] == opened.data["packet_sha256"] for m in decisions)


def policy_of(evidence: Evidence, moves: Sequence[Entry]) -> ApprovalPolicy:
    """The policy of the registered manifest."""
    raw = evidence.body(f"registered/{moves[0].data['candidate']}/manifest.json")
    assert sha256(raw) == moves[0].data["candidate"]
    return policy_in(raw)


def submitter_of(moves: Sequence[Entry]) -> str | None:
    """Who submitted it, or has claimed that."""
    told = [move.event["principal"]["person"] for move in moves if move.kind in ("candidate.registered", "submission.claimed")]
    return cast("str | None", told[-1])


def check_standings(evidence: Evidence) -> None:
    """Invariant 4: one version of a model at most stands deployed in an environment, and none only at first or after a departure."""
    for instant in instants(evidence):
        for place in {key[1] for key in instant.standing}:
            deployed = [reference for (reference, where), standing in instant.standing.items() if (where, standing) == (place, "DEPLOYED")]
            assert len(deployed) <= 1, f"{deployed} stand deployed at {instant.at}"
            vacant = instant.vacant.get(place, False)
            assert bool(deployed) != vacant, f"nothing stands deployed in {place} at {instant.at}, and nothing has left it"


@dataclass(frozen=True)
class Instant:
    """What stood where after a transaction."""

    at: str
    standing: Mapping[tuple[str, str], str]
    vacant: Mapping[str, bool]


def instants(evidence: Evidence) -> Iterator[Instant]:
    """Replay the ledger, a transaction at a time."""
    standing: dict[tuple[str, str], str] = {}
    places: dict[str, str] = {}
    vacant: dict[str, bool] = {}
    moves = [entry for entry in evidence.entries if "@" in entry.subject]
    for at, together in groupby(moves, key=lambda e: e.at):
        for entry in together:
            if entry.kind in PLACINGS and standing.pop((entry.subject, places.get(entry.subject, "")), "") == "DEPLOYED":
                vacant[places[entry.subject]] = True
            if entry.kind in ARRIVALS:
                places[entry.subject] = f"{entry.subject.partition('@')[0]}/{entry.data['environment']}"
                vacant[places[entry.subject]] = False
            place = places.get(entry.subject)
            if place is not None:
                if entry.kind in DEPARTURES and standing.get((entry.subject, place)) == "DEPLOYED":
                    vacant[place] = True
                standing[(entry.subject, place)] = str(entry.data["to"]["standing"])
        yield Instant(at, dict(standing), dict(vacant))


def check_predictions(evidence: Evidence, acknowledged: Sequence[Mapping[str, Any]]) -> None:
    """Invariant 5: each receipt is by a delegated key, of what was deployed then, in sequence and sealed; none that was shown is lost."""
    history = list(instants(evidence))
    delegated = {str(entry.data["kid"]): entry for entry in evidence.of_kind("key.delegated")}
    sealed: dict[str, Receipt] = {}
    for kid, seals in groupby(sorted(evidence.seals, key=lambda s: (s.kid, s.first)), key=lambda s: s.kid):
        expected = 1
        for seal in seals:
            assert seal.first == expected, f"numbers of {kid} are missing"
            expected = seal.last + 1
            for receipt in batch_of(evidence, seal, delegated[kid]):
                sealed[str(receipt.prediction_id)] = receipt
                assert receipt.version.reference == deployed_at(history, receipt), f"{receipt.prediction_id} is of another version"
    for entry in evidence.of_kind(CLOSED):
        closing = Closing.from_event(entry.event)
        verify_closing(closing, [seal for seal in evidence.seals if seal.kid == closing.kid])
        assert not closing.gaps
    for answer in acknowledged:
        receipt = sealed[answer["prediction_id"]]
        assert (receipt.token, receipt.version.number) == (answer["receipt"], answer["version"])
    batches = {k for k in evidence.objects if k.endswith(".jsonl") and "/predictions/" in k}
    assert batches == {seal.object for seal in evidence.seals}, "a batch is not sealed, or not there"


def batch_of(evidence: Evidence, seal: Seal, delegated: Entry) -> list[Receipt]:
    """The receipts of a batch, whose root is its seal's."""
    raw = evidence.body(seal.object)
    assert sha256(raw) == seal.object_sha256
    lines = parse_batch(raw)
    assert [number for number, _ in lines] == list(range(seal.first, seal.last + 1))
    tree = Tree()
    for _, receipt in lines:
        tree.add(receipt)
    assert tree.root() == seal.root
    token = evidence.body(f"{seal.object.rpartition('/')[0]}/delegation.jwt")
    assert sha256(token) == delegated.data["delegation_sha256"]
    delegation = evidence.root.delegation(token, str(delegated.data["delegator"]), delegated.logged)
    assert delegation.kid == seal.kid
    return [evidence.root.receipt(receipt.decode(), delegation) for _, receipt in lines]


def deployed_at(history: Sequence[Instant], receipt: Receipt) -> str:
    """Which version stood deployed when a receipt was signed."""
    before = [instant for instant in history if milliseconds(instant.at) <= receipt.time_ms]
    (reference,) = [ref for (ref, _), standing in before[-1].standing.items() if standing == "DEPLOYED"]
    return reference
