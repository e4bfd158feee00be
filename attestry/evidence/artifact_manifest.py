"""The artifact manifest: the document that closes a version's `frozen/` folder.

Rules:
- It is one RFC 8785 document; its SHA-256 is the version digest.
- Format 1 is that of a version which was made here, format 2 that of one which was imported: it names no data and no environment, since
  nothing was prepared, trained or run here.
- It names model, number and execution, so that two trainings that give equal bytes are still two versions.
- It lists every frozen file but itself; a file that it does not list is no part of the version.
- Reading is strict: a document that the writer would not have written byte for byte is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from attestry.domain.errors import InvalidInputError
from attestry.domain.names import DistinctPaths, ModelName
from attestry.evidence.canonical import canonical_bytes, parse_canonical
from attestry.evidence.digests import is_sha256, sha256_hex

FORMAT = 1
IMPORTED = 2
"""The format of an imported version's manifest."""


@dataclass(frozen=True)
class SourceData:
    """A file of source data: its name in the manifest, SHA-256 (hex) and size in bytes."""

    name: str
    sha256: str
    size: int


@dataclass(frozen=True)
class FrozenFile:
    """A frozen file: path below `frozen/`, size in bytes, SHA-256 (hex)."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class ManifestEnvironment:
    """The environment: its ID, SHA-256 (hex) of lock file and archive, and the Python version, such as `3.13`."""

    id: str
    lock_sha256: str
    archive_sha256: str
    python: str


@dataclass(frozen=True)
class ArtifactManifest:
    """What a version is made of.

    Attributes:
        model: the model's name.
        number: the version's number, from 1.
        execution_id: the execution that gave the version its folder.
        candidate: digest of the canonical manifest, or of the import document, hex.
        source: the source data.
        training: tree digest of the training set, hex; empty of an imported version.
        holdout: tree digest of the hold-out set, hex; empty of an imported version.
        environment: what the scripts ran in; None of an imported version, and that alone tells it from the others.
        files: the frozen files; kept sorted by path.

    Raises:
        InvalidInputError: on creation, naming the field that breaks a rule.
    """

    model: str
    number: int
    execution_id: str
    candidate: str
    source: tuple[SourceData, ...]
    training: str
    holdout: str
    environment: ManifestEnvironment | None
    files: tuple[FrozenFile, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "source", tuple(sorted(self.source, key=lambda s: s.name)))
        object.__setattr__(self, "files", tuple(sorted(self.files, key=lambda f: f.path)))
        ModelName(self.model)
        _require(bool(self.execution_id), "execution_id", "required", "is empty")
        _require(self.number >= 1, "number", "minimum", "is less than 1")
        _require_digest(self.candidate, "candidate")
        self._check_origin()
        for data in self.source:
            _require_digest(data.sha256, f"datasets.source.{data.name}")
            _require(data.size >= 0, f"datasets.source.{data.name}", "minimum", "has a negative size")
        names = {s.name for s in self.source}
        _require(len(names) == len(self.source), "datasets.source", "unique", "has one name twice")
        _check_files(self.files)

    @property
    def imported(self) -> bool:
        """Return whether it is of a version whose files were made elsewhere."""
        return self.environment is None

    def _check_origin(self) -> None:
        if self.environment is None:
            _require(not (self.source or self.training or self.holdout), "datasets", "imported", "an imported version has no data sets")
            return
        for field in ("training", "holdout"):
            _require_digest(getattr(self, field), field)
        _require_digest(self.environment.lock_sha256, "environment.lock_sha256")
        _require_digest(self.environment.archive_sha256, "environment.archive_sha256")

    @property
    def version_digest(self) -> str:
        """Return the SHA-256 of the document, hex."""
        return sha256_hex(self.to_bytes())

    def to_bytes(self) -> bytes:
        """Return the document."""
        common = {
            "model": self.model,
            "number": self.number,
            "execution_id": self.execution_id,
            "candidate": self.candidate,
            "files": [{"path": f.path, "size": f.size, "sha256": f.sha256} for f in self.files],
        }
        if self.environment is None:
            return canonical_bytes({"format": IMPORTED, **common, "origin": "import"})
        return canonical_bytes(
            {
                "format": FORMAT,
                **common,
                "datasets": {
                    "source": [{"name": s.name, "sha256": s.sha256, "size": s.size} for s in self.source],
                    "training": self.training,
                    "holdout": self.holdout,
                },
                "environment": {
                    "id": self.environment.id,
                    "lock_sha256": self.environment.lock_sha256,
                    "archive_sha256": self.environment.archive_sha256,
                    "python": self.environment.python,
                },
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> ArtifactManifest:
        """Read a document.

        Raises:
            InvalidInputError: not canonical JSON, an unknown format, a field too many or too few, or of another type.
        """
        value = parse_canonical(data)
        common: dict[str, type] = {"format": int, "model": str, "number": int, "execution_id": str, "candidate": str, "files": list}
        if isinstance(value, dict) and value.get("format") == IMPORTED:
            return cls._read_imported(data, _fields(value, "", {**common, "origin": str}))
        body = _fields(value, "", {**common, "datasets": dict, "environment": dict})
        _require(body["format"] == FORMAT, "format", "const", f"is not {FORMAT}")
        datasets = _fields(body["datasets"], "datasets", {"source": list, "training": str, "holdout": str})
        environment = {"id": str, "lock_sha256": str, "archive_sha256": str, "python": str}
        manifest = cls(
            model=body["model"],
            number=body["number"],
            execution_id=body["execution_id"],
            candidate=body["candidate"],
            source=tuple(
                SourceData(**_fields(s, f"datasets.source[{i}]", {"name": str, "sha256": str, "size": int}))
                for i, s in enumerate(datasets["source"])
            ),
            training=datasets["training"],
            holdout=datasets["holdout"],
            environment=ManifestEnvironment(**_fields(body["environment"], "environment", environment)),
            files=_read_files(body["files"]),
        )
        _require(manifest.to_bytes() == data, "", "canonical", "lists its files or sources in another order")
        return manifest

    @classmethod
    def _read_imported(cls, data: bytes, body: Mapping[str, Any]) -> ArtifactManifest:
        _require(body["origin"] == "import", "origin", "const", "is not import")
        manifest = cls(
            model=body["model"],
            number=body["number"],
            execution_id=body["execution_id"],
            candidate=body["candidate"],
            source=(),
            training="",
            holdout="",
            environment=None,
            files=_read_files(body["files"]),
        )
        _require(manifest.to_bytes() == data, "", "canonical", "lists its files in another order")
        return manifest


def _read_files(files: Sequence[Any]) -> tuple[FrozenFile, ...]:
    types: Mapping[str, type] = {"path": str, "size": int, "sha256": str}
    return tuple(FrozenFile(**_fields(f, f"files[{i}]", types)) for i, f in enumerate(files))


def _fields(value: Any, where: str, types: Mapping[str, type]) -> dict[str, Any]:
    _require(isinstance(value, dict), where, "type", "is no object")
    _require(set(value) == set(types), where, "fields", f"must have exactly the fields {', '.join(sorted(types))}")
    for name, kind in types.items():
        _require(type(value[name]) is kind, f"{where}.{name}".lstrip("."), "type", f"is no {kind.__name__}")
    return dict(value)


def _check_files(files: Sequence[FrozenFile]) -> None:
    paths = DistinctPaths("files")
    for file in files:
        paths.add(file.path)
        where = f"files.{file.path}"
        _require(file.size >= 0, where, "minimum", "has a negative size")
        _require_digest(file.sha256, where)


def _require_digest(value: object, field: str) -> None:
    _require(is_sha256(value), field, "sha256", "is no SHA-256 in lower-case hex")


def _require(holds: bool, field: str, rule: str, message: str) -> None:
    if not holds:
        raise InvalidInputError.of(field, rule, message)
