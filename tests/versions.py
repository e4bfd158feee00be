"""Versions to test moves with, as the registry would have recorded them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from attestry.domain.approvals import ApprovalPolicy
from attestry.domain.principal import Principal, identify
from attestry.domain.stages import Stage, Standing, Status
from attestry.domain.version import FileRef, Version
from attestry.ports import ABSENT, MetaStore, Put
from attestry.usecases.attest import Attestor
from attestry.usecases.records import Move, load_version, login_key, model_key, move_writes, version_key
from tests.fakes import LocalSigner, MemoryObjectStore

ATTESTOR = Attestor(LocalSigner("local:tests"), MemoryObjectStore())
"""Attests where a test does not look at attestations."""

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ACCOUNT = "123456789012"
POLICY = ApprovalPolicy(automatic=False, roles=("approver",), count=1)


def session(role: str, name: str, *, person: str | None = None) -> Principal:
    """A session of one of the registry's roles."""
    arn = f"arn:aws:sts::{ACCOUNT}:assumed-role/attestry-{role}/{name}"
    principal = identify(arn, f"AROA{role.upper()}:{name}", account=ACCOUNT, prefix="attestry", method="AWS_IAM SigV4", address="192.0.2.7")
    return principal.as_person(person)


DANA = session("scientist", "dana", person="dana")
ERIN = session("approver", "erin", person="erin")
FRANK = session("approver", "frank", person="frank")


def add_logins(meta: MetaStore, **logins: str) -> None:
    """Map logins to persons."""
    meta.transact([Put(login_key(login), {"person": person, "login": login}) for login, person in logins.items()])


def ref(path: str) -> FileRef:
    """A reference to a file that no test opens."""
    return FileRef(path, f"somewhere/{path}", "v1", 3, "ab" * 32)


def make_version(
    meta: MetaStore,
    *,
    model: str = "credit-risk",
    number: int = 1,
    stage: Stage = Stage.VALIDATION,
    status: Status = Status.SUCCEEDED,
    standing: Standing = Standing.CANDIDATE,
    policy: ApprovalPolicy = POLICY,
    submitter: Principal = DANA,
    **changes: Any,
) -> Version:
    """Put a version into the table by the moves that lead to its stage, and return it."""
    candidate = f"{number:02d}" * 32
    version = Version(
        model=model,
        number=number,
        candidate=candidate,
        execution_id=f"{model}-{number}-1-{candidate[:12]}",
        folder=f"models/{model}/{number}-{'0' * 40}-{model}-{number}-1-{candidate[:12]}",
        submitter=submitter,
        submitter_person=submitter.person,
        manifest=ref("manifest.json"),
        source=ref("source.tar.gz"),
        lock=ref("requirements.lock"),
        created="2026-01-02T03:04:05.000000Z",
        updated="2026-01-02T03:04:05.000000Z",
        version_digest=f"{number:02x}" * 32,
        approval_policy=policy.to_item(),
    )
    version = replace(version, **changes)
    listing = {"gsi_pk": f"VERSIONS#{model}", "gsi_sk": f"{number:09d}"}
    if meta.get(model_key(model)) is None:
        meta.transact([Put(model_key(model), {"model": model, "next": number + 1, "rev": 1, "gsi_pk": "MODELS", "gsi_sk": model}, ABSENT)])
    meta.transact([Put(version_key(model, number), {**version.to_item(), **listing})])
    move = Move(stage, status, standing, "test.moved", submitter, "the test begins here", AT)
    meta.transact(move_writes(version, move, ATTESTOR))
    return load_version(meta, model, number)


def make_approved(meta: MetaStore, number: int, **changes: Any) -> Version:
    """A version that may be deployed."""
    return make_version(meta, number=number, stage=Stage.APPROVAL, standing=Standing.APPROVED, approved=True, **changes)
