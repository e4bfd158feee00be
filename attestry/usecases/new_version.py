"""A new version: its head row, and the transaction that makes it.

A manifest's upload and a refresh both make versions here, so that number, folder, execution, environment and policy follow from one code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from attestry.domain.approvals import ApprovalPolicy
from attestry.domain.cause import REGISTRATION, Cause
from attestry.domain.environments import environment_id
from attestry.domain.events import timestamp
from attestry.domain.manifest import Manifest
from attestry.domain.names import FolderNaming, name_execution, name_version_folder
from attestry.domain.principal import Principal
from attestry.domain.rollout import Plan
from attestry.domain.search_index import entries_of_version
from attestry.domain.version import EnvironmentRef, Version
from attestry.evidence.predicates import MoveFacts
from attestry.ports import Put, Write
from attestry.usecases.attest import Attestor, attest_move
from attestry.usecases.index_rows import index_writes
from attestry.usecases.records import candidate_version_key, record_writes, version_key
from attestry.usecases.sources import SourceFiles
from attestry.usecases.traits import traits_of


@dataclass(frozen=True)
class Defaults:
    """What the registry adds to every version.

    Attributes:
        platform: Python version and platform tag that the environments are built for.
        naming: what follows the number in the names of the versions' folders.
        signed_tiers: risk tiers whose approvals need the approvers' own signatures, whatever the manifest says.
    """

    platform: tuple[str, str]
    naming: FolderNaming = FolderNaming.REVISION_AND_EXECUTION
    signed_tiers: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Candidate:
    """What a version is made from: the manifest, its digest, where its files and its upload folder lie."""

    manifest: Manifest
    digest: str
    files: SourceFiles
    upload_folder: str


def first_head(
    defaults: Defaults,
    candidate: Candidate,
    number: int,
    *,
    submitter: Principal,
    person: str | None,
    at: datetime,
    cause: Cause = REGISTRATION,
    inputs: tuple[Mapping[str, Any], ...] = (),
    environment: EnvironmentRef | None = None,
) -> Version:
    """Return the head of a version that does not exist yet.

    Args:
        defaults: what the registry adds.
        candidate: what it is made from.
        number: its number.
        submitter: who submits it.
        person: the person behind the submitter; None while unproven.
        at: the time.
        cause: why it is made.
        inputs: source files that are others than the manifest names, see `Version.inputs`.
        environment: the environment of a version that is reproduced; by default, the one that the registry builds today.
    """
    manifest, files = candidate.manifest, candidate.files
    execution = name_execution(manifest.model.name, number, 1, candidate.digest)
    signed = manifest.model.risk_tier in defaults.signed_tiers
    policy = ApprovalPolicy.of_manifest(manifest.approval, manifest.gates.records, signed=signed, promotion=manifest.deployment.promotion)
    python, platform = defaults.platform
    folder = name_version_folder(
        manifest.model.name, number, manifest.source.revision, execution, naming=defaults.naming, day=at.date()
    ).rstrip("/")
    return Version(
        model=manifest.model.name,
        number=number,
        candidate=candidate.digest,
        execution_id=execution,
        folder=folder,
        submitter=submitter,
        submitter_person=person,
        manifest=files.manifest,
        source=files.archive,
        lock=files.lock,
        diff=files.diff,
        created=timestamp(at),
        updated=timestamp(at),
        environment=_unbuilt(environment)
        if environment
        else EnvironmentRef(environment_id(files.lock.sha256, python, platform), files.lock.sha256, python, platform),
        approval_policy=policy.to_item(),
        upload_folder=candidate.upload_folder,
        inference_script=manifest.validation.script,
        capture_rate=str(manifest.deployment.capture_rate),
        deployment_environment=manifest.deployment.environment,
        target="" if manifest.deployment.target == "function" else manifest.deployment.target,
        expires="" if manifest.deployment.expires is None else str(manifest.deployment.expires),
        strategy=Plan.of(manifest.deployment, column=manifest.validation.columns.prediction).to_item(),
        promotes_to=manifest.deployment.promotes_to,
        cause=cause.to_item(),
        inputs=inputs,
        barred=cause.barred,
        traits=traits_of(manifest, inputs),
        unvalidated=bool(policy.records),
    )


def _unbuilt(environment: EnvironmentRef) -> EnvironmentRef:
    """Return the same environment as a version has it before its first stage finds it built."""
    return EnvironmentRef(environment.id, environment.lock_sha256, environment.python, environment.platform)


def version_writes(
    attestor: Attestor,
    manifest: Manifest,
    version: Version,
    by: Principal,
    reason: str,
    at: datetime,
    policies: Sequence[Mapping[str, Any]] = (),
) -> list[Write]:
    """Attest the first move of a version, and return the writes that make it: head, candidate's list, transition and event.

    Args:
        attestor: signs with the function's own key.
        manifest: the manifest.
        version: its head, see `first_head`.
        by: who makes it.
        reason: why, a sentence.
        at: the time.
        policies: references of the editions of the registry's policies that the manifest keeps.

    Raises:
        UnavailableError: the attestation could not be signed or kept.
        InvalidInputError: the event would be larger than 4 KiB.
    """
    return first_writes(attestor, version, _registration(manifest, version, by, reason, at, policies), by, at)


def first_writes(attestor: Attestor, version: Version, facts: MoveFacts, by: Principal, at: datetime) -> list[Write]:
    """Attest the first move of a version, of whichever kind, and return the writes that make it.

    Raises:
        UnavailableError, InvalidInputError: see `version_writes`.
    """
    version = replace(version, indexed=True)
    recorded = record_writes(version, facts, by, at, attest_move(attestor, version, facts))
    listing = {"gsi_pk": f"VERSIONS#{version.model}", "gsi_sk": f"{version.number:09d}"}
    made = {"model": version.model, "number": version.number, "kind": version.cause["kind"], "at": timestamp(at)}
    return [
        Put(version_key(version.model, version.number), {**version.to_item(), **listing}),
        Put(candidate_version_key(version.candidate, version.number), made),
        *index_writes((), entries_of_version(version)),
        *recorded,
    ]


def _registration(
    manifest: Manifest, version: Version, by: Principal, reason: str, at: datetime, policies: Sequence[Mapping[str, Any]]
) -> MoveFacts:
    """Return the first move of a version."""
    governed: dict[str, Any] = {"policies": list(policies)} if policies else {}
    governed |= {"target": version.target} if version.target else {}
    return MoveFacts(
        model=version.model,
        number=version.number,
        transition=1,
        kind="candidate.registered",
        origin=None,
        to={"stage": version.stage.value, "status": version.status.value, "standing": version.standing.value},
        principal=by.to_item(),
        reason=reason,
        at=timestamp(at),
        evidence=version.candidate,
        version_digest="",
        data={
            "candidate": version.candidate,
            "revision": manifest.source.revision,
            "folder": version.folder,
            "execution": version.execution_id,
            "cause": dict(version.cause),
            **governed,
        },
    )
