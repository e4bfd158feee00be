"""What lies in the model store: the ledger's events, and the objects that they name, with what can be verified of them.

The table is not read. Trees are built by code of the tests; signatures, statements and receipts are read by the same pure functions that
the offline verifier uses, under the keys of the trusted root that lies in the store.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache, cached_property
from typing import Any, cast

from attestry.domain.approvals import ApprovalPolicy
from attestry.domain.manifest import read_manifest
from attestry.evidence.artifact_manifest import ArtifactManifest
from attestry.evidence.delegation import Delegation, verify_delegation
from attestry.evidence.dsse import read_envelope, verify_envelope
from attestry.evidence.leaf import Leaf
from attestry.evidence.note import Checkpoint, Note, open_note
from attestry.evidence.packet import Packet
from attestry.evidence.predicates import check_attestation
from attestry.evidence.receipt import verify_receipt
from attestry.evidence.seal import SEALED, Seal
from attestry.evidence.statement import Statement
from attestry.evidence.trusted_root import TrustedRoot, require_may_sign
from attestry.evidence.tuf_metadata import verify_metadata
from tests.fakes import MemoryObjectStore
from tests.unit.ledger_world import read_leaves

CLOSES = "/frozen/artifact-manifest.json"


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
        self.published = cast("Any", Published(store))
        live = self.open_checkpoint("ledger/checkpoint")
        self.live, self.signers = Checkpoint.parse(live.text), {signature.name for signature in live.verified}
        self.leaves = read_leaves(self.published, self.live.size)
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
        folders = self.closed[str(self.versions[reference][-1].data["version_digest"])]
        assert len(folders) == 1, f"{reference} has the folders {folders}"
        assert folders[0].startswith(f"models/{model}/{number}-")
        return folders[0]

    @cached_property
    def closed(self) -> dict[str, list[str]]:
        """Version digest to the folders that are closed by an artifact manifest of this digest."""
        found: dict[str, list[str]] = defaultdict(list)
        for key in self.objects:
            if key.endswith(CLOSES):
                found[sha256(self.body(key))].append(key.removesuffix(CLOSES))
        return found


class Published:
    """The ledger's objects, in the form that the checker of the sequencer's tests reads."""

    def __init__(self, store: MemoryObjectStore) -> None:
        self.store = store

    def object(self, key: str) -> bytes:
        return self.store.versions[f"ledger/{key}"][-1].body

    def keys(self, prefix: str = "") -> list[str]:
        return sorted(k for k in self.store.versions if k.startswith(f"ledger/{prefix}"))


# Pure functions of bytes, computed once for each content


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


parse_leaf = cache(Leaf.parse)
parse_packet = cache(Packet.parse)
read_artifact = cache(ArtifactManifest.from_bytes)


@cache
def milliseconds(at: str) -> int:
    return round(datetime.fromisoformat(at).timestamp() * 1000)


@cache
def read_statement(envelope: bytes) -> Statement:
    """What an envelope holds; who signed it is checked where its move is."""
    return Statement.parse(read_envelope(envelope).payload)


@cache
def policy_in(manifest: bytes) -> ApprovalPolicy:
    """The approval policy that a manifest asks for."""
    asked = read_manifest(manifest).manifest
    return ApprovalPolicy.of_manifest(asked.approval, asked.gates.records, promotion=asked.deployment.promotion)


class Root:
    """The trusted root, with what was verified under it."""

    def __init__(self, trusted: TrustedRoot) -> None:
        self.trusted = trusted
        self.open_checkpoint = cache(self._open_checkpoint)
        self.attested = cache(self._attested)
        self.delegation = cache(self._delegation)
        self.receipt = cache(verify_receipt)

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
