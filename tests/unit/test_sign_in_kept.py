"""What is kept of a sign-in, and how the client uses it: the file, the refresh, and the one registry that a token goes to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import pytest

from attestry.client.api import RegistryClient
from attestry.client.errors import SignInError
from attestry.client.sign_in.current import SignedIn, ambient_sign_in
from attestry.client.sign_in.held import HeldSignIns, SignIn, user_folder
from attestry.client.sign_in.settings import SignInSettings, registry_address
from attestry.domain.errors import InvalidInputError, UnavailableError
from tests.identity_provider import CLIENT, Change, IdentityProvider, running
from tests.unit.client_double import ApiDouble

API = "https://registry.example.com"
NOW = int(time.time())
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="modes of files")


@pytest.fixture
def provider() -> Iterator[IdentityProvider]:
    with running() as server:
        yield server


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiDouble]:
    double = ApiDouble()
    double.answer("GET /oidc/v1/me", {"login": "oidc:corp:u-17"})
    double.answer("GET /v1/me", {"login": "dana"})
    yield double
    double.close()


@pytest.fixture
def held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HeldSignIns:
    """The user's own folder, and no other credentials than AWS keys in the environment."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "ATTESTRY_"))]:
        monkeypatch.delenv(name)
    settings = {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "eu-central-1"}
    for name, value in {**settings, "XDG_CONFIG_HOME": str(tmp_path), "AWS_EC2_METADATA_DISABLED": "true"}.items():
        monkeypatch.setenv(name, value)
    return HeldSignIns()


def kept(held: HeldSignIns, api_url: str = API, *, provider: IdentityProvider | None = None, seconds: int = 3600, **changes: Any) -> SignIn:
    """Keep a sign-in, with a refresh token of the provider where one is given."""
    refresh = "r-0"
    if provider is not None:
        provider.refresh_tokens[refresh] = "u-17"
    settings = SignInSettings.of(api_url, provider.issuer if provider else "https://idp.example.com", CLIENT)
    made = replace(SignIn(settings, "u-17", "erin", "a.b.c", refresh, int(time.time()) + seconds), **changes)
    with held.locked():
        held.keep(made)
    return made


def bearer(api: ApiDouble) -> str:
    return str(api.asked[-1].headers.get("Authorization"))


class TestTheFile:
    def test_it_is_the_user_s_alone(self, held: HeldSignIns) -> None:
        made = kept(held)
        assert held.find(API) == made
        assert held.folder == user_folder()
        modes = {path.name: path.stat().st_mode & 0o777 for path in (held.folder, *held.folder.iterdir())}
        assert modes == {"attestry": 0o700, "tokens.json": 0o600, "settings.json": 0o600, "lock": 0o600}

    @pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
    def test_one_that_others_can_read_or_write_is_refused_for_reading_and_for_writing(self, held: HeldSignIns, mode: int) -> None:
        made = kept(held)
        (held.folder / "tokens.json").chmod(mode)
        for act in (lambda: held.find(API), lambda: held.keep(made), lambda: RegistryClient(api_url=API).whoami()):
            with pytest.raises(SignInError, match=r"open to others .*chmod 600"):
                act()

    def test_a_folder_that_others_can_enter_is_refused(self, held: HeldSignIns) -> None:
        made = kept(held)
        held.folder.chmod(0o755)
        with pytest.raises(SignInError, match="chmod 700"), held.locked():
            held.keep(made)

    def test_a_link_to_another_file_is_not_followed(self, held: HeldSignIns, tmp_path: Path) -> None:
        kept(held)
        (held.folder / "tokens.json").rename(tmp_path / "elsewhere")
        (held.folder / "tokens.json").symlink_to(tmp_path / "elsewhere")
        with pytest.raises(SignInError, match="cannot be read"):
            held.find(API)

    @pytest.mark.parametrize(
        "text",
        ["", "{", "[]", '{"format": 2, "sign_ins": {}}', *(json.dumps({"format": 1, "sign_ins": {API: kept}}) for kept in ({}, 1, []))],
    )
    def test_what_no_sign_in_left_is_told_and_not_guessed_at(self, held: HeldSignIns, text: str) -> None:
        kept(held)
        (held.folder / "tokens.json").write_text(text)
        with pytest.raises(SignInError, match="delete it"):
            held.find(API)

    def test_a_write_that_fails_leaves_the_file_before_and_nothing_beside_it(
        self, held: HeldSignIns, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made = kept(held)

        def full(_descriptor: int) -> None:
            raise OSError("no space")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="no space"):
            held.renew(replace(made, bearer="d.e.f"))
        assert held.find(API) == made
        assert {path.name for path in held.folder.iterdir()} == {"lock", "settings.json", "tokens.json"}

    def test_without_a_home_nobody_is_signed_in(self, held: HeldSignIns, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("XDG_CONFIG_HOME")
        monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError))
        assert HeldSignIns().find(API) is None

    def test_a_relative_folder_for_settings_does_not_count(self, held: HeldSignIns, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("XDG_CONFIG_HOME", "here")
        assert user_folder().is_absolute()

    def test_whoever_waits_for_the_lock_is_told_at_last(self, held: HeldSignIns) -> None:
        with held.locked(), pytest.raises(UnavailableError, match="another process"), held.locked(0.05):
            pass


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("https://Registry.example.com/", API),
        ("https://registry.example.com:443", API),
        ("http://127.0.0.1:4566/x/", "http://127.0.0.1:4566/x"),
        ("http://[::1]:80", "http://[::1]"),
    ],
)
def test_one_registry_has_one_address(url: str, address: str) -> None:
    assert registry_address(url) == address


@pytest.mark.parametrize(
    "url", ["http://registry.example.com", "https://user@registry.example.com", "https://r.example.com?a=b", "", "https://"]
)
def test_what_is_no_address_of_a_registry_is_refused(url: str) -> None:
    with pytest.raises(InvalidInputError):
        registry_address(url)


class TestWhereTheTokenGoes:
    def test_to_the_registry_that_it_is_for(self, held: HeldSignIns, api: ApiDouble) -> None:
        kept(held, api.url)
        assert RegistryClient(api_url=api.url + "/").whoami() == {"login": "oidc:corp:u-17"}
        assert bearer(api) == "Bearer a.b.c"

    def test_to_no_other_host_port_or_path(self, held: HeldSignIns, api: ApiDouble) -> None:
        for other in ("https://registry.example.com", "http://127.0.0.1:1", f"{api.url}/other", api.url.replace("127.0.0.1", "localhost")):
            kept(held, other)
        assert RegistryClient(api_url=api.url).whoami() == {"login": "dana"}
        assert bearer(api).startswith("AWS4-HMAC-SHA256 ")
        assert not any("a.b.c" in str(asked) for asked in api.asked)

    def test_without_an_address_to_the_registry_that_was_signed_in_to_last(self, held: HeldSignIns, api: ApiDouble) -> None:
        for url in (api.url, API, api.url):
            kept(held, url)
        assert RegistryClient().whoami() == {"login": "oidc:corp:u-17"}

    @pytest.mark.parametrize("name", ["ATTESTRY_TOKEN", "AWS_PROFILE", "session", "token"])
    def test_whatever_is_said_closer_comes_before_it(
        self, held: HeldSignIns, api: ApiDouble, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
    ) -> None:
        kept(held, api.url)
        (tmp_path / "config").write_text("[profile dana]\nregion = eu-central-1\n")
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
        if name.isupper():
            monkeypatch.setenv(name, "dana" if name == "AWS_PROFILE" else "d.e.f")
        session = boto3.Session("AKIDEXAMPLE", "secret", region_name="eu-central-1")
        client = RegistryClient(session if name == "session" else None, api.url, token="d.e.f" if name == "token" else None)
        if name == "AWS_PROFILE":
            assert client.signed_in is None
            assert client.tree_url == api.url
        else:
            client.whoami()
            assert "a.b.c" not in bearer(api)


class TestTheRefresh:
    def test_a_token_that_ends_soon_is_refreshed_before_it_is_sent(
        self, held: HeldSignIns, provider: IdentityProvider, api: ApiDouble
    ) -> None:
        kept(held, api.url, provider=provider, seconds=30)
        RegistryClient(api_url=api.url).whoami()
        after = held.find(api.url)
        assert after is not None
        assert bearer(api) == f"Bearer {after.bearer}" != "Bearer a.b.c"
        assert after.refresh in provider.refresh_tokens
        assert [form["refresh_token"] for _, form, _ in provider.asked] == ["r-0"]

    def test_one_that_still_lives_is_not(self, held: HeldSignIns, provider: IdentityProvider) -> None:
        assert SignedIn(kept(held, provider=provider, seconds=120), held).token() == "a.b.c"
        assert provider.asked == []

    def test_a_provider_that_gives_no_other_refresh_token_means_the_same_one(self, held: HeldSignIns, provider: IdentityProvider) -> None:
        provider.grants = {"refresh_token": None}
        SignedIn(kept(held, provider=provider, seconds=0), held).token()
        after = held.find(API)
        assert after is not None
        assert after.refresh == "r-0"

    def test_an_id_token_is_refreshed_too_and_is_of_the_same_person(self, held: HeldSignIns, provider: IdentityProvider) -> None:
        made = kept(held, provider=provider, seconds=0)
        made = kept(held, provider=provider, seconds=0, settings=replace(made.settings, token_use="id"))
        assert SignedIn(made, held).token().count(".") == 2
        provider.person = {"sub": "u-99"}
        again = kept(held, seconds=0, settings=made.settings, refresh=next(iter(provider.refresh_tokens)))
        with pytest.raises(SignInError, match="somebody else"):
            SignedIn(again, held).token()

    def test_a_refused_refresh_says_what_to_do(self, held: HeldSignIns, provider: IdentityProvider) -> None:
        made = kept(held, provider=provider, seconds=0)
        provider.refresh_tokens.clear()
        with pytest.raises(SignInError, match=r"invalid_grant.*sign in again: attestry login") as refused:
            SignedIn(made, held).token()
        assert "r-0" not in refused.value.message
        assert held.find(API) == made

    def test_without_a_refresh_token_the_sign_in_ends_with_its_token(self, held: HeldSignIns) -> None:
        assert SignedIn(kept(held, refresh="", seconds=30), held).token() == "a.b.c"
        with pytest.raises(SignInError, match="sign in again: attestry login"):
            SignedIn(kept(held, refresh="", seconds=-1), held).token()

    def test_a_provider_that_does_not_answer_is_no_end_while_the_token_lives(self, held: HeldSignIns, provider: IdentityProvider) -> None:
        provider.answers["/token"] = Change(503, {})
        assert SignedIn(kept(held, provider=provider, seconds=30), held).token() == "a.b.c"
        with pytest.raises(UnavailableError):
            SignedIn(kept(held, provider=provider, seconds=-1), held).token()

    def test_who_signed_out_elsewhere_is_signed_out_here_too(self, held: HeldSignIns, provider: IdentityProvider) -> None:
        used = SignedIn(kept(held, provider=provider, seconds=0), held)
        with held.locked():
            held.drop(API)
        with pytest.raises(SignInError, match="signed out"):
            used.token()
        assert held.find(API) is None

    def test_a_program_goes_on_as_nobody_else_who_signs_in_meanwhile(self, held: HeldSignIns, provider: IdentityProvider) -> None:
        used = SignedIn(kept(held, provider=provider, seconds=0), held)
        kept(held, subject="u-99", name="dana", bearer="x.y.z")
        with pytest.raises(SignInError, match="dana has signed in"):
            used.token()

    def test_threads_refresh_once(self, held: HeldSignIns, provider: IdentityProvider) -> None:
        made = kept(held, provider=provider, seconds=0)
        tokens: list[str] = []
        threads = [threading.Thread(target=lambda: tokens.append(SignedIn(made, held).token())) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert len(set(tokens)) == 1
        assert len(tokens) == 6
        assert len(provider.asked) == 1

    def test_processes_that_refresh_at_once_lose_no_rotated_refresh_token(self, held: HeldSignIns, provider: IdentityProvider) -> None:
        """The provider ends the whole sign-in when a refresh token comes twice."""
        made = kept(held, provider=provider, seconds=0)
        code = (
            "from attestry.client.sign_in.current import ambient_sign_in\n"
            f"signed_in = ambient_sign_in({API!r})\nassert signed_in\nprint(signed_in.token())"
        )
        runs = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
        tokens = {run.communicate(timeout=60)[0].strip() for run in runs}
        after = held.find(API)
        assert after is not None
        assert tokens == {after.bearer} != {made.bearer}
        assert after.refresh in provider.refresh_tokens
        assert len(provider.asked) == 1
        assert json.loads((held.folder / "tokens.json").read_text())["format"] == 1


def test_nobody_is_signed_in_where_nothing_is_kept(held: HeldSignIns) -> None:
    assert ambient_sign_in() is None
    assert ambient_sign_in(API) is None
    assert not held.folder.exists()
