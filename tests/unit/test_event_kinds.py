"""The description of events: real ones fit their schemas, every kind that is written is described, and the kept documents are current."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from typer.testing import CliRunner

from attestry.cli.main import make_app
from attestry.domain.event_kinds import KINDS, kinds_table, schema, schema_text
from attestry.domain.telling import Told
from attestry.evidence.trusted_root import MAY_SIGN
from attestry.usecases.tell import BusOutlet, Teller
from tests.unit.test_reconcile import make_world

ROOT = Path(__file__).resolve().parents[2]


class Bus:
    def __init__(self) -> None:
        self.taken: list[Told] = []

    def put(self, told: Sequence[Told]) -> None:
        self.taken += told


@pytest.fixture(scope="module")
def told() -> list[Told]:
    """Everything that a registry tells that went through a deployment, a rollback, a kill, and changes of who may do what."""
    world, bus = make_world(), Bus()
    world.deploy(edit=lambda draft: draft["training"]["hyperparameters"].update(max_iter=4321))
    world.roll_back()
    world.kill(1)
    world.clock.advance(hours=3)
    world.seal()
    Teller(world.meta, world.store, [BusOutlet(bus)]).run()
    return bus.taken


def test_what_is_told_fits_the_schema(told: list[Told]) -> None:
    validator = Draft202012Validator(schema())
    wrong = [f"{t.kind} {list(e.absolute_path)}: {e.message}" for t in told for e in validator.iter_errors(json.loads(t.detail_bytes()))]
    assert wrong == []
    assert len({t.kind for t in told}) > 20


def test_the_schema_refuses_what_is_no_event(told: list[Told]) -> None:
    validator = Draft202012Validator(schema())
    Draft202012Validator.check_schema(schema())
    (approved, *_) = [json.loads(t.detail_bytes()) for t in told if t.kind == "version.approved"]
    assert not validator.is_valid({**approved, "more": 1})
    assert not validator.is_valid({**approved, "index": -1})
    assert not validator.is_valid({**approved, "event": {**approved["event"], "data": {}}})
    assert validator.is_valid({**approved, "event": {**approved["event"], "kind": "something.else", "data": {}}})


def test_every_kind_that_is_told_or_may_be_attested_is_described(told: list[Told]) -> None:
    assert {t.kind for t in told} <= set(KINDS)
    assert {kind for kinds in MAY_SIGN.values() for kind in kinds} <= set(KINDS)


def test_every_kind_of_the_catalogue_and_of_the_formats_page_is_described() -> None:
    page = (ROOT / "docs" / "formats.md").read_text(encoding="utf-8").partition("## Events")[2].partition("## Attestations")[0]
    written = {
        kind for line in page.splitlines() if line.startswith("|") for kind in re.findall(r"`([a-z_]+\.[a-z_]+)`", line.split("|")[1])
    }
    assert written <= set(KINDS)
    assert set(KINDS) - written <= {kind for kind in KINDS if not KINDS[kind].move}


def test_the_kept_documents_are_current() -> None:
    kept = (ROOT / "manifests" / "event.schema.json").read_text(encoding="utf-8")
    assert kept == schema_text(), "run: attestry api events > manifests/event.schema.json"
    assert CliRunner().invoke(make_app(), ["api", "events"]).output == kept
    assert kinds_table() in (ROOT / "docs" / "events.md").read_text(encoding="utf-8")
