"""An identity provider on this machine: OpenID Connect discovery, the authorization code with PKCE, refresh tokens that rotate, revocation.

It verifies what a real one verifies (client, redirect, code, verifier, that nothing comes twice), over HTTP and with keys of its own. Where
a test says so it misbehaves: `document`, `claims` and `answers` change what it tells.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import ECKey

CLIENT = "command-line"
TOKEN_SECONDS = 3600


@dataclass
class Signing:
    """A sign-in under way at the provider."""

    client: str
    redirect_uri: str
    challenge: str
    nonce: str
    scope: str


@dataclass
class Change:
    """An answer in the place of the provider's own."""

    status: int
    body: Any
    headers: dict[str, str] = field(default_factory=dict)


class IdentityProvider(ThreadingHTTPServer):
    """The provider.

    Attributes:
        person: who is signed in by whoever opens its page.
        document: changes of the discovery document; a field that is None is left out.
        claims: changes of the ID token.
        grants: changes of what the token endpoint gives; a field that is None is left out.
        answers: path to an answer in the place of its own.
        refuses: the error that its page sends back instead of a code.
        asked: path and form of every request to the token and revocation endpoints.
        refresh_tokens: those that count; one that came is none any more, and one that comes twice ends them all.
        revoked: refresh tokens that were revoked.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.issuer = f"http://127.0.0.1:{self.server_address[1]}/pool"
        self.key = ECKey.generate_key("P-256", {"kid": "idp-1", "use": "sig"}, private=True)
        self.signer = self.key
        self.person = {"sub": "u-17", "preferred_username": "erin"}
        self.document: dict[str, Any] = {}
        self.claims: dict[str, Any] = {}
        self.grants: dict[str, Any] = {}
        self.answers: dict[str, Change] = {}
        self.refuses = ""
        self.seconds = TOKEN_SECONDS
        self.asked: list[tuple[str, dict[str, str], dict[str, str]]] = []
        self.codes: dict[str, Signing] = {}
        self.refresh_tokens: dict[str, str] = {}
        self.spent: set[str] = set()
        self.revoked: list[str] = []
        self.lock = threading.Lock()

    def described(self) -> dict[str, Any]:
        at = self.issuer
        document = {
            "issuer": at,
            "authorization_endpoint": f"{at}/authorize",
            "token_endpoint": f"{at}/token",
            "jwks_uri": f"{at}/keys",
            "revocation_endpoint": f"{at}/revoke",
            "code_challenge_methods_supported": ["S256"],
            **self.document,
        }
        return {name: value for name, value in document.items() if value is not None}

    def authorize(self, query: dict[str, str]) -> str:
        """Return where the browser goes from the sign-in page, as if somebody had signed in there."""
        assert query["response_type"] == "code"
        assert query["client_id"] == CLIENT
        assert query["code_challenge_method"] == "S256"
        back = {"state": query["state"], "iss": self.issuer}
        if self.refuses:
            return f"{query['redirect_uri']}?{urlencode({**back, 'error': self.refuses, 'error_description': 'not today'})}"
        code = secrets.token_urlsafe(16)
        self.codes[code] = Signing(query["client_id"], query["redirect_uri"], query["code_challenge"], query["nonce"], query["scope"])
        return f"{query['redirect_uri']}?{urlencode({**back, 'code': code})}"

    def grant(self, form: dict[str, str]) -> tuple[int, dict[str, Any]]:
        """Answer the token endpoint; a code and a refresh token count once."""
        if form.get("client_id") != CLIENT or "client_secret" in form:
            return 401, {"error": "invalid_client"}
        with self.lock:
            if form.get("grant_type") == "authorization_code":
                signing = self.codes.pop(form.get("code", ""), None)
                verifier = form.get("code_verifier", "")
                challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
                if signing is None or signing.challenge != challenge or signing.redirect_uri != form.get("redirect_uri"):
                    return 400, {"error": "invalid_grant", "error_description": "code"}
                return 200, self._tokens(signing.nonce)
            token = form.get("refresh_token", "")
            if token in self.spent:
                self.refresh_tokens.clear()
            if form.get("grant_type") != "refresh_token" or token not in self.refresh_tokens:
                return 400, {"error": "invalid_grant", "error_description": "refresh token"}
            del self.refresh_tokens[token]
            self.spent.add(token)
            return 200, self._tokens("")

    def revoke(self, token: str) -> None:
        self.revoked.append(token)
        self.refresh_tokens.pop(token, None)

    def _tokens(self, nonce: str) -> dict[str, Any]:
        now = int(time.time())
        times = {"iat": now, "exp": now + self.seconds}
        refresh = secrets.token_urlsafe(16)
        self.refresh_tokens[refresh] = self.person["sub"]
        answered = {"nonce": nonce} if nonce else {}
        claims = {"iss": self.issuer, "aud": CLIENT, **self.person, **times, **answered, **self.claims}
        access = self.sign({"iss": self.issuer, "client_id": CLIENT, "sub": self.person["sub"], **times, "jti": secrets.token_hex(8)})
        given = {
            "access_token": access,
            "id_token": self.sign({name: value for name, value in claims.items() if value is not None}),
            "refresh_token": refresh,
            "token_type": "Bearer",
            "expires_in": self.seconds,
            **self.grants,
        }
        return {name: value for name, value in given.items() if value is not None}

    def sign(self, claims: dict[str, Any]) -> str:
        return jwt.encode({"alg": "ES256", "kid": self.key.kid}, claims, self.signer)


class _Handler(BaseHTTPRequestHandler):
    server: IdentityProvider

    def do_GET(self) -> None:
        where = urlsplit(self.path)
        name = where.path.removeprefix("/pool")
        if self._changed(name):
            return
        if name == "/authorize":
            query = {key: values[0] for key, values in parse_qs(where.query).items()}
            self._answer(302, {}, {"Location": self.server.authorize(query)})
        elif name == "/keys":
            self._answer(200, {"keys": [self.server.key.as_dict(private=False)]})
        elif name == "/.well-known/openid-configuration":
            self._answer(200, self.server.described())
        else:
            self._answer(404, {})

    def do_POST(self) -> None:
        name = urlsplit(self.path).path.removeprefix("/pool")
        form = {key: values[0] for key, values in parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode()).items()}
        self.server.asked.append((name, form, dict(self.headers.items())))
        if self._changed(name):
            return
        if name == "/token":
            self._answer(*self.server.grant(form))
        elif name == "/revoke":
            self.server.revoke(form["token"])
            self._answer(200, {})
        else:
            self._answer(404, {})

    def _changed(self, name: str) -> bool:
        change = self.server.answers.get(name)
        if change is not None:
            self._answer(change.status, change.body, change.headers)
        return change is not None

    def _answer(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None: ...  # noqa: A002 - the base's name


@contextmanager
def running() -> Iterator[IdentityProvider]:
    """Run a provider for as long as the context lasts."""
    provider = IdentityProvider()
    thread = threading.Thread(target=provider.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield provider
    finally:
        provider.shutdown()
        provider.server_close()


def get(url: str) -> tuple[int, str]:
    """Open an address as a browser does, redirects included; return status and page."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def redirected(url: str) -> str:
    """Return where an address redirects to, without going there."""

    class Stay(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *args: Any) -> None:
            return None

    try:
        urllib.request.build_opener(Stay).open(url, timeout=5)
    except urllib.error.HTTPError as error:
        return str(error.headers["Location"])
    raise AssertionError(f"{url} does not redirect")


def browse(url: str) -> None:
    """Be the browser of somebody who signs in: open the page beside the test, and follow where it leads."""
    threading.Thread(target=get, args=(url,), daemon=True).start()
