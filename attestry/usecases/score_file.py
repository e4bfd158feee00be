"""Score a file: the version that stands deployed answers every row of an input file, and one root is signed for all rows.

Three steps, each safe to be tried again, by an execution of a state machine: `plan` once, `score_chunk` for every chunk, in whatever order
and beside each other, `finish` once.

Rules:
- One version answers all rows: the one that stood deployed when the file was planned. Before each chunk, and in the transaction that
  finishes the file, it has to stand there still, by everything that a delegation asks for: not killed, not retired, its approvals there
  and not ended. Where it does not, the scoring fails, and nothing is recorded or handed out. A statement that was signed just before lies
  unnamed beside the version's others, and proves no row in the ledger.
- What a step has read or written counts by its digest alone, which its row has: chunks of the input, answers, the plan.
- Of the version's answers nothing is believed but their form; rows, digests, tree and statement are made here.
- A row outside of the segment that the version is approved for fails the file. Where its approval allows a number of predictions, all rows
  are given out when the file is planned.
- The output is payload: it lies with the version's other captured payloads, and is erased as those are. The ledger has its digest, its root
  and the number of its rows.
- A failure that lies in the file or the version ends the scoring with its sentence; one that lies in AWS is raised, to be tried again.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any, Final, TypeVar

from attestry.domain.conditions import Terms, check_segments
from attestry.domain.errors import (
    AttestryError,
    ConditionFailedError,
    ConflictError,
    IntegrityError,
    InvalidInputError,
    NotFoundError,
    NotReadyError,
    OutsideConditionsError,
    UnavailableError,
)
from attestry.domain.events import Event, timestamp
from attestry.domain.principal import Principal
from attestry.domain.version import Version
from attestry.evidence.attestor import MAX_ENVELOPE_BYTES, Attestor
from attestry.evidence.canonical import canonical_bytes, parse_canonical, parse_strict
from attestry.evidence.digests import sha256_hex
from attestry.evidence.scored_rows import MAX_ROW_BYTES, ScoredFile, make_row, state_scored
from attestry.evidence.tlog import leaf_hash, tree_root
from attestry.ports import Check, Clock, Item, MetaStore, ObjectStore, Put, StoredObject, Update, When, Write
from attestry.usecases.ask import MAX_OUTPUT_BYTES, Versions
from attestry.usecases.conditions import lapse_put, left_of, volume_key
from attestry.usecases.delegate import read_standing
from attestry.usecases.records import outbox_put, pointer_key, version_key
from attestry.usecases.row_input import MAX_CHUNK_BYTES, MAX_LINE_BYTES, Chunk, RowReader, lines_in, read_rows
from attestry.usecases.scorings import DONE, FAILED, RUNNING, WAITING, chunk_key, end_scoring, folder_of, input_key, scoring_key

LOAD_SECONDS: Final = 400
PAUSE_SECONDS: Final = 3.0
MAX_FILE_BYTES: Final = 400 << 20
"""Of an output: what the function's disk takes."""

_MAX_PLAN_BYTES: Final = 4 << 20
_MAX_ANSWER_BYTES: Final = MAX_OUTPUT_BYTES + MAX_ROW_BYTES
_MAX_INPUT_BYTES: Final = MAX_CHUNK_BYTES + MAX_LINE_BYTES + 4096
_SPOOLED_BYTES: Final = 16 << 20
_TRIES: Final = 4
_TRANSIENT = (UnavailableError, NotReadyError)

Result = TypeVar("Result")
Standing = tuple[Item, Version]


class Scorer:
    """Does the steps of scorings."""

    def __init__(
        self,
        *,
        meta: MetaStore,
        store: ObjectStore,
        scratch: ObjectStore,
        attestor: Attestor,
        versions: Versions,
        clock: Clock,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Prepare; nothing is read yet.

        Args:
            meta: the table.
            store: the model store.
            scratch: the scratch bucket, where input and chunks lie.
            attestor: signs with the key of the acting function.
            versions: asks versions through the inference function.
            clock: the time.
            monotonic: monotonic seconds, for how long a version loads.
            sleep: waits.
        """
        self._meta = meta
        self._store = store
        self._scratch = scratch
        self._attestor = attestor
        self._versions = versions
        self._clock = clock
        self._monotonic = monotonic
        self._sleep = sleep

    def plan(self, scoring: str) -> list[int]:
        """Part the input into chunks, name the version that answers, and return the numbers of the chunks; none where it has failed.

        Raises:
            NotFoundError: there is no such scoring.
            UnavailableError: a service did not answer.
        """
        return self._ended_by_errors(scoring, self._plan, [])

    def score_chunk(self, scoring: str, number: int) -> str:
        """Have the version answer the rows of a chunk, keep the answers, and return the state of the scoring.

        Raises:
            NotFoundError: there is no such scoring.
            UnavailableError: a service did not answer, or the version is not loaded in time.
        """
        return self._ended_by_errors(scoring, lambda row: self._score(row, number), FAILED)

    def finish(self, scoring: str) -> str:
        """Write the output file, attest and record it, and return the state of the scoring.

        Raises:
            NotFoundError: there is no such scoring.
            UnavailableError: a service did not answer.
        """
        return self._ended_by_errors(scoring, self._finish, FAILED)

    def fail(self, scoring: str, error: str) -> None:
        """Say that a scoring has failed, where it is not done."""
        end_scoring(self._meta, scoring, error, self._clock.now())

    def _ended_by_errors(self, scoring: str, act: Callable[[Item], Result], failed: Result) -> Result:
        row = self._row(scoring)
        try:
            return act(row)
        except _TRANSIENT:
            raise
        except AttestryError as error:
            end_scoring(self._meta, scoring, error.message, self._clock.now(), attempt=int(row["attempt"]))
            return failed

    def _plan(self, row: Item) -> list[int]:
        if row["state"] in (DONE, FAILED):
            return []
        if "plan" in row:
            return list(range(int(row["chunks"])))
        pointer, version = self._standing(row)
        reader, listed = self._part(row)
        given = row["input"]
        if (reader.sha256, reader.size) != (given["sha256"], int(given["size"])):
            raise IntegrityError(
                f"the input has SHA-256 {reader.sha256}, {reader.size} bytes; {given['sha256']}, {given['size']} were told"
            )
        plan = canonical_bytes({"header": reader.header.decode("utf-8", "replace"), "chunks": listed})
        kept = self._scratch.put_new(f"{folder_of(row)}plan-{sha256_hex(plan)}.json", plan, content_type="application/json")
        changes = {
            "state": RUNNING,
            "number": version.number,
            "version_digest": version.version_digest,
            "rows": reader.rows,
            "chunks": len(listed),
            "plan": _place(kept),
        }
        same = When(exists=True, equals={"state": WAITING, "attempt": row["attempt"], "plan": None})
        try:
            self._meta.transact(
                [
                    Update(scoring_key(row["id"]), changes, same),
                    *self._still_standing(row, pointer, version),
                    *self._give_out(version, reader.rows),
                ]
            )
        except ConditionFailedError as error:
            if "plan" not in self._row(row["id"]):
                raise UnavailableError(f"what the scoring {row['id']} rests on moved while it was planned; try again") from error
        return list(range(int(self._row(row["id"])["chunks"])))

    def _part(self, row: Item) -> tuple[RowReader, list[list[Any]]]:
        """Keep the chunks of the input under their digests; return the reader, and first row, number of rows and digest of each."""
        listed: list[list[Any]] = []
        with self._scratch.open(input_key(row)) as stream:
            reader = RowReader(stream, str(row["input"]["format"]))
            for chunk in reader.chunks():
                body = chunk.to_bytes()
                sha256 = sha256_hex(body)
                self._scratch.put_new(_chunk_in(row, len(listed), sha256), body)
                listed.append([chunk.first, len(chunk.lines), sha256])
        return reader, listed

    def _score(self, row: Item, number: int) -> str:
        if row["state"] != RUNNING or self._meta.get(chunk_key(row["id"], number)) is not None:
            return str(row["state"])
        pointer, version = self._standing(row)
        plan = self._read_plan(row)
        first, count, sha256 = plan["chunks"][number]
        lines = lines_in(self._read(_chunk_in(row, number, sha256), sha256, _MAX_INPUT_BYTES))
        if len(lines) != count:
            raise IntegrityError(f"chunk {number} of the input has {len(lines)} rows, not {count}")
        instances = read_rows(Chunk(first, lines), str(row["input"]["format"]), plan["header"].encode(), version.schema)
        _check_terms(version, instances, first)
        values = parse_strict(self._ask(version, instances, str(row["environment"])))
        secret = bytes(row["secret"])
        rows = [make_row(secret, first + place, line, value) for place, (line, value) in enumerate(zip(lines, values, strict=True))]
        body = b"".join(one.to_bytes() + b"\n" for one in rows)
        if len(body) > _MAX_ANSWER_BYTES:
            raise InvalidInputError.of(f"rows[{first}]", "max_bytes", f"the rows of a chunk take {len(body)} bytes when they are answered")
        kept = self._scratch.put_new(f"{folder_of(row)}out/{number:06d}-{sha256_hex(body)}", body)
        writes: list[Write] = [Put(chunk_key(row["id"], number), {"first": first, "rows": count, **_place(kept)})]
        try:
            self._meta.transact([*writes, *self._still_standing(row, pointer, version)])
        except ConditionFailedError as error:
            if self._meta.get(chunk_key(row["id"], number)) is None:
                raise UnavailableError(f"the place of {version.reference} moved while it answered; try again") from error
        return str(row["state"])

    def _finish(self, row: Item) -> str:
        if row["state"] != RUNNING:
            return str(row["state"])
        pointer, version = self._standing(row)
        with tempfile.SpooledTemporaryFile(max_size=_SPOOLED_BYTES) as stream:
            root = self._join(row, stream)
            stream.seek(0)
            key = f"{version.folder}/predictions/payloads/scorings/{row['id']}.jsonl"
            kept = self._store.put_new(key, stream, content_type="application/x-ndjson")
        at = self._clock.now()
        facts = ScoredFile(
            scoring=row["id"],
            model=version.model,
            number=version.number,
            version_digest=version.version_digest,
            environment=row["environment"],
            format=row["input"]["format"],
            input_sha256=row["input"]["sha256"],
            input_size=int(row["input"]["size"]),
            output_sha256=kept.sha256,
            output_size=kept.size,
            rows=int(row["rows"]),
            root=root.hex(),
            at=timestamp(at),
        )
        reference = self._attestor.attest(version, state_scored(facts))
        envelope = self._store.read(reference.key, reference.version_id, max_bytes=MAX_ENVELOPE_BYTES)
        event = Event("file.scored", facts.subject, 1, at, Principal.from_item(row["principal"]), facts.event_data(reference.sha256))
        changes = {
            "state": DONE,
            "ended": facts.at,
            "output": _place(kept),
            "attestation": envelope.decode(),
            "event": event.canonical_bytes().decode(),
            "secret": None,
        }
        same = When(exists=True, equals={"state": RUNNING, "attempt": row["attempt"]})
        try:
            self._meta.transact(
                [
                    Update(scoring_key(row["id"]), changes, same),
                    *self._still_standing(row, pointer, version),
                    *self._use_up(version, int(row["rows"])),
                    outbox_put(event),
                ]
            )
        except ConditionFailedError as error:
            if self._row(row["id"])["state"] == RUNNING:
                raise UnavailableError(f"what the scoring {row['id']} rests on moved while it was finished; try again") from error
        return str(self._row(row["id"])["state"])

    def _join(self, row: Item, stream: IO[bytes]) -> bytes:
        """Write the answers of all chunks one behind the other, and return the root over their lines."""
        plan, hashes, size = self._read_plan(row), list[bytes](), 0
        answered = {chunk["sk"]: chunk for chunk in self._meta.query(scoring_key(row["id"]).partition, prefix="CHUNK#")}
        for number, (first, count, _) in enumerate(plan["chunks"]):
            chunk = answered.get(chunk_key(row["id"], number).sort)
            if chunk is None:
                raise ConflictError(f"the rows from {first} on are not answered")
            body = self._read(chunk["key"], chunk["sha256"], _MAX_ANSWER_BYTES)
            lines = lines_in(body)
            if len(lines) != count:
                raise IntegrityError(f"{len(lines)} rows were answered from row {first} on, not {count}")
            hashes += map(leaf_hash, lines)
            size += len(body)
            if size > MAX_FILE_BYTES:
                raise InvalidInputError.of("", "max_bytes", f"the output takes more than {MAX_FILE_BYTES} bytes; part the file")
            stream.write(body)
        return tree_root(hashes)

    def _ask(self, version: Version, instances: Sequence[Mapping[str, Any]], environment: str) -> str:
        deadline = self._monotonic() + LOAD_SECONDS
        while True:
            try:
                return self._versions.ask(version, instances, deadline, environment=environment)
            except NotReadyError as error:
                if self._monotonic() >= deadline:
                    raise UnavailableError(f"{version.reference} was not loaded within {LOAD_SECONDS} s") from error
                self._sleep(PAUSE_SECONDS)

    def _standing(self, row: Item) -> Standing:
        """Return pointer and version of a scoring, once everything that a delegation asks for holds now."""
        model, environment, wanted = str(row["model"]), str(row["environment"]), row.get("version_digest")
        for _ in range(_TRIES):
            found = read_standing(self._meta, model, environment, self._clock.now(), wanted=wanted)
            if found is not None:
                return found[0], found[2]
        raise UnavailableError(f"the deployed version of {model} in {environment} is being changed; try again")

    def _still_standing(self, row: Item, pointer: Item, version: Version) -> list[Write]:
        """Return the conditions under which what was read of a version still holds."""
        head = {"version_digest": version.version_digest, "standing": version.standing.value, "approved": True, "rev": version.rev}
        return [
            Check(pointer_key(version.model, str(row["environment"])), When(exists=True, equals={"rev": pointer["rev"]})),
            Check(version_key(version.model, version.number), When(exists=True, equals=head)),
        ]

    def _give_out(self, version: Version, rows: int) -> list[Write]:
        """Return the write that gives out a file's rows of the predictions that the version's approval allows; none where it has no number.

        Raises:
            ConflictError: fewer are left.
        """
        if Terms.from_item(version.terms).max_predictions is None:
            return []
        key = volume_key(version.model, version.number, version.opening)
        found = self._meta.get(key)
        left = left_of(version, found)
        if found is None or left < rows:
            raise ConflictError(f"the approval of {version.reference} allows {left} predictions more, and the file has {rows} rows")
        return [Update(key, {"given": int(found["given"]) + rows}, _same_volume(found))]

    def _use_up(self, version: Version, rows: int) -> list[Write]:
        """Return the writes that count a file's rows as predictions, and end the approval where all that it allows is made."""
        if Terms.from_item(version.terms).max_predictions is None:
            return []
        key = volume_key(version.model, version.number, version.opening)
        found = self._meta.get(key)
        if found is None:
            raise IntegrityError(f"what counts the predictions that the approval of {version.reference} allows is gone")
        used = int(found["used"]) + rows
        writes: list[Write] = [Update(key, {"used": used}, _same_volume(found))]
        if used >= int(found["max"]):
            writes.append(lapse_put(version.model, version.number, version.opening, timestamp(self._clock.now()), "lapse"))
        return writes

    def _read_plan(self, row: Item) -> Any:
        return parse_canonical(self._read(row["plan"]["key"], row["plan"]["sha256"], _MAX_PLAN_BYTES))

    def _read(self, key: str, sha256: str, max_bytes: int) -> bytes:
        data = self._scratch.read(key, max_bytes=max_bytes)
        if hashlib.sha256(data).hexdigest() != sha256:
            raise IntegrityError(f"{key.rpartition('/')[2]} has another digest than was recorded")
        return data

    def _row(self, scoring: str) -> Item:
        row = self._meta.get(scoring_key(scoring))
        if row is None:
            raise NotFoundError(f"there is no scoring {scoring}")
        return row


def _check_terms(version: Version, instances: Sequence[Mapping[str, Any]], first: int) -> None:
    """Check that rows lie in the segment that a version is approved for; the error names the row."""
    segments = Terms.from_item(version.terms).segments
    for place, instance in enumerate(instances if segments else ()):
        try:
            check_segments(segments, [instance], version.reference)
        except OutsideConditionsError as error:
            raise OutsideConditionsError(error.message.replace("instances[0]", f"rows[{first + place}]"), details=error.details) from error


def _same_volume(row: Item) -> When:
    return When(exists=True, equals={name: row[name] for name in ("max", "given", "used")})


def _chunk_in(row: Item, number: int, sha256: str) -> str:
    return f"{folder_of(row)}in/{number:06d}-{sha256}"


def _place(kept: StoredObject) -> Item:
    return {"key": kept.key, "version_id": kept.version_id, "sha256": kept.sha256, "size": kept.size}
