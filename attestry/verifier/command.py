"""Verify what lies in files, and tell the outcome: shared by `attestry-verify` and `attestry verify`."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from attestry.domain.errors import InvalidInputError
from attestry.evidence.verdict import Outcome, Verdict, Verification, run_steps

EXIT_CODES: Final = {Verdict.PROVEN: 0, Verdict.SIGNED_UNANCHORED: 3, Verdict.INCOMPLETE: 4, Verdict.BROKEN: 5}
USAGE: Final = 2
MAX_INPUT_BYTES: Final = 64 << 20

_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")
"""What a bundle could act on a terminal with."""


_TOKEN = re.compile(r"eyJ[A-Za-z0-9_-]{20,}\.[A-Za-z0-9_-]{20,}\.[A-Za-z0-9_-]{20,}")
"""A compact JWS; its header is a JSON object."""


class UnreadableError(InvalidInputError):
    """A file that was named cannot be read: wrong usage, and no verdict."""


def verify_bundle_file(bundle: Path, *, root: Path | None, files: Path | None = None) -> Verification:
    """Verify a bundle in a file.

    Args:
        bundle: the zip.
        root: the pinned TUF root.json.
        files: a downloaded `frozen/` folder to hash as well.

    Raises:
        UnreadableError: a file cannot be read.
    """
    from attestry.evidence.verification import verify_bundle

    data = read_file(bundle)
    verification = verify_bundle(data, pin=None if root is None else read_file(root))
    return verification if files is None else _with_files(verification, data, files)


def verify_prediction_files(
    receipt: str,
    delegation: str,
    *,
    root: Path | None,
    metadata: Path | None = None,
    request: Path | None = None,
    salt: str | None = None,
    output: Path | None = None,
) -> Verification:
    """Verify a receipt and its delegation.

    Args:
        receipt: the receipt's text, or the file that holds it.
        delegation: the same of the delegation.
        root: the pinned TUF root.json.
        metadata: folder of the registry's other TUF files and `trusted_root.json`, for example `root/` of any of its bundles.
        request: the request's bytes.
        salt: the answer's `request_salt`.
        output: the output's bytes.

    Raises:
        UnreadableError: a file cannot be read.
    """
    from attestry.evidence.verification import verify_prediction

    found = {} if metadata is None else {path.name: read_file(path) for path in sorted(metadata.glob("*.json"))}
    return verify_prediction(
        _token(receipt),
        _token(delegation),
        pin=None if root is None else read_file(root),
        metadata=found,
        request=None if request is None else read_file(request),
        salt=salt,
        output=None if output is None else read_file(output),
    )


def verify_row_file(proof: Path, *, root: Path | None, given: Path | None = None) -> Verification:
    """Verify the proof of a row of a scored file.

    Args:
        proof: the proof.
        root: the pinned TUF root.json.
        given: the input file, to check as well that the row was made of its line there.

    Raises:
        UnreadableError: a file cannot be read.
    """
    from attestry.evidence.row_proof import verify_row_proof

    data = read_file(proof)
    line = None if given is None else _line_of(data, given)
    return verify_row_proof(data, pin=None if root is None else read_file(root), line=line)


def _line_of(proof: bytes, given: Path) -> bytes:
    """Return the line of an input file that a proof's row claims to be made of; empty where there is none."""
    from attestry.domain.errors import AttestryError
    from attestry.evidence.row_proof import claimed_place

    try:
        place = claimed_place(proof)
    except AttestryError:
        return b""  # the verification says what is wrong with it
    try:
        with given.open("rb") as stream:
            line = next(itertools.islice(stream, place, None), b"")
    except OSError as error:
        raise UnreadableError.of(str(given), "readable", f"cannot be read: {error.strerror}") from error
    return line.removesuffix(b"\n").removesuffix(b"\r")


def read_file(path: Path) -> bytes:
    """Return the bytes of a file.

    Raises:
        UnreadableError: it cannot be read, or is larger than anything that is verified here.
    """
    try:
        if path.stat().st_size > MAX_INPUT_BYTES:
            raise UnreadableError.of(str(path), "size", f"is larger than {MAX_INPUT_BYTES} bytes")
        return path.read_bytes()
    except OSError as error:
        raise UnreadableError.of(str(path), "readable", f"cannot be read: {error.strerror}") from error


def told_as_json(verification: Verification) -> str:
    """Return the verification as one JSON document; docs/formats.md has its schema."""
    return json.dumps(verification.to_dict(), indent=2, ensure_ascii=True)


def told_as_text(verification: Verification) -> str:
    """Return the verification for people: the verdict, each step on a line, and what else one has to know."""
    return "\n".join(_lines(verification))


def _lines(verification: Verification) -> Iterator[str]:
    yield f"{verification.verdict.value}  {safe(verification.subject)}".rstrip()
    yield f"  {safe(verification.reason)}"
    yield ""
    outcomes = max(len(s.outcome.value) for s in verification.steps)
    names = max(len(s.name) for s in verification.steps)
    for step in verification.steps:
        yield f"  {step.outcome.value:<{outcomes}}  {step.name:<{names}}  {safe(step.detail)}".rstrip()
    for note in verification.notes:
        yield f"  ! {safe(note)}"


def safe(text: str) -> str:
    """Return a text without characters that act on a terminal or hide."""
    return _UNSAFE.sub("\ufffd", text)


def _with_files(verification: Verification, data: bytes, folder: Path) -> Verification:
    from attestry.evidence.artifact_manifest import ArtifactManifest
    from attestry.evidence.bundle import read_bundle
    from attestry.verifier.folder import check_folder

    if not folder.is_dir():
        raise UnreadableError.of(str(folder), "folder", "is no folder")

    def files() -> str:
        return check_folder(ArtifactManifest.from_bytes(read_bundle(data).files["version/artifact-manifest.json"]), folder)

    checked = any(s.name == "artifact" and s.outcome is Outcome.PASSED for s in verification.steps)
    checks = [("files", files)] if checked else []
    return replace(verification, steps=run_steps(checks, after=verification.steps))


def _token(text: str) -> str:
    """Return a token that was given as such, or in a file."""
    if _TOKEN.fullmatch(text.strip()):
        return text.strip()
    return read_file(Path(text)).decode("ascii", "replace").strip()
