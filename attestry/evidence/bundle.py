"""Bundles: one zip with everything from which a prediction, or a version, can be verified offline.

Rules:

1. A bundle is a zip of stored (uncompressed) entries, sorted by name, all of one date: the same files give the same
   bytes. A reader writes what it has read anew and refuses an archive that differs in a byte, so that no two programs
   can see different files in one bundle: no entry twice, none hidden before, between or behind the others.
2. `bundle.json` is canonical JSON (RFC 8785) and lists every other file with digest and size; the archive holds exactly
   these.
3. Only the names that the format knows occur. A name is ASCII, relative, and without `.` and `..`.
4. Nothing in `bundle.json` is evidence. It says what is here; what is true follows from the signatures.

    data = write_bundle(BundleIndex(...), files)
    bundle = read_bundle(data)
    bundle.files["ledger/checkpoint"]
"""

from __future__ import annotations

import io
import re
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from attestry.domain.errors import InvalidInputError
from attestry.domain.names import VersionReference
from attestry.evidence.canonical import canonical_bytes, parse_canonical
from attestry.evidence.digests import is_sha256, sha256_hex
from attestry.evidence.prediction_id import PredictionId

FORMAT = 1
INDEX = "bundle.json"
README, REPORT = "README.md", "REPORT.md"
MAX_BUNDLE_BYTES = 64 << 20
MAX_FILES = 10_000
MAX_FILE_BYTES = 16 << 20

Kind = Literal["prediction", "version", "audit"]

PERSON = r"[a-z0-9][a-z0-9._@-]{0,62}"
_NAMES = re.compile(
    r"README\.md|REPORT\.md"
    r"|prediction/(?:receipt\.jws|delegation\.jwt|proof\.json|request\.bin|output\.json|salt\.txt)"
    r"|ledger/(?:checkpoint|proofs\.json|leaves/[0-9]{12}\.json|pending/[0-9a-f]{64}\.json)"
    r"|audit/batch\.jsonl"
    r"|attestations/[0-9a-f]{64}\.json"
    r"|version/(?:artifact-manifest\.json|manifest\.json|import\.json|packet\.json|packets/[0-9]{6}\.json|model\.sig|records/[A-Z]{1,20}-[1-9][0-9]{0,5}\.json|reused/[A-Z]{1,20}\.json|validations/[0-9a-f]{64}\.json)"
    r"|policies/[a-z0-9][a-z0-9-]{0,63}#[0-9]{6}\.json"
    rf"|signatures/{PERSON}(?:#(?:[0-9]{{6}}|[0-9a-f]{{64}}))?\.sig"
    r"|root/(?:[1-9][0-9]{0,5}\.root\.json|timestamp\.json|[1-9][0-9]{0,5}\.(?:snapshot|targets)\.json|trusted_root\.json)"
)
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z")
_FIELDS: Mapping[str, type] = {
    "format": int,
    "kind": str,
    "subject": str,
    "model": str,
    "number": int,
    "version_digest": str,
    "made": str,
    "files": dict,
}

# A local header, a central header and the end record of the ZIP format (PKWARE APPNOTE 4.3.7, 4.3.12, 4.3.16) with the
# fields that stay the same: version 2.0, made on Unix, no flags, stored, 1 January 1980.
_LOCAL = struct.Struct("<4sHHHHHIIIHH")
_CENTRAL = struct.Struct("<4sHHHHHHIIIHHHHHII")
_END = struct.Struct("<4sHHHHIIH")
_DATE = 0x21
_UNIX_FILE = 0o100644 << 16


def policy_file(name: str, number: int) -> str:
    """Return the name of the document of an edition of a registry's policy."""
    return f"policies/{name}#{number:06d}.json"


@dataclass(frozen=True)
class BundleIndex:
    """What a bundle says it is.

    Attributes:
        kind: `prediction`, `version`, or `audit` for a batch of audited acts.
        subject: the prediction's ID, `MODEL@N`, or `audit/N`.
        model: the model's name; empty for audited acts.
        number: the version's number, or the batch's.
        version_digest: hex; empty for a version that has not come so far, and for audited acts.
        made: when the bundle was made, RFC 3339 in UTC with microseconds. Nobody signs this.

    Raises:
        InvalidInputError: on creation, naming the field that breaks a rule.
    """

    kind: Kind
    subject: str
    model: str
    number: int
    version_digest: str
    made: str

    def __post_init__(self) -> None:
        _require(self.kind in ("prediction", "version", "audit"), "kind", "enum", "is neither prediction, version nor audit")
        _require(_TIME.fullmatch(self.made) is not None, "made", "time", "is no time in UTC with microseconds")
        if self.kind == "audit":
            named = self.number > 0 and (self.subject, self.model, self.version_digest) == (f"audit/{self.number}", "", "")
            _require(named, "subject", "reference", "is not audit/N, or names a model beside it")
            return
        reference = str(VersionReference.parse(f"{self.model}@{self.number}"))
        if self.kind == "version":
            _require(self.subject == reference, "subject", "reference", f"is not {reference}")
        else:
            PredictionId.parse(self.subject)
        needed = self.kind == "prediction" or self.version_digest
        _require(not needed or is_sha256(self.version_digest), "version_digest", "sha256", "is no SHA-256 in lower-case hex")

    @property
    def reference(self) -> str:
        """Return `MODEL@N`."""
        return f"{self.model}@{self.number}"

    def to_bytes(self, files: Mapping[str, bytes]) -> bytes:
        """Return `bundle.json` over these files."""
        listed = {name: {"sha256": sha256_hex(body), "size": len(body)} for name, body in files.items()}
        return canonical_bytes({"format": FORMAT, **vars(self), "files": listed})


@dataclass(frozen=True)
class Bundle:
    """A bundle that was read: its index, and every file but the index by name."""

    index: BundleIndex
    files: Mapping[str, bytes]

    def names(self, folder: str) -> list[str]:
        """Return the names below a folder, sorted; `folder` ends in a slash."""
        return sorted(name for name in self.files if name.startswith(folder))


def write_bundle(index: BundleIndex, files: Mapping[str, bytes]) -> bytes:
    """Return the zip.

    Args:
        index: what the bundle is.
        files: every file but `bundle.json`, by name.

    Raises:
        InvalidInputError: a name that the format does not know, or more than a reader takes.
    """
    _check_files({name: len(body) for name, body in files.items()})
    data = _zip({**files, INDEX: index.to_bytes(files)})
    _require(len(data) <= MAX_BUNDLE_BYTES, "", "size", f"has {len(data)} bytes; the limit is {MAX_BUNDLE_BYTES}")
    return data


def read_bundle(data: bytes) -> Bundle:
    """Return the bundle in a zip, whose index lists exactly its files with the right digests.

    Raises:
        InvalidInputError: it breaks one of the module's rules; the message names rule and file.
    """
    files = _unzip(data)
    raw = files.pop(INDEX, None)
    _require(raw is not None, INDEX, "required", "is missing")
    body = _fields(parse_canonical(raw or b""))
    _require(body.pop("format") == FORMAT, f"{INDEX}: format", "const", f"is not {FORMAT}")
    listed = body.pop("files")
    index = BundleIndex(**body)
    _check_listing(listed, files)
    return Bundle(index, files)


def _check_listing(listed: Mapping[str, Any], files: Mapping[str, bytes]) -> None:
    missing = sorted(listed.keys() - files.keys())
    _require(not missing, ", ".join(missing[:3]), "listed", "is listed in bundle.json and not there")
    extra = sorted(files.keys() - listed.keys())
    _require(not extra, ", ".join(extra[:3]), "listed", "is there and not listed in bundle.json")
    for name, body in files.items():
        expected = {"sha256": sha256_hex(body), "size": len(body)}
        same = listed[name] == expected and type(listed[name].get("size")) is int
        _require(same, name, "digest", "is not the file that bundle.json lists")


def _fields(value: Any) -> dict[str, Any]:
    _require(isinstance(value, dict) and set(value) == set(_FIELDS), INDEX, "fields", f"must have exactly {', '.join(sorted(_FIELDS))}")
    for name, kind in _FIELDS.items():
        _require(type(value[name]) is kind, f"{INDEX}: {name}", "type", f"is no {kind.__name__}")
    return dict(value)


def _unzip(data: bytes) -> dict[str, bytes]:
    _require(len(data) <= MAX_BUNDLE_BYTES, "", "size", f"has {len(data)} bytes; the limit is {MAX_BUNDLE_BYTES}")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            _require(len({e.filename for e in entries}) == len(entries), "", "unique", "has a name twice")
            stored = all(e.compress_type == zipfile.ZIP_STORED and e.compress_size == e.file_size for e in entries)
            _require(stored, "", "stored", "has an entry that is compressed")
            _check_files({e.filename: e.file_size for e in entries if e.filename != INDEX})
            files = {e.filename: archive.read(e) for e in entries}
    except (zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError, ValueError, EOFError, OSError) as error:
        raise InvalidInputError.of("bundle", "zip", f"this is no zip that can be read: {error}") from error
    _require(_zip(files) == data, "", "zip_form", "is not byte for byte the zip that its files give: something lies beside its entries")
    return files


def _check_files(sizes: Mapping[str, int]) -> None:
    _require(len(sizes) <= MAX_FILES, "", "count", f"has {len(sizes)} files; the limit is {MAX_FILES}")
    _require(sum(sizes.values()) <= MAX_BUNDLE_BYTES, "", "size", f"holds more than {MAX_BUNDLE_BYTES} bytes")
    for name, size in sizes.items():
        _require(_NAMES.fullmatch(name) is not None, repr(name)[1:81], "name", "is no file of a bundle")
        _require(size <= MAX_FILE_BYTES, name, "size", f"has {size} bytes; the limit is {MAX_FILE_BYTES}")


def _zip(files: Mapping[str, bytes]) -> bytes:
    """Return the one zip of these files; written here and not by `zipfile`, whose headers may change with Python."""
    body, directory = bytearray(), bytearray()
    for name in sorted(files):
        data, encoded = files[name], name.encode("ascii", "replace")
        crc, size, offset = zlib.crc32(data), len(data), len(body)
        body += _LOCAL.pack(b"PK\3\4", 20, 0, 0, 0, _DATE, crc, size, size, len(encoded), 0) + encoded + data
        directory += _CENTRAL.pack(
            b"PK\1\2", 3 << 8 | 20, 20, 0, 0, 0, _DATE, crc, size, size, len(encoded), 0, 0, 0, 0, _UNIX_FILE, offset
        )
        directory += encoded
    end = _END.pack(b"PK\5\6", 0, 0, len(files), len(files), len(directory), len(body), 0)
    return bytes(body + directory + end)


def _require(holds: bool, field: str, rule: str, message: str) -> None:
    if not holds:
        raise InvalidInputError.of(field or "bundle", rule, message)
