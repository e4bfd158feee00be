"""An identity provider over HTTP: OpenID Connect discovery, and the requests that a public client of OAuth 2.0 makes.

Rules:
- The provider's document is the one that was asked for: its `issuer` is the issuer's identifier to the letter (RFC 8414, section 3.3).
- Every address in it is HTTPS, or plain HTTP on this machine where the issuer itself is that.
- No redirect is followed: a code or a refresh token goes where the document says, or nowhere.
- PKCE always, with S256 (RFC 7636). A provider that names other methods alone is refused.

Authlib makes the requests of RFC 6749, 7636 and 7009. It is imported when the first of them is made, and by nothing else of ours.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from attestry.client.errors import SignInError
from attestry.client.sign_in.settings import check_issuer, may_stand_in
from attestry.domain.errors import UnavailableError

TIMEOUT_SECONDS: Final = 10
_DISCOVERY: Final = "/.well-known/openid-configuration"
_METHOD: Final = "S256"
_REFRESH: Final = "refresh_token"
_LONGEST_WORDS: Final = 300


@dataclass(frozen=True)
class Provider:
    """What a provider's document says.

    Attributes:
        issuer: its identifier.
        authorization_endpoint: where people sign in.
        token_endpoint: where codes and refresh tokens are changed for tokens.
        jwks_uri: where its keys are.
        revocation_endpoint: where a token is revoked; empty where it has none.
        names_itself: its answers to the browser name it (`iss`, RFC 9207).
    """

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    revocation_endpoint: str = ""
    names_itself: bool = False


@dataclass(frozen=True)
class Granted:
    """What the token endpoint gave.

    Attributes:
        access: the access token.
        identity: the ID token; empty where it gave none.
        refresh: the refresh token; empty where it gave none.
        seconds: how long the access token lives; None where it does not say.
    """

    access: str = field(repr=False)
    identity: str = field(repr=False)
    refresh: str = field(repr=False)
    seconds: int | None


class PublicClient:
    """A client without a secret, at one provider.

    Args:
        issuer: the provider's identifier.
        client_id: the client's.
        redirect_uri: where the browser hands the code over.

    Raises:
        InvalidInputError: the issuer is neither HTTPS nor on this machine.
        SignInError: its document is not to be believed.
        UnavailableError: it does not answer.
    """

    def __init__(self, issuer: str, client_id: str, redirect_uri: str = "") -> None:
        check_issuer(issuer)
        self._issuer = issuer
        self._session = _session(issuer, client_id, redirect_uri)
        self.provider = _read_document(issuer, self._get(issuer.rstrip("/") + _DISCOVERY))

    def authorization_url(self, *, redirect_uri: str, scopes: Sequence[str], state: str, nonce: str, verifier: str) -> str:
        """Return where somebody signs in, for a browser; it holds the digest of the verifier, not the verifier."""
        url, _ = self._session.create_authorization_url(
            self.provider.authorization_endpoint,
            redirect_uri=redirect_uri,
            scope=" ".join(scopes),
            state=state,
            nonce=nonce,
            code_verifier=verifier,
        )
        return str(url)

    def exchange(self, code: str, verifier: str, redirect_uri: str) -> Granted:
        """Change a code for tokens; errors as of the class."""
        with _told(self._issuer):
            answer = self._session.fetch_token(
                self.provider.token_endpoint,
                grant_type="authorization_code",
                code=code,
                code_verifier=verifier,
                redirect_uri=redirect_uri,
                allow_redirects=False,
            )
        return _granted(self._issuer, answer)

    def refresh(self, refresh_token: str) -> Granted:
        """Change a refresh token for tokens; where the provider gives no other one, the same is returned. Errors as of the class."""
        with _told(self._issuer):
            answer = self._session.refresh_token(self.provider.token_endpoint, refresh_token=refresh_token, allow_redirects=False)
        return _granted(self._issuer, answer)

    def revoke(self, refresh_token: str) -> bool:
        """Revoke a refresh token (RFC 7009), and return whether the provider did; without its endpoint it did not."""
        if not self.provider.revocation_endpoint:
            return False
        with _told(self._issuer):
            answer = self._session.revoke_token(
                self.provider.revocation_endpoint, token=refresh_token, token_type_hint=_REFRESH, allow_redirects=False
            )
        return int(answer.status_code) == 200

    def key(self, kid: str) -> Mapping[str, Any] | None:
        """Return the provider's key of an ID, or None; errors as of the class."""
        document = self._get(self.provider.jwks_uri)
        keys = document.get("keys")
        found = [key for key in keys if isinstance(key, dict) and key.get("kid") == kid] if isinstance(keys, list) else []
        return found[0] if len(found) == 1 else None

    def _get(self, url: str) -> Mapping[str, Any]:
        with _told(self._issuer):
            answer = self._session.get(url, auth=_nobody, headers={"Accept": "application/json"}, allow_redirects=False)
            if answer.status_code >= 500:
                raise UnavailableError(f"{url} answers {answer.status_code}")
            document = answer.json() if answer.status_code == 200 else None
        if not isinstance(document, dict):
            raise SignInError(f"{url} answers {answer.status_code} and no document; a redirect is not followed")
        return document


def _session(issuer: str, client_id: str, redirect_uri: str) -> Any:
    try:
        from authlib.integrations.requests_client import OAuth2Session
    except ImportError as error:
        raise SignInError("signing in needs packages that are not installed: pip install 'attestry[cli]'") from error

    session = OAuth2Session(
        client_id,
        token_endpoint_auth_method="none",  # noqa: S106 - the client has no secret
        revocation_endpoint_auth_method="none",
        redirect_uri=redirect_uri or None,
        code_challenge_method=_METHOD,
        default_timeout=TIMEOUT_SECONDS,
    )
    for moment in ("access_token_response", "refresh_token_response"):
        session.register_compliance_hook(moment, _refuse_redirect)
    session.verify = os.environ.get("AWS_CA_BUNDLE") or True
    # A proxy cannot reach this machine's own addresses.
    session.trust_env = not may_stand_in("http://localhost/", issuer)
    return session


def _refuse_redirect(answer: Any) -> Any:
    """Return the answer; a redirect could carry a body that reads like tokens."""
    if 300 <= answer.status_code < 400:
        raise SignInError(f"{answer.url} redirects, and tokens come from the address in the issuer's document alone")
    return answer


def _nobody(request: Any) -> Any:
    """Return the request as it is: without this, credentials of ~/.netrc would go along."""
    return request


def _read_document(issuer: str, document: Mapping[str, Any]) -> Provider:
    if document.get("issuer") != issuer:
        raise SignInError(f"the document of {issuer} is that of {words(document.get('issuer'))}: another issuer")
    addresses: dict[str, str] = {}
    for name in ("authorization_endpoint", "token_endpoint", "jwks_uri", "revocation_endpoint"):
        url = document.get(name, "")
        if not isinstance(url, str) or (not url and name != "revocation_endpoint"):
            raise SignInError(f"the document of {issuer} has no {name}")
        if url and not may_stand_in(url, issuer):
            raise SignInError(f"the {name} of {issuer} is not HTTPS: {words(url)}")
        addresses[name] = url
    methods = document.get("code_challenge_methods_supported", [_METHOD])
    if not isinstance(methods, list) or _METHOD not in methods:
        raise SignInError(f"{issuer} does not know PKCE with {_METHOD}")
    return Provider(issuer, **addresses, names_itself=document.get("authorization_response_iss_parameter_supported") is True)


def _granted(issuer: str, answer: Mapping[str, Any]) -> Granted:
    access, identity, refresh = (answer.get(name) or "" for name in ("access_token", "id_token", "refresh_token"))
    if not isinstance(access, str) or not access or not isinstance(identity, str) or not isinstance(refresh, str):
        raise SignInError(f"{issuer} gave no access token")
    # A client must not use a token of a type that it does not know (RFC 6749, section 7.1).
    if str(answer.get("token_type", "")).lower() != "bearer":
        raise SignInError(f"{issuer} gave a token that is no bearer token")
    lives = answer.get("expires_in")
    return Granted(
        access, identity, refresh, int(lives) if isinstance(lives, int) or (isinstance(lives, str) and lives.isdigit()) else None
    )


@contextlib.contextmanager
def _told(issuer: str) -> Iterator[None]:
    """Tell errors of the libraries in words of ours; none of them holds a token."""
    import requests
    from authlib.integrations.base_client import OAuthError

    try:
        yield
    except OAuthError as error:
        raise SignInError(f"{issuer} refuses: {refusal(error.error, error.description)}") from error
    except requests.RequestException as error:
        raise UnavailableError(f"{issuer} does not answer: {type(error).__name__}") from error
    except ValueError as error:
        raise SignInError(f"{issuer} answers with what is no JSON") from error


def refusal(error: object, description: object) -> str:
    """Return an error of OAuth 2.0 as words that a terminal can show."""
    return words(error) + (f" ({words(description)})" if description else "")


def words(text: object) -> str:
    """Return what somebody else wrote, without anything that a terminal would act on."""
    return "".join(c for c in str(text)[:_LONGEST_WORDS] if c.isprintable())
