"""What must hold after every command, whoever gave it, read from the rows of the table and the objects that they name."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from attestry.domain.approvals import ApprovalPolicy
from attestry.domain.commands import State, reachable
from attestry.domain.replay import compare_approvals, compare_pointers, compare_version, replay
from attestry.domain.stages import Stage, Standing, Status
from attestry.domain.version import Version
from attestry.evidence.case import Entry
from attestry.evidence.checks_moves import _check_chain
from attestry.evidence.digests import sha256_hex
from attestry.evidence.dsse import read_envelope, verify_envelope
from attestry.evidence.predicates import check_attestation
from attestry.evidence.statement import Statement
from attestry.evidence.trusted_root import require_may_sign
from attestry.ports import Key
from attestry.usecases.pointer import PROMOTED, named_in
from attestry.usecases.readiness import check_frozen_files
from attestry.usecases.reconcile_promotions import examine_packets, examine_promotions
from attestry.usecases.recorded import event_of_transition, waiting_key
from attestry.usecases.records import OUTBOX, model_key
from tests.machine.flow import MachineFlow, Rows
from tests.machine.promotions import Book
from tests.machine.rollouts import Places

STATES = frozenset(reachable())
ROLLED = frozenset({Standing.CANARY, Standing.SHADOW})
APPROVED = frozenset({Standing.APPROVED, Standing.DEPLOYED, Standing.ROLLBACK, *ROLLED})
ENDS = ("version.killed", "version.retired")
LAPSES = ("approval.lapsed", "promotion.lapsed")


class Watch:
    """Checks the invariants of one model; what was checked once and cannot change is not checked again."""

    def __init__(self, flow: MachineFlow, deployments: Mapping[int, str] | None = None) -> None:
        self._flow = flow
        self.book = Book(deployments if deployments is not None else {})
        self.places = Places(deployments if deployments is not None else {})
        self._model = flow.model
        self._keys = {sha256_hex(s.public_key_der()): (name, s.public_key_der()) for name, s in flow.signers.items()}
        self._checked: dict[tuple[int, int], tuple[Mapping[str, Any], bytes, dict[str, Any]]] = {}
        self._lengths: dict[int, int] = {}
        self._rows: Rows = {}
        self._frozen: dict[int, tuple[Any, ...]] = {}

    def check(self, rows: Rows) -> None:
        """Check everything that rows tell; nothing where they are those of before."""
        if rows == self._rows:
            return
        self._rows = rows
        heads = {n: Version.from_item(row) for n, row in _heads(rows, self._model).items()}
        events = [json.loads(row["event"]) for key, row in _sorted(rows) if key.partition == OUTBOX]
        self._numbers(rows, heads)
        self._places(rows, heads, events)
        index = replay(events)
        for number, version in heads.items():
            own = [(k.sort, r) for k, r in _sorted(rows) if k.partition == f"VERSION#{self._model}#{number}"]
            prefixes = ("TRANSITION#", "APPROVAL#", "PROMOTION#")
            moves, approvals, promotions = ([r for sort, r in own if sort.startswith(prefix)] for prefix in prefixes)
            self._moves(rows, version, moves, events)
            self._stays(version)
            check_approvals(version, approvals)
            self._promotions(version, moves, promotions)
            decisions = [*approvals, *(row for row in promotions if "decision" in row)]
            assert compare_version(index, version.reference, version.to_item(), moves) == []
            assert compare_approvals(index, version.reference, decisions) == []
            check_validated(version, moves)
        pointers = [r for k, r in rows.items() if k.partition == model_key(self._model).partition and k.sort.startswith("POINTER#")]
        self.places.take(events)
        self.places.check(pointers, heads)
        assert compare_pointers(index, self._model, pointers) == []

    def check_objects(self, rows: Rows) -> None:
        """Check that what is frozen lies there as it was recorded, and what people decided on."""
        for row in _heads(rows, self._model).values():
            version = Version.from_item(row)
            if version.version_digest:
                check_frozen_files(self._flow.store, version)
            if version.promotions:
                own = [r for k, r in _sorted(rows) if k.partition == row["pk"] and k.sort.startswith("TRANSITION#")]
                assert list(examine_packets(self._flow.store, version.folder, own)) == []

    def _numbers(self, rows: Rows, heads: Mapping[int, Version]) -> None:
        """Invariant 1: numbers are counted up, and each is one candidate's."""
        assert sorted(heads) == list(range(1, len(heads) + 1))
        if heads:
            assert rows[model_key(self._model)]["next"] == len(heads) + 1
            first = [v for v in heads.values() if v.cause["kind"] != "manual"]
            assert len({v.candidate for v in first}) == len(first)
            assert {v.candidate for v in heads.values()} == {v.candidate for v in first}

    def _places(self, rows: Rows, heads: Mapping[int, Version], events: list[dict[str, Any]]) -> None:
        """Invariant 4: in each environment at most one stands deployed, none only before the first or after its end; the target is kept."""
        partition = model_key(self._model).partition
        pointers = [r for k, r in rows.items() if k.partition == partition and k.sort.startswith("POINTER#")]
        for standing, place in ((Standing.DEPLOYED, "number"), (Standing.ROLLBACK, "previous")):
            stand = sorted((n, v.deployment_environment) for n, v in heads.items() if v.standing is standing)
            named = sorted((int(p[place]), str(p["environment"])) for p in pointers if p.get(place) is not None)
            assert stand == named, f"{standing} stand {stand}; the pointers name {named}"
        placed = {str(e["data"]["environment"]) for e in events if e["kind"] in ("version.deployed", "version.rolled_back")}
        assert placed == {str(p["environment"]) for p in pointers}
        for pointer in pointers:
            assert not [n for n in named_in(pointer) if heads[n].standing is Standing.RETIRED], "what is out of use stands somewhere"
            if pointer.get("number") is None:
                self._vacant(pointer, heads[int(pointer["vacant"]["number"])], events)

    def _vacant(self, pointer: Mapping[str, Any], left: Version, events: list[dict[str, Any]]) -> None:
        """A place is vacant because what stood there has come to its end, went on, or lost the approval that it stood by."""
        kind, environment = pointer["vacant"]["kind"], str(pointer["environment"])
        if kind == PROMOTED:
            assert left.deployment_environment != environment
        else:
            assert kind in (*ENDS, *LAPSES)
            ends = [e for e in events if (e["kind"], e["subject"], e["at"]) == (kind, left.reference, pointer["vacant"]["at"])]
            assert [e["data"]["vacated"] for e in ends] == [[environment]]
            assert kind in LAPSES or left.standing is Standing.RETIRED

    def _promotions(self, version: Version, moves: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]]) -> None:
        """Invariant 2, for an environment that asks people first: none decides who asked, and none stands there whom they did not let."""
        self.book.take(version, moves)
        place = f"VERSION#{self._model}#{version.number}"
        problems = list(examine_promotions(place, [dict(r) for r in rows], [dict(m) for m in moves], {int(m["number"]) for m in moves}))
        assert problems == [], problems
        if version.standing in (Standing.DEPLOYED, Standing.ROLLBACK, *ROLLED):
            assert self.book.course(version.number).counts(version.deployment_environment), "nobody let it stand where it stands"

    def _moves(self, rows: Rows, version: Version, moves: list[Mapping[str, Any]], events: list[dict[str, Any]]) -> None:
        """Invariant 3: moves without a gap, each with its event, each attested by a function that may; none passes over a stage."""
        state = State(version.stage, version.status, version.standing, bool(version.held))
        beside = version.standing in ROLLED and (version.stage, version.status) == (Stage.DEPLOYMENT, Status.SUCCEEDED)
        assert state in STATES or beside, f"no table knows of {state}"
        assert [int(m["number"]) for m in moves] == list(range(1, version.transition + 1))
        parsed = [self._recorded(rows, version, move) for move in moves]
        assert len(parsed) == sum(e["subject"] == version.reference for e in events)
        if self._lengths.get(version.number) == len(moves):
            return
        self._lengths[version.number] = len(moves)
        for before, after in pairwise(moves):
            assert after["from"] == before["to"]
            assert after["at"] >= before["at"]
        _check_chain([Entry(e, "", None, str(e["at"])) for e in parsed], gaps=False)

    def _recorded(self, rows: Rows, version: Version, move: Mapping[str, Any]) -> dict[str, Any]:
        """Check that a move has its event and its attestation, and return the event; later on, that neither has changed."""
        place = (version.number, int(move["number"]))
        if place in self._checked:
            known, data, event = self._checked[place]
            assert move == known, "a transition has changed"
            return event
        told = event_of_transition(version.model, version.number, move)
        data = told.canonical_bytes()
        assert rows[waiting_key(told)]["event"] == data
        event = json.loads(data)
        self._attestation(version, move, event)
        self._checked[place] = (move, data, event)
        return event

    def _attestation(self, version: Version, move: Mapping[str, Any], event: Mapping[str, Any]) -> None:
        place = move["attestation"]
        raw = self._flow.store.read(place["key"], place["version_id"], max_bytes=1 << 20)
        assert sha256_hex(raw) == place["sha256"] == event["data"]["attestation"]
        function, public_key = self._keys[read_envelope(raw).keyid]
        require_may_sign(function, str(move["kind"]), str(move["to"]["stage"]))
        check_attestation(Statement.parse(verify_envelope(raw, public_key)), event, candidate=version.candidate)

    def _stays(self, version: Version) -> None:
        """Invariant 1: what is frozen never changes."""
        if version.version_digest:
            frozen = (version.version_digest, version.folder, version.frozen, version.artifact)
            assert self._frozen.setdefault(version.number, frozen) == frozen


def check_approvals(version: Version, rows: list[Mapping[str, Any]]) -> None:
    """Invariant 2: what is approved, whatever became of it, has the approvals that its policy asks for, by others than the submitter."""
    policy = ApprovalPolicy.from_item(version.approval_policy)
    for row in rows:
        assert row["person"] not in (None, version.submitter_person, *version.barred), "who stands behind the version has decided"
    if version.standing not in APPROVED:
        assert not version.approved or version.standing is Standing.RETIRED
        return
    named = (version.version_digest, version.packet["sha256"], policy.digest)
    counted = [r for r in rows if r["decision"] == "approve" and (r["version_digest"], r["evidence"], r["policy_digest"]) == named]
    assert version.approved
    assert version.submitter_person is not None
    assert counted, "somebody, or the policy, stands behind every approval"
    asked = version.approval_policy
    if not asked["automatic"]:
        # Counted here by itself, not by the function that the registry counts with.
        persons = {r["person"] for r in counted if set(r["principal"]["roles"]) & set(asked["roles"])}
        assert len(persons) >= asked["count"], f"{asked['count']} approvals are asked for; there are those of {persons}"
    assert not [r for r in rows if r["decision"] == "reject"]


def check_validated(version: Version, moves: Sequence[Mapping[str, Any]]) -> None:
    """No version is approved before somebody else than who stands behind it has handed in what its manifest demands, and that meets it."""
    recorded = [m for m in moves if m["kind"] == "validation.recorded"]
    for move in recorded:
        assert move["principal"]["person"] not in (None, version.submitter_person, *version.barred), "who stands behind it has validated it"
        assert "validator" in move["principal"]["roles"]
    if not version.approval_policy.get("records"):
        return
    for approved in (m for m in moves if m["kind"] == "version.approved"):
        before = [m for m in recorded if int(m["number"]) < int(approved["number"])]
        assert before, "it was approved, and what its manifest demands was not there"
        assert int(before[-1]["data"]["overlap_rows"]) == 0
        assert list(approved["data"]["validations"].values()) == [before[-1]["evidence"]]


def _heads(rows: Rows, model: str) -> dict[int, Mapping[str, Any]]:
    partition = f"VERSION#{model}#"
    return {int(k.partition.removeprefix(partition)): r for k, r in rows.items() if k.partition.startswith(partition) and k.sort == "HEAD"}


def _sorted(rows: Rows) -> list[tuple[Key, Mapping[str, Any]]]:
    return sorted(rows.items(), key=lambda r: (r[0].partition, r[0].sort))
