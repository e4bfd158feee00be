"""Score a file, and prove one of its rows: what the command line does, for programs.

    scored = score_file(client, "credit-risk", Path("applicants.csv"), Path("scores.jsonl"))
    proof = prove_row(client, Path("scores.jsonl"), 17)          # bytes; attestry.evidence.row_proof verifies them

Beside the output lies `<output>.evidence.json`: the signed statement of the file and its event, as the registry told them.
"""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Protocol

from attestry.client.api import RegistryClient
from attestry.client.download import download_files
from attestry.client.root_steps import published_files
from attestry.client.submit import Advance, Say, UploadFile, upload_file
from attestry.domain.errors import AttestryError, IntegrityError, InvalidInputError, UnavailableError
from attestry.domain.events import timestamp
from attestry.evidence.dsse import read_envelope
from attestry.evidence.leaf import Leaf, parse_event, read_bundle
from attestry.evidence.note import Checkpoint, parse_note
from attestry.evidence.row_proof import RowProof, files_of_evidence, ledger_files, write_row_proof
from attestry.evidence.scored_rows import MAX_ROW_BYTES, ScoredFile, read_scored, verify_row
from attestry.evidence.statement import Statement
from attestry.evidence.tlog import TILE_WIDTH, Tile, audit_path, inclusion_proof, leaf_hash, tile_at, tree_root, verify_inclusion

FORMATS: Final = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
EVIDENCE_SUFFIX: Final = ".evidence.json"
SCORING_SECONDS: Final = 3600.0
_PAUSES: Final = (0.5, 5.0)
_SLACK: Final = timedelta(minutes=10)
"""By how much the clocks of the functions may differ that finished the file and that logged its event."""


class ScoringFailedError(AttestryError):
    """The file was not scored; the message says why."""

    code = "scoring_failed"
    status = 409


class Ledger(Protocol):
    """Where the ledger's files are read."""

    def ledger_file(self, path: str) -> bytes:
        """Return a published file."""


@dataclass(frozen=True)
class Scored:
    """A file that was scored.

    Attributes:
        scoring: ID of the scoring.
        model: the model's name.
        version: number of the version that answered.
        rows: how many rows.
        output: where the output was written.
        evidence: where statement and event were.
        facts: what is signed; the signature itself is verified with a proof.
    """

    scoring: str
    model: str
    version: int
    rows: int
    output: Path
    evidence: Path
    facts: ScoredFile


def score_file(
    client: RegistryClient,
    model: str,
    given: Path,
    output: Path,
    *,
    environment: str = "production",
    request: str = "",
    form: str = "",
    say: Say | None = None,
    advance: Advance | None = None,
    timeout_seconds: float = SCORING_SECONDS,
    sleep: Callable[[float], None] = time.sleep,
) -> Scored:
    """Have every row of a file answered by the version that stands deployed, and write the output.

    Args:
        client: the registry.
        model: the model's name.
        given: the input: JSON lines, or CSV with a header.
        output: where to write the output.
        environment: whose deployed version answers.
        request: name of the request; the same name on the same input goes on with it. By default a new one.
        form: `csv` or `jsonl`; by default by the input's suffix.
        say: told each step, a sentence each.
        advance: told the name, the bytes done and the bytes in all of each transfer.
        timeout_seconds: how long to wait for the rows.
        sleep: waits.

    Raises:
        InvalidInputError: no such file, or a form that is not known.
        ScoringFailedError: the registry could not score it.
        UnavailableError: it is not done in time; the same request goes on.
        IntegrityError: what was told does not fit what was asked for or written.
    """
    tell, form = say or (lambda _: None), form or _form_of(given)
    request = request or uuid.uuid4().hex
    with given.open("rb") as stream:
        file = UploadFile(given.name, given.stat().st_size, hashlib.file_digest(stream, "sha256").hexdigest(), given)
    asked = {"sha256": file.sha256, "size": file.size, "format": form}

    def ask(*, retry: bool = False) -> Mapping[str, Any]:
        answer: Mapping[str, Any] = client.score(model, asked, environment=environment, request=request, retry=retry)
        return answer

    told = ask()
    if told["state"] == "FAILED":
        tell("trying again what has failed")
        told = ask(retry=True)
    if told["upload"] is not None:
        tell(f"uploading {given.name}")
        upload_file(client, file, told["upload"], advance)
    tell(f"scoring, request {request}")
    deadline, pause = time.monotonic() + timeout_seconds, _PAUSES[0]
    while (told := ask())["state"] not in ("DONE", "FAILED"):
        if time.monotonic() >= deadline:
            raise UnavailableError(f"the file is not scored after {timeout_seconds:.0f} s; go on with --request {request}")
        sleep(pause)
        pause = min(pause * 1.4, _PAUSES[1])
    if told["state"] == "FAILED":
        raise ScoringFailedError(str(told["error"]), details={"scoring": told["scoring"], "request": request})
    return _keep(client, told, file, output, advance)


def read_evidence(output: Path) -> tuple[bytes, bytes, ScoredFile]:
    """Return the envelope, the event and what they say of an output, from the file beside it; no signature is verified.

    Raises:
        InvalidInputError: it is not there, or not what was written.
    """
    place = output.with_name(output.name + EVIDENCE_SUFFIX)
    try:
        told = json.loads(place.read_text(encoding="utf-8"))
        envelope, event = str(told["attestation"]).encode(), str(told["event"]).encode()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidInputError.of(str(place), "evidence", f"the evidence of {output.name} cannot be read: {error}") from error
    return envelope, event, read_scored(Statement.parse(read_envelope(envelope).payload))


def prove_row(client: RegistryClient | None, output: Path, index: int) -> bytes:
    """Return the proof of one row of an output.

    Args:
        client: the registry, for the ledger and the root of trust; None makes a proof without them, which verifies as INCOMPLETE.
        output: the output, with its evidence beside it.
        index: place of the row, from 0.

    Raises:
        InvalidInputError: there is no evidence, or no such row.
        IntegrityError: the output is not the file that was signed.
    """
    envelope, event, facts = read_evidence(output)
    if not 0 <= index < facts.rows:
        raise InvalidInputError.of("row", "range", f"the file has {facts.rows} rows, from 0 to {facts.rows - 1}")
    line, hashes = _row_of(output, index, facts)
    proof = audit_path(hashes, index)
    verify_row(line, proof, facts)
    if client is None:
        files = files_of_evidence(envelope, metadata={}, pending=event)
    else:
        logged = find_event(client, parse_event(event))
        files = files_of_evidence(envelope, metadata=published_files(client), pending=None if logged else event, ledger=logged)
    return write_row_proof(RowProof(line, tuple(proof), files))


def find_event(ledger: Ledger, event: Mapping[str, Any]) -> dict[str, bytes] | None:
    """Return what proves that an event is in the ledger: checkpoint, leaf and proof, by their names; None where it is not there yet.

    The leaf is looked for by time: ledger times never decrease along the log, so a bisection over the bundles of leaves finds where events
    of that time begin.

    Args:
        ledger: where its files are read.
        event: the event, as parsed from canonical JSON.

    Raises:
        IntegrityError: leaf and checkpoint do not fit.
    """
    note = ledger.ledger_file("checkpoint")
    checkpoint = Checkpoint.parse(parse_note(note)[0])
    size = checkpoint.size

    @lru_cache(maxsize=64)
    def leaves(number: int) -> tuple[bytes, ...]:
        tile = tile_at(0, number, size)
        return read_bundle(ledger.ledger_file(tile.entries_path), tile.width)

    begin = timestamp(datetime.fromisoformat(event["at"]) - _SLACK)
    low, high = 0, -(-size // TILE_WIDTH)
    while low < high:
        middle = (low + high) // 2
        if Leaf.parse(leaves(middle)[-1]).logged < begin:
            low = middle + 1
        else:
            high = middle
    for number in range(low, -(-size // TILE_WIDTH)):
        for place, leaf in enumerate(leaves(number)):
            if Leaf.parse(leaf).event_id == event["id"]:
                index = number * TILE_WIDTH + place
                proof = inclusion_proof(lambda *at: ledger.ledger_file(Tile(*at).path), index, size)
                verify_inclusion(leaf_hash(leaf), index, size, proof, checkpoint.root)
                return ledger_files(note, size, index, leaf, proof)
    return None


def _keep(client: RegistryClient, told: Mapping[str, Any], file: UploadFile, output: Path, advance: Advance | None) -> Scored:
    facts = read_scored(Statement.parse(read_envelope(str(told["attestation"]).encode()).payload))
    place = told["output"]
    if (facts.input_sha256, facts.output_sha256, facts.scoring) != (file.sha256, place["sha256"], told["scoring"]):
        raise IntegrityError("what is signed is about another file than was asked for")
    entry = {"path": output.name, "sha256": place["sha256"], "size": place["size"], "url": place["url"]}
    download_files([entry], output.parent, http=client.http, advance=advance)
    evidence = output.with_name(output.name + EVIDENCE_SUFFIX)
    evidence.write_text(json.dumps({"attestation": told["attestation"], "event": told["event"]}, indent=1) + "\n", encoding="utf-8")
    return Scored(facts.scoring, facts.model, facts.number, facts.rows, output, evidence, facts)


def _row_of(output: Path, index: int, facts: ScoredFile) -> tuple[bytes, list[bytes]]:
    """Return the line of a row and the hashes of all rows, of a file that is the one that was signed."""
    hashes: list[bytes] = []
    digest, wanted = hashlib.sha256(), b""
    try:
        with output.open("rb") as stream:
            while raw := stream.readline(MAX_ROW_BYTES + 2):
                digest.update(raw)
                line = raw.removesuffix(b"\n")
                if len(hashes) == index:
                    wanted = line
                hashes.append(leaf_hash(line))
    except OSError as error:
        raise InvalidInputError.of(str(output), "readable", f"cannot be read: {error.strerror}") from error
    if (len(hashes), digest.hexdigest(), tree_root(hashes).hex()) != (facts.rows, facts.output_sha256, facts.root):
        raise IntegrityError(f"{output.name} is not the output of the scoring {facts.scoring}: it was changed, or cut off")
    return wanted, hashes


def _form_of(path: Path) -> str:
    if not path.is_file():
        raise InvalidInputError.of("input", "present", f"there is no file {path}")
    if path.suffix not in FORMATS:
        raise InvalidInputError.of("input", "format", f"{path.name} ends in none of {', '.join(FORMATS)}; say --format csv or jsonl")
    return FORMATS[path.suffix]
