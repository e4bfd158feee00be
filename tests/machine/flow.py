"""The pipeline's steps over ports of one's choice, each function signing with a key of its own."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import yaml

from attestry.domain.version import Version
from attestry.evidence.trusted_root import MAY_SIGN
from attestry.ports import Key, MetaStore, ObjectStore, Put, Signer, When
from attestry.usecases.attest import Attestor
from attestry.usecases.prepare_stage import StagePreparer
from attestry.usecases.record_stage import StageRecorder
from attestry.usecases.records import login_key, person_key
from attestry.usecases.register import Registrar
from attestry.usecases.stage_plan import Sandbox
from tests.evidence_world import TickingClock
from tests.fakes import LocalSigner, MemoryMetaStore
from tests.flow import EXAMPLE, LOCK, PLATFORM, Flow, example_manifest, example_source
from tests.ssh_keys import SshPerson

Rows = Mapping[Key, Mapping[str, Any]]
LOGINS = {
    "dana": "dana",
    "dana2": "dana",
    "erin": "erin",
    "grace": "grace",
    "vera": "vera",
    "henry": "henry",
    "judy": "judy",
    "alex": "alex",
}
"""Login to person: one human has two of them."""


class MachineFlow(Flow):
    """Flow whose ports can be others than those in memory.

    Attributes:
        signers: by function.
        attestors: by function.
        delegator: signs delegations.
        built: the environments that lie in the store; flows that share a store may share them.
    """

    model = "tumour-diagnosis"

    def __init__(self) -> None:
        super().__init__(clock=TickingClock())
        self.built: set[str] = set()
        signers = {function: LocalSigner(f"local:{function}") for function in (*MAY_SIGN, "delegate", "sign_artifact")}
        self.wire(self.meta, self.store, self.scratch, signers)

    def wire(self, meta: MetaStore, store: ObjectStore, scratch: ObjectStore, signers: Mapping[str, Signer]) -> None:
        """Take other ports."""
        self.meta, self.store, self.scratch = meta, store, scratch  # type: ignore[assignment]
        self.signers = dict(signers)
        self.delegator, self.artifact_signer = signers["delegate"], signers["sign_artifact"]  # type: ignore[assignment]
        self.attestors = {function: Attestor(signers[function], store) for function in MAY_SIGN}
        self.attestor = self.attestors["gate"]
        self.registrar = Registrar(meta, self.attestors["register"], store, self.pipeline, self.notifier, PLATFORM)
        sandbox = Sandbox(2048, 10240, "arm64", "arn:aws:lambda:eu-central-1:123456789012:function:attestry-sandbox")
        lock = LOCK + b"\n# evaluation\n"
        self.preparer = StagePreparer(meta, self.attestors["prepare_stage"], store, scratch, sandbox, evaluation_lock=lock)
        self.recorder = StageRecorder(meta, self.attestors["record_stage"], store, scratch, self.notifier, sign_artifact=self.sign_artifact)
        meta.transact([Put(login_key(login), {"person": person, "login": login}, When()) for login, person in LOGINS.items()])
        # Those who hand in records sign with keys of their own; that of one who must not is registered all the same.
        meta.transact(
            [Put(person_key(p), {"person": p, "rev": 1, "ssh_keys": [SshPerson(p).public]}, When()) for p in ("vera", "dana", "erin")]
        )

    def rows(self) -> Rows:
        """Every row of the table."""
        assert isinstance(self.meta, MemoryMetaStore)
        return dict(self.meta.rows)

    def build_environments(self, version: Version) -> None:
        """What the builder leaves; the same for all versions, so it is built once, and read from the example once."""
        for wanted in [] if self.built else self.preparer.plan_environments(version.model, version.number):
            prefix = f"environments/{wanted['id']}/"
            archive = self.store.put_new(f"{prefix}environment.zip", b"PK environment " + wanted["lock_sha256"].encode())
            made = {"archive_sha256": archive.sha256, "size": archive.size, "python": PLATFORM[0], "platform": PLATFORM[1]}
            self.store.put_new(f"{prefix}environment.json", json.dumps({**wanted, **made, "packages": [_framework()]}).encode())
            self.built.add(wanted["id"])

    def manifest(self, number: int, edit: Callable[[dict[str, Any]], None]) -> bytes:
        """A manifest that no other number has."""
        mapping = copy.deepcopy(_complete())
        mapping["model"]["name"] = self.model
        mapping["training"]["hyperparameters"]["C"] = number / 100
        edit(mapping)
        return json.dumps(mapping).encode()


@cache
def _framework() -> dict[str, str]:
    return dict(yaml.safe_load((EXAMPLE / "manifest.yaml").read_text())["environment"]["framework"])


@cache
def source() -> bytes:
    """The source archive of all versions."""
    return example_source()


@cache
def _complete() -> dict[str, Any]:
    complete: dict[str, Any] = json.loads(example_manifest(source()))
    return complete
