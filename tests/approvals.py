"""A world in which versions come to their approval: what the gate freezes a packet of, and who decides."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from attestry.domain.approvals import ApprovalPolicy, Verdict
from attestry.domain.manifest import read_manifest
from attestry.domain.names import name_execution
from attestry.domain.principal import Principal
from attestry.domain.version import DataSet, Version
from attestry.evidence.digests import sha256_hex
from attestry.evidence.dsse import verify_envelope
from attestry.evidence.packet import Packet
from attestry.evidence.statement import Statement
from attestry.ports import Put, Update
from attestry.usecases.attest import Attestor
from attestry.usecases.decide import Decision, decide_approval
from attestry.usecases.gate import open_approval, send_on
from attestry.usecases.packet import load_packet
from attestry.usecases.people import add_person
from attestry.usecases.records import OUTBOX, load_version, pointer_key, stage_key, transition_key, version_key
from tests.fakes import Faults, LocalSigner, MemoryFunctions, MemoryMetaStore, MemoryNotifier, MemoryObjectStore, MemoryPipeline
from tests.ssh_keys import SshPerson
from tests.unit.manifest_samples import COMPLETE, as_json
from tests.versions import AT, ERIN, POLICY, make_version, ref, session

MODEL = "credit-risk"
ADMIN = session("admin", "alex", person="alex")
GATES = (
    {
        "name": "roc_auc_score",
        "rule": "minimum",
        "threshold": "0.9",
        "value": "0.93",
        "passed": True,
        "reason": "0.93, wanted at least 0.9",
    },
)
METRICS = {"roc_auc_score": "0.93", "recall": "0.81"}


@dataclass
class ApprovalWorld:
    """Table, store, pipeline and keys; `faults` counts the calls to all of them."""

    faults: Faults = field(default_factory=Faults)

    def __post_init__(self) -> None:
        self.meta, self.store = MemoryMetaStore(self.faults), MemoryObjectStore(self.faults)
        self.pipeline, self.notifier = MemoryPipeline(self.faults), MemoryNotifier()
        self.functions = MemoryFunctions(faults=self.faults)
        self.signer = LocalSigner("local:approvals", self.faults)
        self.attestor = Attestor(self.signer, self.store)

    def judged(
        self, number: int = 1, *, policy: ApprovalPolicy = POLICY, manifest: dict[str, Any] | None = None, **changes: Any
    ) -> Version:
        """A version whose validation has succeeded."""
        raw = read_manifest(as_json(manifest or COMPLETE)).canonical_bytes
        kept = self.store.put_new(f"registered/{number}/manifest.json", raw)
        names = {"candidate": kept.sha256, "execution_id": name_execution(MODEL, number, 1, kept.sha256)}
        made = make_version(self.meta, number=number, policy=policy, **{**names, **changes})
        record = json.dumps({"rows": 143})
        head = {
            "manifest": {"path": "manifest.json", **{k: getattr(kept, k) for k in ("key", "version_id", "size", "sha256")}},
            "metrics": METRICS,
            "gates": [dict(gate) for gate in GATES],
            "datasets": [DataSet(n, f"{i:02x}" * 32, (ref(n),)).to_item() for i, n in enumerate(("training", "holdout"), start=7)],
        }
        row = {"stage": "VALIDATION", "attempt": 1, "status": "SUCCEEDED", "ended": "2026-01-02T03:04:05Z", "record": record}
        self.meta.transact(
            [
                Update(version_key(MODEL, number), head),
                Put(stage_key(MODEL, number, made.stage, 1), {**row, "record_sha256": sha256_hex(record.encode())}),
            ]
        )
        self.pipeline.start(made.execution_id, {})
        return load_version(self.meta, MODEL, number)

    def deployed(self, number: int, **changes: Any) -> Version:
        """A version that stands behind the pointer."""
        version = self.judged(number, **changes)
        row = {"model": MODEL, "environment": "production", "number": number, "version_digest": version.version_digest, "rev": 1}
        self.meta.transact([Put(pointer_key(MODEL, "production"), row)])
        return version

    def open(self, number: int = 1, token: str | None = None) -> str:
        """Let the pipeline come to the approval, and return its token."""
        token = token or self.pipeline.wait_for_token(self.head(number).execution_id)
        ports = (self.meta, self.attestor, self.store, self.pipeline, self.notifier)
        open_approval(*ports, model=MODEL, number=number, token=token, at=AT)
        return token

    def waiting(self, number: int = 1, **changes: Any) -> Version:
        """A version that waits for a decision."""
        self.judged(number, **changes)
        self.open(number)
        return self.head(number)

    def decide(
        self, who: Principal = ERIN, verdict: Verdict = Verdict.APPROVE, number: int = 1, reason: str = "reviewed", **more: Any
    ) -> Decision:
        return decide_approval(self.meta, self.attestor, self.store, MODEL, number, verdict, reason=reason, by=who, at=AT, **more)

    def send(self, number: int = 1) -> str:
        return send_on(self.meta, self.attestor, self.store, self.pipeline, model=MODEL, number=number, at=AT)

    def register_key(self, person: str, *keys: SshPerson) -> None:
        """Let an admin add SSH keys to a person."""
        add_person(self.meta, person, [person], name="", by=ADMIN, at=AT, ssh_keys=[key.public for key in keys])

    def statement(self, transition: int, number: int = 1) -> Statement:
        """What the attestation of a transition says, its signature verified."""
        place = self.meta.rows[transition_key(MODEL, number, transition)]["attestation"]
        raw = self.store.read(place["key"], place["version_id"], max_bytes=1 << 20)
        assert sha256_hex(raw) == place["sha256"]
        return Statement.parse(verify_envelope(raw, self.signer.public_key_der()))

    def events(self) -> list[dict[str, Any]]:
        """All events, in the order of their times."""
        return [json.loads(row["event"]) for row in self.meta.query(OUTBOX)]

    def head(self, number: int = 1) -> Version:
        return load_version(self.meta, MODEL, number)

    def packet(self, number: int = 1) -> Packet:
        return load_packet(self.store, self.head(number))
