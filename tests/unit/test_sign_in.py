"""Signing in by the browser: against a provider that verifies PKCE, codes and refresh tokens over HTTP, and the ways to get around it."""

from __future__ import annotations

import json
import logging
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

import pytest
from joserfc.jwk import ECKey

from attestry.client.errors import SignInError
from attestry.client.sign_in.flow import sign_in, sign_out
from attestry.client.sign_in.held import HeldSignIns, SignIn
from attestry.client.sign_in.loopback import Loopback
from attestry.client.sign_in.settings import SignInSettings
from attestry.domain.errors import InvalidInputError, UnavailableError
from tests.identity_provider import CLIENT, Change, IdentityProvider, browse, get, redirected, running

API = "https://registry.example.com"
STATE = "s" * 43

Edit = Callable[[dict[str, str]], dict[str, str]]


@pytest.fixture
def provider() -> Iterator[IdentityProvider]:
    with running() as server:
        yield server


@pytest.fixture
def held(tmp_path: Path) -> HeldSignIns:
    return HeldSignIns(tmp_path / "attestry")


def settings_of(provider: IdentityProvider, **changes: Any) -> SignInSettings:
    return SignInSettings.of(API, provider.issuer, CLIENT, **{"port": 0, **changes})


def signed_in(provider: IdentityProvider, held: HeldSignIns, **changes: Any) -> SignIn:
    return sign_in(settings_of(provider, **changes), held, browse, seconds=5)


def test_whoever_signs_in_at_the_provider_is_kept_with_the_tokens_that_it_gave(provider: IdentityProvider, held: HeldSignIns) -> None:
    made = signed_in(provider, held, scopes=["profile"])
    assert (made.subject, made.name) == ("u-17", "erin")
    assert made.refresh in provider.refresh_tokens
    assert held.find(API) == made
    ((path, form, headers),) = provider.asked
    assert (path, form["grant_type"], form["client_id"]) == ("/token", "authorization_code", CLIENT)
    assert 43 <= len(form["code_verifier"]) <= 128
    assert "Authorization" not in headers


def test_the_address_in_the_browser_asks_by_pkce_and_holds_neither_verifier_nor_token(
    provider: IdentityProvider, held: HeldSignIns
) -> None:
    shown: list[str] = []
    sign_in(settings_of(provider, scopes=["profile"]), held, lambda url: (shown.append(url), browse(url))[0], seconds=5)
    asked = dict(parse_qsl(urlsplit(shown[0]).query))
    assert asked["code_challenge_method"] == "S256"
    assert asked["scope"] == "openid profile"
    assert asked["redirect_uri"].startswith("http://localhost:")
    verifier = provider.asked[0][1]["code_verifier"]
    assert verifier not in shown[0]
    assert len({asked["state"], asked["nonce"], asked["code_challenge"]}) == 3
    assert min(len(asked["state"]), len(asked["nonce"])) >= 43


def test_the_id_token_goes_to_the_registry_where_that_is_asked_for(provider: IdentityProvider, held: HeldSignIns) -> None:
    provider.grants = {"access_token": "opaque"}
    made = signed_in(provider, held, token_use="id")
    assert made.bearer.count(".") == 2


@pytest.mark.parametrize(
    ("grants", "told"),
    [
        ({"access_token": "opaque"}, "--token id"),
        ({"access_token": None}, "no access token"),
        ({"token_type": "mac"}, "no bearer token"),
        ({"id_token": None}, "openid"),
    ],
)
def test_an_answer_without_what_is_needed_signs_nobody_in(
    provider: IdentityProvider, held: HeldSignIns, grants: dict[str, Any], told: str
) -> None:
    provider.grants = grants
    with pytest.raises(SignInError, match=told):
        signed_in(provider, held)
    assert held.find(API) is None


class TestTheAnswerOfTheBrowser:
    """What comes to the listener on this machine; everything on it could have been sent by somebody else."""

    @pytest.fixture
    def loopback(self) -> Iterator[Loopback]:
        with Loopback(0, STATE, "https://idp.example.com") as listener:
            yield listener

    def target(self, loopback: Loopback, **fields: str) -> str:
        return f"{loopback.redirect_uri}?{urlencode(fields)}"

    @pytest.mark.parametrize("fields", [{}, {"state": "other"}, {"state": ""}, {"state": STATE + "x"}, {"state": STATE[:-1]}])
    def test_a_code_with_a_wrong_or_no_state_is_refused_and_the_true_one_is_still_waited_for(
        self, loopback: Loopback, fields: dict[str, str]
    ) -> None:
        status, page = get(self.target(loopback, code="stolen", **fields))
        assert status == 400
        assert "stolen" not in page
        assert get(self.target(loopback, code="mine", state=STATE))[0] == 200
        assert loopback.wait(1) == "mine"

    def test_an_error_without_the_state_ends_nothing(self, loopback: Loopback) -> None:
        assert get(self.target(loopback, error="access_denied"))[0] == 400
        with pytest.raises(SignInError, match="nobody signed in"):
            loopback.wait(0.05)

    def test_a_code_that_is_handed_to_another_path_is_not_taken(self, loopback: Loopback) -> None:
        where = f"http://localhost:{loopback.port}"
        for path in ("/callback", "/index.html", "/.well-known/"):
            assert get(f"{where}{path}?{urlencode({'code': 'c', 'state': STATE})}")[0] == 404
        with pytest.raises(SignInError, match="nobody signed in"):
            loopback.wait(0.05)

    def test_a_second_code_is_told_that_the_sign_in_is_over(self, loopback: Loopback) -> None:
        assert get(self.target(loopback, code="first", state=STATE))[0] == 200
        status, page = get(self.target(loopback, code="second", state=STATE))
        assert (status, "over" in page) == (400, True)
        assert loopback.wait(1) == "first"
        with pytest.raises(SignInError, match="nobody signed in"):
            loopback.wait(0.05)

    @pytest.mark.parametrize(
        "query", [f"code=a&code=b&state={STATE}", f"code=a&state={STATE}&state=x", f"state={STATE}", "&".join("abc" * 40)]
    )
    def test_parameters_that_stand_there_twice_or_not_at_all_are_refused(self, loopback: Loopback, query: str) -> None:
        assert get(f"{loopback.redirect_uri}?{query}")[0] == 400

    def test_the_answer_of_another_issuer_ends_the_sign_in(self, loopback: Loopback) -> None:
        get(self.target(loopback, code="c", state=STATE, iss="https://evil.example.com"))
        with pytest.raises(SignInError, match="another issuer"):
            loopback.wait(1)

    def test_an_issuer_that_says_so_has_to_name_itself(self) -> None:
        with Loopback(0, STATE, "https://idp.example.com", names_issuer=True) as loopback:
            get(self.target(loopback, code="c", state=STATE))
            with pytest.raises(SignInError, match="another issuer"):
                loopback.wait(1)

    def test_a_refusal_is_told_without_what_a_terminal_or_a_browser_would_act_on(self, loopback: Loopback) -> None:
        _, page = get(self.target(loopback, error="access_denied", error_description="<b>\x1b[2J no", state=STATE))
        assert "<b>" not in page
        with pytest.raises(SignInError, match=r"access_denied") as refused:
            loopback.wait(1)
        assert "\x1b" not in refused.value.message

    def test_it_listens_on_the_loopback_addresses_alone(self, loopback: Loopback) -> None:
        bound = {str(server.server_address[0]) for server in loopback._servers}
        assert bound <= {"127.0.0.1", "::1"}
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(("192.0.2.1", 9))
            own = probe.getsockname()[0]
        if not own.startswith("127."):
            with pytest.raises(OSError, match="refused"):
                socket.create_connection((own, loopback.port), 1).close()

    def test_a_port_that_somebody_else_listens_on_is_refused(self, loopback: Loopback) -> None:
        with pytest.raises(SignInError, match="--port"):
            Loopback(loopback.port, STATE, "https://idp.example.com")

    def test_a_silent_connection_of_the_browser_holds_nobody_up(self, loopback: Loopback) -> None:
        with socket.create_connection(("127.0.0.1", loopback.port), 1):
            get(self.target(loopback, code="mine", state=STATE))
            assert loopback.wait(1) == "mine"

    def test_what_the_browser_shows_runs_nothing_and_is_kept_nowhere(self, loopback: Loopback) -> None:
        with socket.create_connection(("127.0.0.1", loopback.port), 1) as connection:
            connection.sendall(f"GET /?code=secret&state={STATE} HTTP/1.0\r\n\r\n".encode())
            answer = b"".join(iter(lambda: connection.recv(4096), b"")).decode()
        assert "default-src 'none'" in answer
        assert "no-store" in answer
        assert "secret" not in answer
        assert "Python" not in answer


def test_a_refusal_at_the_provider_is_told(provider: IdentityProvider, held: HeldSignIns) -> None:
    provider.refuses = "access_denied"
    with pytest.raises(SignInError, match="access_denied"):
        signed_in(provider, held)
    assert provider.asked == []


def test_a_code_of_another_sign_in_is_worth_nothing_here(provider: IdentityProvider, held: HeldSignIns) -> None:
    """Somebody has their own code handed over in the browser of another: the provider compares it with the verifier."""

    def swap(url: str) -> None:
        other = url.replace(parse_qs(urlsplit(url).query)["code_challenge"][0], "A" * 43)
        get(redirected(other))

    with pytest.raises(SignInError, match="invalid_grant"):
        sign_in(settings_of(provider), held, swap, seconds=5)
    assert held.find(API) is None


def test_nobody_is_waited_for_longer_than_told(provider: IdentityProvider, held: HeldSignIns) -> None:
    with pytest.raises(SignInError, match="run attestry login again"):
        sign_in(settings_of(provider), held, lambda _url: None, seconds=0.05)


def test_whoever_breaks_off_leaves_neither_a_listener_nor_a_file(provider: IdentityProvider, held: HeldSignIns) -> None:
    ports: list[int] = []

    def interrupted(url: str) -> None:
        ports.append(urlsplit(parse_qs(urlsplit(url).query)["redirect_uri"][0]).port or 0)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sign_in(settings_of(provider), held, interrupted)
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", ports[0]), 1).close()
    assert not held.folder.exists()


class TestTheProvider:
    """A provider, or whoever stands in its place, that is not to be believed."""

    @pytest.mark.parametrize(
        ("document", "told"),
        [
            ({"issuer": "https://other.example.com"}, "another issuer"),
            ({"issuer": None}, "another issuer"),
            ({"token_endpoint": "http://idp.example.com/token"}, "token_endpoint .* not HTTPS"),
            ({"authorization_endpoint": "file:///etc/passwd"}, "authorization_endpoint .* not HTTPS"),
            ({"authorization_endpoint": "javascript:alert(1)"}, "not HTTPS"),
            ({"jwks_uri": "http://idp.example.com/keys"}, "jwks_uri .* not HTTPS"),
            ({"revocation_endpoint": "http://idp.example.com/revoke"}, "revocation_endpoint .* not HTTPS"),
            ({"token_endpoint": "https://user@idp.example.com/token"}, "not HTTPS"),
            ({"token_endpoint": None}, "no token_endpoint"),
            ({"code_challenge_methods_supported": ["plain"]}, "PKCE"),
        ],
    )
    def test_a_document_that_breaks_a_rule_is_refused(
        self, provider: IdentityProvider, held: HeldSignIns, document: dict[str, Any], told: str
    ) -> None:
        provider.document = document
        with pytest.raises(SignInError, match=told):
            signed_in(provider, held)

    @pytest.mark.parametrize(
        "issuer", ["http://idp.example.com", "ftp://idp", "https://idp.example.com/?a=b", "https://u@idp.example.com", ""]
    )
    def test_an_issuer_is_https_or_on_this_machine(self, issuer: str) -> None:
        with pytest.raises(InvalidInputError):
            SignInSettings.of(API, issuer, CLIENT)

    @pytest.mark.parametrize("path", ["/token", "/.well-known/openid-configuration", "/keys"])
    def test_a_redirect_is_not_followed(self, provider: IdentityProvider, held: HeldSignIns, path: str) -> None:
        with running() as elsewhere:
            tokens = {"access_token": "a.b.c", "token_type": "Bearer", "id_token": "a.b.c"}
            provider.answers[path] = Change(307, tokens, {"Location": f"{elsewhere.issuer}{path}"})
            with pytest.raises(SignInError, match="redirect"):
                signed_in(provider, held)
            assert elsewhere.asked == []

    @pytest.mark.parametrize(
        ("claims", "told"),
        [
            ({"nonce": "another"}, "nonce"),
            ({"nonce": None}, "nonce"),
            ({"iss": "https://other.example.com"}, "issuer"),
            ({"aud": "another-client"}, "audience"),
            ({"aud": [CLIENT, "another-client"]}, "azp"),
            ({"azp": "another-client"}, "azp"),
            ({"at_hash": "AAAA"}, "at_hash"),
            ({"exp": 1}, "ended"),
            ({"sub": ""}, "sub"),
        ],
    )
    def test_an_id_token_that_is_not_for_this_sign_in_does_not_count(
        self, provider: IdentityProvider, held: HeldSignIns, claims: dict[str, Any], told: str
    ) -> None:
        provider.claims = claims
        with pytest.raises(SignInError, match=told):
            signed_in(provider, held)
        assert held.find(API) is None

    def test_an_id_token_by_another_key_does_not_count(self, provider: IdentityProvider, held: HeldSignIns) -> None:
        provider.signer = ECKey.generate_key("P-256", {"kid": "idp-1"}, private=True)
        with pytest.raises(SignInError, match="signature"):
            signed_in(provider, held)

    @pytest.mark.parametrize(
        ("change", "error"),
        [
            (Change(503, b"<html>busy</html>"), UnavailableError),
            (Change(429, b"<html>slowly</html>"), UnavailableError),
            (Change(200, b"<html>hello</html>"), SignInError),
            (Change(200, [1]), SignInError),
            (Change(400, {"error": "invalid_client"}), SignInError),
        ],
    )
    def test_an_answer_that_is_none_is_told_and_not_kept(
        self, provider: IdentityProvider, held: HeldSignIns, change: Change, error: type[Exception]
    ) -> None:
        provider.answers["/token"] = change
        with pytest.raises(error):
            signed_in(provider, held)
        assert held.find(API) is None

    def test_a_provider_that_is_not_there_is_told_as_such(self, held: HeldSignIns) -> None:
        with running() as server:
            gone = settings_of(server)
        with pytest.raises(UnavailableError, match="does not answer"):
            sign_in(gone, held, browse, seconds=1)


class TestSigningOut:
    def test_the_refresh_token_is_revoked_and_the_file_deleted(self, provider: IdentityProvider, held: HeldSignIns) -> None:
        made = signed_in(provider, held)
        assert sign_out(held, API) == (made, True)
        assert provider.revoked == [made.refresh]
        assert not (held.folder / "tokens.json").exists()
        assert sign_out(held, API) == (None, False)

    @pytest.mark.parametrize("document", [{"revocation_endpoint": None}, {"issuer": "https://other.example.com"}])
    def test_where_the_provider_revokes_nothing_the_tokens_are_deleted_all_the_same(
        self, provider: IdentityProvider, held: HeldSignIns, document: dict[str, Any]
    ) -> None:
        made = signed_in(provider, held)
        provider.document = document
        assert sign_out(held, API) == (made, False)
        assert held.find(API) is None

    def test_how_to_sign_in_is_still_known(self, provider: IdentityProvider, held: HeldSignIns) -> None:
        made = signed_in(provider, held)
        sign_out(held, API)
        assert held.latest() == API
        assert held.settings(API) == made.settings


def test_no_token_code_or_verifier_is_logged_or_shown(
    provider: IdentityProvider, held: HeldSignIns, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.DEBUG):
        made = signed_in(provider, held)
        sign_out(held, API)
    written = caplog.text + repr(made) + "".join(capfd.readouterr())
    form = provider.asked[0][1]
    assert not [secret for secret in (made.bearer, made.refresh, form["code_verifier"], form["code"]) if secret in written]


def test_neither_the_sdk_nor_the_client_nor_the_command_line_imports_the_oauth_library() -> None:
    code = (
        "import sys, attestry; attestry.start_run; from attestry.client.api import RegistryClient;"
        "from attestry.cli.main import make_app; make_app(); RegistryClient(api_url='http://127.0.0.1:9').signed_in;"
        "print([m for m in sys.modules if m.partition('.')[0] in ('authlib', 'requests', 'joserfc')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_many_sign_ins_at_once_are_all_kept(provider: IdentityProvider, held: HeldSignIns) -> None:
    urls = [f"https://registry-{n}.example.com" for n in range(4)]
    threads = [
        threading.Thread(target=sign_in, args=(SignInSettings.of(url, provider.issuer, CLIENT, port=0), held, browse)) for url in urls
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert set(held.signed_in()) == set(urls)
    assert len(json.loads((held.folder / "settings.json").read_text())["sign_ins"]) == 4
