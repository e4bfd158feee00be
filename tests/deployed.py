"""A deployed version in the fakes, the delegate function over the real use case, and an inference function that a test plays."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from attestry.domain.approvals import ApprovalPolicy
from attestry.domain.errors import AttestryError
from attestry.domain.events import timestamp
from attestry.domain.principal import Principal
from attestry.domain.rollout import Plan
from attestry.domain.stages import Stage, Standing, Status
from attestry.domain.version import EnvironmentRef, FileRef, Version
from attestry.evidence.attestor import AttestationRef
from attestry.evidence.digests import sha256_hex
from attestry.evidence.predicates import MoveFacts
from attestry.ports import Put, Update, When, Write
from attestry.usecases.delegate import delegate_signing
from attestry.usecases.predict import Predictor
from attestry.usecases.records import approval_key, load_version, pointer_key, record_writes, version_key
from attestry.usecases.rollout_places import keep_rollout
from attestry.usecases.sign import FunctionDelegator, SigningKeys
from tests.fakes import Faults, FixedClock, LocalSigner, MemoryFunctions, MemoryMetaStore, MemoryObjectStore

AT = datetime(2026, 1, 1, tzinfo=UTC)
MODEL = "credit-risk"
ENVIRONMENT = "production"
SCHEMA = ({"name": "age", "type": "int64"}, {"name": "income", "type": "double"})
BODY = b'{"instances":[{"age":41,"income":52000.5}]}'
POLICY = ApprovalPolicy(automatic=False, roles=("approver",), count=1)


def principal(login: str, role: str = "consumer") -> Principal:
    arn = f"arn:aws:sts::123456789012:assumed-role/attestry-{role}/{login}"
    return Principal(arn, f"AROA:{login}", "aws:123456789012", "AWS_IAM SigV4", "192.0.2.7", login, (role,))


def make_version(number: int) -> Version:
    def file(path: str) -> FileRef:
        return FileRef(path, f"{folder}/frozen/{path}", f"v-{path}", 10, sha256_hex(path.encode()))

    execution = f"{MODEL}-{number}-1-0123456789ab"
    folder = f"models/{MODEL}/{number}-{'c' * 40}-{execution}"
    return Version(
        model=MODEL,
        number=number,
        candidate=sha256_hex(b"candidate"),
        execution_id=execution,
        folder=folder,
        submitter=principal("dana"),
        submitter_person="dana",
        manifest=file("manifest.json"),
        source=file("source.tar.gz"),
        lock=file("requirements.lock"),
        created="2026-01-01T00:00:00.000000Z",
        updated="2026-01-01T00:00:00.000000Z",
        stage=Stage.DEPLOYMENT,
        status=Status.SUCCEEDED,
        standing=Standing.DEPLOYED,
        environment=EnvironmentRef("env", sha256_hex(b"lock"), "3.13", "any", file("environment.zip")),
        schema=SCHEMA,
        version_digest=sha256_hex(f"version {number}".encode()),
        artifact=file("artifact-manifest.json"),
        frozen=(file("model/model.joblib"),),
        approved=True,
        approval_policy=POLICY.to_item(),
    )


def approval(version: Version, transition: int = 1, **changes: Any) -> dict[str, Any]:
    person = str(changes.get("person", "erin"))
    facts = {"person": person, "decision": "approve"}
    row = {
        **facts,
        "stage": "APPROVAL",
        "version_digest": version.version_digest,
        "policy_digest": ApprovalPolicy.from_item(version.approval_policy).digest,
        "transition": transition,
        "reason": "the gates hold",
        "principal": principal(person, "approver").as_person(person).to_item(),
        "at": timestamp(AT),
        "evidence": "",
    }
    return {**row, **changes}


def recorded_approval(version: Version, transition: int = 1, **changes: Any) -> list[Write]:
    """The rows of an approval as the registry writes them: decision, transition, event."""
    row = approval(version, transition, **changes)
    state = {"stage": "APPROVAL", "status": "RUNNING", "standing": "CANDIDATE"}
    facts = MoveFacts(
        model=version.model,
        number=version.number,
        transition=transition,
        kind="version.approved",
        origin=state,
        to={**state, "status": "SUCCEEDED", "standing": "APPROVED"},
        principal=row["principal"],
        reason=row["reason"],
        at=row["at"],
        evidence=row["evidence"],
        version_digest=row["version_digest"],
        data={"person": row["person"], "decision": row["decision"], **({"conditions": row["conditions"]} if "conditions" in row else {})},
    )
    by = Principal.from_item(row["principal"])
    moved = record_writes(version, facts, by, AT, AttestationRef("ab" * 32, "somewhere", "v1"))
    return [
        Put(w.key, w.item, When()) for w in (Put(approval_key(MODEL, version.number, row["person"]), row), *moved) if isinstance(w, Put)
    ]


class Scene:
    """Version 1 deployed; `deploy(n)` cuts over to another."""

    def __init__(self, *, capture_rate: str = "1") -> None:
        self.faults = Faults()
        self.meta = MemoryMetaStore(self.faults)
        self.store = MemoryObjectStore(self.faults)
        self.clock = FixedClock()
        self.signer = LocalSigner()
        self.functions = MemoryFunctions({"delegate": self.delegate, "inference": self.infer}, self.faults)
        self.keys = SigningKeys(FunctionDelegator(self.functions, "delegate"), self.clock)
        self.capture_rate = capture_rate
        self.loaded: set[str] = set()
        self.inference: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None
        self.seconds = 0.0
        self.rev = 0
        self.deploy(1)
        self.faults.clear()

    def deploy(self, number: int) -> Version:
        version = make_version(number)
        self.rev += 1
        pointer = {
            "model": MODEL,
            "environment": ENVIRONMENT,
            "number": number,
            "version_digest": version.version_digest,
            "execution_id": version.execution_id,
            "folder": version.folder,
            "capture_rate": self.capture_rate,
            "rev": self.rev,
        }
        before = self.meta.rows.get(pointer_key(MODEL, ENVIRONMENT))
        writes: list[Any] = [
            Put(version_key(MODEL, number), version.to_item(), When()),
            *recorded_approval(version),
            Put(pointer_key(MODEL, ENVIRONMENT), pointer, When()),
        ]
        if before and before.get("number") not in (None, number):
            writes.append(Update(version_key(MODEL, int(before["number"])), {"standing": "ROLLBACK"}))
        self.meta._apply(writes)
        return version

    def roll_out(self, number: int, standing: str, *, share: int = 50, **plan: Any) -> Version:
        """Let a version stand CANARY or SHADOW beside the deployed one."""
        version = replace(make_version(number), standing=Standing(standing))
        self.rev += 1
        at = timestamp(self.clock.now())
        place = {
            "number": number,
            "version_digest": version.version_digest,
            "execution_id": version.execution_id,
            "folder": version.folder,
            "capture_rate": self.capture_rate,
            "plan": Plan(standing.lower(), **plan).to_item(),
            "begun": at,
            "since": at,
            **({"share": share, "step": 0} if standing == "CANARY" else {}),
        }
        self.meta._apply(
            [
                Put(version_key(MODEL, number), version.to_item(), When()),
                *recorded_approval(version),
                Update(pointer_key(MODEL, ENVIRONMENT), {standing.lower(): place, "rev": self.rev}),
                keep_rollout(MODEL, ENVIRONMENT),
            ]
        )
        return version

    def change_version(self, number: int, **changes: Any) -> None:
        version = replace(load_version(self.meta, MODEL, number), **changes)
        self.meta._apply([Put(version_key(MODEL, number), version.to_item(), When())])

    def delegate(self, event: Mapping[str, Any]) -> dict[str, Any]:
        try:
            delegation = delegate_signing(
                self.meta,
                self.signer,
                model=event["model"],
                environment=event["environment"],
                jwk=event["jwk"],
                at=self.clock.now(),
                version_digest=event.get("version_digest"),
                standing=event.get("standing", "DEPLOYED"),
            )
        except AttestryError as error:
            return {"error": error.to_dict()}
        return {"delegation": delegation.token, "kid": delegation.kid}

    def infer(self, event: Mapping[str, Any]) -> Mapping[str, Any]:
        if self.inference is not None:
            return self.inference(event)
        digest = event["version_digest"]
        if digest not in self.loaded and "load" not in event:
            return {"status": "NOT_LOADED"}
        self.loaded.add(digest)
        return {"status": "OK", "output": json.dumps([digest for _ in event["instances"]])}

    def predictor(self, **more: Any) -> Predictor:
        return Predictor(
            **more,
            meta=self.meta,
            store=self.store,
            functions=self.functions,
            keys=self.keys,
            inference="inference",
            clock=lambda: self.seconds,
        )
