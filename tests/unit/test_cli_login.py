"""The verbs login and logout."""

from __future__ import annotations

import json
import webbrowser
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from attestry.client.sign_in.held import HeldSignIns
from tests.identity_provider import CLIENT, IdentityProvider, browse, running
from tests.unit.client_double import ApiDouble
from tests.unit.test_cli_operate import Run, api, run

__all__ = ["api", "run"]


@pytest.fixture
def provider(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[IdentityProvider]:
    """A provider, and somebody who signs in there as soon as a browser opens."""
    monkeypatch.setenv("ATTESTRY_SETTINGS", str(tmp_path / "settings"))
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda url: (opened.append(url), browse(url), True)[-1])
    with running() as server:
        server.opened = opened  # type: ignore[attr-defined]
        yield server


def first(run: Run, provider: IdentityProvider, *more: str) -> Any:
    return run("login", "--issuer", provider.issuer, "--client-id", CLIENT, "--port", "0", *more)


def test_a_sign_in_is_told_and_used_by_the_next_verb(api: ApiDouble, run: Run, provider: IdentityProvider) -> None:
    done = first(run, provider)
    assert done.exit_code == 0, done.output
    assert f"erin is signed in to {api.url} by {provider.issuer}, until 20" in " ".join(done.stdout.split())
    api.answer("GET /oidc/v1/me", {"login": "oidc:corp:u-17", "person": "erin"})
    told = run("whoami")
    assert told.exit_code == 0, told.output
    assert f"erin is signed in to {api.url}" in told.stderr
    kept = HeldSignIns().find(api.url)
    assert kept is not None
    assert api.asked[-1].headers["Authorization"] == f"Bearer {kept.bearer}"
    assert kept.bearer not in done.output + told.output


def test_the_document_says_who_until_when_and_holds_no_token(api: ApiDouble, run: Run, provider: IdentityProvider) -> None:
    done = first(run, provider, "--json", "--scope", "profile", "--token", "id")
    document = json.loads(done.stdout)
    assert document.pop("until").endswith("Z")
    assert document == {
        "api_url": api.url,
        "issuer": provider.issuer,
        "client_id": CLIENT,
        "token_use": "id",
        "subject": "u-17",
        "name": "erin",
        "refreshes": True,
    }


def test_login_alone_repeats_the_last_one_also_after_a_logout(api: ApiDouble, run: Run, provider: IdentityProvider) -> None:
    first(run, provider, "--scope", "profile", "--token", "id")
    assert run("logout").exit_code == 0
    document = json.loads(run("login", "--json").stdout)
    assert (document["issuer"], document["token_use"]) == (provider.issuer, "id")
    kept = HeldSignIns().find(api.url)
    assert kept is not None
    assert kept.settings.scopes == ("openid", "profile")


def test_the_environment_can_say_all_of_it(run: Run, provider: IdentityProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    told = {
        "ATTESTRY_ISSUER": provider.issuer,
        "ATTESTRY_CLIENT_ID": CLIENT,
        "ATTESTRY_SCOPES": "profile email",
        "ATTESTRY_TOKEN_USE": "id",
    }
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    assert run("login", "--port", "0").exit_code == 0
    kept = HeldSignIns().settings(HeldSignIns().latest())
    assert kept is not None
    assert (kept.scopes, kept.token_use) == (("openid", "profile", "email"), "id")


def test_what_is_known_of_one_provider_is_not_taken_for_another(run: Run, provider: IdentityProvider) -> None:
    first(run, provider)
    done = run("login", "--issuer", "https://other.example.com")
    assert done.exit_code == 2
    assert "--client-id" in done.output


def test_without_a_provider_nothing_is_tried(run: Run, provider: IdentityProvider) -> None:
    assert run("login").exit_code == 2
    assert provider.opened == []  # type: ignore[attr-defined]


def test_without_a_browser_the_address_is_printed_and_standard_output_stays_one_document(
    run: Run, provider: IdentityProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    printed = Console.print

    def followed(console: Console, *texts: Any, **how: Any) -> None:
        """Print, and be who copies the address into a browser elsewhere."""
        printed(console, *texts, **how)
        for line in str(texts[0]).splitlines():
            if line.startswith("http"):
                browse(line)

    monkeypatch.setattr(Console, "print", followed)
    done = first(run, provider, "--no-browser", "--json")
    assert json.loads(done.stdout)["name"] == "erin"
    assert f"{provider.issuer}/authorize?" in done.stderr
    assert provider.opened == []  # type: ignore[attr-defined]


def test_a_refusal_ends_like_any_lack_of_credentials(run: Run, provider: IdentityProvider) -> None:
    provider.refuses = "access_denied"
    done = first(run, provider, "--json")
    assert done.exit_code == 4
    assert json.loads(done.stdout)["error"]["code"] == "sign_in"


def test_an_interrupt_ends_it_without_a_traceback(run: Run, provider: IdentityProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_url: str) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(webbrowser, "open", interrupted)
    done = first(run, provider)
    assert done.exit_code not in (0, None)
    assert "Traceback" not in done.output
    assert HeldSignIns().signed_in() == ()


@pytest.mark.parametrize("name", ["ATTESTRY_TOKEN", "AWS_PROFILE"])
def test_what_comes_before_a_sign_in_is_told(run: Run, provider: IdentityProvider, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "x")
    assert f"{name} is set" in first(run, provider).stderr


def test_a_logout_revokes_deletes_and_leaves_the_aws_credentials(api: ApiDouble, run: Run, provider: IdentityProvider) -> None:
    first(run, provider)
    assert json.loads(run("logout", "--json").stdout) == {"api_url": api.url, "signed_out": True, "revoked": True}
    assert len(provider.revoked) == 1
    assert "nobody is signed in" in run("logout").stdout
    api.answer("GET /v1/me", {"login": "dana"})
    assert run("whoami").exit_code == 0
    assert api.asked[-1].headers["Authorization"].startswith("AWS4-HMAC-SHA256 ")
