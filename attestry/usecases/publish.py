"""Checkpoints, published: cosigned by the witnesses, kept for ever under their size, and shown as the live one.

Rules:
- A witness is shown committed checkpoints alone. One that does not answer holds up nothing: the live checkpoint lacks its line, and it is
  asked again by each later run.
- The archived checkpoint of a size is written once, with the cosignatures that were there at that moment.
- The live checkpoint is written only while the commit row stands at its size. Between that look and the write a later one may be
  overwritten by an earlier one: S3 has no comparison here. Readers then see an older prefix of the same ledger until the next run, a
  minute at most, writes the later one again; who remembers a larger size, as a witness or `ledger verify --since` does, is told that it
  is behind and asks again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from attestry.domain.errors import AttestryError, IntegrityError, InvalidInputError, NotFoundError
from attestry.evidence.note import MAX_NOTE_BYTES, Checkpoint, Verifier, add_signatures, open_note, parse_note, parse_signature
from attestry.evidence.tlog import ReadTile, consistency_proof
from attestry.ports import MetaStore, ObjectStore, WitnessAnswer, Witnesses, WitnessRequest
from attestry.usecases.ledger_head import COMMIT, LIVE, TEXT, Head, archive_key

_ROUNDS: Final = 2
"""Of questions: where the size that is remembered is wrong, the witness's first answer says the right one."""


@dataclass(frozen=True)
class Live:
    """The live checkpoint.

    Attributes:
        note: its bytes.
        text: the signed text.
        checkpoint: what it says.
        signers: names on its signature lines.
    """

    note: bytes
    text: str
    checkpoint: Checkpoint
    signers: frozenset[str]


@dataclass
class Cosigned:
    """What the witnesses did.

    Attributes:
        note: the checkpoint with their lines.
        witnessed: size that each is known to have cosigned last.
        lacking: names of those whose line is missing, with the reason.
    """

    note: bytes
    witnessed: dict[str, int]
    lacking: dict[str, str] = field(default_factory=dict)


class Publisher:
    """Publishes checkpoints."""

    def __init__(self, meta: MetaStore, store: ObjectStore, witnesses: Witnesses, origin: str) -> None:
        self._meta = meta
        self._store = store
        self._witnesses = witnesses
        self._origin = origin

    def read_live(self, verifiers: Sequence[Verifier]) -> Live | None:
        """Return the live checkpoint, or None where there is none.

        Raises:
            IntegrityError: what is there is not this ledger's.
        """
        try:
            note = self._store.read(LIVE, max_bytes=MAX_NOTE_BYTES)
        except NotFoundError:
            return None
        try:
            opened = open_note(note, verifiers)
            checkpoint = Checkpoint.parse(opened.text)
        except InvalidInputError as error:
            raise IntegrityError(f"the live checkpoint is none: {error.message}") from error
        if checkpoint.origin != self._origin:
            raise IntegrityError("the live checkpoint is another ledger's")
        return Live(note, opened.text, checkpoint, frozenset(s.name for s in (*opened.verified, *opened.unverified)))

    def lacking(self, head: Head, live: Live | None) -> list[str]:
        """Return the witnesses that are to be asked about a head."""
        shown = live.signers if live and live.text == head.text else frozenset()
        return [name for name in self._witnesses.names if name not in shown or head.witnessed.get(name) != head.size]

    def cosign(self, head: Head, live: Live | None, read_tile: ReadTile) -> Cosigned:
        """Ask the witnesses whose cosignature a head lacks."""
        note = live.note if live and live.text == head.text else head.note.encode()
        done = Cosigned(note, dict(head.witnessed))
        asked = {name: min(head.witnessed.get(name, 0), head.size) for name in self.lacking(head, live)}
        for _ in range(_ROUNDS):
            requests = self._requests(head, asked, read_tile, done)
            answers = self._witnesses.cosign(head.note.encode(), requests)
            asked = {}
            for name, answer in answers.items():
                if answer.size is not None:
                    done.witnessed[name] = answer.size
                    if answer.size <= head.size and answer.size != requests[name].old_size:
                        asked[name] = answer.size
                self._take(head, name, answer, done)
            if not asked:
                break
        return done

    def _requests(self, head: Head, asked: Mapping[str, int], read_tile: ReadTile, done: Cosigned) -> dict[str, WitnessRequest]:
        requests: dict[str, WitnessRequest] = {}
        for name, old_size in asked.items():
            try:
                requests[name] = WitnessRequest(old_size, tuple(consistency_proof(read_tile, old_size, head.size)))
            except AttestryError as error:
                done.lacking[name] = f"there is no proof from {old_size}: {error.message}"
        return requests

    def _take(self, head: Head, name: str, answer: WitnessAnswer, done: Cosigned) -> None:
        if not answer.lines:
            done.lacking[name] = answer.error if answer.size is None else f"it has cosigned {answer.size} leaves; this head has {head.size}"
            return
        try:
            signatures = [s for s in map(parse_signature, answer.lines) if s.name == name]
            note = add_signatures(done.note, signatures)
            parse_note(note)
        except InvalidInputError as error:
            done.lacking[name] = error.message
            return
        done.note = note
        done.witnessed[name] = head.size
        done.lacking.pop(name, None)

    def archive(self, head: Head, note: bytes, verifiers: Sequence[Verifier]) -> None:
        """Keep the checkpoint under its size.

        Raises:
            IntegrityError: another checkpoint of that size is kept there.
        """
        key = archive_key(head.size)
        try:
            self._store.put_new(key, note, content_type=TEXT, retain=True)
        except IntegrityError as error:
            there = self._store.read(key, max_bytes=MAX_NOTE_BYTES)
            try:
                same = open_note(there, verifiers).text == head.text
            except AttestryError:
                same = False
            if not same:
                raise IntegrityError(f"another checkpoint of {head.size} leaves is archived: the ledger was forked") from error

    def show(self, head: Head, note: bytes, live: Live | None) -> None:
        """Make it the live checkpoint, unless the ledger has moved on."""
        if live and live.note == note:
            return
        row = self._meta.get(COMMIT)
        if row is not None and row.get("size") == head.size and row.get("note") == head.note:
            self._store.put(LIVE, note, content_type=TEXT)
