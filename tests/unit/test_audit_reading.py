"""Audited acts are read back by auditors and admins, each batch as the ledger names it, and verified offline from a bundle."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from typer.testing import CliRunner

from attestry.aws.audit import AuditNotes
from attestry.aws.http import read_request
from attestry.aws.settings import Settings
from attestry.aws.world import World as AwsWorld
from attestry.cli.main import make_app
from attestry.domain.audit import AUDIT
from attestry.domain.errors import ForbiddenError
from attestry.evidence.audit_bundle import BATCH
from attestry.evidence.audit_report import render_audit_report
from attestry.evidence.bundle import read_bundle, write_bundle
from attestry.evidence.verdict import Verdict
from attestry.evidence.verification import verify_bundle
from attestry.ports import Key, Put
from attestry.usecases.audit import drain_audit
from attestry.usecases.root import show_root
from attestry.verifier.__main__ import main as verify_main
from lambdas import registry
from tests.evidence_world import EvidenceWorld
from tests.unit.client_double import ApiDouble, Told
from tests.versions import ACCOUNT

ROUTE = "POST /v1/models/{model}/rollback"
ROLES = ("scientist", "approver", "deployer", "consumer", "auditor", "admin")


def request(route: str, *, role: str = "auditor", login: str = "grace", query: dict[str, str] | None = None, **parameters: str) -> Any:
    identity = {"userArn": f"arn:aws:sts::{ACCOUNT}:assumed-role/attestry-{role}/{login}", "userId": f"AROA:{login}"}
    return {
        "version": "2.0",
        "routeKey": route,
        "pathParameters": parameters,
        "queryStringParameters": query or {},
        "requestContext": {"requestId": "r1", "http": {"sourceIp": "192.0.2.7"}, "authorizer": {"iam": identity}},
    }


class Scene:
    """A registry in which somebody was refused, behind the handler of its function."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.world = EvidenceWorld()
        self.notes = AuditNotes(self.world.meta, self.world.clock, account=ACCOUNT, prefix="attestry")
        aws = AwsWorld(Settings({"ATTESTRY_ACCOUNT": ACCOUNT}))
        aws.__dict__.update(meta=self.world.meta, store=self.world.store, clock=self.world.clock, audit=self.notes)
        monkeypatch.setattr(registry, "world", aws)

    def refuse(self, model: str, login: str = "dana") -> None:
        self.notes.denied(read_request(request(ROUTE, role="scientist", login=login, model=model)), ForbiddenError("no"))

    def drain(self, *, sequence: bool = True) -> None:
        self.world.clock.at += timedelta(minutes=3)
        assert drain_audit(self.world.meta, self.world.store, self.world.clock.now()) is not None
        if sequence:
            self.world.sequence()

    def call(self, route: str, **kwargs: Any) -> tuple[int, Any]:
        answer = registry.handler(request(route, **kwargs), None)
        return answer["statusCode"], json.loads(answer["body"])

    def rows(self) -> list[dict[str, Any]]:
        return [row for key, row in self.world.meta.rows.items() if key.partition == AUDIT]

    def object_of(self, number: int) -> str:
        return str(self.call("GET /v1/ledger/audit/{number}", number=str(number))[1]["object"])


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    made = Scene(monkeypatch)
    made.refuse("m1")
    made.drain()
    made.refuse("m2")
    made.drain()
    return made


@pytest.mark.parametrize("role", ["auditor", "admin"])
def test_auditors_and_admins_are_told_of_the_batches_and_their_reading_is_noted(scene: Scene, role: str) -> None:
    status, page = scene.call("GET /v1/ledger/audit", role=role)
    assert (status, [b["number"] for b in page["batches"]], page["next"]) == (200, [2, 1], None)
    assert all(b["count"] == 1 and b["object"] == f"ledger/audit/{b['sha256']}.jsonl" for b in page["batches"])
    status, batch = scene.call("GET /v1/ledger/audit/{number}", role=role, number="2")
    assert status == 200
    assert json.loads(batch["leaf"])["event"]["data"]["sha256"] == batch["sha256"]
    (noted,) = scene.rows()
    assert (noted["act"], noted["object"], noted["outcome"]) == ("audit.read", "audit/2", "allowed")


@pytest.mark.parametrize("role", sorted(set(ROLES) - {"auditor", "admin"}))
@pytest.mark.parametrize("route", ["GET /v1/ledger/audit", "GET /v1/ledger/audit/{number}"])
def test_another_role_is_refused_and_that_is_an_audited_act(scene: Scene, role: str, route: str) -> None:
    status, answer = scene.call(route, role=role, login="mallory", number="1")
    assert (status, answer["code"]) == (403, "forbidden")
    (noted,) = scene.rows()
    assert (noted["act"], noted["outcome"], noted["principal"]["login"]) == (route, "denied", "mallory")


def test_batches_come_in_pages_and_end_at_a_time(scene: Scene) -> None:
    _, first = scene.call("GET /v1/ledger/audit", query={"limit": "1"})
    _, second = scene.call("GET /v1/ledger/audit", query={"limit": "1", "cursor": first["next"]})
    assert [b["number"] for b in first["batches"]] == [2]
    assert ([b["number"] for b in second["batches"]], second["next"]) == ([1], None)
    since = {"since": first["batches"][0]["logged"], "limit": "1"}
    _, late = scene.call("GET /v1/ledger/audit", query=since)
    _, none = scene.call("GET /v1/ledger/audit", query={**since, "cursor": late["next"]})
    assert none == {"batches": [], "next": None}
    assert scene.call("GET /v1/ledger/audit", query={"since": "yesterday"})[0] == 400


def test_a_batch_that_waits_for_the_ledger_is_a_number_without_a_leaf(scene: Scene) -> None:
    scene.refuse("m3")
    scene.drain(sequence=False)
    _, page = scene.call("GET /v1/ledger/audit")
    assert page["batches"][0] == {"number": 3, "index": None}
    assert scene.call("GET /v1/ledger/audit/{number}", number="3")[0] == 404


def test_a_batch_that_was_overlaid_is_read_as_it_was_recorded_and_a_changed_one_is_not_handed_out(scene: Scene) -> None:
    key = scene.object_of(1)
    recorded = scene.world.store.versions[key][0].version_id
    scene.world.store.put(key, b'{"sk":"nothing happened"}\n')
    status, batch = scene.call("GET /v1/ledger/audit/{number}", number="1")
    assert status == 200
    assert parse_qs(urlsplit(batch["url"]).query)["version"] == [recorded]
    scene.world.store.tamper(key, b"{}\n", recorded)
    status, answer = scene.call("GET /v1/ledger/audit/{number}", number="1")
    assert (status, answer["code"]) == (409, "integrity")


def test_an_index_row_that_leads_to_another_event_shows_no_batch(scene: Scene) -> None:
    _, page = scene.call("GET /v1/ledger/audit")
    from attestry.evidence.leaf import event_id
    from attestry.usecases.ledger_head import leaf_key

    one, two = (scene.world.meta.rows[leaf_key(event_id("audit.batch", "audit", n))] for n in (1, 2))
    two["index"] = one["index"]
    _, forged = scene.call("GET /v1/ledger/audit")
    assert forged["batches"] == [{"number": 2, "index": None}, page["batches"][1]]


# The command line, over the handler, and the verifier


@pytest.fixture
def api(scene: Scene) -> Iterator[ApiDouble]:
    double = ApiDouble()

    def serve(route: str, **parameters: str) -> Callable[[Any], Told]:
        def answer(_: Any) -> Told:
            status, body = scene.call(route, query=dict(double.asked[-1].query), **parameters)
            if status == 200 and "url" in body:
                key = unquote(urlsplit(body["url"]).path).removeprefix("/")
                version = parse_qs(urlsplit(body["url"]).query)["version"][0]
                body["url"] = double.serve_file(Path(key).name, scene.world.store.read(key, version, max_bytes=10**6))["url"]
            return Told(body, status)

        return answer

    for route in ("GET /v1/ledger/audit", "GET /v1/ledger/file"):
        double.functions[route] = serve(route)
    for number in ("1", "2", "3"):
        double.functions[f"GET /v1/ledger/audit/{number}"] = serve("GET /v1/ledger/audit/{number}", number=number)
    published = show_root(scene.world.meta, scene.world.store)
    assert published is not None
    double.answer("GET /v1/root", {"files": {name: data.decode() for name, data in published.files.items()}})
    yield double
    double.close()


@pytest.fixture
def run(api: ApiDouble, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Any]:
    for name in [n for n in os.environ if n.startswith("AWS_")]:
        monkeypatch.delenv(name)
    keys = {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_EC2_METADATA_DISABLED": "true"}
    for name, value in {**keys, "ATTESTRY_API_URL": api.url, "AWS_DEFAULT_REGION": "eu-central-1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(make_app(), ["ledger", "audit", *arguments])


def test_ledger_audit_shows_who_was_refused(run: Callable[..., Any]) -> None:
    shown = run("--since", "2020-01-01T00:00:00Z")
    assert shown.exit_code == 0, shown.output
    assert [line.split()[1:5] for line in shown.output.splitlines()[1:3]] == [
        ["dana", "192.0.2.7", "POST", "/v1/models/{model}/rollback"]
    ] * 2
    told = json.loads(run("--since", "2020-01-01T00:00:00Z", "--json").output)
    assert [act["object"] for act in told["acts"]] == ["model=m1", "model=m2"]
    assert all(batch["checked"] for batch in told["batches"])


def test_acts_from_before_the_time_asked_for_are_left_out(run: Callable[..., Any], scene: Scene) -> None:
    first = next(iter(json.loads(run("--since", "2020-01-01", "--json").output)["acts"]))
    later = json.loads(run("--since", first["last"][:-1] + "Z", "--json").output)
    assert first in later["acts"]
    assert json.loads(run("--since", "2999-01-01", "--json").output)["acts"] == []


def test_a_changed_batch_ends_with_5_and_the_others_are_shown(run: Callable[..., Any], scene: Scene) -> None:
    scene.world.store.tamper(scene.object_of(1), b"{}\n")
    done = run("--since", "2020-01-01", "--json")
    told = json.loads(done.output)
    assert done.exit_code == 5
    assert [(b["number"], b["checked"]) for b in told["batches"]] == [(2, True), (1, False)]
    assert "not there with the SHA-256" in told["batches"][1]["error"]
    assert [act["object"] for act in told["acts"]] == ["model=m2"]


def test_what_the_store_hands_out_is_checked_by_the_client_too(run: Callable[..., Any], api: ApiDouble) -> None:
    honest = api.functions["GET /v1/ledger/audit/1"]

    def lying(body: Any) -> Told:
        told = honest(body)
        told.body["url"] = api.serve_file("other.jsonl", b"{}" + b" " * (told.body["size"] - 3) + b"\n")["url"]
        return told

    api.functions["GET /v1/ledger/audit/1"] = lying
    done = run("--since", "2020-01-01", "--json")
    assert done.exit_code == 5
    told = {b["number"]: b for b in json.loads(done.output)["batches"]}
    assert "not as recorded" in told[1]["error"]
    assert told[2]["checked"]


def test_a_saved_batch_is_verified_offline_under_a_pin(
    run: Callable[..., Any], scene: Scene, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--since", "2020-01-01", "--save", "kept").exit_code == 0
    pin = tmp_path / "root.json"
    pin.write_bytes(scene.world.pin)
    assert verify_main([str(tmp_path / "kept/audit-1.zip"), "--root", str(pin), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["verdict"], told["subject"], told["facts"]["acts"]["denied"]) == ("PROVEN", "audit/1", 1)
    assert [s["step"] for s in told["steps"]] == ["bundle", "root", "checkpoint", "leaves", "validity", "acts", "documents"]
    report = read_bundle((tmp_path / "kept/audit-1.zip").read_bytes()).files["REPORT.md"].decode()
    assert "| dana | 192.0.2.7 | POST /v1/models/\\{model\\}/rollback | model=m1 | denied (forbidden) | 1 |" in report


@pytest.mark.parametrize("forged", ["another act", "an act left out", "another batch", "no event", "a stranger's file"])
def test_a_forged_batch_is_not_proven(run: Callable[..., Any], scene: Scene, tmp_path: Path, forged: str) -> None:
    assert run("--since", "2020-01-01", "--save", "kept").exit_code == 0
    one, two = (read_bundle((tmp_path / f"kept/audit-{n}.zip").read_bytes()) for n in (1, 2))
    files = dict(one.files)
    expected, step = Verdict.BROKEN, "acts"
    if forged == "another act":
        files[BATCH] = files[BATCH].replace(b"dana", b"erin")
    elif forged == "an act left out":
        files[BATCH] = b""
    elif forged == "another batch":
        files[BATCH] = two.files[BATCH]
    elif forged == "no event":
        files = {n: b for n, b in files.items() if not n.startswith(("ledger/leaves/", "ledger/proofs"))}
        files |= {"REPORT.md": render_audit_report(one.index, files).encode()}
        expected, step = Verdict.INCOMPLETE, "leaves"
    else:
        files["version/manifest.json"] = b"{}"
        step = "documents"
    found = verify_bundle(write_bundle(one.index, files), pin=scene.world.pin)
    assert found.verdict is expected
    assert step in found.reason


def test_a_row_that_was_planted_by_hand_is_shown_as_such_in_the_report(run: Callable[..., Any], scene: Scene, tmp_path: Path) -> None:
    scene.world.meta.transact([Put(Key(AUDIT, "2026-01-01T00:00#planted"), {"count": 1, "note": "| nothing |"})])
    scene.drain()
    assert run("--since", "2020-01-01", "--save", "kept").exit_code == 0
    bundle = (tmp_path / "kept/audit-3.zip").read_bytes()
    assert verify_bundle(bundle, pin=scene.world.pin).verdict is Verdict.PROVEN
    assert "a row that no function of the registry wrote" in read_bundle(bundle).files["REPORT.md"].decode()
