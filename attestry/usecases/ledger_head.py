"""The head of the ledger: the row that is its commit point, and the names of what is published.

    LEDGER/CHECKPOINT   size, root, note, logged, staging, published, rev, witnessed
    LEAF#<event ID>     index, sha256, logged

    ledger/checkpoint               the live checkpoint, overwritten
    ledger/checkpoints/<size>       every checkpoint there was, locked
    ledger/tile/...                 tiles and entry bundles (C2SP tlog-tiles), the full ones locked
    ledger/staging/<size>-...       batches on their way

The checkpoint in the row is signed; the row's other attributes are believed only where something that is signed says the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from attestry.domain.errors import IntegrityError, InvalidInputError
from attestry.ports import Item, Key

if TYPE_CHECKING:
    from attestry.evidence.note import Verifier

COMMIT: Final = Key("LEDGER", "CHECKPOINT")
FOLDER: Final = "ledger/"
LIVE: Final = f"{FOLDER}checkpoint"
ARCHIVE: Final = f"{FOLDER}checkpoints/"
TEXT: Final = "text/plain; charset=utf-8"


def archive_key(size: int) -> str:
    """Return the object key of the checkpoint of a size."""
    return f"{ARCHIVE}{size:012d}"


def staging_key(size: int, root: bytes, leaves: int) -> str:
    """Return the object key of the batch of so many leaves that leads to a head.

    Their number is part of it, because a batch that was staged and not committed may end in what a shorter one leads to as well.
    """
    return f"{FOLDER}staging/{size:012d}-{root.hex()[:16]}-{leaves:04d}"


def leaf_key(event_id: str) -> Key:
    """Return the key of the row that tells where an event lies in the ledger."""
    return Key(f"LEAF#{event_id}")


@dataclass(frozen=True)
class Head:
    """What is committed.

    Attributes:
        size: number of leaves.
        root: root hash of them.
        note: the signed checkpoint, without cosignatures.
        logged: time of the last batch, RFC 3339 in UTC with microseconds.
        staging: object key of the last batch, empty for the empty ledger.
        published: whether all that follows the commit has been done.
        rev: number of the row's last change.
        witnessed: name of a witness to the size that it cosigned last, as far as is known.
    """

    size: int
    root: bytes
    note: str
    logged: str
    staging: str
    published: bool
    rev: int
    witnessed: Mapping[str, int] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """Return the checkpoint's text."""
        return self.note.rpartition("\n\n")[0] + "\n"

    def to_item(self) -> Item:
        """Return the row."""
        return {**vars(self), "root": self.root.hex(), "witnessed": dict(self.witnessed)}

    @classmethod
    def from_item(cls, row: Mapping[str, Any], origin: str, verifiers: Sequence[Verifier]) -> Head:
        """Return the head that a row tells, if the ledger's key signed it.

        Raises:
            IntegrityError: the row is not one that the sequencer wrote.
        """
        # Here alone: what signs looks up names of rows, and starts without the formats of notes.
        from attestry.evidence.note import Checkpoint, open_note

        try:
            fields = {name: row[name] for name in cls.__dataclass_fields__}
            witnessed = {str(n): s for n, s in dict(row["witnessed"]).items() if type(s) is int and s >= 0}
            head = cls(**{**fields, "root": bytes.fromhex(row["root"]), "witnessed": witnessed})
            told = Checkpoint.parse(open_note(head.note.encode(), verifiers).text)
        except (KeyError, TypeError, ValueError, AttributeError, InvalidInputError, IntegrityError) as error:
            raise IntegrityError(f"the row of the ledger's head is not one that the sequencer wrote: {error}") from error
        if told != Checkpoint(origin, head.size, head.root):
            raise IntegrityError("the row of the ledger's head is not what its signed checkpoint says")
        return head
