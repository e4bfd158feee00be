"""The scene of the attacks: one model with the versions that a life has, and everything that is evidence of them.

| version | what became of it |
|---|---|
| `first` | approved, deployed, predicted with, and killed after `second` had taken its place |
| `second` | approved by two persons, as its policy asks for, and deployed |
| `twin` | of the same scripts, data and settings as `first`; waits for its approval |
| `foreign` | uploaded by an administrator below the prefix of somebody else |
| `liar` | of a model of its own: looks around, reports metrics that it did not earn, and is rejected |

The files of every model hold a canary: a pickle that tells when and where it is loaded.
"""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from attestry.aws.rows import marshal
from attestry.client.download import download_files
from attestry.client.submit import PreparedSubmission, prepare_submission
from attestry.domain.version import FileRef, Version
from attestry.evidence.note import Algorithm, Verifier
from attestry.evidence.tuf_metadata import VerifiedRoot, verify_metadata
from attestry.evidence.verdict import Verification
from attestry.evidence.verification import verify_bundle
from attestry.local.people import Person
from attestry.ports import Key, Update, When
from attestry.usecases.reconcile import CURSOR
from attestry.usecases.records import pointer_key, version_key
from attestry.usecases.sign import delegation_key
from tests.attacks.scripts import INFERENCE, LIES, WITH_CANARY
from tests.embedded.flows import Answer, Registry, example_rows, until

SECOND_LOGINS = {"dana": "dana-second", "erin": "erin-second"}
"""A person's other login, which may approve as well."""

BETWEEN = next(row for row in example_rows() if 14.0 < row["mean_radius"] <= 15.0)
"""Called benign by a threshold of 15, and malignant by one of 14."""


@dataclass(frozen=True)
class Scene:
    """See the module.

    Attributes:
        registry: the registry.
        model: the model's name.
        first, second, twin, foreign: numbers of its versions.
        liar: model and number of the version that was rejected.
        canary: the file that the canary writes where it can.
        one_person_twice: the answers to the approvals of `second` by one person under two logins, before another person approved.
        waiting_after: how `second` stood then.
        predictions: answers by `second`, sealed.
        by_first: an answer by `first`, sealed, from before it was killed.
    """

    registry: Registry
    model: str
    first: int
    second: int
    twin: int
    foreign: int
    liar: tuple[str, int]
    canary: Path
    one_person_twice: tuple[Answer, ...]
    waiting_after: Version
    predictions: tuple[Mapping[str, Any], ...]
    by_first: Mapping[str, Any]
    _bundles: dict[str, bytes] = field(default_factory=dict)

    @property
    def pin(self) -> bytes:
        """The root that the auditor has pinned."""
        return self.registry.stack.root_pin.read_bytes()

    @property
    def prediction(self) -> str:
        """A prediction of the deployed version, neither the first nor the last of its key."""
        return str(self.predictions[1]["prediction_id"])

    @property
    def kid(self) -> str:
        """The key of these predictions."""
        return self.prediction.rpartition("-")[0]

    @property
    def bundle(self) -> bytes:
        """The bundle of `prediction`."""
        return self.bundle_of(self.prediction)

    @cached_property
    def root(self) -> VerifiedRoot:
        """What the pin leads to."""
        files = self.registry.client("grace").root()["files"]
        return verify_metadata(self.pin, {name: str(text).encode() for name, text in files.items()})

    @property
    def log_keys(self) -> list[Verifier]:
        """Keys of the ledger, from the pinned root."""
        return list(self.root.trusted_root.ledger_verifiers())

    @property
    def witness_keys(self) -> list[Verifier]:
        """Keys of the witnesses, from the pinned root."""
        return [Verifier.of(key.name, key.public_bytes, Algorithm.COSIGNATURE) for key in self.root.trusted_root.witness_keys()]

    def head(self, number: int) -> Version:
        """A version as the table has it."""
        return self.registry.head(self.model, number)

    def file(self, number: int, path: str = "model/model.json") -> FileRef:
        """A frozen file of a version."""
        return next(f for f in self.head(number).frozen if f.path == path)

    def bundle_of(self, prediction: str, *, fresh: bool = False) -> bytes:
        """The bundle of a prediction."""
        if fresh or prediction not in self._bundles:
            self._bundles[prediction] = self._download(self.registry.client("grace").prediction_bundle(prediction))
        return self._bundles[prediction]

    def version_bundle(self, number: int) -> bytes:
        """The bundle of a version."""
        return self._download(self.registry.client("grace").version_bundle(self.model, number))

    def _download(self, answer: Mapping[str, Any]) -> bytes:
        client, folder = self.registry.client("grace"), self.registry.folder
        named = {"path": f"{uuid.uuid4().hex}.zip", **{name: answer[name] for name in ("sha256", "size", "url")}}
        (downloaded,) = download_files([named], folder, http=client.http)
        return downloaded.path.read_bytes()

    def verify(self, bundle: bytes) -> Verification:
        """What an auditor with the pin finds."""
        return verify_bundle(bundle, pin=self.pin)

    def predict(self) -> Answer:
        """One request, without a retry."""
        return self.registry.call("frank-consumer", "POST", f"/v1/models/{self.model}/predictions", {"instances": [BETWEEN]})

    def trace(self, *, deep: bool = False) -> dict[str, Any]:
        """The trace of `prediction`, as an auditor asks for it."""
        document: dict[str, Any] = self.registry.client("grace").trace(self.prediction, deep=deep)
        return document

    def sequence(self) -> Mapping[str, Any]:
        """Have what waits taken into the ledger."""
        done: Mapping[str, Any] = self.registry.invoke("sequence", {})
        return done

    def collect(self) -> Mapping[str, Any]:
        """Have receipts collected and sealed, and the seals taken into the ledger."""
        done: Mapping[str, Any] = self.registry.invoke("collect", {})
        self.sequence()
        return done

    def findings(self, *, whole: bool = False) -> dict[str, list[str]]:
        """What reconciliation finds now: places by kind.

        Args:
            whole: go through registry and ledger as well, from the start; else from this scene's model on, which is the last of all.
        """
        self.registry.meta.transact([Update(CURSOR, {"after": "" if whole else f"3/{self.model}"}, When())])
        until(lambda: self.registry.invoke("reconcile", {})["finished"], "everything was compared")
        found: dict[str, list[str]] = {}
        for finding in self.registry.client("grace").findings():
            found.setdefault(finding["what"], []).append(finding["where"])
        return found

    def delegate(self, public_jwk: Mapping[str, str]) -> Mapping[str, Any]:
        """Ask for a delegation as an administrator who invokes the delegator beside the API."""
        payload = {"model": self.model, "environment": "production", "jwk": dict(public_jwk)}
        answer: Mapping[str, Any] = self.registry.invoke("delegate", payload)
        return answer

    def row(self, key: Key) -> dict[str, Any]:
        """A row of the table as DynamoDB has it."""
        table = self.registry.stack.outputs["MetaTable"]
        wire = {"pk": {"S": key.partition}, "sk": {"S": key.sort}}
        item: dict[str, Any] = self.registry.aws("dynamodb").get_item(TableName=table, Key=wire, ConsistentRead=True).get("Item", {})
        return item

    def put_row(self, item: Mapping[str, Any]) -> None:
        """Write a row as DynamoDB has it."""
        self.registry.aws("dynamodb").put_item(TableName=self.registry.stack.outputs["MetaTable"], Item=dict(item))

    def delete_row(self, key: Key) -> None:
        """Delete a row."""
        wire = {"pk": {"S": key.partition}, "sk": {"S": key.sort}}
        self.registry.aws("dynamodb").delete_item(TableName=self.registry.stack.outputs["MetaTable"], Key=wire)

    @contextmanager
    def kept(self, *keys: Key) -> Iterator[None]:
        """Put rows back as they were, those that were not there included."""
        before = {key: self.row(key) for key in keys}
        try:
            yield
        finally:
            for key, item in before.items():
                if item:
                    self.put_row(item)
                else:
                    self.delete_row(key)

    @contextmanager
    def edited(self, key: Key, **changes: Any) -> Iterator[dict[str, Any]]:
        """Have attributes of a row changed by an administrator; None takes one away."""
        with self.kept(key):
            item = self.row(key)
            assert item, key
            changed = {n: wire(v) for n, v in changes.items() if v is not None}
            self.put_row({n: v for n, v in {**item, **changed}.items() if changes.get(n, "") is not None})
            yield item

    @contextmanager
    def pointed_at(self, number: int) -> Iterator[None]:
        """Have an administrator make a version the deployed one by hand: its head, and the pointer."""
        head = self.head(number)
        named = {n: getattr(head, n) for n in ("version_digest", "execution_id", "folder")}
        state = {"standing": "DEPLOYED", "approved": True, "stage": "DEPLOYMENT", "status": "SUCCEEDED", "retirement": {}}
        with ExitStack() as edits:
            edits.enter_context(self.edited(version_key(self.model, number), **state))
            edits.enter_context(self.edited(pointer_key(self.model, "production"), number=number, vacant=None, **named))
            yield

    def put_object(self, key: str, body: bytes) -> str:
        """Write an object as an administrator, and return its S3 version."""
        return str(self.registry.aws("s3").put_object(Bucket=self.registry.bucket, Key=key, Body=body)["VersionId"])

    @contextmanager
    def laid_over(self, key: str, body: bytes) -> Iterator[str]:
        """Have an administrator write over an object; what was written is removed again."""
        version_id = self.put_object(key, body)
        try:
            yield version_id
        finally:
            self.registry.aws("s3").delete_object(Bucket=self.registry.bucket, Key=key, VersionId=version_id)

    @contextmanager
    def marked_deleted(self, key: str) -> Iterator[None]:
        """Have an administrator delete an object without naming its version; the marker is removed again."""
        s3, bucket = self.registry.aws("s3"), self.registry.bucket
        marker = s3.delete_object(Bucket=bucket, Key=key)["VersionId"]
        try:
            yield
        finally:
            s3.delete_object(Bucket=bucket, Key=key, VersionId=marker)

    def read_object(self, key: str, version_id: str | None = None) -> bytes:
        """Read an object as an administrator."""
        named = {"VersionId": version_id} if version_id else {}
        body: bytes = self.registry.aws("s3").get_object(Bucket=self.registry.bucket, Key=key, **named)["Body"].read()
        return body

    def ledger_file(self, path: str) -> bytes:
        """Read a published file of the ledger through the API."""
        return self.registry.client("grace").ledger_file(path)

    def delegation(self, kid: str) -> str:
        """The delegation behind a key."""
        row = self.registry.meta.get(delegation_key(kid))
        assert row is not None
        return str(row["delegation"])


def wire(value: Any) -> dict[str, Any]:
    """A value as DynamoDB has it."""
    return dict(marshal(value))


def broken(verification: Verification) -> tuple[str, str]:
    """The step at which a verification broke, and the reason."""
    assert verification.verdict == "BROKEN", f"{verification.verdict}: {verification.reason}"
    failed = [s for s in verification.steps if s.outcome == "failed"]
    assert len(failed) == 1, failed
    return failed[0].name, failed[0].detail


def failures(trace: Mapping[str, Any]) -> dict[str, str]:
    """The steps of a trace that failed, with what they say."""
    return {step["step"]: step["detail"] for step in trace["steps"] if step["outcome"] != "passed"}


def claims_of(token: str) -> dict[str, Any]:
    """What the payload of a compact JWS says, unverified."""
    payload = token.split(".")[1]
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return claims


@pytest.fixture(scope="session")
def scene(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """See the module."""
    canary = tmp_path_factory.mktemp("canary") / "sang"
    second_people = [Person(login, ("approver",)) for login in SECOND_LOGINS.values()]
    registry.stack.add_people(*second_people)
    for person, login in SECOND_LOGINS.items():
        registry.client("admin").add_person(person, [login])
    return _Play(registry, f"x-attacked-{uuid.uuid4().hex[:8]}", canary).play()


class _Play:
    """How the scene comes about."""

    def __init__(self, registry: Registry, model: str, canary: Path) -> None:
        self.registry = registry
        self.model = model
        self.canary = canary

    def play(self) -> Scene:
        projects = [
            self._project(15.0),
            self._project(14.0, people=2),
            self._project(15.0, purpose="Not the first one"),
            self._project(13.0),
            self._lying_project(),
        ]
        registry = self.registry
        # One after the other: processes that have their environments unpacked are used again, and that is what takes the time.
        first = self._rested(*registry.submit(projects[0]))
        registry.client("erin").decide(self.model, first, "approve", "the gates hold")
        second, twin = (self._rested(*registry.submit(project)) for project in projects[1:3])
        foreign = self._rested(self.model, self._upload_below_erin(prepare_submission(projects[3])))
        liar = registry.submit(projects[4])
        self._rested(*liar)
        followed = registry.rest(self.model, first, through_approval=True)
        assert followed.rest == "DEPLOYED", followed.version["error"]
        by_first = registry.client("frank-consumer").predict(self.model, [BETWEEN])
        twice, waiting_after = self._approve_second(second)
        predictions = [registry.client("frank-consumer").predict(self.model, [BETWEEN]) for _ in range(4)]
        registry.client("frank").kill(self.model, first, "wrong answers were reported")
        scene = Scene(
            registry, self.model, first, second, twin, foreign, liar, self.canary, twice, waiting_after, tuple(predictions), by_first
        )
        scene.collect()
        return scene

    def _rested(self, model: str, number: int) -> int:
        self.registry.rest(model, number)
        return number

    def _project(self, threshold: float, *, people: int = 1, purpose: str = "") -> Path:
        def edit(manifest: dict[str, Any]) -> None:
            manifest["training"]["hyperparameters"] = {"threshold": threshold, "canary": str(self.canary)}
            manifest["approval"] = {"people": {"roles": ["approver"], "count": people}}
            if purpose:
                manifest["model"]["purpose"] = purpose

        return self.registry.small_project(model=self.model, edit=edit, train=WITH_CANARY, inference=INFERENCE)

    def _lying_project(self) -> Path:
        data = self.registry.stack.data

        def edit(manifest: dict[str, Any]) -> None:
            where = {"credentials": str(data.aws_credentials), "keys": str(data.root), "store": str(data.path)}
            everything_benign = {"threshold": 99.0, "canary": str(self.canary), "aws": self.registry.stack.endpoint_url}
            manifest["training"]["hyperparameters"] = {**everything_benign, **where}

        return self.registry.small_project(model=f"{self.model}-liar", edit=edit, train=WITH_CANARY + LIES, inference=INFERENCE)

    def _upload_below_erin(self, prepared: PreparedSubmission) -> int:
        """Have an administrator put a submission below erin's prefix, as if she had uploaded it."""
        registry = self.registry
        erin = registry.aws("sts", "erin").get_caller_identity()["UserId"]
        folder = f"candidates/{erin}/{uuid.uuid4().hex}"
        for file in prepared.files:
            body = file.content if isinstance(file.content, bytes) else file.content.read_bytes()
            registry.aws("s3").put_object(Bucket=registry.bucket, Key=f"{folder}/{file.name}", Body=body)
        outcome = registry.outcome(f"{folder}/{prepared.files[-1].name}")
        assert outcome["state"] == "REGISTERED", outcome
        return int(outcome["version"])

    def _approve_second(self, second: int) -> tuple[tuple[Answer, ...], Version]:
        """Have one person approve twice under two logins, and then another one."""
        path, body = f"/v1/models/{self.model}/versions/{second}/decision", {"decision": "approve", "reason": "the gates hold"}
        twice = tuple(self.registry.call(login, "POST", path, body) for login in ("erin", SECOND_LOGINS["erin"]))
        waiting_after = self.registry.head(self.model, second)
        answer = self.registry.call("approver-01", "POST", path, body)
        assert answer.body["complete"], answer.raw
        followed = self.registry.rest(self.model, second, through_approval=True)
        assert followed.rest == "DEPLOYED", followed.version["error"]
        return twice, waiting_after


__all__ = ["Scene", "broken", "claims_of", "failures", "scene", "wire"]
