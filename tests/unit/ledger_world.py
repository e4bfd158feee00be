"""A ledger over ports in memory: sequencers that may be killed and interleaved at any call, a real witness, and a checker of its own.

The checker reads the store and the commit row alone. Its trees are built by code of its own: a stack of complete subtrees.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from itertools import pairwise
from typing import Any

from attestry.domain.errors import AttestryError, UnavailableError
from attestry.domain.events import Event, timestamp
from attestry.domain.principal import registry_principal
from attestry.evidence.ledger_batch import Batch, LogState
from attestry.evidence.note import Algorithm, Checkpoint, Verifier, open_note, sign_note
from attestry.evidence.tlog import consistency_proof, verify_consistency
from attestry.ports import Key, Put, WitnessAnswer, WitnessRequest
from attestry.usecases.ledger_head import COMMIT, Head, archive_key, leaf_key, staging_key
from attestry.usecases.sequence import Sequenced, Sequencer
from attestry.usecases.witness import CheckpointConflictError, CheckpointRequest, Witness
from tests.fakes import FixedClock, Killed, LocalNoteSigner, MemoryMetaStore, MemoryObjectStore

ORIGIN = "attestry/123456789012/eu-central-1/attestry"
WITNESS = f"{ORIGIN}/witness"
PATH = re.compile(r"ledger/tile/(entries|\d+)/((?:x\d{3}/)*\d{3})(?:\.p/(\d+))?")


SEEDED = "2025-12-31T00:00:00.000000Z"


@lru_cache(maxsize=1)
def synthetic_leaves(size: int) -> list[bytes]:
    """Leaves of an old ledger, written without the code under test."""
    leaves = []
    for n in range(size):
        event_id = hashlib.sha256(f"old.event\nmodel@1\n{n}".encode()).hexdigest()
        event = (
            f'{{"at":"{SEEDED}","data":{{}},"format":1,"id":"{event_id}","kind":"old.event","principal":{{}},'
            f'"sequence":{n},"subject":"model@1"}}'
        )
        leaves.append(f'{{"event":{event},"logged":"{SEEDED}"}}'.encode())
    return leaves


class TickingClock(FixedClock):
    """A clock on which no two moments are the same."""

    def now(self) -> datetime:
        return self.advance(microseconds=1)


class DirectWitnesses:
    """`attestry.ports.Witnesses` over a real witness, which may be told to be silent."""

    def __init__(self, witness: Witness) -> None:
        self.witness = witness
        self.silent = False
        self.asked: list[tuple[int, int]] = []

    @property
    def names(self) -> tuple[str, ...]:
        return (WITNESS,)

    def cosign(self, note: bytes, asked: Mapping[str, WitnessRequest]) -> dict[str, WitnessAnswer]:
        return {name: self._ask(note, request) for name, request in asked.items()}

    def _ask(self, note: bytes, request: WitnessRequest) -> WitnessAnswer:
        size = int(note.split(b"\n")[1])
        self.asked.append((request.old_size, size))
        if self.silent:
            return WitnessAnswer(error="no answer")
        try:
            return WitnessAnswer(lines=(self.witness.add_checkpoint(CheckpointRequest(request.old_size, request.proof, note).to_body()),))
        except CheckpointConflictError as error:
            return WitnessAnswer(size=error.size, error=error.message)
        except AttestryError as error:
            return WitnessAnswer(error=error.message)


class World:
    """One ledger."""

    def __init__(self) -> None:
        self.meta, self.store = MemoryMetaStore(), MemoryObjectStore()
        self.clock = TickingClock()
        self.signer = LocalNoteSigner("ledger")
        self.witness_signer = LocalNoteSigner("witness")
        self.log_key = Verifier.of(ORIGIN, self.signer.public_key())
        self.witness_key = Verifier.of(WITNESS, self.witness_signer.public_key(), Algorithm.COSIGNATURE)
        self.witness_meta = MemoryMetaStore()
        witness = Witness(self.witness_meta, self.witness_signer, self.clock, WITNESS, {ORIGIN: [self.log_key]})
        self.witnesses = DirectWitnesses(witness)
        self.events: dict[str, bytes] = {}
        self.made = 0
        self.seeded = 0

    def sequencer(self, process: Process | None = None) -> Sequencer:
        def through(port: Any) -> Any:
            return Stepping(port, process) if process else port

        meta, store = through(self.meta), through(self.store)
        return Sequencer(meta, store, through(self.signer), through(self.witnesses), self.clock, ORIGIN)

    def run(self) -> Sequenced:
        return self.sequencer().run()

    def seed(self, size: int) -> None:
        """Make it a ledger of `size` leaves, published, as if long appended to; without index rows."""
        first = Batch(LogState(), tuple(synthetic_leaves(size)[:-5]))
        last = Batch(first.after, tuple(synthetic_leaves(size)[-5:]))
        head = None
        for batch in (Batch(LogState(), ()), first, last):
            edge = batch.after.edge
            note = sign_note(
                Checkpoint(ORIGIN, edge.size, edge.root()).to_text(), ORIGIN, self.signer.public_key(), self.signer.sign_ed25519
            )
            for path, raw, full in batch.objects():
                self.store.put_new(f"ledger/{path}", raw, retain=full)
            self.store.put_new(archive_key(edge.size), note, retain=True)
            staging = staging_key(edge.size, edge.root(), len(batch.leaves))
            head = Head(edge.size, edge.root(), note.decode(), SEEDED, staging, True, 1)
        assert head is not None
        self.store.put_new(head.staging, last.to_bytes())
        self.store.put("ledger/checkpoint", head.note.encode())
        self.meta.transact([Put(COMMIT, head.to_item())])
        self.seeded = size

    def add_events(self, count: int) -> list[bytes]:
        """Commit events to the outbox, as a use case does."""
        added = []
        for _ in range(count):
            self.made += 1
            event = Event("version.tested", "model@1", self.made, self.clock.now(), registry_principal("test"), {"n": self.made})
            raw = event.canonical_bytes()
            self.put_row(raw)
            self.events[event.event_id] = raw
            added.append(raw)
        return added

    def put_row(self, raw: bytes, **changes: Any) -> Key:
        event = json.loads(raw)
        key = Key("OUTBOX", changes.pop("sk", f"{event['at']}#{event['id'][:32]}"))
        self.meta.rows[key] = {"pk": key.partition, "sk": key.sort, "event": raw, "id": event["id"], **changes}
        return key

    def object(self, key: str) -> bytes:
        return self.store.versions[f"ledger/{key}"][-1].body

    def live(self) -> Checkpoint:
        return Checkpoint.parse(open_note(self.object("checkpoint"), [self.log_key]).text)

    def keys(self, prefix: str) -> list[str]:
        return sorted(k for k in self.store.versions if k.startswith(f"ledger/{prefix}"))

    def outbox(self) -> list[Key]:
        return [k for k in self.meta.rows if k.partition == "OUTBOX"]

    def conflicts(self) -> list[Any]:
        return [row for k, row in sorted(self.meta.rows.items(), key=lambda i: i[0].sort) if k.partition == "CONFLICT"]


# Processes that are interleaved and killed at any call of a port


class Process:
    """A process of a sequencer: gives way, or dies, at calls of ports."""

    def __init__(self, rng: random.Random, meanwhile: Callable[[], Any]) -> None:
        self.rng = rng
        self.meanwhile = meanwhile
        self.give_way: Callable[[], None] = lambda: None
        self.dies_at: int | None = None
        self.calls = 0
        self.deaths = 0

    def call(self, act: Callable[[], Any]) -> Any:
        if self.rng.random() < 0.35:
            self.give_way()
        elif self.rng.random() < 0.05:
            self.meanwhile()
        self.calls += 1
        due = self.calls == self.dies_at
        kind = self.rng.randrange(3) if due else 0
        if due and kind == 0:
            self._end(Killed())
        result = act()
        if due:
            self._end(Killed() if kind == 1 else UnavailableError("the answer was lost"))
        return result

    def _end(self, error: BaseException) -> None:
        self.deaths += 1
        raise error


class Stepping:
    """A port whose every call is a step of a process."""

    def __init__(self, port: Any, process: Process) -> None:
        self._port, self._process = port, process

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._port, name)
        if not callable(found) or name in ("public_key", "names"):
            return found
        return lambda *args, **kwargs: self._process.call(lambda: found(*args, **kwargs))


class Scheduler:
    """Lets several threads run one at a time, in an order that a seed decides."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._turns: dict[int, threading.Semaphore] = {}
        self._back = threading.Semaphore(0)
        self.errors: list[BaseException] = []

    def give_way(self) -> None:
        turn = self._turns[threading.get_ident()]
        self._back.release()
        turn.acquire()

    def run(self, *acts: Callable[[], None]) -> None:
        alive: dict[int, tuple[threading.Thread, threading.Semaphore]] = {}
        for number, act in enumerate(acts):
            turn = threading.Semaphore(0)
            alive[number] = (threading.Thread(target=self._body, args=(number, act, turn, alive), daemon=True), turn)
        for thread, _ in list(alive.values()):
            thread.start()
        while alive:
            self._rng.choice([turn for _, turn in alive.values()]).release()
            self._back.acquire()
        if self.errors:
            raise self.errors[0]

    def _body(self, number: int, act: Callable[[], None], turn: threading.Semaphore, alive: dict[int, Any]) -> None:
        self._turns[threading.get_ident()] = turn
        turn.acquire()
        try:
            act()
        except BaseException as error:  # noqa: BLE001 - raised again by the thread that waits
            self.errors.append(error)
        finally:
            del alive[number]
            self._back.release()


@dataclass
class Storm:
    """Two sequencers on one ledger, killed again and again.

    Attributes:
        world: the ledger.
        seed: decides everything.
        deaths: how often a process was killed or lost an answer.
        contended: how often one stepped back from the other's work.
        bad: number of outbox rows made that are no event, or another content under an event's ID.
    """

    world: World
    seed: int
    deaths: int = 0
    contended: int = 0
    bad: int = 0

    def blow(self, rounds: int) -> None:
        rng = random.Random(self.seed)
        sequencers: list[tuple[Process, Sequencer] | None] = [None, None]
        for _ in range(rounds):
            scheduler = Scheduler(rng)
            self._disturb(rng)
            self.world.witnesses.silent = rng.random() < 0.1

            def act(slot: int, scheduler: Scheduler = scheduler) -> None:
                process, sequencer = sequencers[slot] or self._start(rng)
                process.give_way = scheduler.give_way
                process.calls, process.dies_at = 0, rng.choice([None, *(rng.randrange(1, n) for n in (6, 6, 8, 12, 16, 20, 22))])
                try:
                    done = sequencer.run()
                    sequencers[slot] = (process, sequencer)
                    self.contended += done.contended
                except Killed:
                    sequencers[slot] = None
                except UnavailableError:
                    sequencers[slot] = (process, sequencer)
                finally:
                    self.deaths += process.deaths
                    process.deaths = 0

            scheduler.run(*(lambda slot=slot: act(slot) for slot in rng.choice([(0,), (0, 1), (0, 1), (1,)])))
        self.world.witnesses.silent = False

    def _start(self, rng: random.Random) -> tuple[Process, Sequencer]:
        process = Process(rng, lambda: self.world.add_events(1))
        return process, self.world.sequencer(process)

    def _disturb(self, rng: random.Random) -> None:
        world = self.world
        world.clock.at += timedelta(seconds=rng.choice([-3, 0, 0, 1, 60]))
        added = world.add_events(rng.choice([0, 0, 1, 1, 2, 5]))
        if world.events and rng.random() < 0.1:
            world.put_row(rng.choice(list(world.events.values())))
        if added and rng.random() < 0.1:
            twin = json.loads(added[0])
            twin["data"] = {"n": "other"}
            twin["at"] = timestamp(world.clock.now() + timedelta(seconds=1))
            world.put_row(json.dumps(twin, sort_keys=True, separators=(",", ":")).encode())
            self.bad += 1
        if rng.random() < 0.03:
            world.meta.transact([Put(Key("OUTBOX", f"0#{world.made}#{rng.random()}"), {"event": b"no event"})])
            self.bad += 1


# The independent checker


class Tree:
    """Roots of a growing tree, from a stack of complete subtrees: RFC 6962, without any of the code under test."""

    def __init__(self) -> None:
        self.size = 0
        self._stack: list[tuple[int, bytes]] = []

    def add(self, leaf: bytes) -> None:
        height, node = 0, hashlib.sha256(b"\x00" + leaf).digest()
        while self._stack and self._stack[-1][0] == height:
            node = hashlib.sha256(b"\x01" + self._stack.pop()[1] + node).digest()
            height += 1
        self._stack.append((height, node))
        self.size += 1

    def root(self) -> bytes:
        if not self._stack:
            return hashlib.sha256(b"").digest()
        node = self._stack[-1][1]
        for _, left in reversed(self._stack[:-1]):
            node = hashlib.sha256(b"\x01" + left + node).digest()
        return node


@dataclass
class Found:
    """What the checker read.

    Attributes:
        leaves: all leaves.
        checkpoints: the archived ones, by size.
        tiles: number of tiles and bundles that were compared.
    """

    leaves: list[bytes]
    checkpoints: dict[int, Checkpoint]
    tiles: int


def check(world: World) -> Found:
    """Check a ledger by its objects and its commit row; raise AssertionError where anything is not as it must be."""
    row = world.meta.rows[COMMIT]
    size = int(row["size"])
    leaves = read_leaves(world, size)
    tree = Tree()
    archived = {int(k.rpartition("/")[2]): open_note(world.store.versions[k][0].body, [world.log_key]) for k in world.keys("checkpoints/")}
    checkpoints = {n: Checkpoint.parse(note.text) for n, note in archived.items()}
    roots = {0: tree.root()}
    for leaf in leaves:
        tree.add(leaf)
        if tree.size in checkpoints:
            roots[tree.size] = tree.root()
    assert row["root"] == tree.root().hex()
    for number, checkpoint in checkpoints.items():
        assert checkpoint == Checkpoint(ORIGIN, number, roots[number]), f"checkpoint {number}"
    assert size in checkpoints
    check_prefixes(world, checkpoints)
    check_leaves(leaves[world.seeded :])
    for key, versions in world.store.versions.items():
        assert key == "ledger/checkpoint" or len(versions) == 1, f"{key} was written twice"
        full = bool(PATH.fullmatch(key)) and ".p/" not in key
        assert versions[0].retained == (full or key.startswith("ledger/checkpoints/")), f"lock of {key}"
    return Found(leaves, checkpoints, check_tiles(world, leaves, checkpoints))


def read_leaves(world: World, size: int) -> list[bytes]:
    leaves: list[bytes] = []
    while len(leaves) < size:
        width = min(256, size - len(leaves))
        raw = world.object(f"tile/entries/{number_path(len(leaves) // 256)}{f'.p/{width}' if width < 256 else ''}")
        place = 0
        for _ in range(width):
            length = int.from_bytes(raw[place : place + 2], "big")
            leaves.append(raw[place + 2 : place + 2 + length])
            place += 2 + length
        assert place == len(raw)
    return leaves


def check_leaves(leaves: list[bytes]) -> None:
    """Check that batch times never decrease and that no event is there twice."""
    seen: set[str] = set()
    last = ""
    for leaf in leaves:
        value = json.loads(leaf)
        event = value["event"]
        assert value["logged"] >= last
        assert event["id"] == hashlib.sha256(f"{event['kind']}\n{event['subject']}\n{event['sequence']}".encode()).hexdigest()
        assert event["id"] not in seen, "an event is in the ledger twice"
        seen.add(event["id"])
        last = value["logged"]


def check_prefixes(world: World, checkpoints: Mapping[int, Checkpoint]) -> None:
    """Check that each checkpoint is proven a prefix of the next, by the published tiles."""

    def read(level: int, index: int, width: int) -> bytes:
        return world.object(f"tile/{level}/{number_path(index)}{f'.p/{width}' if width < 256 else ''}")

    sizes = sorted(checkpoints)
    for old, new in pairwise(sizes):
        proof = consistency_proof(read, old, new)
        verify_consistency(old, new, proof, checkpoints[old].root, checkpoints[new].root)


def check_tiles(world: World, leaves: list[bytes], checkpoints: Mapping[int, Checkpoint]) -> int:
    """Check every published tile and bundle against the leaves, and that those of each checkpoint are there."""
    levels = [[hashlib.sha256(b"\x00" + leaf).digest() for leaf in leaves]]
    while len(levels[-1]) >= 256:
        below = levels[-1]
        levels.append([perfect_root(below[n : n + 256]) for n in range(0, len(below) - 255, 256)])
    there = set()
    for key in world.keys("tile/"):
        match = PATH.fullmatch(key)
        assert match, key
        number, width = int(match[2].replace("/", "").replace("x", "")), int(match[3] or 256)
        start = number * 256
        if match[1] == "entries":
            part = leaves[start : start + width]
            expected = b"".join(len(leaf).to_bytes(2, "big") + leaf for leaf in part)
        else:
            part = levels[int(match[1])][start : start + width]
            expected = b"".join(part)
        assert len(part) == width, f"{key} is wider than the ledger"
        assert world.store.versions[key][0].body == expected, key
        there.add(key)
    for size in checkpoints:
        for level in range(len(levels)):
            count = size >> 8 * level
            if count % 256:
                name = f"{number_path(count // 256)}.p/{count % 256}"
                assert f"ledger/tile/{level}/{name}" in there
                assert level or f"ledger/tile/entries/{name}" in there
    for level, hashes in enumerate(levels):
        assert all(f"ledger/tile/{level}/{number_path(n)}" in there for n in range(len(hashes) // 256))
    return len(there)


def perfect_root(hashes: list[bytes]) -> bytes:
    while len(hashes) > 1:
        hashes = [hashlib.sha256(b"\x01" + hashes[n] + hashes[n + 1]).digest() for n in range(0, len(hashes), 2)]
    return hashes[0]


def number_path(number: int) -> str:
    digits = f"{number:03d}"
    digits = digits.zfill(-(-len(digits) // 3) * 3)
    parts = [digits[n : n + 3] for n in range(0, len(digits), 3)]
    return "/".join([*(f"x{p}" for p in parts[:-1]), parts[-1]])


def logged_events(world: World) -> list[bytes]:
    return [
        json.dumps(json.loads(leaf)["event"], sort_keys=True, separators=(",", ":")).encode()
        for leaf in check(world).leaves[world.seeded :]
    ]


def settle(world: World) -> None:
    """Run without faults until there is nothing left to do."""
    for _ in range(3):
        done = world.run()
    assert not done.lacking
    assert not done.contended
    assert not world.outbox()


def check_all_is_there(world: World) -> None:
    """Check that each committed event is in the ledger once, as it was committed, and that the index says where."""
    assert sorted(logged_events(world)) == sorted(world.events.values())
    for index, event in enumerate(logged_events(world), start=world.seeded):
        row = world.meta.rows[leaf_key(json.loads(event)["id"])]
        assert row["index"] == index
    note = open_note(world.object("checkpoint"), [world.log_key, world.witness_key])
    assert {s.name for s in note.verified} == {ORIGIN, WITNESS}
    assert Checkpoint.parse(note.text).size == world.meta.rows[COMMIT]["size"]


def another_content(raw: bytes, *, at: str | None = None) -> bytes:
    event = json.loads(raw)
    event["data"] = {"n": -1}
    event["at"] = at or event["at"]
    return json.dumps(event, sort_keys=True, separators=(",", ":")).encode()
