"""People: which human stands behind which logins, and which SSH keys are theirs.

Rules:
- A login maps to one person, and so does an SSH key; giving it to another person is refused, so that history cannot be re-attributed.
- When a key was added stays on the record: a signature by a key that came after the packet shows as just that.
- A key can be withdrawn, for good: it signs nothing from then on, and comes back for nobody. What it signed before stays proven, because a
  signature is judged by the events of its time.
- Only Ed25519 keys, which sign by SSHSIG; a login is never taken away, since it says whose the acts of the past were.
- Only admins come here; the route's IAM policy says who that is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from attestry.domain.errors import ConditionFailedError, ConflictError, InvalidInputError, NotFoundError
from attestry.domain.events import Event, shorten, timestamp
from attestry.domain.paging import WHOLE, Page
from attestry.domain.principal import Principal, person_id
from attestry.evidence.ssh_signature import SshKey
from attestry.ports import ABSENT, Key, MetaStore, Put, When, Write
from attestry.usecases.records import login_key, outbox_put, person_key

PEOPLE = "PEOPLE"
MAX_LOGINS = 20
MAX_LOGIN_LENGTH = 256
MAX_SSH_KEYS = 10
MAX_SSH_KEYS_EVER = 100


@dataclass(frozen=True)
class Person:
    """A person.

    Attributes:
        person: the ID.
        name: how people call them.
        logins: every login of theirs.
        added: RFC 3339.
        ssh_keys: keys that they sign approvals with, each `ssh-ed25519 <base64>`.
        ssh_keys_added: fingerprint of each key, a withdrawn one too, to when it was added, RFC 3339.
        ssh_keys_withdrawn: fingerprint of each withdrawn key to when that was.
        changed: times of the revisions, by which their events are found.
    """

    person: str
    name: str
    logins: tuple[str, ...]
    added: str
    ssh_keys: tuple[str, ...] = ()
    ssh_keys_added: Mapping[str, str] = field(default_factory=dict)
    ssh_keys_withdrawn: Mapping[str, str] = field(default_factory=dict)
    changed: tuple[str, ...] = ()

    @classmethod
    def from_item(cls, row: Mapping[str, Any]) -> Person:
        """Return the person that a row tells of."""
        keys, times, ends = row.get("ssh_keys") or (), row.get("ssh_keys_added") or {}, row.get("ssh_keys_withdrawn") or {}
        changed = tuple(row.get("changed") or ())
        return cls(row["person"], row["name"], tuple(row["logins"]), row["added"], tuple(keys), dict(times), dict(ends), changed)

    def validity(self, fingerprint: str) -> dict[str, str]:
        """Return from when to when a key is theirs: `start`, and `end` where it was withdrawn."""
        end = self.ssh_keys_withdrawn.get(fingerprint)
        return {"start": self.ssh_keys_added[fingerprint], **({"end": end} if end else {})}


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
        ConflictError: a login or a key belongs to another person, or the key was withdrawn.
    """
    person_id(person)
    row = meta.get(person_key(person))
    known = Person.from_item(row) if row else None
    have = known or Person(person, name or person, (), timestamp(at))
    fresh = [login for login in _checked_logins(logins, needed=known is None or not ssh_keys) if login not in have.logins]
    keys = {key.fingerprint: key for key in map(SshKey.parse, ssh_keys) if key.text not in have.ssh_keys}
    if known and not fresh and not keys:
        return known
    _refuse_withdrawn(have, keys)
    changed = replace(
        have,
        name=name or have.name,
        logins=(*have.logins, *fresh),
        ssh_keys=(*have.ssh_keys, *(key.text for key in keys.values())),
        ssh_keys_added={**have.ssh_keys_added, **dict.fromkeys(keys, timestamp(at))},
        changed=(*have.changed, timestamp(at)),
    )
    _check_counts(changed)
    change = _Change(logins=tuple(fresh), ssh_keys=tuple(keys))
    try:
        meta.transact(_writes(changed, change, int(row["rev"]) + 1 if row else 1, by, at))
    except ConditionFailedError as error:
        raise _conflict(meta, person, fresh, list(keys)) from error
    return changed


def withdraw_keys(meta: MetaStore, person: str, fingerprints: Sequence[str], *, reason: str, by: Principal, at: datetime) -> Person:
    """Withdraw SSH keys of a person, for good. The same again changes nothing.

    Args:
        meta: the table.
        person: the person's ID.
        fingerprints: of the keys, each `SHA256:<base64>`.
        reason: why, checked.
        by: the admin.
        at: the time.

    Raises:
        NotFoundError: no such person.
        InvalidInputError: no keys are named, or one that was never theirs.
        ConflictError: the person was changed by somebody else at the same time.
    """
    person_id(person)
    row = meta.get(person_key(person))
    if row is None:
        raise NotFoundError(f"there is no person {person}")
    have = Person.from_item(row)
    if not fingerprints or any(f not in have.ssh_keys_added for f in fingerprints):
        raise InvalidInputError.of("withdraw", "ssh_key", f"fingerprints of keys that were registered for {person} are needed: SHA256:...")
    ending = [f for f in dict.fromkeys(fingerprints) if f not in have.ssh_keys_withdrawn]
    if not ending:
        return have
    changed = replace(
        have,
        ssh_keys=tuple(text for text in have.ssh_keys if SshKey.parse(text).fingerprint not in ending),
        ssh_keys_withdrawn={**have.ssh_keys_withdrawn, **dict.fromkeys(ending, timestamp(at))},
        changed=(*have.changed, timestamp(at)),
    )
    try:
        meta.transact(_writes(changed, _Change(withdrawn=tuple(ending), reason=reason), int(row["rev"]) + 1, by, at))
    except ConditionFailedError as error:
        raise _conflict(meta, person, [], []) from error
    return changed


def list_people(meta: MetaStore, page: Page = WHOLE) -> list[Person]:
    """Return the persons of a page and one more, by ID; by default all of them."""
    return [Person.from_item(row) for row in meta.list_collection(PEOPLE, after=page.after, limit=page.ahead)]


@dataclass(frozen=True)
class _Change:
    """What a revision of a person adds, and what it ends."""

    logins: tuple[str, ...] = ()
    ssh_keys: tuple[str, ...] = ()
    withdrawn: tuple[str, ...] = ()
    reason: str = ""

    def facts(self, person: Person) -> dict[str, Any]:
        """Return what the event says."""
        facts: dict[str, Any] = {"logins": list(self.logins), "ssh_keys": list(self.ssh_keys)}
        if self.ssh_keys or self.withdrawn:
            facts["validity"] = {f: person.validity(f) for f in (*self.ssh_keys, *self.withdrawn)}
        if self.withdrawn:
            facts |= {"withdrawn": list(self.withdrawn), "reason": shorten(self.reason)}
        return facts


def _writes(person: Person, change: _Change, rev: int, by: Principal, at: datetime) -> list[Write]:
    row = {
        "person": person.person,
        "name": person.name,
        "logins": list(person.logins),
        "ssh_keys": list(person.ssh_keys),
        "ssh_keys_added": dict(person.ssh_keys_added),
        "ssh_keys_withdrawn": dict(person.ssh_keys_withdrawn),
        "changed": list(person.changed),
        "added": person.added,
        "rev": rev,
        "gsi_pk": PEOPLE,
        "gsi_sk": person.person,
    }
    return [
        Put(person_key(person.person), row, When(exists=True, equals={"rev": rev - 1}) if rev > 1 else ABSENT),
        *(Put(login_key(login), {"person": person.person, "login": login}) for login in change.logins),
        *(Put(ssh_key_key(f), {"person": person.person, "fingerprint": f}) for f in change.ssh_keys),
        outbox_put(Event("person.changed", f"person/{person.person}", rev, at, by, change.facts(person))),
    ]


def _conflict(meta: MetaStore, person: str, logins: list[str], fingerprints: list[str]) -> ConflictError:
    """Return why a change of a person was refused."""
    owned = [(f"the login {login}", login_key(login)) for login in logins] + [(f"the SSH key {f}", ssh_key_key(f)) for f in fingerprints]
    for what, key in owned:
        row = meta.get(key)
        if row and row["person"] != person:
            return ConflictError(f"{what} belongs to another person ({row['person']})")
    return ConflictError(f"the person {person} was changed by somebody else at the same time; try again")


def _refuse_withdrawn(person: Person, keys: Mapping[str, SshKey]) -> None:
    for fingerprint in keys:
        if fingerprint in person.ssh_keys_withdrawn:
            at = person.ssh_keys_withdrawn[fingerprint]
            raise ConflictError(f"the SSH key {fingerprint} was withdrawn at {at}, for good; make another one: ssh-keygen -t ed25519")


def _check_counts(person: Person) -> None:
    if len(person.logins) > MAX_LOGINS:
        raise InvalidInputError.of("logins", "max_logins", f"a person has at most {MAX_LOGINS} logins")
    if len(person.ssh_keys_added) > MAX_SSH_KEYS_EVER:
        raise InvalidInputError.of(
            "ssh_keys", "max_ssh_keys", f"a person has at most {MAX_SSH_KEYS_EVER} SSH keys in all, withdrawn ones too"
        )
    if len(person.ssh_keys) > MAX_SSH_KEYS:
        raise InvalidInputError.of("ssh_keys", "max_ssh_keys", f"a person has at most {MAX_SSH_KEYS} SSH keys")


def _checked_logins(logins: Sequence[str], *, needed: bool) -> list[str]:
    if (needed and not logins) or not all(0 < len(login) <= MAX_LOGIN_LENGTH and login.isprintable() for login in logins):
        raise InvalidInputError.of("logins", "login", f"one or more logins of 1 to {MAX_LOGIN_LENGTH} printable characters are needed")
    return list(dict.fromkeys(logins))
