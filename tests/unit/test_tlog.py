"""The Merkle tree against RFC 6962's own recursive definitions, and against published vectors."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attestry.domain.errors import IntegrityError, InvalidInputError
from attestry.evidence.tlog import (
    EMPTY_ROOT,
    RightEdge,
    Tile,
    audit_path,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    node_hash,
    read_edge,
    tile_at,
    tree_root,
    verify_consistency,
    verify_inclusion,
)

LEAVES = [bytes.fromhex(h) for h in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")]
"""The leaves of Certificate Transparency's reference tests, whose roots and proofs follow."""

ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
INCLUSION_0_OF_8 = [
    "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
    "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
    "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
]

SIZES = st.one_of(st.integers(1, 40), st.sampled_from([255, 256, 257, 511, 512, 513, 700]), st.integers(41, 1100))
BIG = [leaf_hash(n.to_bytes(4, "big")) for n in range(1200)]


def naive_root(hashes: Sequence[bytes]) -> bytes:
    """MTH of RFC 6962 section 2.1, word for word."""
    n = len(hashes)
    if n == 0:
        return hashlib.sha256(b"").digest()
    if n == 1:
        return hashes[0]
    k = split(n)
    return hashlib.sha256(b"\x01" + naive_root(hashes[:k]) + naive_root(hashes[k:])).digest()


def naive_path(m: int, hashes: Sequence[bytes]) -> list[bytes]:
    """PATH of RFC 6962 section 2.1.1, word for word."""
    n = len(hashes)
    if n == 1:
        return []
    k = split(n)
    if m < k:
        return [*naive_path(m, hashes[:k]), naive_root(hashes[k:])]
    return [*naive_path(m - k, hashes[k:]), naive_root(hashes[:k])]


def naive_consistency(m: int, hashes: Sequence[bytes], whole: bool = True) -> list[bytes]:
    """SUBPROOF of RFC 6962 section 2.1.2, word for word."""
    n = len(hashes)
    if m == n:
        return [] if whole else [naive_root(hashes)]
    k = split(n)
    if m <= k:
        return [*naive_consistency(m, hashes[:k], whole), naive_root(hashes[k:])]
    return [*naive_consistency(m - k, hashes[k:], False), naive_root(hashes[:k])]


def split(n: int) -> int:
    k = 1
    while k * 2 < n:
        k *= 2
    return k


class Log:
    """Tiles of a log, appended in the given portions."""

    def __init__(self, *portions: Sequence[bytes]) -> None:
        self.tiles: dict[Tile, bytes] = {}
        self.edge = RightEdge()
        for portion in portions:
            self.edge, added = self.edge.append(portion)
            assert not self.tiles.keys() & added.keys()
            self.tiles.update(added)

    def read(self, level: int, index: int, width: int) -> bytes:
        return self.tiles[Tile(level, index, width)]


def test_roots_are_those_of_certificate_transparencys_reference_tests() -> None:
    hashes = [leaf_hash(leaf) for leaf in LEAVES]
    assert [tree_root(hashes[:n]).hex() for n in range(9)] == ROOTS
    assert [Log(hashes[:n]).edge.root().hex() for n in range(9)] == ROOTS


def test_an_inclusion_proof_is_that_of_the_reference_tests() -> None:
    hashes = [leaf_hash(leaf) for leaf in LEAVES]
    log = Log(hashes)
    assert [h.hex() for h in inclusion_proof(log.read, 0, 8)] == INCLUSION_0_OF_8
    assert [h.hex() for h in audit_path(hashes, 0)] == INCLUSION_0_OF_8
    verify_inclusion(hashes[0], 0, 8, [bytes.fromhex(h) for h in INCLUSION_0_OF_8], bytes.fromhex(ROOTS[8]))


def test_proofs_between_all_small_trees_are_those_of_the_rfc_and_verify() -> None:
    for size in range(1, 34):
        hashes, log = BIG[:size], Log(BIG[:size])
        root = naive_root(hashes)
        for index in range(size):
            proof = inclusion_proof(log.read, index, size)
            assert proof == naive_path(index, hashes) == audit_path(hashes, index)
            verify_inclusion(hashes[index], index, size, proof, root)
        for old in range(1, size + 1):
            proof = consistency_proof(log.read, old, size)
            assert proof == naive_consistency(old, hashes)
            verify_consistency(old, size, proof, naive_root(hashes[:old]), root)
        verify_consistency(0, size, [], EMPTY_ROOT, root)


@settings(max_examples=60, deadline=None)
@given(size=SIZES, cuts=st.lists(st.integers(0, 1100), max_size=4), data=st.data())
def test_a_log_grown_in_any_portions_has_the_tree_of_the_rfc(size: int, cuts: list[int], data: st.DataObject) -> None:
    places = sorted({0, size, *(c for c in cuts if c < size)})
    log = Log(*(BIG[a:b] for a, b in pairwise(places)))
    hashes = BIG[:size]
    assert log.edge.root() == tree_root(hashes) == naive_root(hashes)
    assert read_edge(log.read, size) == log.edge
    index = data.draw(st.integers(0, size - 1))
    assert inclusion_proof(log.read, index, size) == naive_path(index, hashes)
    old = data.draw(st.integers(1, size))
    proof = consistency_proof(log.read, old, size)
    assert proof == naive_consistency(old, hashes)
    verify_consistency(old, size, proof, naive_root(hashes[:old]), log.edge.root())


@settings(max_examples=60, deadline=None)
@given(size=st.integers(2, 600), data=st.data())
def test_a_proof_with_one_hash_changed_missing_added_or_moved_is_refused(size: int, data: st.DataObject) -> None:
    hashes, log = BIG[:size], Log(BIG[:size])
    index, old = data.draw(st.integers(0, size - 1)), data.draw(st.integers(1, size - 1))
    root, old_root = log.edge.root(), tree_root(hashes[:old])
    included, consistent = inclusion_proof(log.read, index, size), consistency_proof(log.read, old, size)
    for bad in damaged(included, data):
        with pytest.raises(IntegrityError):
            verify_inclusion(hashes[index], index, size, bad, root)
    for bad in damaged(consistent, data):
        with pytest.raises(IntegrityError):
            verify_consistency(old, size, bad, old_root, root)


def damaged(proof: list[bytes], data: st.DataObject) -> list[list[bytes]]:
    place = data.draw(st.integers(0, len(proof) - 1))
    flipped = bytes([proof[place][0] ^ 1]) + proof[place][1:]
    return [
        proof[:-1],
        proof[1:],
        [*proof, EMPTY_ROOT],
        [*proof[:place], flipped, *proof[place + 1 :]],
        [*proof[:place], proof[place][:-1], *proof[place + 1 :]],
        [*proof[:place], proof[place] + b"\0", *proof[place + 1 :]],
    ]


@pytest.mark.parametrize("size", [2, 3, 7, 8, 9, 255, 256, 257])
def test_a_leaf_is_not_proven_at_another_index_or_in_a_tree_of_another_size(size: int) -> None:
    log, root = Log(BIG[:size]), tree_root(BIG[:size])
    proof = inclusion_proof(log.read, 1, size)
    for index, total in ((0, size), (1, size + 256), (1, 1), (-1, size), (size, size), (1 + 2 * size, size)):
        with pytest.raises(IntegrityError):
            verify_inclusion(BIG[1], index, total, proof, root)


def test_an_inner_node_does_not_pass_for_a_leaf() -> None:
    hashes = [leaf_hash(leaf) for leaf in LEAVES[:4]]
    inner = hashes[0] + hashes[1]
    assert leaf_hash(inner) != node_hash(hashes[0], hashes[1])
    with pytest.raises(IntegrityError):
        verify_inclusion(leaf_hash(inner), 0, 2, [node_hash(hashes[2], hashes[3])], tree_root(hashes))


def test_a_fork_of_the_same_size_and_a_rewritten_past_are_not_consistent() -> None:
    forked = [*BIG[:299], leaf_hash(b"other")]
    with pytest.raises(IntegrityError):
        verify_consistency(300, 300, [], tree_root(BIG[:300]), tree_root(forked))
    log = Log([*forked, *BIG[300:400]])
    proof = consistency_proof(log.read, 300, 400)
    with pytest.raises(IntegrityError):
        verify_consistency(300, 400, proof, tree_root(BIG[:300]), log.edge.root())


def test_nothing_but_no_hash_proves_what_needs_no_proof() -> None:
    root = tree_root(BIG[:5])
    for old, old_root in ((0, EMPTY_ROOT), (5, root)):
        verify_consistency(old, 5, [], old_root, root)
        with pytest.raises(IntegrityError):
            verify_consistency(old, 5, [root], old_root, root)
    with pytest.raises(IntegrityError):
        verify_consistency(0, 5, [], root, root)
    for old, new in ((6, 5), (-1, 5)):
        with pytest.raises(IntegrityError):
            verify_consistency(old, new, [], root, root)
        with pytest.raises(InvalidInputError):
            consistency_proof(Log(BIG[:5]).read, old, new)


def test_tiles_have_the_paths_of_the_standard() -> None:
    assert Tile(0, 1234067, 256).path == "tile/0/x001/x234/067"
    assert Tile(1, 0, 17).path == "tile/1/000.p/17"
    assert Tile(0, 273, 112).entries_path == "tile/entries/273.p/112"
    assert Tile(2, 1000, 256).path == "tile/2/x001/000"


def test_a_tree_of_70000_leaves_has_the_tiles_that_the_standard_counts() -> None:
    hashes = [leaf_hash(n.to_bytes(4, "big")) for n in range(70000)]
    log = Log(hashes)
    widths = {level: sorted((t.index, t.width) for t in log.tiles if t.level == level) for level in range(3)}
    assert widths[0] == [(n, 256) for n in range(273)] + [(273, 112)]
    assert widths[1] == [(0, 256), (1, 17)]
    assert widths[2] == [(0, 1)]
    assert tile_at(0, 273, 70000) == Tile(0, 273, 112)
    old = 65537
    proof = consistency_proof(log.read, old, 70000)
    verify_consistency(old, 70000, proof, tree_root(hashes[:old]), log.edge.root())
    verify_inclusion(hashes[65536], 65536, 70000, inclusion_proof(log.read, 65536, 70000), log.edge.root())


def test_a_tree_of_256_leaves_has_one_full_tile_and_one_hash_above_it() -> None:
    assert {(t.level, t.index, t.width) for t in Log(BIG[:255], BIG[255:256]).tiles} == {(0, 0, 255), (0, 0, 256), (1, 0, 1)}


@pytest.mark.parametrize(("level", "index"), [(0, 2), (1, 1), (2, 0), (-1, 0), (0, -1)])
def test_a_tile_beyond_the_tree_is_refused(level: int, index: int) -> None:
    with pytest.raises(InvalidInputError):
        tile_at(level, index, 512)


def test_an_edge_of_another_shape_than_its_size_has_is_refused() -> None:
    edge = Log(BIG[:300]).edge
    for size, tiles in ((301, edge.tiles), (300, edge.tiles[:1]), (300, (*edge.tiles, ())), (300, ((b"short",) * 44, edge.tiles[1]))):
        with pytest.raises(InvalidInputError):
            RightEdge(size, tiles)


def test_a_tile_of_another_length_is_refused() -> None:
    log = Log(BIG[:300])
    with pytest.raises(IntegrityError):
        inclusion_proof(lambda *tile: log.read(*tile)[:-1], 3, 300)


def test_an_append_writes_as_many_tiles_to_a_log_of_a_million_leaves_as_to_one_of_a_thousand() -> None:
    full = (BIG[0],) * 255

    def edge(size: int) -> RightEdge:
        widths = []
        while size >> 8 * len(widths):
            widths.append((size >> 8 * len(widths)) % 256)
        return RightEdge(size, tuple(full[:w] for w in widths))

    small, large = edge(1_000).append(BIG[:10])[1], edge(1_000_000).append(BIG[:10])[1]
    assert len(small) == len(large) == 1
