"""People: which human stands behind which logins, and which SSH keys are theirs.

Rules:
- A login maps to one person, and so does an SSH key; giving it to another person is refused, so that history cannot be re-attributed.
- When a key was added stays on the record: a signature by a key that came after the packet shows as just that.
- Only admins come here; the route's IAM policy says who that is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from attestry.domain.errors import ConditionFailedError, ConflictError, InvalidInputError
from attestry.domain.events import Event, timestamp
from attestry.domain.principal import Principal, person_id
from attestry.evidence.ssh_signature import SshKey
from attestry.ports import ABSENT, Key, MetaStore, Put, When, Write
from attestry.usecases.records import login_key, outbox_put, person_key

PEOPLE = "PEOPLE"
MAX_LOGINS = 20
MAX_LOGIN_LENGTH = 256
MAX_SSH_KEYS = 10


@dataclass(frozen=True)
class Person:
    """A person.

    Attributes:
        person: the ID.
        name: how people call them.
        logins: every login of theirs.
        added: RFC 3339.
        ssh_keys: keys that they sign approvals with, each `ssh-ed25519 <base64>`.
        ssh_keys_added: fingerprint of each key to when it was added, RFC 3339.
    """

    person: str
    name: str
    logins: tuple[str, ...]
    added: str
    ssh_keys: tuple[str, ...] = ()
    ssh_keys_added: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_item(cls, row: Mapping[str, Any]) -> Person:
        """Return the person that a row tells of."""
        keys, times = row.get("ssh_keys") or (), row.get("ssh_keys_added") or {}
        return cls(row["person"], row["name"], tuple(row["logins"]), row["added"], tuple(keys), dict(times))


def ssh_key_key(fingerprint: str) -> Key:
    """Return the key that maps an SSH key to a person."""
    return Key(f"SSHKEY#{fingerprint}")


def add_person(
    meta: MetaStore, person: str, logins: Sequence[str], *, name: str, by: Principal, at: datetime, ssh_keys: Sequence[str] = ()
) -> Person:
    """Add a person, or further logins and SSH keys to one who is there. The same again changes nothing.

    Args:
        meta: the table.
        person: the person's ID.
        logins: logins of theirs; may be empty for a person who is there.
        name: how people call them; empty leaves it as it is.
        by: the admin.
        at: the time.
        ssh_keys: lines of `.pub` files, see `attestry.evidence.ssh_signature.SshKey`.

    Raises:
        InvalidInputError: an ID, login or key out of form.
        ConflictError: a login or a key belongs to another person.
    """
    person_id(person)
    row = meta.get(person_key(person))
    known = Person.from_item(row) if row else None
    have = known or Person(person, name or person, (), timestamp(at))
    fresh = [login for login in _checked_logins(logins, needed=known is None or not ssh_keys) if login not in have.logins]
    keys = {key.fingerprint: key for key in map(SshKey.parse, ssh_keys) if key.text not in have.ssh_keys}
    if known and not fresh and not keys:
        return known
    changed = Person(
        person,
        name or have.name,
        (*have.logins, *fresh),
        have.added,
        (*have.ssh_keys, *(key.text for key in keys.values())),
        {**have.ssh_keys_added, **dict.fromkeys(keys, timestamp(at))},
    )
    _check_counts(changed)
    rev = int(row["rev"]) + 1 if row else 1
    try:
        meta.transact(_writes(changed, fresh, list(keys), rev, by, at))
    except ConditionFailedError as error:
        raise _conflict(meta, person, fresh, list(keys)) from error
    return changed


def list_people(meta: MetaStore) -> list[Person]:
    """Return all persons, by ID."""
    return [Person.from_item(row) for row in meta.list_collection(PEOPLE)]


def _writes(person: Person, logins: list[str], fingerprints: list[str], rev: int, by: Principal, at: datetime) -> list[Write]:
    row = {
        "person": person.person,
        "name": person.name,
        "logins": list(person.logins),
        "ssh_keys": list(person.ssh_keys),
        "ssh_keys_added": dict(person.ssh_keys_added),
        "added": person.added,
        "rev": rev,
        "gsi_pk": PEOPLE,
        "gsi_sk": person.person,
    }
    facts = {"logins": logins, "ssh_keys": fingerprints}
    return [
        Put(person_key(person.person), row, When(exists=True, equals={"rev": rev - 1}) if rev > 1 else ABSENT),
        *(Put(login_key(login), {"person": person.person, "login": login}) for login in logins),
        *(Put(ssh_key_key(f), {"person": person.person, "fingerprint": f}) for f in fingerprints),
        outbox_put(Event("person.changed", f"person/{person.person}", rev, at, by, facts)),
    ]


def _conflict(meta: MetaStore, person: str, logins: list[str], fingerprints: list[str]) -> ConflictError:
    """Return why a change of a person was refused."""
    owned = [(f"the login {login}", login_key(login)) for login in logins] + [(f"the SSH key {f}", ssh_key_key(f)) for f in fingerprints]
    for what, key in owned:
        row = meta.get(key)
        if row and row["person"] != person:
            return ConflictError(f"{what} belongs to another person ({row['person']})")
    return ConflictError(f"the person {person} was changed by somebody else at the same time; try again")


def _check_counts(person: Person) -> None:
    if len(person.logins) > MAX_LOGINS:
        raise InvalidInputError.of("logins", "max_logins", f"a person has at most {MAX_LOGINS} logins")
    if len(person.ssh_keys) > MAX_SSH_KEYS:
        raise InvalidInputError.of("ssh_keys", "max_ssh_keys", f"a person has at most {MAX_SSH_KEYS} SSH keys")


def _checked_logins(logins: Sequence[str], *, needed: bool) -> list[str]:
    if (needed and not logins) or not all(0 < len(login) <= MAX_LOGIN_LENGTH and login.isprintable() for login in logins):
        raise InvalidInputError.of("logins", "login", f"one or more logins of 1 to {MAX_LOGIN_LENGTH} printable characters are needed")
    return list(dict.fromkeys(logins))
