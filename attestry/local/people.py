"""Local people: IAM users with access keys, and the profiles with which they act as the registry's roles.

A person signs with their own user's key and assumes a role under their own user name, as the roles' trust policies demand; botocore
does it from the profile. So `AWS_PROFILE=dana` is all that any AWS client needs.
"""

from __future__ import annotations

import configparser
import io
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from botocore.exceptions import ClientError

from attestry.local.deploy import Services
from attestry.local.errors import LocalError
from attestry.local.settings import ACCOUNT, REGION, DataDirectory, RootKey, write_private

ROOT_PROFILE = "root"
_LOGIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9+=,.@_-]{1,63}")


@dataclass(frozen=True)
class Person:
    """Somebody who uses the embedded registry.

    Attributes:
        login: IAM user name, session name and name of the profile.
        roles: registry roles; the profile of the login acts as the first, `<login>-<role>` as any other.
    """

    login: str
    roles: tuple[str, ...]

    def __post_init__(self) -> None:
        if not _LOGIN.fullmatch(self.login) or self.login == ROOT_PROFILE:
            raise LocalError(f"{self.login!r} cannot be a login: 2 to 64 letters, digits and +=,.@_-, and not {ROOT_PROFILE!r}")
        if not self.roles:
            raise LocalError(f"{self.login} needs a role")

    def profiles(self) -> dict[str, str]:
        """Return profile names and the role of each."""
        first, *others = self.roles
        return {self.login: first, **{f"{self.login}-{role}": role for role in others}}


PEOPLE = (
    Person("admin", ("admin",)),
    Person("dana", ("scientist",)),
    Person("erin", ("approver",)),
    Person("frank", ("deployer", "consumer")),
    Person("grace", ("auditor",)),
)
"""Who is there from the start."""


@dataclass(frozen=True)
class AccessKey:
    """A user's key."""

    key_id: str
    secret: str


def role_name(prefix: str, role: str) -> str:
    """Return the name of the IAM role of a registry role."""
    return f"{prefix}-{role}"


def ensure(services: Services, data: DataDirectory, root: RootKey, prefix: str, added: Iterable[Person] = ()) -> tuple[Person, ...]:
    """Make every known person a user with a working key, and write the profiles.

    Args:
        services: clients with the rights of the account's root.
        data: where the profiles go.
        root: key of the account's root, which gets a profile too.
        prefix: start of the names of the roles.
        added: people to add, or whose roles change.

    Returns:
        Everybody, in order of their logins.

    Raises:
        LocalError: a role is not one of the stack's.
    """
    known = {person.login: person for person in (*PEOPLE, *_read(data), *added)}
    everybody = tuple(known[login] for login in sorted(known))
    _check_roles(services, prefix, everybody)
    old = _keys(data)
    keys = {person.login: _user(services, prefix, person, old.get(person.login)) for person in everybody}
    write_private(data.people, json.dumps({person.login: person.roles for person in everybody}, indent=2))
    write_private(data.aws_credentials, _credentials({f"{login}-user": key for login, key in keys.items()}, root))
    write_private(data.aws_config, _config(services.endpoint_url, prefix, everybody))
    return everybody


def _check_roles(services: Services, prefix: str, people: Iterable[Person]) -> None:
    iam = services.client("iam")
    for role in sorted({role for person in people for role in person.roles}):
        try:
            iam.get_role(RoleName=role_name(prefix, role))
        except ClientError as error:
            raise LocalError(f"the stack has no role {role_name(prefix, role)}") from error


def _read(data: DataDirectory) -> list[Person]:
    if not data.people.exists():
        return []
    found = json.loads(data.people.read_text(encoding="utf-8"))
    return [Person(login, tuple(roles)) for login, roles in found.items()]


def _keys(data: DataDirectory) -> dict[str, AccessKey]:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(data.aws_credentials, encoding="utf-8")
    return {
        name.removesuffix("-user"): AccessKey(parser[name]["aws_access_key_id"], parser[name]["aws_secret_access_key"])
        for name in parser.sections()
        if name.endswith("-user")
    }


def _user(services: Services, prefix: str, person: Person, key: AccessKey | None) -> AccessKey:
    iam = services.client("iam")
    try:
        iam.get_user(UserName=person.login)
    except ClientError:
        iam.create_user(UserName=person.login)
    roles = [f"arn:aws:iam::{ACCOUNT}:role/{role_name(prefix, role)}" for role in person.roles]
    policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole", "Resource": roles}]}
    iam.put_user_policy(UserName=person.login, PolicyName="registry-roles", PolicyDocument=json.dumps(policy))
    held = [entry["AccessKeyId"] for entry in iam.list_access_keys(UserName=person.login)["AccessKeyMetadata"]]
    if key is not None and key.key_id in held:
        return key
    for stale in held:
        iam.delete_access_key(UserName=person.login, AccessKeyId=stale)
    made = iam.create_access_key(UserName=person.login)["AccessKey"]
    return AccessKey(str(made["AccessKeyId"]), str(made["SecretAccessKey"]))


def _credentials(keys: Mapping[str, AccessKey], root: RootKey) -> str:
    sections = {ROOT_PROFILE: AccessKey(root.key_id, root.secret), **keys}
    return _ini({name: {"aws_access_key_id": key.key_id, "aws_secret_access_key": key.secret} for name, key in sections.items()})


def _config(endpoint_url: str, prefix: str, people: Iterable[Person]) -> str:
    place = {"region": REGION, "endpoint_url": endpoint_url}
    sections: dict[str, dict[str, str]] = {f"profile {ROOT_PROFILE}": place}
    for person in people:
        sections[f"profile {person.login}-user"] = place
        for profile, role in person.profiles().items():
            sections[f"profile {profile}"] = {
                "role_arn": f"arn:aws:iam::{ACCOUNT}:role/{role_name(prefix, role)}",
                "source_profile": f"{person.login}-user",
                "role_session_name": person.login,
                **place,
            }
    return _ini(sections)


def _ini(sections: Mapping[str, Mapping[str, str]]) -> str:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_dict(sections)
    buffer = io.StringIO()
    parser.write(buffer)
    return buffer.getvalue()
