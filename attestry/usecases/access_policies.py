"""Access policies that admins add to the default ones: editions, none of which is ever edited.

Rules:
- An edition is written once, with its event, in the transaction that puts it in force. An edition without text ends the policy.
- The same text again changes nothing and is answered like the first time.
- Policies are checked against the schema before they are published; what decides checks each against its digest again.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from attestry.access.engine import check_policies
from attestry.access.events import ACCESS_PUBLISHED, ACCESS_SUBJECT, mark
from attestry.access.rows import POLICIES_KEY, access_policy_key
from attestry.domain.errors import ConditionFailedError, ConflictError, InvalidInputError, NotFoundError
from attestry.domain.events import Event, timestamp
from attestry.domain.policies import NAME
from attestry.domain.principal import Principal
from attestry.evidence.digests import sha256_hex
from attestry.ports import ABSENT, MetaStore, Put, When
from attestry.usecases.records import outbox_put

MAX_POLICIES: Final = 30
MAX_EDITIONS: Final = 5_000


@dataclass(frozen=True)
class AccessEdition:
    """One edition of an added policy.

    Attributes:
        name: the policy's name.
        number: counts from 1 for each name.
        sha256: digest of the text, hex; empty where the edition ends the policy.
        text: the policies, in Cedar's syntax.
        by: the person who published it.
        reason: why.
        at: when, RFC 3339.
    """

    name: str
    number: int
    sha256: str
    text: str
    by: str
    reason: str
    at: str

    def to_item(self) -> dict[str, Any]:
        """Return the edition as JSON."""
        return dict(vars(self))


def publish_access_policy(meta: MetaStore, name: str, text: str, *, reason: str, by: Principal, at: datetime) -> AccessEdition:
    """Put an edition of an added policy in force, or end the policy with an empty text.

    Raises:
        UnprovenIdentityError: the caller maps to no person.
        InvalidInputError: the name or the text breaks a rule, or there are too many policies.
        NotFoundError: a policy that is not there cannot be ended.
        ConflictError: somebody else publishes at the same moment.
    """
    person = by.require_person("publish an access policy")
    if not NAME.fullmatch(name):
        raise InvalidInputError.of("name", "name", "a policy's name is 1 to 64 lower-case letters, digits and inner '-'")
    if text.strip():
        check_policies(text)
    head = meta.get(POLICIES_KEY)
    known: dict[str, Any] = dict(head["policies"]) if head else {}
    before = known.get(name)
    sha256 = sha256_hex(text.encode()) if text.strip() else ""
    if before is None and not sha256:
        raise NotFoundError(f"there is no access policy {name} to end")
    if before and before["sha256"] == sha256:
        return read_access_policy(meta, name, int(before["number"]))
    if before is None and len(known) >= MAX_POLICIES:
        raise InvalidInputError.of("name", "max_policies", f"a registry has at most {MAX_POLICIES} added policies, ended ones too")
    number, earlier = (int(before["number"]) + 1 if before else 1), list(head["changed"]) if head else []
    if len(earlier) >= MAX_EDITIONS:
        raise InvalidInputError.of("name", "max_editions", f"a registry has at most {MAX_EDITIONS} editions of added policies")
    edition = AccessEdition(name, number, sha256, text if sha256 else "", person, reason, timestamp(at))
    facts = {"name": name, "number": number, "sha256": sha256, "previous": str(before["sha256"]) if before else "", "reason": reason}
    event = Event(ACCESS_PUBLISHED, ACCESS_SUBJECT, len(earlier) + 1, at, by, facts)
    changed = [*earlier, mark(event)]
    item = {"policies": {**known, name: {"number": number, "sha256": sha256}}, "changed": changed, "rev": len(changed)}
    when = When(exists=True, equals={"rev": head["rev"]}) if head else ABSENT
    try:
        meta.transact(
            [
                Put(POLICIES_KEY, item, when),
                Put(access_policy_key(name, number), {**edition.to_item(), "principal": by.to_item()}),
                outbox_put(event),
            ]
        )
    except ConditionFailedError as error:
        raise ConflictError("another access policy was published at the same moment; look at it first") from error
    return edition


def read_access_policy(meta: MetaStore, name: str, number: int) -> AccessEdition:
    """Return an edition of an added policy.

    Raises:
        NotFoundError: there is none.
    """
    row = meta.get(access_policy_key(name, number))
    if row is None:
        raise NotFoundError(f"there is no edition {number} of an access policy {name}")
    return AccessEdition(**{field: row[field] for field in ("name", "number", "sha256", "text", "by", "reason", "at")})


def added_policies(meta: MetaStore) -> list[AccessEdition]:
    """Return the latest edition of every added policy, by name; one without text has ended."""
    head = meta.get(POLICIES_KEY)
    known = dict(head["policies"]) if head else {}
    return [read_access_policy(meta, name, int(edition["number"])) for name, edition in sorted(known.items())]
