"""Invariants 1 to 7 of the design, checked on what is in the model store: the ledger and the objects that it names.

Nothing here reads the table but `compare_table`, which is told its rows to hold them against the ledger. Trees are built by code of the
tests; signatures, statements and receipts are read by the same pure functions that the offline verifier uses, under the keys of the
trusted root that lies in the store.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property, lru_cache
from itertools import groupby, pairwise
from typing import Any, cast

from attestry.domain import replay
from attestry.domain.approvals import ApprovalPolicy
from attestry.domain.manifest import read_manifest
from attestry.evidence.artifact_manifest import ArtifactManifest
from attestry.evidence.delegation import Delegation, verify_delegation
from attestry.evidence.dsse import read_envelope, verify_envelope
from attestry.evidence.leaf import Leaf
from attestry.evidence.note import Checkpoint, Note, open_note
from attestry.evidence.packet import Packet
from attestry.evidence.predicates import APPROVAL, check_attestation, read_move
from attestry.evidence.receipt import Receipt, verify_receipt
from attestry.evidence.seal import CLOSED, SEALED, Closing, Seal, parse_batch, verify_closing
from attestry.evidence.statement import Statement
from attestry.evidence.trusted_root import TrustedRoot, require_may_sign
from attestry.evidence.tuf_metadata import verify_metadata
from attestry.ports import Item, Key
from tests.fakes import MemoryObjectStore
from tests.root_of_trust import REGISTRY, WITNESS
from tests.unit.ledger_world import Tree, check_leaves, check_tiles, read_leaves

ARRIVALS, DEPARTURES = ("version.deployed", "version.rolled_back"), ("version.killed", "version.retired")
APPROVING, DECISIONS = ("approval.given", "version.approved"), ("approval.given", "version.approved", "version.rejected")
OVERWRITTEN = re.compile(r"ledger/checkpoint|root/timestamp\.json|candidates/.*\.status\.json")
RETAINED = re.compile(
    r"(registered|datasets)/.*|models/[^/]+/[^/]+/(frozen|evidence)/.*|models/.*/(record(\.\d+)?\.json|delegation\.jwt|.*\.jsonl)"
)
FOLDER = re.compile(r"models/([^/]+)/(\d+)-[^/]+")
FACTS = ("attempt", "approved_by", "candidate", "capture_rate", "decision", "environment", "folder", "number", "on", "opened", "outputs")
FACTS += (
    "person",
    "policy_sha256",
    "previous",
    "rate",
    "revision",
    "set_by",
    "signed_by_person",
    "vacated",
    "logins",
    "trusted_root_sha256",
)


@dataclass(frozen=True)
class Entry:
    """An event in the ledger."""

    index: int
    event: Mapping[str, Any]
    logged: str

    @property
    def kind(self) -> str:
        return str(self.event["kind"])

    @property
    def subject(self) -> str:
        return str(self.event["subject"])

    @property
    def data(self) -> Mapping[str, Any]:
        return cast("Mapping[str, Any]", self.event["data"])

    @property
    def at(self) -> str:
        return str(self.event["at"])

    @property
    def sequence(self) -> int:
        return int(self.event["sequence"])

    def is_before(self, other: Entry) -> bool:
        """Whether it was committed before, or in the same transaction."""
        return self.index < other.index or self.at == other.at


class Evidence:
    """What lies in the model store.

    Args:
        store: the bucket; its versions are read and nothing else of it.
        pin: the root that the reader pinned.
    """

    def __init__(self, store: MemoryObjectStore, pin: bytes) -> None:
        self.objects = store.versions
        metadata = {key.removeprefix("root/"): kept[-1].body for key, kept in self.objects.items() if key.startswith("root/")}
        self.root = root_of(pin, metadata)
        self._published = cast("Any", Published(store))
        live = self.open_checkpoint("ledger/checkpoint")
        self.live, self.signers = Checkpoint.parse(live.text), {signature.name for signature in live.verified}
        self.leaves = read_leaves(self._published, self.live.size)
        self.entries = [Entry(n, parse_leaf(raw).event, parse_leaf(raw).logged) for n, raw in enumerate(self.leaves)]

    def open_checkpoint(self, key: str) -> Note:
        return self.root.open_checkpoint(self.objects[key][-1].body)

    def body(self, key: str) -> bytes:
        """The one version of an object."""
        (only,) = self.objects[key]
        return only.body

    @cached_property
    def versions(self) -> dict[str, list[Entry]]:
        """`MODEL@N` to its moves in the order of the ledger."""
        moves: dict[str, list[Entry]] = defaultdict(list)
        for entry in self.entries:
            if "@" in entry.subject:
                moves[entry.subject].append(entry)
        return dict(moves)

    @cached_property
    def seals(self) -> list[Seal]:
        return [Seal.from_event(entry.event) for entry in self.of_kind(SEALED)]

    def of_kind(self, *kinds: str) -> list[Entry]:
        return [entry for entry in self.entries if entry.kind in kinds]

    @cached_property
    def attestations(self) -> dict[str, str]:
        """SHA-256 to the key of the object."""
        found = (key.rpartition("/evidence/attestations/") for key in self.objects)
        return {name.removesuffix(".json"): f"{folder}/evidence/attestations/{name}" for folder, sep, name in found if sep}

    def folder_of(self, reference: str) -> str:
        """The folder whose artifact manifest has the version's digest."""
        model, _, number = reference.partition("@")
        digest = self.versions[reference][-1].data["version_digest"]
        closed = [k for k in self.objects if k.endswith("/frozen/artifact-manifest.json") and sha256(self.body(k)) == digest]
        assert len(closed) == 1, f"{reference} has the folders {closed}"
        assert closed[0].startswith(f"models/{model}/{number}-")
        return closed[0].removesuffix("/frozen/artifact-manifest.json")


class Published:
    """The ledger's objects, in the form that the checker of the sequencer's tests reads."""

    def __init__(self, store: MemoryObjectStore) -> None:
        self.store = store

    def object(self, key: str) -> bytes:
        return self.store.versions[f"ledger/{key}"][-1].body

    def keys(self, prefix: str = "") -> list[str]:
        return sorted(k for k in self.store.versions if k.startswith(f"ledger/{prefix}"))


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
    check_tiles(evidence._published, evidence.leaves, checkpoints)


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
        folder = FOLDER.match(key)
        assert folder is None or [folder[1], folder[2]] in registered, f"{key} lies in the folder of a version that is none"
    closed = [k.removesuffix("artifact-manifest.json") for k in evidence.objects if k.endswith("/frozen/artifact-manifest.json")]
    for base in closed:
        check_frozen(evidence, base)
    named = [moves[-1].data["version_digest"] for moves in evidence.versions.values()]
    for reference, digest in zip(evidence.versions, named, strict=True):
        if digest:
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


def compare_table(evidence: Evidence, rows: Mapping[Key, Item]) -> None:
    """Invariant 6: the table is what the ledger says, and nothing is left to be logged."""
    assert not [key for key in rows if key.partition in ("OUTBOX", "CONFLICT")]
    index = replay.replay(entry.event for entry in evidence.entries)
    partitions: dict[str, dict[str, Item]] = defaultdict(dict)
    for key, row in rows.items():
        partitions[key.partition][key.sort] = row
    differences: list[replay.Difference] = []
    for name, part in partitions.items():
        if name.startswith("VERSION#"):
            reference = "@".join(name.split("#")[1:])
            differences += replay.compare_version(index, reference, part["HEAD"], below(part, "TRANSITION#"))
            differences += replay.compare_approvals(index, reference, below(part, "APPROVAL#"))
        elif name.startswith("MODEL#"):
            differences += replay.compare_pointers(index, name.removeprefix("MODEL#"), below(part, "POINTER#"))
    logins = {str(row["login"]): str(row["person"]) for key, row in rows.items() if key.partition.startswith("LOGIN#")}
    differences += replay.compare_people(index, logins)
    assert not differences, [difference.to_item() for difference in differences]
    assert {f"VERSION#{r.replace('@', '#')}" for r in evidence.versions} == {name for name in partitions if name.startswith("VERSION#")}
    listed = {key.partition.removeprefix("LEAF#"): row["index"] for key, row in rows.items() if key.partition.startswith("LEAF#")}
    assert listed == {str(entry.event["id"]): entry.index for entry in evidence.entries}


def below(part: Mapping[str, Item], prefix: str) -> list[Item]:
    return [row for sort, row in part.items() if sort.startswith(prefix)]


def outcome(evidence: Evidence, rows: Mapping[Key, Item]) -> dict[str, Any]:
    """What has happened, without times, addresses of bytes and what is drawn at random: invariant 7 asks that retries change nothing of it.

    Keys of predictions are left out: who does not get an answer asks again, and is answered under another number.
    """
    moves: dict[str, Any] = {}
    for reference, entries in evidence.versions.items():
        moves[reference] = [(e.kind, e.data["to"], e.data["reason"], e.data["version_digest"], facts_of(e)) for e in entries]
    others = [e for e in evidence.entries if "@" not in e.subject and not e.kind.startswith("key.")]
    heads = {f"{k.partition}/{k.sort}": row for k, row in rows.items() if k.sort == "HEAD" and k.partition.startswith("VERSION#")}
    pointers = {f"{k.partition}/{k.sort}": row for k, row in rows.items() if k.sort.startswith("POINTER#")}
    told = [facts_of(e) for e in others if e.kind != "audit.batch"]
    return {
        **moves,
        "events": dict(Counter(entry.kind for entry in others)),
        "facts": sorted(map(repr, told)),
        "heads": {
            name: {n: row.get(n) for n in ("attempt", "approved", "retires_on")} | {"waits": bool(row.get("token"))}
            for name, row in heads.items()
        },
        "pointers": {name: {n: row.get(n) for n in ("number", "previous", "capture_rate", "rev")} for name, row in pointers.items()},
    }


def facts_of(entry: Entry) -> dict[str, Any]:
    who = entry.event["principal"]
    told = {"login": who["login"], "person": who["person"], "subject": entry.subject}
    return {**told, **{name: entry.data[name] for name in FACTS if name in entry.data}}


# Pure functions of bytes, computed once for each content


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


parse_leaf = lru_cache(maxsize=None)(Leaf.parse)
parse_packet = lru_cache(maxsize=None)(Packet.parse)
read_artifact = lru_cache(maxsize=None)(ArtifactManifest.from_bytes)


@lru_cache(maxsize=None)
def milliseconds(at: str) -> int:
    return round(datetime.fromisoformat(at).timestamp() * 1000)


@lru_cache(maxsize=None)
def read_statement(envelope: bytes) -> Statement:
    """What an envelope holds; who signed it is checked where its move is."""
    return Statement.parse(read_envelope(envelope).payload)


@lru_cache(maxsize=None)
def policy_in(manifest: bytes) -> ApprovalPolicy:
    """The approval policy that a manifest asks for."""
    approval = read_manifest(manifest).manifest.approval
    people = approval.people
    return ApprovalPolicy(approval.automatic, people.roles if people else (), people.count if people else 0, approval.signed)


class Root:
    """The trusted root, with what was verified under it."""

    def __init__(self, trusted: TrustedRoot) -> None:
        self.trusted = trusted
        self.open_checkpoint = lru_cache(maxsize=None)(self._open_checkpoint)
        self.attested = lru_cache(maxsize=None)(self._attested)
        self.delegation = lru_cache(maxsize=None)(self._delegation)
        self.receipt = lru_cache(maxsize=None)(verify_receipt)

    def _open_checkpoint(self, note: bytes) -> Note:
        return open_note(note, [*self.trusted.ledger_verifiers(), *self.trusted.witness_verifiers()])

    def _attested(self, envelope: bytes, leaf: bytes, candidate: str) -> Statement:
        """Check that an envelope attests the move of a leaf, under the key of a function that may make it."""
        entry = parse_leaf(leaf)
        signer = self.trusted.signer(read_envelope(envelope).keyid, entry.logged)
        require_may_sign(signer.name, str(entry.event["kind"]), str(entry.event["data"]["to"]["stage"]))
        assert sha256(envelope) == entry.event["data"]["attestation"]
        statement = Statement.parse(verify_envelope(envelope, signer.der))
        check_attestation(statement, entry.event, candidate=candidate)
        return statement

    def _delegation(self, token: bytes, delegator: str, logged: str) -> Delegation:
        return verify_delegation(token.decode(), self.trusted.delegator(delegator, logged).der)


_ROOTS: dict[str, Root] = {}


def root_of(pin: bytes, files: Mapping[str, bytes]) -> Root:
    """The trusted root that the published metadata leads to from the pin."""
    name = sha256(b"".join(b"%s %d\n%s" % (n.encode(), len(files[n]), files[n]) for n in sorted(files)) + pin)
    if name not in _ROOTS:
        _ROOTS[name] = Root(verify_metadata(pin, files).trusted_root)
    return _ROOTS[name]
