"""Which environment a lock file makes, and which lock files are accepted.

Rules:

1. An environment is one lock file on one Python and one platform; its ID is the SHA-256 of these, so that whoever knows them knows
   where the archive is, and nobody chooses it.
2. A lock file holds pinned requirements with SHA-256 hashes and nothing else: `name==version`, extras and markers allowed
   (PEP 508, PEP 440). Options are refused, because an option in the file could name another index, allow package code to run, or read
   a file; so are URLs, paths and version ranges.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass

from attestry.domain.errors import InvalidInputError, Problem

FORMAT = 1
MAX_LOCK_BYTES = 4 * 1024 * 1024
MAX_REQUIREMENTS = 2000

_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,126}[A-Za-z0-9])?"
_VERSION = r"[A-Za-z0-9](?:[A-Za-z0-9.!+_-]{0,126})"
_EXTRAS = rf"(?:\[\s*{_NAME}(?:\s*,\s*{_NAME})*\s*\])?"
_MARKER = r"(?:\s*;\s*(?P<marker>[A-Za-z0-9_.'\"()<>=!~+*, -]{1,500}?))?"
_HASHES = r"(?P<hashes>(?:\s+--hash=sha256:[0-9a-f]{64})+)"
_REQUIREMENT = re.compile(rf"(?P<name>{_NAME})\s*(?P<extras>{_EXTRAS})\s*==\s*(?P<version>{_VERSION}){_MARKER}{_HASHES}\s*")
_HASH = re.compile(r"sha256:([0-9a-f]{64})")
_COMMENT = re.compile(r"(?:^|\s)#")


@dataclass(frozen=True)
class Requirement:
    """One pinned package.

    Attributes:
        name: as the file has it.
        extras: such as `[s3]`, or empty.
        version: exact.
        marker: environment marker, or empty.
        hashes: SHA-256 of the files that may be installed, hex.
        line: where it begins in the file, from 1.
    """

    name: str
    extras: str
    version: str
    marker: str
    hashes: tuple[str, ...]
    line: int

    def to_text(self) -> str:
        """Return the requirement as one line that pip reads."""
        marker = f" ; {self.marker}" if self.marker else ""
        return " ".join([f"{self.name}{self.extras}=={self.version}{marker}", *(f"--hash=sha256:{h}" for h in self.hashes)])


def environment_id(lock_sha256: str, python: str, platform: str) -> str:
    """Return the ID of an environment, SHA-256 in hex over canonical JSON.

    Args:
        lock_sha256: digest of the lock file, hex.
        python: version without the patch, for example `3.13`.
        platform: for example `linux_aarch64`.
    """
    document = {"format": FORMAT, "lock_sha256": lock_sha256, "platform": platform, "python": python}
    return hashlib.sha256(json.dumps(document, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def read_lock(data: bytes, *, field: str = "environment.lock") -> tuple[Requirement, ...]:
    """Return the requirements of a lock file.

    Args:
        data: the file.
        field: the field that errors name.

    Raises:
        InvalidInputError: the file breaks rule 2; up to 20 problems, each with its line.
    """
    if len(data) > MAX_LOCK_BYTES:
        raise InvalidInputError.of(field, "max_bytes", f"the lock file has {len(data)} bytes; the limit is {MAX_LOCK_BYTES}")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidInputError.of(field, "utf8", "the lock file is not UTF-8") from error
    requirements: list[Requirement] = []
    problems: list[Problem] = []
    for number, line in _logical_lines(text):
        match = _REQUIREMENT.fullmatch(line)
        if match is None:
            problems.append(Problem(field, *_explain(line), line=number))
            continue
        requirements.append(
            Requirement(
                match["name"],
                match["extras"],
                match["version"],
                (match["marker"] or "").strip(),
                tuple(_HASH.findall(match["hashes"])),
                number,
            )
        )
    if not requirements and not problems:
        problems.append(Problem(field, "required", "the lock file names no package"))
    if len(requirements) > MAX_REQUIREMENTS:
        problems.append(Problem(field, "max_items", f"more than {MAX_REQUIREMENTS} requirements"))
    if problems:
        raise InvalidInputError(problems[:20])
    return tuple(requirements)


def _logical_lines(text: str) -> list[tuple[int, str]]:
    """Join continued lines and drop comments, as pip does (pip.req.req_file): a comment starts at the line's start or after a blank."""
    lines: list[tuple[int, str]] = []
    begun: int | None = None
    parts: list[str] = []
    for number, raw in enumerate(text.split("\n"), start=1):
        line = raw.rstrip("\r")
        if comment := _COMMENT.search(line):
            line = line[: comment.start()].rstrip()
        begun = begun or number
        continued = line.endswith("\\")
        parts.append(line.removesuffix("\\"))
        if continued:
            continue
        joined = _one_line(parts)
        if joined:
            lines.append((begun, joined))
        begun, parts = None, []
    joined = _one_line(parts)
    if joined and begun is not None:
        lines.append((begun, joined))
    return lines


def _one_line(parts: list[str]) -> str:
    """Return continued lines as one, with one blank for many: a pattern would try each of a million of them in turn."""
    return " ".join(" ".join(parts).split())


def _explain(line: str) -> tuple[str, str]:
    shown = line[:80]
    if line.startswith("-"):
        return "no_options", f"an option is not allowed in a lock file: {shown!r}"
    if "://" in line or "@" in line.split("--hash")[0] or line.startswith((".", "/")):
        return "no_urls", f"URLs and paths are not allowed in a lock file: {shown!r}"
    if "--hash=" not in line:
        return "hash", f"a requirement needs a SHA-256 hash: {shown!r}"
    return "pinned", f"only `name==version --hash=sha256:...` is allowed: {shown!r}"
