"""Register: a manifest that was uploaded becomes a candidate, a version with a number, and a running pipeline.

The same manifest and source again, once or ten times at once, is the same candidate and the same version: the candidate's row is written
once, and the execution's name derives from it. What is refused changes nothing and is told in a status object beside the manifest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from attestry.domain.cause import REGISTRATION, Cause, CauseKind
from attestry.domain.endpoints import EndpointSettings
from attestry.domain.errors import (
    AttestryError,
    ConditionFailedError,
    ConflictError,
    ForbiddenError,
    InvalidInputError,
    NotFoundError,
    Problem,
)
from attestry.domain.events import timestamp
from attestry.domain.jobs import JobSettings
from attestry.domain.manifest import Manifest, ManifestDocument, read_manifest
from attestry.domain.names import FolderNaming
from attestry.domain.principal import Principal
from attestry.domain.version import FileRef, Version
from attestry.evidence.digests import sha256_hex
from attestry.ports import ABSENT, MetaStore, Notifier, ObjectStore, Pipeline, Put, When, Write
from attestry.usecases.access_gate import require_registration
from attestry.usecases.attest import Attestor
from attestry.usecases.catalogue_rows import name_is_free, name_key
from attestry.usecases.executions import start_attempt
from attestry.usecases.executors import check_executors
from attestry.usecases.manifests import load_registered_mapping
from attestry.usecases.new_version import Candidate, Defaults, first_head, version_writes
from attestry.usecases.policies import check_policies, policies_in_force
from attestry.usecases.records import MODELS, candidate_key, load_version, model_key, person_of, upload_key
from attestry.usecases.refresh import version_in_force
from attestry.usecases.refresh_watch import alarm_puts, schedule_attributes
from attestry.usecases.search import earlier_like, tell_alike
from attestry.usecases.sources import DIFF_NAME, SourceFiles, check_source, read_diff
from attestry.usecases.targets import check_target
from attestry.usecases.upload import MANIFEST_NAMES, MAX_MANIFEST_BYTES, STATUS_SUFFIX

TRIES = 24


@dataclass(frozen=True)
class UploadedManifest:
    """The object whose upload starts a registration.

    Attributes:
        key: `candidates/<user id>/<submission>/manifest.<ext>`.
        version_id: which S3 version of it.
        account: the account of the registry, for principals.
    """

    key: str
    version_id: str | None
    account: str

    @property
    def folder(self) -> str:
        """Return the folder that the manifest lies in, with a slash at the end."""
        return self.key.rpartition("/")[0] + "/"

    @property
    def user_id(self) -> str:
        """Return the user ID that the key names."""
        return self.key.split("/")[1]

    @property
    def is_manifest(self) -> bool:
        """Return whether the key is that of a manifest below a caller's candidate prefix; among files to import, none is a manifest."""
        parts = self.key.split("/")
        return len(parts) >= 3 and parts[3:4] != ["import"] and parts[0] == "candidates" and all(parts) and parts[-1] in MANIFEST_NAMES


@dataclass(frozen=True)
class Registration:
    """What became of a manifest.

    Attributes:
        state: `REGISTERED` or `REFUSED`.
        version: the version, when registered.
        created: False when the same candidate was there already.
        errors: every problem, when refused.
        alike: earlier versions of the same data, parameters, framework and algorithm.
    """

    state: str
    version: Version | None = None
    created: bool = False
    errors: tuple[Problem, ...] = ()
    alike: tuple[Version, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the status object's content."""
        status: dict[str, Any] = {"state": self.state, "errors": [e.to_dict() for e in self.errors]}
        if self.version:
            status |= {
                "model": self.version.model,
                "version": self.version.number,
                "candidate": self.version.candidate,
                "created": self.created,
            }
            if self.version.submitter_person is None:
                status["submitter"] = "unproven"
            if self.alike:
                status["alike"] = [tell_alike(self.version, other) for other in self.alike]
        return status


class Registrar:
    """Registers candidates."""

    def __init__(
        self,
        meta: MetaStore,
        attestor: Attestor,
        store: ObjectStore,
        pipeline: Pipeline,
        notifier: Notifier,
        platform: tuple[str, str],
        naming: FolderNaming = FolderNaming.REVISION_AND_EXECUTION,
        signed_tiers: frozenset[str] = frozenset(),
        sandbox_memory_mib: int | None = None,
        jobs: JobSettings | None = None,
        endpoints: EndpointSettings | None = None,
    ) -> None:
        """Take the ports.

        Args:
            meta: the table.
            attestor: signs with the function's own key.
            store: the model store.
            pipeline: the state machine.
            notifier: tells people.
            platform: Python version and platform tag that the environments are built for.
            naming: what follows the number in the names of the versions' folders.
            signed_tiers: risk tiers whose approvals need the approvers' own signatures, whatever the manifest says.
            sandbox_memory_mib: memory that a script has here on `lambda`, in MiB; None where the registrar is not told.
            jobs: what the deployment says about jobs of other services; without it, there are none.
            endpoints: what it says about SageMaker's endpoints; without it, there are none.
        """
        self._endpoints = endpoints or EndpointSettings()
        self._sandbox_memory_mib = sandbox_memory_mib
        self._jobs = jobs or JobSettings()
        self._signed_tiers = signed_tiers
        self._defaults = Defaults(platform, naming, signed_tiers)
        self._meta = meta
        self._attestor = attestor
        self._store = store
        self._pipeline = pipeline
        self._notifier = notifier

    def register(self, upload: UploadedManifest, at: datetime) -> Registration:
        """Register the uploaded manifest, and write the outcome beside it.

        Raises:
            UnavailableError: a service failed; the event is delivered again.
        """
        try:
            registration = self._register(upload, at)
        except (InvalidInputError, ConflictError, ForbiddenError) as error:
            registration = Registration("REFUSED", errors=_problems_of(error))
        self._tell(upload, registration)
        return registration

    def _register(self, upload: UploadedManifest, at: datetime) -> Registration:
        raw = self._store.read(upload.key, upload.version_id, max_bytes=MAX_MANIFEST_BYTES)
        document = read_manifest(raw)
        candidate = document.candidate_id
        version = self._registered(document.manifest, candidate)
        created = version is None
        if version is None:
            submitter = self._submitter(upload, sha256_hex(raw))
            require_registration(self._meta, document.manifest.model.name, by=submitter, at=at)
            files = self._keep_files(upload, document)
            version, created = self._create(document, files, upload, submitter, at)
        start_attempt(self._pipeline, version)
        return Registration("REGISTERED", version, created, alike=tuple(earlier_like(self._meta, version)))

    def _submitter(self, upload: UploadedManifest, sha256: str) -> Principal:
        """Return who stands behind the upload: as recorded when the URL was given, and only for the bytes that it was given for."""
        grant = self._meta.get(upload_key(upload.key))
        if grant and grant["sha256"] == sha256:
            return person_of(self._meta, Principal.from_item(grant["principal"]))
        by_key = Principal(
            f"aws:userid/{upload.user_id}", upload.user_id, f"aws:{upload.account}", "upload prefix", "", f"userid:{upload.user_id}"
        )
        return person_of(self._meta, by_key)

    def _registered(self, manifest: Manifest, candidate: str) -> Version | None:
        row = self._meta.get(candidate_key(candidate))
        return load_version(self._meta, manifest.model.name, int(row["number"])) if row else None

    def _keep_files(self, upload: UploadedManifest, document: ManifestDocument) -> SourceFiles:
        """Check what the manifest names, and copy it to where nobody can change it."""
        manifest = document.manifest
        check_executors(document, self._jobs)
        check_target(document, self._endpoints)
        _check_memory(document, self._sandbox_memory_mib)
        _check_signed(manifest, self._signed_tiers)
        source = check_source(self._store, upload.folder, manifest)
        diff = read_diff(self._store, upload.folder, manifest)
        self._check_data(upload.folder, manifest)
        prefix = f"registered/{document.candidate_id}"
        kept = self._store.put_new(f"{prefix}/manifest.json", document.canonical_bytes, content_type="application/json", retain=True)
        archive_key = upload.folder + manifest.source.archive
        with self._store.open(archive_key, source.archive_version) as stream:
            archive = self._store.put_new(f"{prefix}/source.tar.gz", stream, content_type="application/gzip", retain=True)
        if archive.sha256 != manifest.source.sha256:
            raise InvalidInputError.of("source.sha256", "digest", "the source archive changed while it was registered")
        lock = self._store.put_new(f"{prefix}/requirements.lock", source.lock, content_type="text/plain", retain=True)
        difference = None
        if diff is not None:
            stored = self._store.put_new(f"{prefix}/{DIFF_NAME}", diff, content_type="text/plain", retain=True)
            difference = FileRef(DIFF_NAME, stored.key, stored.version_id, stored.size, stored.sha256)
        return SourceFiles(
            FileRef("manifest.json", kept.key, kept.version_id, kept.size, kept.sha256),
            FileRef("source.tar.gz", archive.key, archive.version_id, archive.size, archive.sha256),
            FileRef("requirements.lock", lock.key, lock.version_id, lock.size, lock.sha256),
            difference,
        )

    def _check_data(self, folder: str, manifest: Manifest) -> None:
        missing = [
            Problem(f"data.source[{i}].uri", "present", f"{source.uri} is not in the upload folder; upload it before the manifest")
            for i, source in enumerate(manifest.data.source)
            if source.is_uploaded and self._store.stat(folder + source.uri) is None
        ]
        if missing:
            raise InvalidInputError(missing)

    def _create(
        self, document: ManifestDocument, files: SourceFiles, upload: UploadedManifest, submitter: Principal, at: datetime
    ) -> tuple[Version, bool]:
        manifest, candidate = document.manifest, document.candidate_id
        for _ in range(TRIES):
            rows = self._meta.get_many([model_key(manifest.model.name), name_key(manifest.model.name)])
            head = rows.get(model_key(manifest.model.name))
            named = [] if head else [name_is_free(rows, manifest.model.name)]
            in_force = policies_in_force(self._meta)
            checks = check_policies(in_force, manifest)
            number = int(head["next"]) if head else 1
            made_from = Candidate(manifest, candidate, files, upload.folder)
            cause = self._cause(document) if head else REGISTRATION
            version = first_head(self._defaults, made_from, number, submitter=submitter, person=submitter.person, at=at, cause=cause)
            try:
                policies = [edition.reference for edition in in_force]
                self._meta.transact([*_creation_writes(self._attestor, manifest, version, head, at, policies), *checks, *named])
            except ConditionFailedError:
                registered = self._registered(manifest, candidate)
                if registered:
                    return registered, False
                continue
            return version, True
        raise ConflictError(f"{manifest.model.name} is being changed by many others; upload the manifest again")

    def _cause(self, document: ManifestDocument) -> Cause:
        """Return whether the manifest is that of the version in force with another revision of the code, or a candidate of its own."""
        try:
            parent = version_in_force(self._meta, document.manifest.model.name)
        except NotFoundError:
            return REGISTRATION
        before = load_registered_mapping(self._store, parent)
        if _without_code(before) != _without_code(document.mapping):
            return REGISTRATION
        revisions = {"before": before["source"]["revision"], "after": document.manifest.source.revision}
        return Cause(CauseKind.REVISION, parent.number, facts={"revision": revisions})

    def _tell(self, upload: UploadedManifest, registration: Registration) -> None:
        status = registration.to_dict()
        self._store.put(upload.key + STATUS_SUFFIX, json.dumps(status, indent=2).encode(), content_type="application/json")
        if registration.version is None or registration.created:
            what = registration.version.reference if registration.version else upload.key
            self._notifier.notify(f"{what}: {registration.state.lower()}", {**status, "manifest": upload.key})


def _without_code(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """Return a manifest's content without what another revision of the same source changes."""
    source = {k: v for k, v in mapping["source"].items() if k not in ("revision", "sha256", "author", "dirty")}
    return {**mapping, "source": source}


def _creation_writes(
    attestor: Attestor,
    manifest: Manifest,
    version: Version,
    head: Mapping[str, Any] | None,
    at: datetime,
    policies: Sequence[Mapping[str, Any]],
) -> list[Write]:
    model = {
        "model": version.model,
        "owner": manifest.model.owner,
        "team": manifest.model.team,
        "purpose": manifest.model.purpose,
        "risk_tier": manifest.model.risk_tier,
        "labels": dict(manifest.model.labels),
        "created": head["created"] if head else timestamp(at),
        "next": version.number + 1,
        "rev": int(head["rev"]) + 1 if head else 1,
        "gsi_pk": MODELS,
        "gsi_sk": version.model,
    }
    candidate = {
        "candidate": version.candidate,
        "model": version.model,
        "number": version.number,
        "submitter": version.submitter.to_item(),
        "at": timestamp(at),
        **schedule_attributes(manifest, at),
    }
    return [
        Put(model_key(version.model), model, When(exists=True, equals={"rev": head["rev"]}) if head else ABSENT),
        Put(candidate_key(version.candidate), candidate),
        *alarm_puts(manifest, version.candidate),
        *version_writes(attestor, manifest, version, version.submitter, "the manifest was uploaded", at, policies),
    ]


def _check_memory(document: ManifestDocument, available: int | None) -> None:
    """Refuse a stage that asks for more memory than a script is given here; one that asks for nothing takes what there is."""
    if available is None:
        return
    here = [stage for stage in ("processing", "training", "validation") if document.mapping[stage].get("executor", "lambda") == "lambda"]
    asked = {stage: document.mapping[stage].get("resources", {}).get("memory_mib", 0) for stage in here}
    problems = [
        document.problem(
            f"{stage}.resources.memory_mib", "available", f"asks for {memory} MiB; this registry gives a script {available} MiB"
        )
        for stage, memory in asked.items()
        if memory > available
    ]
    if problems:
        raise InvalidInputError(problems)


def _check_signed(manifest: Manifest, signed_tiers: frozenset[str]) -> None:
    """Refuse a policy that asks nobody, where the registry wants persons who sign."""
    tier = manifest.model.risk_tier
    if manifest.approval.automatic and tier in signed_tiers:
        raise InvalidInputError.of(
            "approval.automatic",
            "signed_tier",
            f"this registry asks for signed approvals where the risk tier is {tier}, so people have to approve",
        )


def _problems_of(error: AttestryError) -> tuple[Problem, ...]:
    if isinstance(error, InvalidInputError) and error.problems:
        return error.problems
    return (Problem("", error.code, error.message),)
