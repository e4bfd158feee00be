"""Who acts.

Rules:
- A principal is read from what API Gateway, CloudTrail or Step Functions authenticated, never from a body or a flag.
- A *login* is the name under which the account knows a human: the IAM user name, or the session name of one of the registry's own
  roles, because their trust policies require `sts:RoleSessionName = ${aws:username}`. Every other identity is its own login, its full
  ARN, so that a session name that nobody vouches for never passes for a person.
- A *person* is the human behind one or more logins. Four-eyes compares persons, never logins.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from attestry.domain.errors import InvalidInputError, UnprovenIdentityError

ROLES = ("scientist", "validator", "approver", "deployer", "consumer", "auditor", "admin")
"""The registry's roles; each is an IAM role `<prefix>-<role>`."""

_USER_ARN = re.compile(r"arn:aws[a-z-]*:iam::(\d{12}):user/(?:.*/)?([^/]+)")
_SESSION_ARN = re.compile(r"arn:aws[a-z-]*:sts::(\d{12}):assumed-role/([^/]+)/([^/]+)")
_PERSON_ID = re.compile(r"[a-z0-9][a-z0-9._@-]{0,62}")


@dataclass(frozen=True)
class Principal:
    """A person or service that acts.

    Attributes:
        subject: the ARN that was authenticated.
        user_id: the unique ID of the identity (`aws:userid`).
        issuer: who vouches for it: `aws:<account>`, or `attestry` for the registry's own policies.
        method: how it was authenticated, for example `AWS_IAM SigV4` or `cloudtrail StartExecution`.
        address: source IP address, empty where there is none.
        login: the login, see the module's rules.
        roles: the registry's roles that the identity acts in.
        person: ID of the person that the login maps to, or None.
    """

    subject: str
    user_id: str
    issuer: str
    method: str
    address: str
    login: str
    roles: tuple[str, ...] = ()
    person: str | None = None

    def as_person(self, person: str | None) -> Principal:
        """Return the same principal with the person that its login maps to."""
        return replace(self, person=person)

    def require_person(self, act: str) -> str:
        """Return the person's ID.

        Raises:
            UnprovenIdentityError: the login maps to no person.
        """
        if self.person is None:
            raise UnprovenIdentityError(
                f"{self.subject} maps to no person, so it cannot {act}; an admin maps it: attestry people add PERSON --login {self.login}",
                details={"login": self.login},
            )
        return self.person

    def to_item(self) -> dict[str, Any]:
        """Return the principal as it is stored in rows and events."""
        return {
            "subject": self.subject,
            "user_id": self.user_id,
            "issuer": self.issuer,
            "method": self.method,
            "address": self.address,
            "login": self.login,
            "roles": list(self.roles),
            "person": self.person,
        }

    @classmethod
    def from_item(cls, item: Mapping[str, Any]) -> Principal:
        """Return the principal that `to_item` wrote."""
        return cls(**{**item, "roles": tuple(item["roles"])})


def identify(arn: str, user_id: str, *, account: str, prefix: str, method: str, address: str) -> Principal:
    """Return the principal behind an authenticated ARN.

    Args:
        arn: what the platform authenticated: an IAM user, or a session of a role.
        user_id: `aws:userid`, for a session `<role id>:<session name>`.
        account: the registry's own account ID; identities of other accounts are never people of this one.
        prefix: the prefix of the registry's role names.
        method: how it was authenticated.
        address: source IP address, or empty.
    """
    login = arn
    roles: tuple[str, ...] = ()
    if (user := _USER_ARN.fullmatch(arn)) and user[1] == account:
        login = user[2]
    elif (session := _SESSION_ARN.fullmatch(arn)) and session[1] == account:
        role = session[2].removeprefix(f"{prefix}-")
        if session[2] == f"{prefix}-{role}" and role in ROLES:
            login, roles = session[3], (role,)
    return Principal(arn, user_id, f"aws:{account}", method, address, login, roles)


def principal_from_request_context(context: Mapping[str, Any], *, account: str, prefix: str) -> Principal:
    """Return the principal of an HTTP API request (payload format 2.0) with IAM authorisation.

    Raises:
        UnprovenIdentityError: the request carries no IAM identity; the route lacks its authorizer.
    """
    iam = (context.get("authorizer") or {}).get("iam") or {}
    if not iam.get("userArn") or not iam.get("userId"):
        raise UnprovenIdentityError("the request carries no IAM identity")
    address = str((context.get("http") or {}).get("sourceIp", ""))
    return identify(str(iam["userArn"]), str(iam["userId"]), account=account, prefix=prefix, method="AWS_IAM SigV4", address=address)


def registry_principal(component: str) -> Principal:
    """Return the principal of the registry itself, for moves that a policy makes without a person."""
    return Principal(f"attestry:{component}", component, "attestry", "policy", "", f"attestry:{component}")


def person_id(text: str) -> str:
    """Return a checked person ID.

    Raises:
        InvalidInputError: not 1 to 63 of lower-case letters, digits, `.`, `_`, `@`, `-`.
    """
    if not _PERSON_ID.fullmatch(text):
        raise InvalidInputError.of("person", "person_id", "a person's ID is 1 to 63 lower-case letters, digits, '.', '_', '@' or '-'")
    return text
