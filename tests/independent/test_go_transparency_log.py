"""Go's own transparency-log packages check our checkpoints, cosignatures, tiles and proofs."""

from __future__ import annotations

import base64
import random
from collections.abc import Callable
from copy import deepcopy
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from attestry.evidence.note import Algorithm, Checkpoint, Verifier, add_signatures, parse_signature, sign_note, vkey
from attestry.evidence.tlog import RightEdge, Tile, consistency_proof, inclusion_proof, leaf_hash, node_hash, tile_at
from attestry.usecases.witness import CheckpointRequest, Witness
from tests.fakes import FixedClock, LocalNoteSigner, MemoryMetaStore
from tests.independent.gotool import judge
from tests.unit.ledger_world import Storm, World, read_leaves

ORIGIN = "attestry/123456789012/eu-central-1/attestry"
WITNESS = "attestry-witness/210987654321"
SIZES = (1, 2, 3, 255, 256, 257, 600, 66000)
"""Across the edges of tiles, and into a third level of them."""


class PublishedLog:
    """A log that grows in batches, its tiles and entries in a folder as in the store, each checkpoint cosigned by a witness."""

    def __init__(self, folder: Path, signer: LocalNoteSigner | None = None) -> None:
        self.folder = folder
        self.signer, witness_signer = signer or LocalNoteSigner("log"), LocalNoteSigner("witness")
        self.vkey = vkey(ORIGIN, self.signer.public_key())
        self.witness_vkey = vkey(WITNESS, witness_signer.public_key(), Algorithm.COSIGNATURE)
        logs = {ORIGIN: (Verifier.of(ORIGIN, self.signer.public_key()),)}
        self.witness = Witness(MemoryMetaStore(), witness_signer, FixedClock(), WITNESS, logs)
        self.edge, self.leaves, self.checkpoints = RightEdge(), list[bytes](), dict[int, str]()

    def append(self, leaves: list[bytes]) -> None:
        before = self.edge.size
        self.edge, tiles = self.edge.append([leaf_hash(leaf) for leaf in leaves])
        self.leaves += leaves
        for tile, data in tiles.items():
            self._write(tile.path, data)
        for index in range(before // 256, (self.edge.size - 1) // 256 + 1):
            part = self.leaves[index * 256 : min((index + 1) * 256, self.edge.size)]
            entries = b"".join(len(leaf).to_bytes(2, "big") + leaf for leaf in part)
            self._write(tile_at(0, index, self.edge.size).entries_path, entries)
        self._publish(before)

    def _publish(self, before: int) -> None:
        size = self.edge.size
        note = self.sign(Checkpoint(ORIGIN, size, self.edge.root()))
        request = CheckpointRequest(before, tuple(consistency_proof(self.read_tile, before, size)), note)
        line = self.witness.add_checkpoint(request.to_body())
        self.checkpoints[size] = add_signatures(note, [parse_signature(line)]).decode()

    def sign(self, checkpoint: Checkpoint) -> bytes:
        return sign_note(checkpoint.to_text(), ORIGIN, self.signer.public_key(), self.signer.sign_ed25519)

    def read_tile(self, level: int, index: int, width: int) -> bytes:
        return (self.folder / Tile(level, index, width).path).read_bytes()

    def _write(self, path: str, data: bytes) -> None:
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)

    def case(self, size: int, indexes: list[int], older: int | None = None) -> dict[str, Any]:
        """Everything of the tree of this size that the program can check."""
        proofs = [(i, self.leaves[i], inclusion_proof(self.read_tile, i, size)) for i in indexes]
        return {
            "checkpoint": self.checkpoints[size],
            "vkey": self.vkey,
            "witnesses": [self.witness_vkey],
            "leaves": [{"index": i, "data": b64(data), "proof": [b64(h) for h in proof]} for i, data, proof in proofs],
            "older": self.checkpoints[older] if older else "",
            "consistency": [b64(h) for h in consistency_proof(self.read_tile, older, size)] if older else [],
            "tiles": str(self.folder),
        }


class ExportedLedger(PublishedLog):
    """What a real ledger has in its store, copied as a downloader would."""

    def __init__(self, world: World, folder: Path) -> None:
        self.folder, self.vkey, self.witness_vkey = folder, world.log_key.vkey(), world.witness_key.vkey()
        for key in world.keys("tile/"):
            self._write(key.removeprefix("ledger/"), world.store.versions[key][0].body)
        archived = {int(key.rpartition("/")[2]): world.store.versions[key][0].body.decode() for key in world.keys("checkpoints/")}
        self.checkpoints = {size: note for size, note in archived.items() if size}
        self.leaves = read_leaves(world, max(archived))

    def case(self, size: int, indexes: list[int], older: int | None = None) -> dict[str, Any]:
        # A witness may have been silent when the checkpoint was archived.
        cosigned = f"\n— {self.witness_vkey.partition('+')[0]} " in self.checkpoints[size]
        return {**super().case(size, indexes, older), "witnesses": [self.witness_vkey] if cosigned else []}


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> PublishedLog:
    log = PublishedLog(tmp_path_factory.mktemp("log"))
    for size in SIZES:
        log.append([b'{"event":{"n":%d},"logged":"2026-01-02T03:04:05.000000Z"}' % n for n in range(len(log.leaves), size)])
    return log


def test_checkpoints_cosignatures_tiles_and_proofs_of_every_size_verify(log: PublishedLog) -> None:
    choose = random.Random(7)
    cases = []
    for place, size in enumerate(SIZES):
        indexes = sorted({0, size - 1, size // 2, *(choose.randrange(size) for _ in range(12))})
        cases += [log.case(size, indexes, older) for older in (None, *SIZES[: place + 1])]
    assert judge(cases) == [""] * len(cases)


def test_a_log_that_grew_in_random_steps_has_the_tiles_and_proofs_that_go_computes(tmp_path: Path) -> None:
    choose, log = random.Random(11), PublishedLog(tmp_path)
    while log.edge.size < 1500:
        log.append([choose.randbytes(choose.randrange(200)) for _ in range(choose.choice([1, 2, 30, 255, 256, 257]))])
    sizes = sorted(log.checkpoints)
    cases = [log.case(size, [choose.randrange(size) for _ in range(5)], choose.choice([s for s in sizes if s <= size])) for size in sizes]
    assert judge(cases) == [""] * len(cases)


def test_what_the_sequencer_published_verifies(tmp_path: Path) -> None:
    world = World()
    for count in (1, 2, 300, 700, 1):
        world.add_events(count)
        world.run()
    log = ExportedLedger(world, tmp_path)
    sizes = sorted(log.checkpoints)
    cases = [log.case(size, [0, size // 2, size - 1], older) for size in sizes for older in sizes if older <= size]
    assert sizes[-1] == 1004
    assert all(case["witnesses"] for case in cases)
    assert judge(cases) == [""] * len(cases)


def test_what_two_sequencers_published_while_they_were_killed_again_and_again_verifies(tmp_path: Path) -> None:
    storm = Storm(World(), seed=17)
    storm.blow(150)
    storm.world.run()
    log = ExportedLedger(storm.world, tmp_path)
    sizes = sorted(log.checkpoints)
    cases = [log.case(new, [0, new - 1], old) for old, new in pairwise(sizes)]
    assert storm.deaths
    assert len(cases) > 20
    assert judge(cases) == [""] * len(cases)


def change_the_size(case: dict[str, Any]) -> None:
    case["checkpoint"] = case["checkpoint"].replace("\n600\n", "\n601\n")


def change_the_root(case: dict[str, Any]) -> None:
    root = case["checkpoint"].split("\n")[2]
    case["checkpoint"] = case["checkpoint"].replace(root, b64(bytes(32)))


def change_the_origin(case: dict[str, Any]) -> None:
    case["checkpoint"] = case["checkpoint"].replace(ORIGIN, f"{ORIGIN}2")


def drop_the_cosignature(case: dict[str, Any]) -> None:
    case["checkpoint"] = "".join(line for line in case["checkpoint"].splitlines(keepends=True) if WITNESS not in line)


def date_the_cosignature_back(case: dict[str, Any]) -> None:
    old = next(line for line in case["checkpoint"].splitlines() if WITNESS in line)
    raw = bytearray(base64.b64decode(old.split(" ")[2]))
    raw[11] ^= 1
    case["checkpoint"] = case["checkpoint"].replace(old.split(" ")[2], b64(bytes(raw)))


def trust_another_log_key(case: dict[str, Any]) -> None:
    case["vkey"] = vkey(ORIGIN, LocalNoteSigner("mallory").public_key())


def trust_another_witness(case: dict[str, Any]) -> None:
    case["witnesses"] = [vkey(WITNESS, LocalNoteSigner("mallory").public_key(), Algorithm.COSIGNATURE)]


def change_a_leaf(case: dict[str, Any]) -> None:
    leaf = case["leaves"][0]
    leaf["data"] = b64(base64.b64decode(leaf["data"]).replace(b"2026", b"2025"))


def move_a_leaf(case: dict[str, Any]) -> None:
    case["leaves"][0]["index"] += 1


def cut_an_inclusion_proof(case: dict[str, Any]) -> None:
    case["leaves"][0]["proof"].pop()


def lengthen_an_inclusion_proof(case: dict[str, Any]) -> None:
    case["leaves"][0]["proof"].append(b64(bytes(32)))


def change_an_inclusion_proof(case: dict[str, Any]) -> None:
    case["leaves"][0]["proof"][2] = b64(bytes(32))


def pass_an_inner_node_for_a_leaf(case: dict[str, Any]) -> None:
    """Second preimage: two sibling hashes as the data of a leaf, one step up the tree."""
    leaf = case["leaves"][0]
    assert leaf["index"] == 0
    left, right = leaf_hash(base64.b64decode(leaf["data"])), base64.b64decode(leaf["proof"][0])
    assert node_hash(left, right) != leaf_hash(left + right)
    leaf.update(data=b64(left + right), proof=leaf["proof"][1:])


def change_a_consistency_proof(case: dict[str, Any]) -> None:
    case["consistency"][0] = b64(bytes(32))


def cut_a_consistency_proof(case: dict[str, Any]) -> None:
    case["consistency"].pop()


TAMPERED: dict[Callable[[dict[str, Any]], None], str] = {
    change_the_size: "checkpoint: ",
    change_the_root: "checkpoint: ",
    change_the_origin: "checkpoint: ",
    drop_the_cosignature: "checkpoint: 1 of 2 keys signed",
    date_the_cosignature_back: "checkpoint: ",
    trust_another_log_key: "checkpoint: ",
    trust_another_witness: "checkpoint: ",
    change_a_leaf: "inclusion: ",
    move_a_leaf: "inclusion: ",
    cut_an_inclusion_proof: "inclusion: ",
    lengthen_an_inclusion_proof: "inclusion: ",
    change_an_inclusion_proof: "inclusion: ",
    pass_an_inner_node_for_a_leaf: "inclusion: ",
    change_a_consistency_proof: "consistency: ",
    cut_a_consistency_proof: "consistency: ",
}


@pytest.mark.parametrize("tamper", TAMPERED)
def test_a_changed_checkpoint_leaf_or_proof_is_refused(log: PublishedLog, tamper: Callable[[dict[str, Any]], None]) -> None:
    case = log.case(600, [0, 300], 257)
    changed = deepcopy(case)
    tamper(changed)
    (good, reason) = judge([case, changed])
    assert good == ""
    assert reason.startswith(TAMPERED[tamper])


def test_a_rewritten_log_is_no_continuation_whatever_it_signs(log: PublishedLog, tmp_path: Path) -> None:
    fork = PublishedLog(tmp_path, log.signer)
    fork.append([b"rewritten", *log.leaves[1:257]])
    fork.append(log.leaves[257:600])
    case = {**fork.case(600, [5], 257), "older": log.checkpoints[257]}
    (reason,) = judge([case])
    assert reason.startswith("consistency: ")


@pytest.mark.parametrize("path", ["tile/0/001", "tile/0/002.p/88", "tile/1/000.p/2", "tile/entries/000"])
def test_a_changed_tile_or_entry_is_refused(tmp_path: Path, path: str) -> None:
    log = PublishedLog(tmp_path)
    log.append([b"leaf %d" % n for n in range(600)])
    case = log.case(600, [0, 300, 599])
    file = log.folder / path
    data = bytearray(file.read_bytes())
    data[5] ^= 1
    file.write_bytes(data)
    (reason,) = judge([case])
    assert reason.startswith("tiles: ")
