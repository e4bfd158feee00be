"""What a sign-in needs to know: which registry it is for, which provider, and which of its tokens goes to the registry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from attestry.client.http import is_confidential, is_here
from attestry.domain.errors import InvalidInputError

DEFAULT_PORT: Final = 8765
DEFAULT_SCOPES: Final = ("openid",)
ACCESS: Final = "access"
ID: Final = "id"
TOKEN_USES: Final = (ACCESS, ID)
_PORTS: Final = {"https": 443, "http": 80}
_LONGEST: Final = 500


@dataclass(frozen=True)
class SignInSettings:
    """How to sign in to one registry.

    Attributes:
        api_url: where the registry's API is, as `registry_address` writes it.
        issuer: identifier of the identity provider, to the letter.
        client_id: of the public client that is registered there for the command line.
        scopes: what is asked for; `openid` is always among them.
        token_use: which token goes to the registry, `access` or `id`.
        port: of this machine, where the browser hands the code over; 0 for any that is free.
    """

    api_url: str
    issuer: str
    client_id: str
    scopes: tuple[str, ...] = DEFAULT_SCOPES
    token_use: str = ACCESS
    port: int = DEFAULT_PORT

    @classmethod
    def of(
        cls,
        api_url: str,
        issuer: str,
        client_id: str,
        *,
        scopes: Sequence[str] = DEFAULT_SCOPES,
        token_use: str = ACCESS,
        port: int = DEFAULT_PORT,
    ) -> SignInSettings:
        """Return settings that were checked.

        Raises:
            InvalidInputError: naming the field and the rule.
        """
        check_issuer(issuer)
        if not _is_word(client_id):
            raise InvalidInputError.of(
                "client_id", "required", "the client ID is the one that the identity provider knows the command line by"
            )
        if not all(_is_word(scope) for scope in scopes):
            raise InvalidInputError.of("scopes", "words", "scopes are words without spaces")
        if token_use not in TOKEN_USES:
            raise InvalidInputError.of("token_use", "one_of", f"the token is one of {', '.join(TOKEN_USES)}")
        if not 0 <= port <= 65535:
            raise InvalidInputError.of("port", "range", "a port is a number from 0 to 65535")
        asked = tuple(dict.fromkeys([*DEFAULT_SCOPES, *scopes]))
        return cls(registry_address(api_url), issuer, client_id, asked, token_use, port)

    @classmethod
    def from_item(cls, api_url: str, item: Mapping[str, Any]) -> SignInSettings:
        """Return the settings that were kept; errors as of `of`."""
        scopes, port = item.get("scopes"), item.get("port")
        if not isinstance(scopes, list) or not all(isinstance(scope, str) for scope in scopes) or type(port) is not int:
            raise InvalidInputError.of("scopes", "format", "what is kept of a sign-in names its scopes and its port")
        issuer, client_id, token_use = (str(item.get(name) or "") for name in ("issuer", "client_id", "token_use"))
        return cls.of(api_url, issuer, client_id, scopes=scopes, token_use=token_use, port=port)

    def to_item(self) -> dict[str, Any]:
        """Return the settings to keep, without the registry's address."""
        return {
            "issuer": self.issuer,
            "client_id": self.client_id,
            "scopes": list(self.scopes),
            "token_use": self.token_use,
            "port": self.port,
        }


def registry_address(url: str) -> str:
    """Return the address of an API as it is compared: host in lower case, without the scheme's own port and without a slash at the end.

    Raises:
        InvalidInputError: it is neither HTTPS nor on this machine, or holds more than scheme, host, port and path.
    """
    where = urlsplit(url)
    if not is_confidential(url) or not where.hostname or where.username is not None or where.query or where.fragment:
        raise InvalidInputError.of("api_url", "https", f"the registry's address {url} is neither HTTPS nor on this machine")
    host = f"[{where.hostname}]" if ":" in where.hostname else where.hostname
    port = f":{where.port}" if where.port not in (None, _PORTS[where.scheme]) else ""
    return f"{where.scheme}://{host}{port}{where.path.rstrip('/')}"


def check_issuer(issuer: str) -> None:
    """Check the identifier of an issuer: HTTPS, or HTTP on this machine; without query and fragment (OpenID Connect Discovery 1.0).

    Raises:
        InvalidInputError: it breaks a rule.
    """
    where = urlsplit(issuer)
    if not _is_word(issuer) or not is_confidential(issuer) or not where.hostname or where.username is not None:
        raise InvalidInputError.of("issuer", "https", f"the issuer {issuer!r:.200} is neither HTTPS nor on this machine")
    if where.query or where.fragment:
        raise InvalidInputError.of("issuer", "format", "an issuer has neither query nor fragment")


def may_stand_in(url: str, issuer: str) -> bool:
    """Return whether an issuer's document may name an address: HTTPS, or plain HTTP on this machine where the issuer itself is that."""
    where = urlsplit(url)
    if not where.hostname or where.username is not None or where.fragment:
        return False
    return where.scheme == "https" or (is_here(url) and is_here(issuer))


def _is_word(text: str) -> bool:
    return 0 < len(text) <= _LONGEST and text.isascii() and text.isprintable() and " " not in text
