"""A registry in memory with all of its evidence: every function signs with its own key, a real sequencer and witness keep the ledger, a
root of trust is published, and bundles are made by the real use case.

    world = EvidenceWorld()
    world.deploy()                             # version 1, approved by a signature of the approver's own
    prediction = world.predict()
    world.seal()                               # receipts collected and sealed, everything in the ledger
    world.verify(world.bundle(prediction))

The clock goes on by a second whenever it is read, so that every act has a time of its own.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from attestry.client.ceremony import next_targets
from attestry.client.key_changes import read_deployed, rotate
from attestry.domain.approvals import Verdict
from attestry.domain.events import timestamp
from attestry.domain.principal import Principal
from attestry.domain.stages import Stage
from attestry.domain.version import Version
from attestry.evidence.bundle import BundleIndex, read_bundle, write_bundle
from attestry.evidence.leaf import event_id
from attestry.evidence.note import Verifier
from attestry.evidence.readme import render_readme
from attestry.evidence.report import render_report
from attestry.evidence.trusted_root import MAY_SIGN, TrustedRoot
from attestry.evidence.verdict import Verification
from attestry.evidence.verification import verify_bundle
from attestry.usecases.attest import Attestor
from attestry.usecases.bundle import BundleMaker
from attestry.usecases.collect import Collector
from attestry.usecases.decide import decide_approval
from attestry.usecases.delegate import delegate_signing
from attestry.usecases.deploy import begin_deployment, roll_back, swap_pointer
from attestry.usecases.gate import open_approval
from attestry.usecases.people import add_person
from attestry.usecases.predict import Predictor
from attestry.usecases.record_stage import StageRecorder
from attestry.usecases.register import Registrar
from attestry.usecases.revoke import kill_version
from attestry.usecases.root import publish_root
from attestry.usecases.sequence import Sequencer
from attestry.usecases.sign import FunctionDelegator, SigningKeys
from attestry.usecases.witness import Witness
from tests.fakes import FixedClock, LocalNoteSigner, LocalSigner, MemoryMetaStore
from tests.flow import PLATFORM, Flow
from tests.root_of_trust import REGISTRY, START, WITNESS, People, a_trusted_root, entry
from tests.ssh_keys import SshPerson
from tests.unit.ledger_world import DirectWitnesses
from tests.versions import session

ADMIN = session("admin", "alex", person="alex")
ERIN = session("approver", "erin", person="erin")
GRACE = session("approver", "grace", person="grace")
DEPLOYER = session("deployer", "henry", person="henry")
CONSUMER = session("consumer", "frank", person="frank")
REQUEST = json.dumps({"instances": [{"a": 1.5, "b": 2.0}]}).encode()


class TickingClock(FixedClock):
    """Goes on by a second whenever it is read."""

    def now(self) -> datetime:
        self.at += timedelta(seconds=1)
        return self.at


def spki(public_key: bytes) -> bytes:
    """The SubjectPublicKeyInfo of an Ed25519 key of 32 bytes."""
    return Ed25519PublicKey.from_public_bytes(public_key).public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


class EvidenceFlow(Flow):
    """The pipeline, each function of which signs with its own key."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.signers = {function: LocalSigner(f"arn:aws:kms:eu-central-1:123456789012:key/{function}") for function in MAY_SIGN}
        self.attestors = {function: Attestor(signer, self.store) for function, signer in self.signers.items()}
        self.registrar = Registrar(self.meta, self.attestors["register"], self.store, self.pipeline, self.notifier, PLATFORM)
        self.refresher = self.make_refresher(self.attestors["register"])
        self.preparer._attestor = self.attestors["prepare_stage"]
        self.artifact_signer = LocalSigner("arn:aws:kms:eu-central-1:123456789012:key/sign_artifact")
        self.recorder = StageRecorder(
            self.meta, self.attestors["record_stage"], self.store, self.scratch, self.notifier, sign_artifact=self.sign_artifact
        )
        self.attestor = self.attestors["gate"]


@dataclass
class EvidenceWorld:
    """See the module.

    Attributes:
        outside: whether there is a witness in somebody else's account as well, by the word of the trusted root.
        demo: whether the root of trust is a demo root.
    """

    outside: bool = False
    demo: bool = False
    people: People = field(default_factory=People)

    def __post_init__(self) -> None:
        self.flow = EvidenceFlow(clock=TickingClock())
        self.meta, self.store, self.clock = self.flow.meta, self.flow.store, self.flow.clock
        self.delegator = LocalSigner("arn:aws:kms:eu-central-1:123456789012:key/delegate")
        self.artifact_signer = self.flow.artifact_signer
        self.ledger_signer, self.witness_signer = LocalNoteSigner("ledger"), LocalNoteSigner("witness")
        self.log_key = Verifier.of(REGISTRY, self.ledger_signer.public_key())
        self.witness_name = "witness.example/one" if self.outside else WITNESS
        self.log_keys = [self.log_key]
        witness = Witness(MemoryMetaStore(), self.witness_signer, self.clock, self.witness_name, {REGISTRY: self.log_keys})
        self.witnesses = NamedWitnesses(witness, self.witness_name)
        self.flow.functions.handlers |= {"delegate": self._delegate, "inference": self._infer}
        self.keys = SigningKeys(FunctionDelegator(self.flow.functions, "delegate"), self.clock)
        self.ssh = SshPerson("erin")
        for person, key in (("erin", self.ssh), ("grace", SshPerson("grace"))):
            add_person(self.meta, person, [person], name="", by=ADMIN, at=self.clock.now(), ssh_keys=[key.public])
        self.trusted_root = self._trusted_root()
        self.root_files = self.people.begin(self.trusted_root)
        publish_root(self.meta, self.store, self.root_files, registry=REGISTRY, by=ADMIN, at=self.clock.now())
        self.version: Version | None = None

    @property
    def pin(self) -> bytes:
        """The root that a verifier pinned."""
        return self.root_files["1.root.json"]

    @property
    def head(self) -> Version:
        """The version that was made last, as it is now."""
        assert self.version is not None
        return self.flow.head(self.version)

    def validate(self, *, metrics: dict[str, float] | None = None, **kwargs: Any) -> Version:
        """Register a version and take it through its stages."""
        flow = self.flow
        self.version = flow.register_example(**kwargs)
        flow.build_environments(self.version)
        for stage in (Stage.PROCESSING, Stage.TRAINING, Stage.VALIDATION):
            outputs: dict[str, Any] = {"metrics": metrics} if metrics is not None and stage is Stage.VALIDATION else {}
            flow.pass_stage(self.version, stage, **outputs)
        return self.head

    def open(self) -> str:
        """Open the approval; return the packet's digest."""
        flow, version = self.flow, self.head
        token = flow.pipeline.wait_for_token(version.execution_id)
        ports = (self.meta, flow.attestors["gate"], self.store, flow.pipeline, flow.notifier)
        open_approval(*ports, model=version.model, number=version.number, token=token, at=self.clock.now())
        return str(self.head.packet.get("sha256", ""))

    def approve(self, by: Principal = ERIN, *, signed: bool = True, verdict: Verdict = Verdict.APPROVE, function: str = "decide") -> None:
        """Let a person decide, by default with a signature of their own."""
        version = self.head
        packet = str(version.packet["sha256"])
        decide_approval(
            self.meta,
            self.flow.attestors[function],
            self.store,
            version.model,
            version.number,
            verdict,
            reason="gates and data reviewed",
            by=by,
            at=self.clock.now(),
            packet_sha256=packet,
            signature=SshPerson(str(by.person)).sign(packet) if signed else b"",
        )

    def swap(self) -> None:
        """Deploy the approved version."""
        version, attestor = self.head, self.flow.attestors["deploy"]
        begin_deployment(self.meta, attestor, version, by=DEPLOYER, reason="approved", at=self.clock.now())
        what = {"environment": "production", "capture_rate": "1", "by": DEPLOYER, "reason": "approved", "at": self.clock.now()}
        swap_pointer(self.meta, attestor, version.model, version.number, **what)

    def deploy(self, *, signed: bool = True, **kwargs: Any) -> Version:
        """Take a version all the way into place."""
        self.validate(**kwargs)
        self.open()
        self.approve(signed=signed)
        self.swap()
        return self.head

    def roll_back(self) -> None:
        """Put the version before back in place."""
        what = {"environment": "production", "by": DEPLOYER, "reason": "errors", "at": self.clock.now()}
        roll_back(self.meta, self.flow.attestors["operate"], self.head.model, **what)

    def kill(self, number: int = 1) -> None:
        """Kill a version."""
        attestor = self.flow.attestors["operate"]
        kill_version(self.meta, attestor, self.head.model, number, reason="it harms", by=ADMIN, at=self.clock.now())

    def predict(self) -> str:
        """Return the ID of a prediction."""
        predictor = Predictor(
            meta=self.meta, store=self.store, functions=self.flow.functions, keys=self.keys, inference="inference", clock=lambda: 0.0
        )
        return predictor.predict(self.head.model, "production", REQUEST, CONSUMER).prediction_id

    def sequence(self) -> None:
        """Put what waits into the ledger."""
        former = self.log_keys[1:]
        done = Sequencer(self.meta, self.store, self.ledger_signer, self.witnesses, self.clock, REGISTRY, former=former).run()
        assert not done.findings, done.findings

    def collect(self) -> None:
        """Collect and seal receipts."""
        done = Collector(self.meta, self.store, self.clock).collect()
        assert not done.errors, done.errors

    def seal(self) -> None:
        """Collect and seal, and put everything into the ledger."""
        self.collect()
        self.sequence()

    def bundle(self, prediction: str, *, payload: bool = False) -> bytes:
        """The bundle of a prediction."""
        return BundleMaker(self.meta, self.store).of_prediction(prediction, self.clock.now(), payload=payload).data

    def version_bundle(self, number: int = 1) -> bytes:
        """The bundle of a version."""
        return BundleMaker(self.meta, self.store).of_version(self.head.model, number, self.clock.now()).data

    def verify(self, bundle: bytes) -> Verification:
        """Verify with the right pin."""
        return verify_bundle(bundle, pin=self.pin)

    def rotate_keys(self) -> None:
        """Give ledger, delegator and artifacts new keys and publish them; the former ones end an hour later."""
        arn = "arn:aws:kms:eu-central-1:123456789012:key"
        self.delegator = LocalSigner(f"{arn}/delegate-2")
        self.artifact_signer = self.flow.artifact_signer = LocalSigner(f"{arn}/sign_artifact-2")
        self.ledger_signer = LocalNoteSigner("ledger-2")
        self.log_key = Verifier.of(REGISTRY, self.ledger_signer.public_key())
        self.log_keys.insert(0, self.log_key)
        self.keys = SigningKeys(FunctionDelegator(self.flow.functions, "delegate"), self.clock)
        at = self.clock.now()
        following = rotate(self.trusted_root, read_deployed(self._deployed(), timestamp(at)), end=timestamp(at + timedelta(hours=1)))
        self.trusted_root = following
        self.root_files = self.people.finish(next_targets(self.root_files, following, at=at), at=at)
        publish_root(self.meta, self.store, self.root_files, registry=REGISTRY, by=ADMIN, at=self.clock.now())

    def _trusted_root(self) -> TrustedRoot:
        return a_trusted_root(self._deployed(), demo=self.demo, start=START)

    def _deployed(self) -> list[dict[str, Any]]:
        signers = [entry("signers", f, s.public_key_der(), key_id=s.key_id) for f, s in self.flow.signers.items()]
        return [
            entry("tlogs", REGISTRY, spki(self.ledger_signer.public_key())),
            entry("witnesses", self.witness_name, spki(self.witness_signer.public_key()), outside=self.outside),
            entry("delegators", "", self.delegator.public_key_der(), key_id=self.delegator.key_id),
            *signers,
            entry("artifactSigners", "", self.artifact_signer.public_key_der(), key_id=self.artifact_signer.key_id),
        ]

    def _delegate(self, event: Mapping[str, Any]) -> dict[str, Any]:
        delegation = delegate_signing(
            self.meta,
            self.delegator,
            model=event["model"],
            environment=event["environment"],
            jwk=event["jwk"],
            at=self.clock.now(),
            version_digest=event.get("version_digest"),
            standing=event.get("standing", "DEPLOYED"),
        )
        return {"delegation": delegation.token, "kid": delegation.kid}

    def _infer(self, event: Mapping[str, Any]) -> dict[str, Any]:
        return {"status": "OK", "output": json.dumps([0.25] * len(event["instances"]))}


class NamedWitnesses(DirectWitnesses):
    """A witness under a name of one's choice."""

    def __init__(self, witness: Witness, name: str) -> None:
        super().__init__(witness)
        self._name = name

    @property
    def names(self) -> tuple[str, ...]:
        return (self._name,)


def rewrite(bundle: bytes, changed: Mapping[str, bytes | None], *, documents: bool = True, **index: Any) -> bytes:
    """A bundle with other files, as only its attacker makes it: index, report and instructions follow the change.

    Args:
        bundle: the bundle.
        changed: name to new content; None takes the file away.
        documents: write report and instructions anew.
        index: fields of the index to change.
    """
    read = read_bundle(bundle)
    told = BundleIndex(**{**vars(read.index), **index})
    files = {n: b for n, b in {**read.files, **changed}.items() if b is not None}
    if documents:
        # From nonsense no report can be written; the old one stays then.
        with contextlib.suppress(Exception):
            files |= {"REPORT.md": render_report(told, files).encode(), "README.md": render_readme(told, files).encode()}
    return write_bundle(told, files)


def find_leaf(bundle: bytes, kind: str, subject: str, sequence: int) -> str:
    """The name of the leaf of an event."""
    wanted = event_id(kind, subject, sequence)
    files = read_bundle(bundle).files
    return next(n for n, b in files.items() if n.startswith("ledger/leaves/") and json.loads(b)["event"]["id"] == wanted)


__all__ = ["ADMIN", "DEPLOYER", "ERIN", "GRACE", "UTC", "EvidenceWorld", "find_leaf", "rewrite"]
