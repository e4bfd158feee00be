"""People: which human stands behind which logins.

Rules:
- A login maps to one person; giving it to another person is refused, so that history cannot be re-attributed.
- Only admins come here; the route's IAM policy says who that is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from attestry.domain.errors import ConditionFailedError, ConflictError, InvalidInputError
from attestry.domain.events import Event, timestamp
from attestry.domain.principal import Principal, person_id
from attestry.ports import ABSENT, MetaStore, Put, When, Write
from attestry.usecases.records import login_key, outbox_put, person_key

PEOPLE = "PEOPLE"
MAX_LOGINS = 20
MAX_LOGIN_LENGTH = 256


@dataclass(frozen=True)
class Person:
    """A person.

    Attributes:
        person: the ID.
        name: how people call them.
        logins: every login of theirs.
        added: RFC 3339.
    """

    person: str
    name: str
    logins: tuple[str, ...]
    added: str


def add_person(meta: MetaStore, person: str, logins: Sequence[str], *, name: str, by: Principal, at: datetime) -> Person:
    """Add a person, or further logins to one who is there. The same again changes nothing.

    Raises:
        InvalidInputError: an ID or login out of form.
        ConflictError: a login belongs to another person.
    """
    person_id(person)
    wanted = _checked_logins(logins)
    known = meta.get(person_key(person))
    have = tuple(known["logins"]) if known else ()
    fresh = [login for login in wanted if login not in have]
    merged = (*have, *fresh)
    if len(merged) > MAX_LOGINS:
        raise InvalidInputError.of("logins", "max_logins", f"a person has at most {MAX_LOGINS} logins")
    if known and not fresh:
        return Person(person, known["name"], have, known["added"])
    rev = int(known["rev"]) + 1 if known else 1
    added = known["added"] if known else timestamp(at)
    shown = name or (known["name"] if known else person)
    row = {"person": person, "name": shown, "logins": list(merged), "added": added, "rev": rev, "gsi_pk": PEOPLE, "gsi_sk": person}
    writes: list[Write] = [
        Put(person_key(person), row, When(exists=True, equals={"rev": rev - 1}) if known else ABSENT),
        *(Put(login_key(login), {"person": person, "login": login}) for login in fresh),
        outbox_put(Event("person.changed", f"person/{person}", rev, at, by, {"logins": fresh})),
    ]
    try:
        meta.transact(writes)
    except ConditionFailedError as error:
        for login in fresh:
            row_of_login = meta.get(login_key(login))
            if row_of_login and row_of_login["person"] != person:
                raise ConflictError(f"the login {login} belongs to another person ({row_of_login['person']})") from error
        raise ConflictError(f"the person {person} was changed by somebody else at the same time; try again") from error
    return Person(person, shown, merged, added)


def list_people(meta: MetaStore) -> list[Person]:
    """Return all persons, by ID."""
    return [Person(r["person"], r["name"], tuple(r["logins"]), r["added"]) for r in meta.list_collection(PEOPLE)]


def _checked_logins(logins: Sequence[str]) -> list[str]:
    if not logins or not all(0 < len(login) <= MAX_LOGIN_LENGTH and login.isprintable() for login in logins):
        raise InvalidInputError.of("logins", "login", f"one or more logins of 1 to {MAX_LOGIN_LENGTH} printable characters are needed")
    return list(dict.fromkeys(logins))
