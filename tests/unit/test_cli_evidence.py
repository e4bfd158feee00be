"""The verbs of evidence: a bundle is fetched and checked while it comes, and verified without an API, credentials or a network."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from attestry.cli.main import make_app
from tests.unit.client_double import ApiDouble
from tests.unit.test_verification import Made

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def made() -> Made:
    return Made()


@pytest.fixture
def api() -> Iterator[ApiDouble]:
    double = ApiDouble()
    yield double
    double.close()


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    for name in [n for n in os.environ if n.startswith(("AWS_", "ATTESTRY_"))]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    app = make_app()
    return lambda *arguments: CliRunner().invoke(app, list(arguments))


@pytest.fixture
def signed_in(api: ApiDouble, run: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    settings = {
        "ATTESTRY_API_URL": api.url,
        "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "eu-central-1",
    }
    for name, value in {**settings, "AWS_DEFAULT_REGION": "eu-central-1", "AWS_EC2_METADATA_DISABLED": "true"}.items():
        monkeypatch.setenv(name, value)
    return run


def answer(api: ApiDouble, data: bytes, **changes: Any) -> dict[str, Any]:
    served = api.serve_file("bundle.zip", data)
    return {
        "url": served["url"],
        "sha256": hashlib.sha256(data).hexdigest(),
        "size": len(data),
        "subject": "x",
        "payload": False,
        "pending": 0,
    } | changes


class TestBundle:
    def test_a_predictions_bundle_is_written_to_the_file(self, made, api, signed_in):
        api.answer(f"GET /v1/predictions/{made.prediction}/bundle", answer(api, made.bundle))
        done = signed_in("bundle", made.prediction, "-o", "out/evidence.zip", "--json")
        assert done.exit_code == 0, done.output
        assert Path("out/evidence.zip").read_bytes() == made.bundle
        assert json.loads(done.stdout)["sha256"] == hashlib.sha256(made.bundle).hexdigest()
        assert api.asked[0].query == {}

    def test_a_versions_bundle_and_a_payload_are_asked_for(self, made, api, signed_in):
        api.answer("GET /v1/models/credit-risk/versions/3/bundle", answer(api, made.bundle, pending=2))
        done = signed_in("bundle", "credit-risk@3", "-o", "v.zip")
        assert done.exit_code == 0
        assert "2 of its events are not in the ledger yet" in done.stdout
        api.answer("GET /v1/predictions/p/bundle", answer(api, made.bundle))
        assert signed_in("bundle", "p", "--payload", "-o", "p.zip").exit_code == 0
        assert api.asked[-2].query == {"payload": "true"} or api.asked[-1].query == {"payload": "true"}

    def test_other_bytes_than_the_registry_announced_are_not_kept(self, made, api, signed_in):
        told = answer(api, made.bundle)
        api.serve_file("bundle.zip", made.bundle[:-1] + b"!")
        api.answer("GET /v1/predictions/p/bundle", told)
        assert signed_in("bundle", "p", "-o", "p.zip").exit_code == 5
        assert not Path("p.zip").exists()

    def test_a_refusal_is_told(self, api, signed_in):
        api.refuse("GET /v1/predictions/p/bundle", 403, "forbidden", "shown to auditor alone")
        done = signed_in("bundle", "p", "--payload", "-o", "p.zip")
        assert done.exit_code == 4
        assert "shown to auditor alone" in done.output


class TestVerify:
    @pytest.fixture(autouse=True)
    def files(self, made, run):
        Path("b.zip").write_bytes(made.bundle)
        Path("root.json").write_bytes(made.world.pin)

    def test_it_needs_no_api_and_no_credentials(self, made, run):
        done = run("verify", "b.zip", "--root", "root.json")
        assert done.exit_code == 0, done.output
        assert done.stdout.startswith(f"PROVEN  {made.prediction}\n")
        assert max(len(line) for line in done.stdout.splitlines()) < 300

    def test_the_exit_code_is_the_verdict(self, made, run):
        assert run("verify", "b.zip").exit_code == 4
        Path("b.zip").write_bytes(made.bundle[:-1])
        done = run("verify", "b.zip", "--root", "root.json", "--json")
        assert done.exit_code == 5
        assert json.loads(done.stdout)["verdict"] == "BROKEN"

    @pytest.mark.parametrize("arguments", [(), ("none.zip",), ("b.zip", "--prediction", "x"), ("--prediction", "x")])
    def test_wrong_usage_ends_with_two(self, run, arguments):
        assert run("verify", *arguments).exit_code == 2
