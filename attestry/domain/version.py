"""A model version as the registry records it, and the references that it is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import Any

from attestry.domain.days import is_day
from attestry.domain.errors import ConflictError, HeldError
from attestry.domain.principal import Principal
from attestry.domain.stages import Stage, Standing, Status

REGISTERED: Mapping[str, Any] = {"kind": "registration", "parent": None}
"""The cause of a version that a manifest's upload made, and of every version of former times, whose rows have none."""

_MADE_ELSEWHERE = "{} was imported: its files were made elsewhere, so it has no manifest, and nothing can be run to make it again"


@dataclass(frozen=True)
class FileRef:
    """Exactly which bytes, and where they are.

    Attributes:
        path: name within the set that the file belongs to.
        key: object key.
        version_id: S3 version ID.
        size: bytes.
        sha256: hex.
    """

    path: str
    key: str
    version_id: str
    size: int
    sha256: str

    def to_item(self) -> dict[str, Any]:
        """Return the reference as it is stored."""
        return {"path": self.path, "key": self.key, "version_id": self.version_id, "size": self.size, "sha256": self.sha256}

    @classmethod
    def from_item(cls, item: Mapping[str, Any]) -> FileRef:
        """Return the reference that `to_item` wrote."""
        return cls(item["path"], item["key"], item["version_id"], int(item["size"]), item["sha256"])


@dataclass(frozen=True)
class EnvironmentRef:
    """The environment that the version's scripts run in.

    Attributes:
        id: identity of lock file, Python and platform.
        lock_sha256: digest of the lock file.
        archive: the built archive; None until it is built.
        python: for example `3.13`.
        platform: for example `manylinux2014_aarch64`.
        packages: what the archive holds, each `name==version`.
    """

    id: str
    lock_sha256: str
    python: str = ""
    platform: str = ""
    archive: FileRef | None = None
    packages: tuple[str, ...] = ()

    def to_item(self) -> dict[str, Any]:
        """Return the reference as it is stored; the archive's place and digest are named at the top for its readers."""
        item: dict[str, Any] = {
            "id": self.id,
            "lock_sha256": self.lock_sha256,
            "python": self.python,
            "platform": self.platform,
            "packages": list(self.packages),
        }
        if self.archive:
            item |= {
                "archive_sha256": self.archive.sha256,
                "key": self.archive.key,
                "version_id": self.archive.version_id,
                "size": self.archive.size,
            }
        return item

    @classmethod
    def from_item(cls, item: Mapping[str, Any]) -> EnvironmentRef:
        """Return the reference that `to_item` wrote."""
        archive = None
        if item.get("key"):
            archive = FileRef("environment.zip", item["key"], item["version_id"], int(item["size"]), item["archive_sha256"])
        return cls(item["id"], item["lock_sha256"], item["python"], item["platform"], archive, tuple(item.get("packages", ())))


@dataclass(frozen=True)
class DataSet:
    """A set of files under one digest.

    Attributes:
        name: `source/<name>`, `training`, `holdout` or `holdout-labels`.
        digest: tree digest, see `attestry.evidence.digests`; of a single source file its SHA-256.
        files: the files.
    """

    name: str
    digest: str
    files: tuple[FileRef, ...]

    def to_item(self) -> dict[str, Any]:
        """Return the data set as it is stored."""
        return {"name": self.name, "digest": self.digest, "files": [f.to_item() for f in self.files]}

    @classmethod
    def from_item(cls, item: Mapping[str, Any]) -> DataSet:
        """Return the data set that `to_item` wrote."""
        return cls(item["name"], item["digest"], tuple(FileRef.from_item(f) for f in item["files"]))


@dataclass(frozen=True)
class Version:
    """The head row of a version: what the pipeline and the readers need, as of its latest transition.

    Attributes:
        model: the model's name.
        number: never reused.
        candidate: digest of the canonical manifest.
        execution_id: ID of the attempt that gave the version its folder.
        folder: prefix in the model store, without a trailing slash.
        submitter: who submitted the candidate.
        submitter_person: the person behind the submitter; None while unproven.
        manifest: the canonical manifest in the store; of an imported version, the import document (`attestry.domain.imports`).
        source: the source archive; None of an imported version.
        lock: the environment's lock file; None of an imported version.
        diff: what the source archive holds beyond its revision; None when it is clean.
        created: RFC 3339.
        updated: RFC 3339.
        attempt: counts the executions of the pipeline for this version.
        stage: the latest stage.
        status: its status.
        standing: see `Standing`.
        transition: number of the latest transition.
        rev: optimistic lock, raised by each write.
        environment: the script's environment.
        datasets: source, training, hold-out and hold-out labels.
        schema: feature columns in order, each `{"name", "type"}`.
        version_digest: SHA-256 of the artifact manifest; empty before TRAINING has ended.
        artifact: the artifact manifest.
        frozen: the frozen files, with the artifact manifest's paths.
        metrics: name to number as text, computed by the registry on the hold-out.
        gates: results of the gates.
        approved: the approvals that the policy asks for are there.
        approval_policy: what the manifest asks for.
        error: why the latest stage failed or was rejected.
        token: the pipeline's task token while APPROVAL waits; never shown.
        deployed_at: when it was last put in place.
        upload_folder: where the submission lies, with a slash at the end; source data are copied from there.
        inference_script: path of the script with `model_fn` and `predict_fn` in the source archive.
        capture_rate: share of predictions that is captured once deployed, as text.
        deployment_environment: name of the environment that the pipeline deploys to.
        target: what serves it: `sagemaker` for an endpoint, empty for the inference function.
        strategy: how it comes into place (`attestry.domain.rollout.Plan`); empty for all at once.
        promotes_to: further environments that it may be promoted to, in order.
        retires_on: first day (UTC, `YYYY-MM-DD`) on which it may not be used any more; empty where none is set.
        retirement: of a version that stands RETIRED, the event's `kind`, `by`, `reason` and `at`; empty before.
        packet: the decision packet: `sha256`, `key`, `version_id`, `page_sha256` of the page that shows it, and `transition`, the number
            of the one that opened APPROVAL, with `again` where it had been opened before; empty before.
        cause: why it was made, see `attestry.domain.cause`.
        inputs: source files that are others than the manifest names: `name`, `sha256`, `size`, `key`, `version_id`, and `by`, the person
            who brought it, empty where that is not known.
        barred: persons who may not decide on it, besides the submitter.
        held: while somebody holds the version, `by` (person), `reason` and `at`; empty else.
        traits: what its manifest says that versions are searched by, see `attestry.usecases.traits`; empty of a version of former times.
        indexed: whether its entries are in the index of the catalogue; one of former times gets them with its next move.
        expires: when it ends by its manifest: a day (`YYYY-MM-DD`), or until it is first put in place a number of days; empty for no end.
        legal_hold: while what it left may not be touched, `by` (person), `reason` and `at`; empty else.
        disposal: how far its disposal is, see `attestry.domain.custody.Custody`; empty where none was asked for.
        validations: place (`attestry.domain.validations.place_of`) to the facts of the latest validation record; empty where there is none.
        unvalidated: whether its manifest demands validation records that do not stand; the table takes no approval while it is set.
        promotions: environment to its latest promotion there that people approve, see `attestry.domain.promotion.Promotion`.
        terms: under what it may serve by its approvals, see `attestry.domain.conditions.Terms`; empty for no conditions.
    """

    model: str
    number: int
    candidate: str
    execution_id: str
    folder: str
    submitter: Principal
    submitter_person: str | None
    manifest: FileRef
    source: FileRef | None
    lock: FileRef | None
    created: str
    updated: str
    attempt: int = 1
    stage: Stage = Stage.REGISTERED
    status: Status = Status.SUCCEEDED
    standing: Standing = Standing.CANDIDATE
    transition: int = 1
    rev: int = 1
    environment: EnvironmentRef | None = None
    datasets: tuple[DataSet, ...] = ()
    diff: FileRef | None = None
    schema: tuple[Mapping[str, str], ...] = ()
    version_digest: str = ""
    artifact: FileRef | None = None
    frozen: tuple[FileRef, ...] = ()
    metrics: Mapping[str, str] = field(default_factory=dict)
    gates: tuple[Mapping[str, Any], ...] = ()
    approved: bool = False
    approval_policy: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""
    token: str = ""
    deployed_at: str = ""
    upload_folder: str = ""
    inference_script: str = ""
    capture_rate: str = "0"
    deployment_environment: str = "production"
    packet: Mapping[str, Any] = field(default_factory=dict)
    target: str = ""
    strategy: Mapping[str, Any] = field(default_factory=dict)
    promotes_to: tuple[str, ...] = ()
    retires_on: str = ""
    retirement: Mapping[str, str] = field(default_factory=dict)
    cause: Mapping[str, Any] = field(default_factory=lambda: dict(REGISTERED))
    inputs: tuple[Mapping[str, Any], ...] = ()
    barred: tuple[str, ...] = ()
    held: Mapping[str, str] = field(default_factory=dict)
    terms: Mapping[str, Any] = field(default_factory=dict)
    expires: str = ""
    traits: Mapping[str, Any] = field(default_factory=dict)
    indexed: bool = False
    legal_hold: Mapping[str, str] = field(default_factory=dict)
    disposal: Mapping[str, Any] = field(default_factory=dict)
    validations: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    unvalidated: bool = False
    promotions: Mapping[str, Any] = field(default_factory=dict)

    @property
    def decided_under(self) -> str:
        """Return what tells decisions of this opening of the approval from those of earlier ones; empty for the first opening."""
        return f"#{self.opening:06d}" if self.packet.get("again") else ""

    @property
    def opening(self) -> int:
        """Return the number of the transition that opened its approval the last time; 0 before."""
        return int(self.packet.get("transition") or 0)

    @property
    def reference(self) -> str:
        """Return `MODEL@N`."""
        return f"{self.model}@{self.number}"

    @property
    def imported(self) -> bool:
        """Return whether its files were made elsewhere; it has an import document in the place of a manifest then."""
        return self.cause.get("kind") == "import"

    @property
    def code(self) -> tuple[FileRef, FileRef]:
        """Return source archive and lock file of a version that is made here.

        Raises:
            ConflictError: the version was imported and has neither.
        """
        if self.source is None or self.lock is None:
            raise ConflictError(_MADE_ELSEWHERE.format(self.reference))
        return self.source, self.lock

    def require_made_here(self) -> None:
        """Refuse an imported version where something of the recipe is needed, which it has none of.

        Raises:
            ConflictError: the version was imported.
        """
        if self.imported:
            raise ConflictError(_MADE_ELSEWHERE.format(self.reference))

    @property
    def out_of_use(self) -> str:
        """Return how a version that stands RETIRED came to that: `killed at ... by ...: reason`; empty for every other."""
        return tell_end(self.retirement) if self.standing is Standing.RETIRED else ""

    def require_not_held(self, act: str) -> None:
        """Refuse an act on a version that is held.

        Args:
            act: what is not done, for the sentence: `is not deployed`.

        Raises:
            HeldError: naming who holds it, since when and why.
        """
        if self.held:
            told = f"{self.reference} is held since {self.held['at']} by {self.held['by']}: {self.held['reason']}"
            raise HeldError(f"{told}; it {act} before it is released", details={"held": dict(self.held)})

    def is_due(self, at: datetime) -> bool:
        """Return whether the day has come from which on the version may not be used, though nobody may have retired it yet."""
        return bool(self.ends_on) and self.ends_on <= at.astimezone(UTC).date().isoformat()

    @property
    def ends_on(self) -> str:
        """Return the day from which on it may not be used, by its retirement or its manifest; empty where none is known."""
        return min((day for day in (self.retires_on, self.expires) if is_day(day)), default="")

    def dataset(self, name: str) -> DataSet:
        """Return the data set of that name.

        Raises:
            KeyError: the version has no such data set (yet).
        """
        for dataset in self.datasets:
            if dataset.name == name:
                return dataset
        raise KeyError(name)

    def to_item(self) -> dict[str, Any]:
        """Return the whole head row."""
        return {f.name: encode(getattr(self, f.name)) for f in fields(self)}

    @classmethod
    def from_item(cls, item: Mapping[str, Any]) -> Version:
        """Return the version that a head row tells of."""
        values = {f.name: item[f.name] for f in fields(cls) if f.name in item and f.name not in _DECODERS}
        decoded: dict[str, Any] = {name: decode(item[name]) for name, decode in _DECODERS.items() if item.get(name) is not None}
        if (decoded.get("cause") or {}).get("kind") == "import":
            decoded = {"source": None, "lock": None, **decoded}
        return cls(**values, **decoded)


def tell_end(retirement: Mapping[str, Any]) -> str:
    """Return how a version came to stand RETIRED: `killed at ... by ...: reason`."""
    act = "killed" if retirement.get("kind") == "version.killed" else "retired"
    return f"{act} at {retirement.get('at')} by {retirement.get('by')}: {retirement.get('reason')}"


def encode(value: Any) -> Any:
    """Return a field of `Version` in the form in which rows hold it."""
    if hasattr(value, "to_item"):
        return value.to_item()
    if isinstance(value, (Stage, Status, Standing)):
        return value.value
    if isinstance(value, (list, tuple)):
        return [encode(v) for v in value]
    if isinstance(value, Mapping):
        return {k: encode(v) for k, v in value.items()}
    return value


_DECODERS: dict[str, Any] = {
    "submitter": Principal.from_item,
    "manifest": FileRef.from_item,
    "source": FileRef.from_item,
    "lock": FileRef.from_item,
    "diff": FileRef.from_item,
    "stage": Stage,
    "status": Status,
    "standing": Standing,
    "environment": EnvironmentRef.from_item,
    "datasets": lambda items: tuple(DataSet.from_item(i) for i in items),
    "schema": tuple,
    "artifact": FileRef.from_item,
    "frozen": lambda items: tuple(FileRef.from_item(i) for i in items),
    "gates": tuple,
    "packet": dict,
    "strategy": dict,
    "promotes_to": tuple,
    "retirement": dict,
    "cause": dict,
    "inputs": tuple,
    "barred": tuple,
    "held": dict,
    "terms": dict,
    "traits": dict,
    "legal_hold": dict,
    "disposal": dict,
    "validations": dict,
    "promotions": dict,
}
