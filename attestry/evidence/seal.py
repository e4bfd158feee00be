"""Seals: the Merkle root over a batch of receipts, and the closing of a key.

The receipts of one key are archived in batches, an object of lines each. A batch is a run of sequence numbers without a gap. Its seal
is the RFC 6962 root over the receipts' compact JWS bytes in the order of their numbers, as the event `key.sealed`; once nothing more
can be acknowledged under the key the event `key.closed` says how many seals there are and where numbers are missing.

    lines = [batch_line(n, at, receipt) for ...]            # the object's bytes are b"".join(lines)
    root = seal_root(receipts)                              # goes into the event
    proof = prove_receipt(receipts, index)                  # what a bundle carries
    verify_sealed(receipt, prediction_id, proof, seal)      # what anybody checks

Rules:
- A seal covers exactly `first` to `last`: its count is their distance, so a receipt's number gives its place in the tree.
- A receipt is the leaf as it stands, byte for byte; the object's lines are for people and tools, the proof rests on the receipts alone.
- The seals of a closed key cover 1 to `last` but for the gaps that the closing names, and nothing twice.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from attestry.domain.errors import IntegrityError, InvalidInputError
from attestry.evidence.canonical import canonical_bytes, parse_canonical, parse_strict
from attestry.evidence.digests import is_sha256
from attestry.evidence.prediction_id import MAX_SEQUENCE, PredictionId, is_key_id
from attestry.evidence.tlog import audit_path, leaf_hash, tree_root, verify_inclusion

MAX_RECEIPTS: Final = 10_000
"""Receipts under one seal at most."""

SEALED, CLOSED = "key.sealed", "key.closed"

_PLAIN = re.compile(r"[A-Za-z0-9_.:-]*")
_LINE = re.compile(r'\{"at":"([A-Za-z0-9_.:-]*)","receipt":"([A-Za-z0-9_.:-]*)","sequence":([1-9][0-9]{0,11})\}')
_SEALED_FIELDS = {
    "kid": str,
    "model": str,
    "number": int,
    "first": int,
    "last": int,
    "count": int,
    "root": str,
    "object": str,
    "object_sha256": str,
    "captured": int,
    "final": bool,
}
_CLOSED_FIELDS = {"kid": str, "model": str, "number": int, "last": int, "count": int, "gaps": list, "sealed": int, "final": bool}


@dataclass(frozen=True)
class Seal:
    """What `key.sealed` says of a batch.

    Attributes:
        kid: the key ID.
        model: the model's name.
        number: the version's number.
        first: sequence number of the first receipt.
        last: sequence number of the last receipt.
        root: RFC 6962 root over the receipts, 32 bytes.
        object: key of the batch object in the model store.
        object_sha256: its digest, hex.
        captured: how many of the predictions had their payload captured.

    Raises:
        IntegrityError: on creation, when a field has not the form that a seal needs.
    """

    kid: str
    model: str
    number: int
    first: int
    last: int
    root: bytes
    object: str
    object_sha256: str
    captured: int

    def __post_init__(self) -> None:
        if not is_key_id(self.kid) or self.number < 1 or not is_sha256(self.object_sha256) or len(self.root) != 32:
            raise IntegrityError("the seal names no key, no version, or holds a digest that is none")
        if not self.object.endswith(f"/predictions/{self.kid}/{self.first:012d}-{self.last:012d}.jsonl"):
            raise IntegrityError("the seal names an object that is not the batch of its key and numbers")
        if not 1 <= self.first <= self.last <= MAX_SEQUENCE or self.count > MAX_RECEIPTS or not 0 <= self.captured <= self.count:
            raise IntegrityError(f"the seal covers {self.first} to {self.last}, which no seal can")

    @property
    def count(self) -> int:
        """Return how many receipts are sealed."""
        return self.last - self.first + 1

    def covers(self, prediction: PredictionId) -> bool:
        """Return whether the prediction's receipt is under this seal."""
        return prediction.kid == self.kid and self.first <= prediction.sequence <= self.last

    def to_data(self) -> dict[str, Any]:
        """Return the data of the event."""
        return {
            "kid": self.kid,
            "model": self.model,
            "number": self.number,
            "first": self.first,
            "last": self.last,
            "count": self.count,
            "root": self.root.hex(),
            "object": self.object,
            "object_sha256": self.object_sha256,
            "captured": self.captured,
            "final": False,
        }

    @classmethod
    def from_event(cls, event: Mapping[str, Any]) -> Seal:
        """Return the seal of a `key.sealed` event.

        Raises:
            IntegrityError: not the event of a seal, or not as `to_data` writes one.
        """
        data = _data_of(event, SEALED, _SEALED_FIELDS)
        if not is_sha256(data["root"]):
            raise IntegrityError("the seal holds a root that is none")
        fields = {name: data[name] for name in ("kid", "model", "number", "first", "last", "object", "object_sha256", "captured")}
        seal = cls(root=bytes.fromhex(data["root"]), **fields)
        if data != seal.to_data() or event.get("subject") != f"key/{seal.kid}" or event.get("sequence") != seal.first:
            raise IntegrityError("the seal contradicts itself or the event that carries it")
        return seal


@dataclass(frozen=True)
class Closing:
    """What `key.closed` says of a key: final, nothing is sealed under it afterwards.

    Attributes:
        kid: the key ID.
        model: the model's name.
        number: the version's number.
        last: the last sequence number, 0 where the key signed nothing.
        count: receipts that were sealed.
        gaps: ranges of numbers of which there is no receipt, `[first, last]` each; the first ones where they are many.
        sealed: how many seals there are.
    """

    kid: str
    model: str
    number: int
    last: int
    count: int
    gaps: tuple[tuple[int, int], ...]
    sealed: int

    def to_data(self) -> dict[str, Any]:
        """Return the data of the event."""
        return {
            "kid": self.kid,
            "model": self.model,
            "number": self.number,
            "last": self.last,
            "count": self.count,
            "gaps": [list(gap) for gap in self.gaps],
            "sealed": self.sealed,
            "final": True,
        }

    @classmethod
    def from_event(cls, event: Mapping[str, Any]) -> Closing:
        """Return the closing of a `key.closed` event.

        Raises:
            IntegrityError: not the event of a closing, or not as `to_data` writes one.
        """
        data = _data_of(event, CLOSED, _CLOSED_FIELDS)
        if any(type(gap) is not list or len(gap) != 2 or any(type(n) is not int for n in gap) for gap in data["gaps"]):
            raise IntegrityError("the closing holds a gap that is no range")
        fields = {name: data[name] for name in ("kid", "model", "number", "last", "count", "sealed")}
        closing = cls(gaps=tuple((gap[0], gap[1]) for gap in data["gaps"]), **fields)
        if data != closing.to_data() or event.get("subject") != f"key/{closing.kid}" or event.get("sequence") != 1:
            raise IntegrityError("the closing contradicts itself or the event that carries it")
        return closing


@dataclass(frozen=True)
class ReceiptProof:
    """That a receipt is a leaf of a seal's tree (RFC 6962 section 2.1.1).

    Attributes:
        index: place of the receipt, from 0.
        size: how many receipts the tree has.
        hashes: the audit path, from the leaf up.
    """

    index: int
    size: int
    hashes: tuple[bytes, ...]

    def to_bytes(self) -> bytes:
        """Return the canonical document."""
        return canonical_bytes({"index": self.index, "size": self.size, "hashes": [h.hex() for h in self.hashes]})

    @classmethod
    def parse(cls, data: bytes) -> ReceiptProof:
        """Return the proof that a document is.

        Raises:
            InvalidInputError: not byte for byte what `to_bytes` writes.
        """
        document = parse_canonical(data)
        fields = set(document) if isinstance(document, dict) else set()
        if fields != {"index", "size", "hashes"} or type(document["index"]) is not int or type(document["size"]) is not int:
            raise InvalidInputError.of("proof", "fields", "a proof has index, size and hashes")
        hashes = document["hashes"]
        if not isinstance(hashes, list) or not all(is_sha256(h) for h in hashes):
            raise InvalidInputError.of("proof.hashes", "sha256", "a hash is a SHA-256 in lower-case hex")
        return cls(document["index"], document["size"], tuple(bytes.fromhex(h) for h in hashes))


def batch_line(sequence: int, at: str, receipt: str) -> str:
    """Return a receipt's line in the batch object: canonical JSON of `at`, `receipt` and `sequence`, and a newline.

    A receipt needs no escaping. A row that a serving process wrote with something else in it is escaped, never trusted.
    """
    if _PLAIN.fullmatch(receipt) is None or _PLAIN.fullmatch(at) is None:
        return json.dumps({"at": at, "receipt": receipt, "sequence": sequence}, sort_keys=True, separators=(",", ":")) + "\n"
    return f'{{"at":"{at}","receipt":"{receipt}","sequence":{sequence}}}\n'


def parse_batch(raw: bytes) -> list[tuple[int, bytes]]:
    """Return number and receipt of each line of a batch object.

    Raises:
        IntegrityError: a line is not as `batch_line` writes it.
    """
    parsed: list[tuple[int, bytes]] = []
    try:
        lines = raw.decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise IntegrityError("the batch of receipts is not UTF-8") from error
    if lines.pop() != "":
        raise IntegrityError("the batch of receipts does not end with a line's end")
    for line in lines:
        match = _LINE.fullmatch(line)
        parsed.append((int(match[3]), match[2].encode()) if match else _unusual_line(line))
    return parsed


def seal_root(receipts: Iterable[bytes]) -> bytes:
    """Return the RFC 6962 root over receipts in the order of their numbers, 32 bytes."""
    return tree_root([leaf_hash(receipt) for receipt in receipts])


def prove_receipt(receipts: Sequence[bytes], index: int) -> ReceiptProof:
    """Return the proof for the receipt at a place, from all receipts of its seal.

    Raises:
        IndexError: no such place.
    """
    if not 0 <= index < len(receipts):
        raise IndexError(f"there is no receipt {index} among {len(receipts)}")
    path = audit_path([leaf_hash(receipt) for receipt in receipts], index)
    return ReceiptProof(index, len(receipts), tuple(path))


def verify_sealed(receipt: bytes, prediction: PredictionId, proof: ReceiptProof, seal: Seal) -> None:
    """Check that a receipt is the one that was sealed under its number.

    Args:
        receipt: the compact JWS, whose signature and prediction ID are verified elsewhere.
        prediction: the receipt's prediction ID.
        proof: where it lies in the seal.
        seal: the seal, from the ledger.

    Raises:
        IntegrityError: another key's, or it is not there.
    """
    if not seal.covers(prediction):
        raise IntegrityError(f"the seal of {seal.first} to {seal.last} does not cover prediction {prediction}")
    if (proof.index, proof.size) != (prediction.sequence - seal.first, seal.count):
        raise IntegrityError("the proof is for another place than the receipt's number gives it in the seal")
    verify_inclusion(leaf_hash(receipt), proof.index, proof.size, list(proof.hashes), seal.root)


def verify_batch(raw: bytes, seal: Seal) -> None:
    """Check that the lines of a batch object are exactly what its seal covers.

    Raises:
        IntegrityError: a line is malformed, missing, too many, out of order or another than was sealed.
    """
    lines = parse_batch(raw)
    if [number for number, _ in lines] != list(range(seal.first, seal.last + 1)):
        raise IntegrityError(f"the batch does not hold exactly the receipts {seal.first} to {seal.last}")
    if seal_root(receipt for _, receipt in lines) != seal.root:
        raise IntegrityError(f"the receipts {seal.first} to {seal.last} are not those that were sealed")


def verify_closing(closing: Closing, seals: Sequence[Seal]) -> None:
    """Check that the seals of a closed key are all there, none twice, and that numbers are missing only where the closing says so.

    Args:
        closing: the key's closing.
        seals: all seals of the key that the ledger holds.

    Raises:
        IntegrityError: they are not.
    """
    ordered = sorted(seals, key=lambda seal: seal.first)
    if any((s.kid, s.model, s.number) != (closing.kid, closing.model, closing.number) for s in ordered):
        raise IntegrityError("a seal is of another key or version than the closing")
    if any(before.last >= after.first for before, after in pairwise(ordered)):
        raise IntegrityError(f"two seals of key {closing.kid} cover the same number")
    found = (len(ordered), sum(s.count for s in ordered), ordered[-1].last if ordered else 0)
    if found != (closing.sealed, closing.count, closing.last):
        raise IntegrityError(
            f"key {closing.kid} was closed with {closing.sealed} seals over {closing.count} receipts up to {closing.last}; "
            f"there are {found[0]} over {found[1]} up to {found[2]}"
        )
    ends = [0, *(s.last for s in ordered)]
    gaps = [(end + 1, seal.first - 1) for end, seal in zip(ends, ordered, strict=False) if seal.first > end + 1]
    if tuple(gaps[: len(closing.gaps)]) != closing.gaps or (not closing.gaps and gaps):
        raise IntegrityError(f"numbers of key {closing.kid} are missing elsewhere than its closing says")


def _unusual_line(line: str) -> tuple[int, bytes]:
    try:
        entry = parse_strict(line)
        if set(entry) != {"at", "receipt", "sequence"} or type(entry["sequence"]) is not int:
            raise IntegrityError("a line of the batch of receipts has other fields")
        if f"{line}\n" != batch_line(entry["sequence"], entry["at"], entry["receipt"]):
            raise IntegrityError("a line of the batch of receipts is not as the registry writes it")
        return entry["sequence"], str(entry["receipt"]).encode()
    except (InvalidInputError, TypeError, ValueError) as error:
        raise IntegrityError(f"a line of the batch of receipts cannot be read: {error}") from error


def _data_of(event: Mapping[str, Any], kind: str, types: Mapping[str, type]) -> dict[str, Any]:
    data = event.get("data")
    if event.get("kind") != kind or not isinstance(data, Mapping):
        raise IntegrityError(f"the event is no {kind}")
    if set(data) != set(types) or any(type(data[name]) is not wanted for name, wanted in types.items()):
        raise IntegrityError(f"the event {kind} has not the fields that it needs")
    return dict(data)
