"""The command line: who may do what."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from attestry.client.api import RegistryClient
from tests.unit.client_double import ApiDouble
from tests.unit.test_cli_operate import Run, api, run

__all__ = ["api", "run"]

HELD = {"subject": "person/erin", "grants": [{"role": "approver", "scope": "project/onco", "until": "2027-01-01T00:00:00.000000Z"}]}
CHECKED: dict[str, Any] = {
    "action": "versions.decide",
    "on": "credit-risk",
    "login": "erin",
    "governed": True,
    "scopes": {"approver": ["project/onco"]},
    "roles": ["validator", "approver"],
}


def test_a_grant_names_who_what_where_until_when_and_why(api: ApiDouble, run: Run) -> None:
    api.answer("POST /v1/access/grants", HELD, 201)
    done = run(
        "access", "grant", "approver", "--to", "erin", "--scope", "project/onco", "--until", "2027-01-01T00:00:00Z", "--reason", "covers"
    )
    assert done.exit_code == 0, done.output
    assert "approver in project/onco, until 2027-01-01" in done.stdout
    told = {"role": "approver", "scope": "project/onco", "reason": "covers", "person": "erin", "until": "2027-01-01T00:00:00Z"}
    assert api.asked[-1].body == told


@pytest.mark.parametrize("subject", [(), ("--to", "erin", "--login", "scoring")])
def test_a_grant_is_to_one_person_or_to_one_login(run: Run, subject: tuple[str, ...]) -> None:
    assert run("access", "grant", "approver", *subject, "--reason", "x").exit_code == 2


def test_a_grant_is_withdrawn_from_a_service(api: ApiDouble, run: Run) -> None:
    api.answer("POST /v1/access/withdrawals", {"subject": "login/scoring", "grants": []})
    done = run("access", "withdraw", "consumer", "--login", "scoring", "--reason", "over")
    assert "nothing any more" in done.stdout
    assert api.asked[-1].body == {"role": "consumer", "scope": "registry", "reason": "over", "login": "scoring"}


def test_reviews_name_who_was_granted_something_and_say_that_the_platform_knows_the_rest(api: ApiDouble, run: Run) -> None:
    granted = [{**HELD, "governed": True, "scopes": {"approver": ["project/onco"]}}]
    review = {"action": "versions.decide", "on": "credit-risk", "granted": granted, "roles": ["approver"], "governed": ["person/erin"]}
    api.answer("GET /v1/access/who-can", review)
    done = run("access", "who-can", "versions.decide", "credit-risk")
    assert "person/erin: approver in project/onco" in done.stdout
    assert "never granted anything and acts as approver" in done.stdout
    assert json.loads(run("access", "who-can", "versions.decide", "credit-risk", "--json").stdout) == review


@pytest.mark.parametrize(
    ("allowed", "code", "told"), [(True, 0, "is allowed to erin by approver.models"), (False, 1, "takes validator or approver")]
)
def test_a_check_ends_by_its_answer(api: ApiDouble, run: Run, allowed: bool, code: int, told: str) -> None:
    api.answer("GET /v1/access/check", {**CHECKED, "allowed": allowed, "policies": ["approver.models"] if allowed else []})
    done = run("access", "check", "versions.decide", "credit-risk", "--person", "erin")
    assert done.exit_code == code
    assert told in " ".join(done.stdout.split())


def test_a_model_is_placed(api: ApiDouble, run: Run) -> None:
    api.answer("POST /v1/access/placements", {"model": "credit-risk", "scopes": ["registry", "tag/tier=low"]})
    done = run("access", "place", "credit-risk", "--tag", "tier=low", "--reason", "classified")
    assert "lies in registry, tag/tier=low" in done.stdout
    assert api.asked[-1].body == {"model": "credit-risk", "tags": {"tier": "low"}, "reason": "classified"}
    assert run("access", "place", "credit-risk", "--tag", "low", "--reason", "x").exit_code == 2


def test_a_policy_is_published_from_a_file_or_ended(api: ApiDouble, run: Run, tmp_path: Path) -> None:
    file = tmp_path / "freeze.cedar"
    file.write_text("forbid (principal, action, resource);")
    api.answer("POST /v1/access/policies", {"name": "freeze", "number": 1, "sha256": "ab"}, 201)
    assert "freeze@1 is in force" in run("access", "publish", "freeze", "--file", str(file), "--reason", "audit").stdout
    assert api.asked[-1].body["text"] == file.read_text()
    assert run("access", "publish", "freeze", "--reason", "x").exit_code == 2
    assert run("access", "publish", "freeze", "--file", str(tmp_path / "none"), "--reason", "x").exit_code == 2


def test_a_token_goes_by_the_tree_of_tokens_and_is_not_signed_over(api: ApiDouble, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    api.answer("GET /oidc/v1/me", {"login": "oidc:corp:u-1", "person": None, "roles": [], "access": {}})
    monkeypatch.setenv("ATTESTRY_TOKEN", "a.b.c")
    assert run("whoami").exit_code == 0
    assert api.asked[-1].headers["Authorization"] == "Bearer a.b.c"
    assert RegistryClient(api_url=api.url).whoami()["login"] == "oidc:corp:u-1"
