"""A case: what a verification has read and established so far, handed from step to step.

Rules:

- A step that uses a file of the bundle takes it by `take`; what no step has taken in the end is a stranger in the
  bundle, and the bundle is refused.
- What a step has established is an attribute that is set once; a later step that needs it asks for it by a `need_`
  method, which says what is missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from attestry.domain.imports import ImportDocument
from attestry.domain.manifest_record import Manifest
from attestry.evidence.artifact_manifest import ArtifactManifest
from attestry.evidence.bundle import Bundle
from attestry.evidence.delegation import Delegation
from attestry.evidence.note import Checkpoint
from attestry.evidence.receipt import Receipt
from attestry.evidence.statement import Statement
from attestry.evidence.trusted_root import TrustedRoot
from attestry.evidence.verdict import MissingError, Witnessing

if TYPE_CHECKING:
    from attestry.evidence.tuf_metadata import VerifiedRoot


@dataclass(frozen=True)
class Entry:
    """An event with its place in the ledger.

    Attributes:
        event: the event.
        sha256: digest of its canonical bytes, hex.
        index: number of its leaf; None while it is not in the ledger.
        at: ledger time; of an event that is not in the ledger the time that it claims.
    """

    event: Mapping[str, Any]
    sha256: str
    index: int | None
    at: str

    @property
    def kind(self) -> str:
        """Return what happened."""
        return str(self.event["kind"])

    @property
    def subject(self) -> str:
        """Return what it happened to."""
        return str(self.event["subject"])

    @property
    def sequence(self) -> int:
        """Return its number within its subject and kind."""
        return int(self.event["sequence"])

    @property
    def data(self) -> Mapping[str, Any]:
        """Return the facts."""
        data: Mapping[str, Any] = self.event["data"]
        return data

    @property
    def stage(self) -> str:
        """Return the stage after a move of a version."""
        return str(self.data["to"]["stage"])

    @property
    def place(self) -> str:
        """Return where it is, for a person."""
        return "not in the ledger yet" if self.index is None else f"leaf {self.index}, {self.at}"

    def comes_before(self, other: Entry) -> bool:
        """Return whether the ledger, or for what is not in it yet the claimed times, put this before the other."""
        if self.index is not None and other.index is not None:
            return self.index < other.index
        if (self.index is None) != (other.index is None):
            return self.index is not None
        return self.at <= other.at


@dataclass(frozen=True)
class Attested:
    """A move of the version: its event, the verified statement about it, and the function that signed that."""

    entry: Entry
    statement: Statement
    function: str


@dataclass
class Case:
    """What is known of a bundle.

    Attributes:
        bundle: the bundle.
        root: the trusted root.
        metadata: the verified TUF metadata that it comes from; None without a pin and a chain.
        checkpoint: the ledger's signed head.
        ledger_keys: public keys that signed it, 32 bytes each.
        cosigned_at: the latest time that a cosignature tells, or empty.
        witnessing: who cosigned it.
        entries: all events, by their leaves, pending ones last.
        moves: the moves of the version, by their number.
        artifact: the artifact manifest.
        manifest: the manifest; None of an imported version.
        imported: the import document of a version that was made elsewhere.
        mapping: the same, with its defaults, as JSON values.
        records: stage to the record of its success, or of the judgement that rejected the version.
        packet: what the decision packet says.
        delegation: the delegation.
        delegated: its event.
        receipt: the receipt.
        notes: what a reader has to know besides.
        facts: what is told in JSON.
        taken: names of the files that a step has used.
    """

    bundle: Bundle | None = None
    root: TrustedRoot | None = None
    metadata: VerifiedRoot | None = None
    checkpoint: Checkpoint | None = None
    ledger_keys: tuple[bytes, ...] = ()
    cosigned_at: str = ""
    witnessing: Witnessing = field(default_factory=Witnessing)
    entries: tuple[Entry, ...] = ()
    moves: tuple[Attested, ...] = ()
    artifact: ArtifactManifest | None = None
    manifest: Manifest | None = None
    imported: ImportDocument | None = None
    mapping: Mapping[str, Any] = field(default_factory=dict)
    records: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    packet: Mapping[str, Any] = field(default_factory=dict)
    delegation: Delegation | None = None
    delegated: Entry | None = None
    receipt: Receipt | None = None
    notes: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    taken: set[str] = field(default_factory=set)

    def need_bundle(self) -> Bundle:
        """Return the bundle."""
        if self.bundle is None:
            raise MissingError("there is no bundle")
        return self.bundle

    def take(self, name: str) -> bytes | None:
        """Return a file of the bundle, or None, and remember that it was used."""
        self.taken.add(name)
        return self.need_bundle().files.get(name)

    def need(self, name: str) -> bytes:
        """Return a file of the bundle.

        Raises:
            MissingError: it is not there.
        """
        body = self.take(name)
        if body is None:
            raise MissingError(f"{name} is not in the bundle")
        return body

    def take_folder(self, folder: str) -> dict[str, bytes]:
        """Return the files below a folder by their names in it."""
        names = self.need_bundle().names(folder)
        self.taken.update(names)
        return {name.removeprefix(folder): self.need_bundle().files[name] for name in names}

    def need_root(self) -> TrustedRoot:
        """Return the trusted root."""
        if self.root is None:
            raise MissingError("the trusted root is not known, so no signature can be judged")
        return self.root

    def need_moves(self) -> Sequence[Attested]:
        """Return the moves of the version, all of them.

        Raises:
            MissingError: not all are known.
        """
        if not self.moves:
            raise MissingError("rests on the version's moves, which are not all known")
        return self.moves

    def need_artifact(self) -> ArtifactManifest:
        """Return the artifact manifest."""
        if self.artifact is None:
            raise MissingError("the artifact manifest is not known")
        return self.artifact

    def was_imported(self) -> bool:
        """Return whether the version was made elsewhere, by its first move.

        Raises:
            MissingError: not all moves are known.
        """
        return self.need_moves()[0].entry.kind == "version.imported"

    def need_import(self) -> ImportDocument:
        """Return the import document."""
        if self.imported is None:
            raise MissingError("the import document is not known")
        return self.imported

    def need_manifest(self) -> Manifest:
        """Return the manifest."""
        if self.manifest is None:
            raise MissingError("the manifest is not known")
        return self.manifest

    def need_delegation(self) -> Delegation:
        """Return the delegation."""
        if self.delegation is None:
            raise MissingError("the delegation is not known")
        return self.delegation

    def need_receipt(self) -> Receipt:
        """Return the receipt."""
        if self.receipt is None:
            raise MissingError("the receipt is not known")
        return self.receipt

    def events(self, kind: str, subject: str) -> list[Entry]:
        """Return the events of a kind about a subject, in the order of the ledger."""
        return [e for e in self.entries if e.kind == kind and e.subject == subject]

    def moved(self, kind: str, stage: str | None = None) -> list[Attested]:
        """Return the moves of a kind, to a stage where one is given.

        Raises:
            MissingError: not all moves are known, so nothing can be said of those that are not there.
        """
        return [m for m in self.need_moves() if m.entry.kind == kind and stage in (None, m.entry.stage)]
