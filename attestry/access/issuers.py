"""Issuers: identity providers whose bearer tokens the registry takes, as the deployment configures them.

    [{"alias": "corp", "issuer": "https://login.example.com", "audiences": ["attestry"],
      "groups_claim": "groups", "roles": {"ml-approvers": "approver"}}]

Rules:
- A login is `oidc:<alias>:<value of the login claim>`, by default of `sub`: the one claim that an issuer never gives to somebody else. It
  maps to a person as an AWS login does, so that four-eyes compares persons however they signed in.
- Where `roles` maps groups, the issuer is the outer wall, as IAM roles are for AWS logins; where it maps none, grants alone say what
  somebody holds.
- Keys come from the issuer's JWKS document, found by discovery or named here; keys written down here (`jwks`) are taken as they are.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from attestry.access.standing import Caller
from attestry.domain.errors import InvalidInputError, UnprovenIdentityError
from attestry.domain.principal import ROLES, Principal

ALGORITHMS: Final = ("RS256", "ES256")
METHOD: Final = "OIDC bearer token"
MAX_LOGIN: Final = 200
_ALIAS = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?")
_FIELDS = ("alias", "issuer", "audiences", "audience_claim", "login_claim", "groups_claim", "roles", "token_use", "jwks_uri", "jwks")


@dataclass(frozen=True)
class Issuer:
    """An identity provider.

    Attributes:
        alias: its name in logins.
        issuer: what its tokens say in `iss`, to the letter.
        audiences: of which a token has to name one.
        audience_claim: the claim that names the audience; Cognito's access tokens have `client_id`.
        login_claim: the claim that names the login; has to be one that the issuer never gives to somebody else.
        groups_claim: the claim with the groups, empty where there is none.
        roles: group to role.
        token_use: what Cognito's claim of this name has to be, `access` or `id`; empty for other issuers.
        jwks_uri: where its keys are; empty to find out by discovery.
        jwks: its keys themselves, where they are written down here.
    """

    alias: str
    issuer: str
    audiences: tuple[str, ...]
    audience_claim: str = "aud"
    login_claim: str = "sub"
    groups_claim: str = ""
    roles: Mapping[str, str] = field(default_factory=dict)
    token_use: str = ""
    jwks_uri: str = ""
    jwks: Mapping[str, Any] | None = None

    @classmethod
    def from_item(cls, item: Mapping[str, Any]) -> Issuer:
        """Return the issuer that a setting describes.

        Raises:
            InvalidInputError: naming the field.
        """
        unknown = set(item) - set(_FIELDS)
        if unknown or not isinstance(item.get("alias"), str) or not _ALIAS.fullmatch(item["alias"]):
            raise InvalidInputError.of(
                "alias", "issuer", f"an issuer has an alias of lower-case letters and digits, and {', '.join(_FIELDS)}"
            )
        for name in ("issuer", "jwks_uri"):
            if item.get(name) and not _is_safe(str(item[name])):
                raise InvalidInputError.of(name, "https", f"{name} of {item['alias']} is neither HTTPS nor on this machine")
        audiences, roles = item.get("audiences"), item.get("roles") or {}
        if not item.get("issuer") or not isinstance(audiences, (list, tuple)) or not audiences:
            raise InvalidInputError.of("audiences", "required", f"{item['alias']} needs its issuer and the audiences of its tokens")
        if set(roles.values()) - set(ROLES) or (roles and not item.get("groups_claim")):
            raise InvalidInputError.of("roles", "role", f"roles of {item['alias']} map groups of groups_claim to {', '.join(ROLES)}")
        return cls(**{**item, "audiences": tuple(audiences), "roles": dict(roles)})

    def to_item(self) -> dict[str, Any]:
        """Return the issuer as a setting."""
        return {**vars(self), "audiences": list(self.audiences), "roles": dict(self.roles)}


@dataclass(frozen=True)
class TokenHolder:
    """Whom a token is of, as the gateway hands it on.

    Attributes:
        alias: of the issuer.
        issuer: what the token says in `iss`.
        subject: what it says in `sub`.
        login: `oidc:<alias>:<value of the login claim>`.
        roles: roles that its groups stand for.
        walled: whether the issuer says in which roles its holders may act.
        expires: when it ends, seconds since the epoch.
    """

    alias: str
    issuer: str
    subject: str
    login: str
    roles: tuple[str, ...]
    walled: bool
    expires: int

    def to_context(self) -> dict[str, str]:
        """Return it as the gateway carries it, each value a text."""
        texts = {"alias": self.alias, "issuer": self.issuer, "subject": self.subject, "login": self.login}
        return {**texts, "roles": json.dumps(self.roles), "walled": json.dumps(self.walled), "expires": str(self.expires)}

    @classmethod
    def from_context(cls, context: Mapping[str, Any], *, now: float) -> TokenHolder:
        """Return whom the gateway says that a token is of.

        Raises:
            UnprovenIdentityError: it says it otherwise than `to_context`, or the token has ended meanwhile.
        """
        try:
            alias, issuer, subject, login = (str(context[name]) for name in ("alias", "issuer", "subject", "login"))
            roles, walled, expires = json.loads(context["roles"]), json.loads(context["walled"]), int(context["expires"])
        except (KeyError, TypeError, ValueError) as error:
            raise UnprovenIdentityError("the gateway handed on a token that its authorizer has not read") from error
        if not login.startswith(f"oidc:{alias}:") or set(roles) - set(ROLES) or not isinstance(walled, bool):
            raise UnprovenIdentityError("the gateway handed on a token that its authorizer has not read")
        if now >= expires:
            raise UnprovenIdentityError("the token has ended; sign in again")
        return cls(alias, issuer, subject, login, tuple(roles), walled, expires)

    def caller(self, address: str) -> Caller:
        """Return the caller of a request that came with the token."""
        # Names folders of uploads, so no character of the issuer's choice goes in.
        user_id = f"OIDC-{self.alias}:{hashlib.sha256(self.login.encode()).hexdigest()[:32]}"
        return Caller(
            Principal(f"{self.issuer}#{self.subject}", user_id, self.issuer, METHOD, address, self.login, self.roles), self.walled
        )


def read_issuers(items: Sequence[Mapping[str, Any]]) -> tuple[Issuer, ...]:
    """Return the issuers that a setting describes.

    Raises:
        InvalidInputError: naming the field, or two of one alias or issuer.
    """
    issuers = tuple(Issuer.from_item(item) for item in items)
    if len({one.alias for one in issuers}) < len(issuers) or len({one.issuer for one in issuers}) < len(issuers):
        raise InvalidInputError.of("alias", "unique", "each issuer is described once, under an alias of its own")
    return issuers


def _is_safe(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in ("127.0.0.1", "::1", "localhost"))
