"""The table can be rebuilt from the ledger, and equals it; what was changed around the registry is named."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from attestry.client.rebuild import compare_with_table
from attestry.domain.replay import Index
from attestry.evidence.ledger_audit import audit_ledger
from attestry.ports import Delete, Update
from attestry.usecases import browse
from attestry.usecases.ledger import read_file
from attestry.usecases.people import list_people
from attestry.usecases.records import approval_key, pointer_key, transition_key, version_key
from tests.evidence_world import EvidenceWorld


class Browser:
    """The API's reads over the world's own table."""

    def __init__(self, world: EvidenceWorld) -> None:
        self._meta, self._store = world.meta, world.store

    def models(self) -> list[dict[str, Any]]:
        return browse.list_models(self._meta)[0]

    def model(self, model: str) -> Any:
        return browse.show_model(self._meta, model)

    def versions(self, model: str) -> list[dict[str, Any]]:
        return browse.list_versions(self._meta, model)

    def version(self, model: str, number: int) -> Any:
        return browse.show_version(self._meta, self._store, model, number)


def differences(world: EvidenceWorld) -> list[tuple[str, str]]:
    world.sequence()
    index = Index()

    def read(path: str) -> bytes:
        return base64.b64decode(read_file(world.store, path)["content"])

    audit_ledger(read, [world.log_key], visit=lambda leaf: index.apply(leaf.event))
    people = {login: p.person for p in list_people(world.meta) for login in p.logins}
    return [(d.where, d.what) for d in compare_with_table(index, Browser(world), people={**people, "dana": "dana"} if people else {})]


@pytest.fixture(scope="module")
def lived() -> EvidenceWorld:
    """Two versions, a cut-over, a rollback and a kill."""
    world = EvidenceWorld()
    world.deploy()
    world.predict()

    def edit(draft: dict[str, Any]) -> None:
        draft["training"]["hyperparameters"]["max_iter"] = 4000

    world.deploy(edit=edit)
    world.roll_back()
    world.kill(1)
    world.seal()
    return world


def test_after_deployments_a_rollback_and_a_kill_the_table_equals_the_ledger(lived: EvidenceWorld) -> None:
    # dana's login was written by hand to set the scene, around the registry: that is what shows.
    assert differences(lived) == [("login/dana", "person")]


def test_what_was_changed_in_the_table_is_named(lived: EvidenceWorld) -> None:
    model, meta = lived.head.model, lived.meta
    meta.transact([Update(transition_key(model, 2, 3), {"reason": "another"})])
    meta.transact([Update(version_key(model, 1), {"standing": "DEPLOYED"})])
    meta.transact([Update(pointer_key(model, "production"), {"number": 1})])
    meta.transact([Delete(approval_key(model, 2, "erin"))])
    found = differences(lived)
    assert (f"{model}@2", "transition 3: reason") in found
    assert (f"{model}@1", "standing") in found
    assert (f"{model}/production", "deployed version") in found
    assert any(where == f"{model}@2" and what.startswith("decision") for where, what in found)


def test_a_version_that_is_gone_from_the_table_is_named() -> None:
    world = EvidenceWorld()
    version = world.validate()
    world.sequence()

    class Forgetful(Browser):
        def versions(self, model: str) -> list[dict[str, Any]]:
            return []

    index = Index()
    audit_ledger(
        lambda path: base64.b64decode(read_file(world.store, path)["content"]),
        [world.log_key],
        visit=lambda leaf: index.apply(leaf.event),
    )
    assert [(d.where, d.what) for d in compare_with_table(index, Forgetful(world))] == [(version.reference, "version")]
