"""A registry in memory: the real use cases over the fakes of the ports, with a sandbox and an evaluation that leave what real ones leave.

What a script would compute is given here; whatever the registry does with it is real. The embedded tests run the scripts themselves.
"""

from __future__ import annotations

import copy
import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from attestry.domain.approvals import Verdict
from attestry.domain.manifest import complete_manifest
from attestry.domain.principal import Principal
from attestry.domain.stages import Stage
from attestry.domain.version import Version
from attestry.oms.bundle import OmsSigner
from attestry.ports import Put
from attestry.usecases.attest import Attestor
from attestry.usecases.decide import decide_approval
from attestry.usecases.delegate import delegate_signing
from attestry.usecases.deploy import swap_pointer
from attestry.usecases.gate import open_approval
from attestry.usecases.new_version import Defaults
from attestry.usecases.predict import Predictor
from attestry.usecases.prepare_stage import StagePreparer
from attestry.usecases.record_stage import StageRecorder
from attestry.usecases.records import load_version, login_key
from attestry.usecases.refresh import Refresher
from attestry.usecases.register import Registrar, Registration, UploadedManifest
from attestry.usecases.sign import FunctionDelegator, SigningKeys
from attestry.usecases.sign_artifact import ArtifactSignature, sign_artifact
from attestry.usecases.stage_plan import Execution, Sandbox
from attestry.usecases.stage_result import StageResult
from attestry.usecases.trace import trace_prediction
from attestry.usecases.upload import grant_upload, read_files
from tests.fakes import Faults, FixedClock, LocalSigner, MemoryFunctions, MemoryMetaStore, MemoryNotifier, MemoryObjectStore, MemoryPipeline
from tests.versions import DANA, session

EXAMPLE = Path(__file__).resolve().parent.parent / "manifests" / "tumour-diagnosis"
PLATFORM = ("3.13", "linux_aarch64")
REVISION = "3f" * 20
DATA = b"a,b,malignant\n1,2,0\n3,4,1\n"
GOOD = {"roc_auc_score": 0.99, "recall_score": 0.96, "precision_score": 0.95, "brier_score_loss": 0.03}
LOCK = (EXAMPLE / "requirements.lock").read_bytes()


def tar_gz(files: dict[str, bytes]) -> bytes:
    """An archive with these files, the same bytes each time."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, body in sorted(files.items()):
            info = tarfile.TarInfo(name)
            info.size = len(body)
            archive.addfile(info, io.BytesIO(body))
    return gzip.compress(raw.getvalue(), mtime=0)


def example_source(**changed: bytes) -> bytes:
    """The source archive of the example; `changed` gives other content to files by their stem."""
    names = ("process.py", "train.py", "inference.py", "requirements.lock", "manifest.yaml")
    return tar_gz({n: changed.get(Path(n).stem, (EXAMPLE / n).read_bytes()) for n in names})


@cache
def _draft() -> dict[str, Any]:
    """The example's manifest as people write it, read once: YAML would be a third of what making a version costs a test."""
    draft: dict[str, Any] = yaml.safe_load((EXAMPLE / "manifest.yaml").read_text())
    return draft


def example_manifest(source: bytes, *, edit: Any = None) -> bytes:
    """The example's manifest as `attestry submit` completes it."""
    draft = copy.deepcopy(_draft())
    if edit:
        edit(draft)
    data = {s["uri"]: hashlib.sha256(DATA).hexdigest() for s in draft["data"]["source"] if not s["uri"].startswith("s3:")}
    complete = complete_manifest(
        draft,
        revision=REVISION,
        author="A data scientist <ds@example.com>",
        repository="https://git.example.com/models.git",
        archive_sha256=hashlib.sha256(source).hexdigest(),
        data_sha256s=data,
    )
    return json.dumps(complete).encode()


@dataclass
class Flow:
    """The world, and the steps of the pipeline one by one."""

    faults: Faults = field(default_factory=Faults)
    clock: FixedClock = field(default_factory=FixedClock)

    def __post_init__(self) -> None:
        self.meta = MemoryMetaStore(self.faults)
        self.store = MemoryObjectStore(self.faults)
        self.scratch = MemoryObjectStore(self.faults)
        self.pipeline = MemoryPipeline(self.faults)
        self.functions = MemoryFunctions(faults=self.faults)
        self.notifier = MemoryNotifier()
        self.mover = LocalSigner("local:moves", self.faults)
        self.attestor = Attestor(self.mover, self.store)
        self.registrar = Registrar(self.meta, self.attestor, self.store, self.pipeline, self.notifier, PLATFORM)
        self.refresher = self.make_refresher(self.attestor)
        sandbox = Sandbox(2048, 10240, "arm64", "arn:aws:lambda:eu-central-1:123456789012:function:attestry-sandbox")
        self.preparer = StagePreparer(
            self.meta, self.attestor, self.store, self.scratch, sandbox, evaluation_lock=LOCK + b"\n# evaluation\n"
        )
        self.artifact_signer = LocalSigner("local:artifacts")
        self.recorder = StageRecorder(self.meta, self.attestor, self.store, self.scratch, self.notifier, sign_artifact=self.sign_artifact)
        self.meta.transact([Put(login_key("dana"), {"person": "dana", "login": "dana"})])

    def make_refresher(self, attestor: Attestor) -> Refresher:
        """What makes refreshed versions, signing with a key of one's choice."""
        return Refresher(self.meta, attestor, self.store, self.pipeline, self.notifier, Defaults(PLATFORM))

    def sign_artifact(self, folder: str, version_digest: str) -> ArtifactSignature:
        """What the signing function does."""
        return sign_artifact(self.store, OmsSigner(self.artifact_signer), folder, version_digest)

    def upload(self, manifest: bytes, source: bytes, *, by: Principal = DANA, extra: dict[str, bytes] | None = None) -> UploadedManifest:
        """Upload through the API, as the command line does."""
        files = {"manifest.json": manifest, "source.tar.gz": source, "data/breast_cancer.csv": DATA, **(extra or {})}
        body = {"files": [{"name": n, "size": len(b), "sha256": hashlib.sha256(b).hexdigest()} for n, b in files.items()]}
        grant = grant_upload(self.meta, self.store, read_files(body), by=by, at=self.clock.now())
        for given in sorted(grant.uploads, key=lambda u: u.name == "manifest.json"):
            self.store.put(given.key, files[given.name])
        return UploadedManifest(f"{grant.prefix}manifest.json", None, "123456789012")

    def register(self, upload: UploadedManifest) -> Registration:
        return self.registrar.register(upload, self.clock.now())

    def head(self, version: Version) -> Version:
        return load_version(self.meta, version.model, version.number)

    def build_environments(self, version: Version) -> None:
        """What the builder leaves for each lock file."""
        for wanted in self.preparer.plan_environments(version.model, version.number):
            prefix = f"environments/{wanted['id']}/"
            archive = self.store.put_new(f"{prefix}environment.zip", b"PK environment " + wanted["lock_sha256"].encode())
            description = {
                **wanted,
                "archive_sha256": archive.sha256,
                "size": archive.size,
                "python": PLATFORM[0],
                "platform": PLATFORM[1],
                "packages": [dict(_draft()["environment"]["framework"])],
            }
            self.store.put_new(f"{prefix}environment.json", json.dumps(description).encode())

    def prepare(self, version: Version, stage: Stage, attempt: int = 1) -> dict[str, Any]:
        execution = Execution("arn:aws:states:eu-central-1:123456789012:execution:attestry-pipeline:x", "x", "2026-01-02T03:04:05Z")
        return self.preparer.prepare(version.model, version.number, attempt, stage, execution, self.clock.now())

    def record(self, version: Version, stage: Stage, result: StageResult, attempt: int = 1) -> dict[str, str]:
        return self.recorder.record(version.model, version.number, attempt, stage, result, self.clock.now())

    def run(
        self,
        version: Version,
        stage: Stage,
        *,
        metrics: dict[str, float] | None = None,
        model: dict[str, bytes] | None = None,
        attempt: int = 1,
    ) -> StageResult:
        """Leave in scratch what the sandbox and the evaluation leave."""
        prefix = f"jobs/{version.model}/{version.execution_id}/{stage.value}/{attempt}/"
        self.scratch.put(f"{prefix}log.txt", b"the script's log\n")
        summary: dict[str, Any] | None = None
        if stage is Stage.TRAINING:
            self.scratch.put(f"{prefix}model.tar.gz", tar_gz(model if model is not None else {"model.joblib": b"weights"}))
        else:
            self.scratch.put(f"{prefix}output.tar.gz", b"the sandbox's archive")
        if stage is Stage.PROCESSING:
            for name in ("train/part-0.parquet", "holdout/part-0.parquet", "holdout-labels/labels.parquet"):
                self.scratch.put(f"{prefix}evaluated/{name}", f"PAR1 {name}".encode())
            columns = [{"name": "a", "type": "double"}, {"name": "b", "type": "double"}, {"name": "malignant", "type": "int64"}]
            summary = {
                "schema": columns,
                "feature_columns": ["a", "b"],
                "label_column": "malignant",
                "rows": {"train": 1, "holdout": 1},
                "overlap_rows": 0,
                "share": 0.5,
            }
        if stage is Stage.VALIDATION:
            self.scratch.put(f"{prefix}evaluated/predictions.json", b"{}")
            values = GOOD if metrics is None else metrics
            summary = {
                "metrics": {k: {"value": v, "text": repr(v)} for k, v in values.items()},
                "rows": 143,
                "evaluated_with": {"scikit-learn": "1.9.1", "environment_id": "e7" * 32},
            }
        evaluation = None
        if summary is not None:
            self.scratch.put(f"{prefix}evaluated/summary.json", json.dumps(summary).encode())
            evaluation = {"outcome": "SUCCEEDED", "summary_key": f"{prefix}evaluated/summary.json"}
        answer = {"outcome": "SUCCEEDED", "exit_code": 0, "started": "s", "ended": "e", "machine": {"cpu_count": 2, "memory_mib": 2048}}
        return StageResult(answer, evaluation, None, "2026-01-02T03:05:00.000Z")

    def register_example(self, **kwargs: Any) -> Version:
        source = example_source()
        registration = self.register(self.upload(example_manifest(source, **kwargs), source))
        assert registration.version is not None, registration.errors
        return registration.version

    def pass_stage(self, version: Version, stage: Stage, attempt: int = 1, **outputs: Any) -> dict[str, str]:
        """Prepare, run and record a stage."""
        if self.prepare(version, stage, attempt).get("skip"):
            return {"outcome": "SUCCEEDED", "error": ""}
        return self.record(version, stage, self.run(self.head(version), stage, attempt=attempt, **outputs), attempt)

    def to_approval(self, version: Version) -> str:
        """Take the version up to its approval and return the pipeline's token."""
        self.build_environments(version)
        for stage in (Stage.PROCESSING, Stage.TRAINING, Stage.VALIDATION):
            outcome = self.pass_stage(version, stage)
            assert outcome["outcome"] == "SUCCEEDED", outcome
        token = self.pipeline.wait_for_token(version.execution_id)
        open_approval(
            self.meta,
            self.attestor,
            self.store,
            self.pipeline,
            self.notifier,
            model=version.model,
            number=version.number,
            token=token,
            at=self.clock.now(),
        )
        return token


APPROVER = session("approver", "erin", person="erin")
CONSUMER = session("consumer", "frank", person="frank")


@dataclass
class Serving:
    """A flow whose first version is approved, deployed and served."""

    flow: Flow = field(default_factory=Flow)

    def __post_init__(self) -> None:
        self.signer = LocalSigner()
        self.flow.functions.handlers |= {"delegate": self._delegate, "inference": self._infer}
        self.version = self.deploy(self.flow.register_example())
        keys = SigningKeys(FunctionDelegator(self.flow.functions, "delegate"), self.flow.clock)
        self.predictor = Predictor(
            meta=self.flow.meta, store=self.flow.store, functions=self.flow.functions, keys=keys, inference="inference", clock=lambda: 0.0
        )

    def deploy(self, version: Version) -> Version:
        """Take a version through approval into place."""
        flow = self.flow
        flow.to_approval(version)
        decide_approval(
            flow.meta,
            flow.attestor,
            flow.store,
            version.model,
            version.number,
            Verdict.APPROVE,
            reason="good",
            by=APPROVER,
            at=flow.clock.now(),
        )
        swap_pointer(
            flow.meta,
            flow.attestor,
            version.model,
            version.number,
            environment="production",
            capture_rate="1",
            by=APPROVER,
            reason="approved",
            at=flow.clock.now(),
        )
        return flow.head(version)

    def predict(self) -> str:
        """Return the ID of a prediction."""
        body = json.dumps({"instances": [{"a": 1.5, "b": 2.0}]}).encode()
        return self.predictor.predict(self.version.model, "production", body, CONSUMER).prediction_id

    def trace(self, prediction_id: str, *, deep: bool = False) -> dict[str, Any]:
        return trace_prediction(self.flow.meta, self.flow.store, prediction_id, delegator_key=self.signer.public_key_der, deep=deep)

    def _delegate(self, event: Mapping[str, Any]) -> dict[str, Any]:
        delegation = delegate_signing(
            self.flow.meta,
            self.signer,
            model=event["model"],
            environment=event["environment"],
            jwk=event["jwk"],
            at=self.flow.clock.now(),
            version_digest=event.get("version_digest"),
        )
        return {"delegation": delegation.token, "kid": delegation.kid}

    def _infer(self, event: Mapping[str, Any]) -> dict[str, Any]:
        return {"status": "OK", "output": json.dumps([0.25] * len(event["instances"]))}
