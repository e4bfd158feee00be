"""Grants: which roles somebody holds, and where each counts.

Rules:
- A grant is to a person, for every login of theirs, or to a login that is nobody's, a service's for example.
- What somebody holds is one row, written with the event that changes it. The row stays when the last grant is withdrawn: who was ever
  granted anything is governed by grants from then on (see `attestry.access.standing`).
- Nobody changes what they hold themselves.
- The same grant again changes nothing; with another end it replaces the one that is there.
- Only admins of the whole registry come here; policies say so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from attestry.access.events import GRANT_GIVEN, GRANT_WITHDRAWN, grant_event_subject, mark, mark_of
from attestry.access.rows import GRANTS, grant_key, login_subject, person_subject
from attestry.access.scopes import read_scope
from attestry.access.standing import Grant
from attestry.domain.errors import ConditionFailedError, ConflictError, ForbiddenError, InvalidInputError, NotFoundError
from attestry.domain.events import Event, timestamp
from attestry.domain.principal import ROLES, Principal, person_id
from attestry.ports import ABSENT, Item, MetaStore, Put, When
from attestry.usecases.records import login_key, outbox_put, person_key

MAX_GRANTS: Final = 100
MAX_CHANGES: Final = 5_000
MAX_LOGIN: Final = 256


@dataclass(frozen=True)
class Held:
    """What was granted to somebody.

    Attributes:
        subject: `person/<id>` or `login/<login>`.
        grants: what stands; one that has ended by itself stands until it is withdrawn.
        changed: the events that changed it, see `attestry.access.events.mark_of`.
    """

    subject: str
    grants: tuple[Grant, ...] = ()
    changed: tuple[str, ...] = ()

    @classmethod
    def from_item(cls, row: Mapping[str, Any]) -> Held:
        """Return what a row tells of."""
        grants = tuple(Grant.from_item(item) for item in row["grants"])
        return cls(str(row["subject"]), grants, tuple(str(at) for at in row["changed"]))

    def to_item(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {"subject": self.subject, "grants": [grant.to_item() for grant in self.grants]}


def read_grant(body: Mapping[str, Any], at: datetime) -> Grant:
    """Return the grant that a request names.

    Raises:
        InvalidInputError: naming the field.
    """
    role, until = body.get("role"), body.get("until") or ""
    if role not in ROLES:
        raise InvalidInputError.of("role", "role", f"a role is one of {', '.join(ROLES)}")
    return Grant(str(role), read_scope(body.get("scope") or "registry"), _read_until(until, at))


def read_subject(body: Mapping[str, Any]) -> str:
    """Return whom a request names: `person` or `login`.

    Raises:
        InvalidInputError: neither or both, or out of form.
    """
    person, login = body.get("person"), body.get("login")
    if isinstance(person, str) and login is None:
        person_id(person)
        return person_subject(person)
    if isinstance(login, str) and person is None and 0 < len(login) <= MAX_LOGIN and login.isprintable():
        return login_subject(login)
    raise InvalidInputError.of("person", "one_subject", f"either the ID of a person or a login of at most {MAX_LOGIN} characters is needed")


def give_grant(meta: MetaStore, subject: str, grant: Grant, *, reason: str, by: Principal, at: datetime) -> Held:
    """Let a role count somewhere for somebody. The same again changes nothing.

    Args:
        meta: the table.
        subject: who, see `read_subject`.
        grant: the role, where it counts, and until when.
        reason: why, checked.
        by: the admin.
        at: the time.

    Raises:
        ForbiddenError: it is the admin's own.
        NotFoundError: there is no such person.
        InvalidInputError: the login is a person's, or too much was granted.
        ConflictError: somebody else changes it at the same moment.
    """
    _refuse_own(subject, by)
    _check_subject(meta, subject)
    row = meta.get(grant_key(subject))
    held = Held.from_item(row) if row else Held(subject)
    if grant in held.grants:
        return held
    others = tuple(one for one in held.grants if (one.role, one.scope) != (grant.role, grant.scope))
    if len(others) >= MAX_GRANTS:
        raise InvalidInputError.of(
            "role", "max_grants", f"at most {MAX_GRANTS} grants stand at a time; withdraw some, or grant a wider scope"
        )
    return _change(meta, row, Held(subject, (*others, grant), held.changed), GRANT_GIVEN, {**grant.to_item(), "reason": reason}, by, at)


def withdraw_grant(meta: MetaStore, subject: str, role: str, scope: str, *, reason: str, by: Principal, at: datetime) -> Held:
    """End a grant. The same again changes nothing, once there is somebody to withdraw from.

    Raises:
        ForbiddenError: it is the admin's own.
        NotFoundError: nothing was ever granted to them.
        ConflictError: somebody else changes it at the same moment.
    """
    _refuse_own(subject, by)
    row = meta.get(grant_key(subject))
    if row is None:
        raise NotFoundError(f"nothing was ever granted to {subject}")
    held = Held.from_item(row)
    # Grants that were given before scopes were kept by a model's identity name it as they were asked for.
    found = next((one for one in held.grants if one.role == role and scope in (one.scope, read_scope(one.scope))), None)
    if found is None:
        return held
    left = tuple(one for one in held.grants if one != found)
    facts = {"role": role, "scope": found.scope, "reason": reason}
    return _change(meta, row, Held(subject, left, held.changed), GRANT_WITHDRAWN, facts, by, at)


def list_grants(meta: MetaStore, subject: str = "") -> list[Held]:
    """Return what was granted to everybody, by subject, or to one; eventually consistent for everybody."""
    if subject:
        row = meta.get(grant_key(subject))
        return [Held.from_item(row)] if row else []
    return [Held.from_item(row) for row in meta.list_collection(GRANTS)]


def grants_item(held: Held) -> Item:
    """Return the attributes of the row that follow from the events."""
    return {**held.to_item(), "changed": list(held.changed), "rev": len(held.changed)}


def fold_grants(subject: str, events: list[Mapping[str, Any]]) -> Held:
    """Return what somebody holds after events, in their order; reconciliation compares the row with it."""
    held = Held(subject)
    for event in events:
        data = event["data"]
        left = tuple(one for one in held.grants if (one.role, one.scope) != (data["role"], data["scope"]))
        added = (Grant.from_item(data),) if event["kind"] == GRANT_GIVEN else ()
        held = Held(subject, (*left, *added), (*held.changed, mark_of(event)))
    return held


def _change(meta: MetaStore, row: Item | None, held: Held, kind: str, facts: dict[str, Any], by: Principal, at: datetime) -> Held:
    if len(held.changed) >= MAX_CHANGES:
        raise InvalidInputError.of(
            "person", "max_changes", f"what {held.subject} holds was changed {MAX_CHANGES} times, which is the limit"
        )
    event = Event(kind, grant_event_subject(held.subject), len(held.changed) + 1, at, by, facts)
    changed = Held(held.subject, held.grants, (*held.changed, mark(event)))
    item = {**grants_item(changed), "gsi_pk": GRANTS, "gsi_sk": held.subject}
    when = When(exists=True, equals={"rev": row["rev"]}) if row else ABSENT
    try:
        meta.transact([Put(grant_key(held.subject), item, when), outbox_put(event)])
    except ConditionFailedError as error:
        raise ConflictError(f"what {held.subject} holds was changed by somebody else at the same moment; look at it first") from error
    return changed


def _refuse_own(subject: str, by: Principal) -> None:
    if subject in (login_subject(by.login), person_subject(by.person or "")):
        raise ForbiddenError("nobody changes what they hold themselves; another admin does it", details={"subject": subject})


def _check_subject(meta: MetaStore, subject: str) -> None:
    kind, _, name = subject.partition("/")
    if kind == "person":
        if meta.get(person_key(name)) is None:
            raise NotFoundError(f"there is no person {name}; add them first: attestry people add {name} --login LOGIN")
        return
    row = meta.get(login_key(name))
    if row is not None:
        raise InvalidInputError.of("login", "person", f"{name} is a login of {row['person']}; grant it to the person")


def _read_until(until: object, at: datetime) -> str:
    if not until:
        return ""
    try:
        moment = datetime.fromisoformat(str(until))
        text = timestamp(moment)
    except ValueError as error:
        raise InvalidInputError.of("until", "time", "a time in UTC is needed, as 2026-12-31T00:00:00Z") from error
    if moment <= at:
        raise InvalidInputError.of("until", "future", f"{text} has passed")
    return text
