"""Policies of the registry: published as numbered editions, each in force until the next.

POLICY#<name>/HEAD                    number and digest of the edition in force, rev; in the collection POLICIES
POLICY#<name>/EDITION#<6 digits>      one edition: canonical document, digest, who published it, when and why

Rules:
- An edition is written once, with its event, in the transaction that puts it in force; nothing edits one. To end a policy, publish an
  edition without rules.
- The same document again changes nothing and is answered like the first time.
- What is in force is read when a manifest is registered, and its names and digests go into the version's first event.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from attestry.domain.errors import ConditionFailedError, ConflictError, IntegrityError, InvalidInputError, NotFoundError, Problem
from attestry.domain.events import Event, timestamp
from attestry.domain.manifest_record import Manifest
from attestry.domain.paging import WHOLE, Page
from attestry.domain.policies import PUBLISHED, EditionName, Policy, policy_subject
from attestry.domain.policy_checks import check_manifest
from attestry.domain.principal import Principal
from attestry.evidence.canonical import parse_canonical
from attestry.evidence.digests import sha256_hex
from attestry.ports import ABSENT, Check, Key, MetaStore, Put, When
from attestry.usecases.records import outbox_put

COLLECTION: Final = "POLICIES"
MAX_DOCUMENT_BYTES: Final = 64 * 1024
MAX_POLICIES: Final = 10
"""Each is named in the first event of every version, which has at most 4 KiB."""


@dataclass(frozen=True)
class Edition:
    """One edition of a policy.

    Attributes:
        policy: what it says.
        number: counts from 1 for each name.
        sha256: digest of the canonical form, hex.
        by: who published it: the person, or the login.
        reason: why.
        at: when, RFC 3339.
    """

    policy: Policy
    number: int
    sha256: str
    by: str
    reason: str
    at: str

    def to_item(self) -> dict[str, Any]:
        """Return the edition as JSON."""
        told = {"name": self.policy.name, "number": self.number, "sha256": self.sha256, "by": self.by, "reason": self.reason, "at": self.at}
        return {**told, "document": self.policy.to_mapping()}

    @property
    def reference(self) -> dict[str, Any]:
        """Return what the events of versions say of it."""
        return EditionName(self.policy.name, self.number, self.sha256).to_item()


def policy_key(name: str) -> Key:
    """Return the key of the row that says which edition of a policy is in force."""
    return Key(f"POLICY#{name}")


def edition_key(name: str, number: int) -> Key:
    """Return the key of an edition."""
    return Key(f"POLICY#{name}", f"EDITION#{number:06d}")


def event_of_edition(row: Mapping[str, Any], previous: str) -> Event:
    """Return the event that puts an edition in force.

    Args:
        row: the edition's row.
        previous: digest of the edition before it, hex; empty for the first.
    """
    number, facts = int(row["number"]), {"sha256": row["sha256"], "previous": previous, "reason": row["reason"]}
    by, at = Principal.from_item(row["principal"]), datetime.fromisoformat(str(row["at"]))
    return Event(PUBLISHED, policy_subject(str(row["name"])), number, at, by, {"number": number, **facts})


def edition_place(edition: Mapping[str, Any]) -> str:
    """Return an edition's place among those of its policy."""
    return f"EDITION#{int(edition['number']):06d}"


def number_in_force(meta: MetaStore, name: str) -> int:
    """Return the number of the edition of a policy that is in force; 0 where there is none."""
    row = meta.get(policy_key(name))
    return int(row["number"]) if row else 0


def publish_policy(meta: MetaStore, policy: Policy, *, by: Principal, reason: str, at: datetime) -> Edition:
    """Put an edition of a policy in force.

    Args:
        meta: the table.
        policy: the policy, checked.
        by: the admin.
        reason: why, checked.
        at: the time.

    Raises:
        UnprovenIdentityError: the caller maps to no person.
        InvalidInputError: the policy is too large to be kept, or there are too many.
        ConflictError: somebody else publishes an edition at the same moment.
    """
    person = by.require_person("publish a policy")
    if len(policy.to_bytes()) > MAX_DOCUMENT_BYTES:
        raise InvalidInputError.of("", "size", f"a policy has at most {MAX_DOCUMENT_BYTES} bytes in canonical form")
    head = meta.get(policy_key(policy.name))
    if head is None and len(meta.list_collection(COLLECTION)) >= MAX_POLICIES:
        raise InvalidInputError.of("name", "length", f"a registry has at most {MAX_POLICIES} policies; publish an edition of one of them")
    if head and head["sha256"] == policy.digest:
        return read_edition(meta, policy.name, int(head["number"]))
    number = int(head["number"]) + 1 if head else 1
    told = {"name": policy.name, "number": number, "sha256": policy.digest, "at": timestamp(at)}
    listed = {"gsi_pk": COLLECTION, "gsi_sk": policy.name}
    row = {**told, "document": policy.to_bytes(), "by": person, "principal": by.to_item(), "reason": reason}
    when = When(exists=True, equals={"number": head["number"]}) if head else ABSENT
    try:
        meta.transact(
            [
                Put(policy_key(policy.name), {**told, **listed}, when),
                Put(edition_key(policy.name, number), row),
                outbox_put(event_of_edition(row, str(head["sha256"]) if head else "")),
            ]
        )
    except ConditionFailedError as error:
        raise ConflictError(f"another edition of the policy {policy.name} was published at the same moment; look at it first") from error
    return Edition(policy, number, policy.digest, person, reason, timestamp(at))


def read_edition(meta: MetaStore, name: str, number: int) -> Edition:
    """Return an edition of a policy.

    Raises:
        NotFoundError: there is none.
        IntegrityError: its document is not what its digest says.
    """
    row = meta.get(edition_key(name, number))
    if row is None:
        raise NotFoundError(f"there is no edition {number} of a policy {name}")
    return read_row(row)


def list_editions(meta: MetaStore, name: str, page: Page = WHOLE) -> list[Edition]:
    """Return the editions of a policy that are on a page and one more, the first one first; by default all of them.

    Raises:
        NotFoundError: no policy has this name.
        IntegrityError: see `read_edition`.
    """
    # The head sorts behind the editions.
    rows = meta.query(policy_key(name).partition, after=page.after or "EDITION#", limit=page.ahead)
    rows = [row for row in rows if str(row["sk"]).startswith("EDITION#")]
    if not rows and page.after is None:
        raise NotFoundError(f"there is no policy {name}")
    return [read_row(row) for row in rows]


def policies_in_force(meta: MetaStore) -> list[Edition]:
    """Return the editions in force, by name.

    Raises:
        IntegrityError: a row of an edition is gone, or is not what its digest says; nothing is registered then.
    """
    listed = {str(row["name"]): row for row in meta.list_collection(COLLECTION)}
    if not listed:
        return []
    # The heads are read anew: the collection may lag behind them.
    read = meta.get_many([policy_key(name) for name in listed])
    heads = {name: read.get(policy_key(name), row) for name, row in listed.items()}
    rows = meta.get_many([edition_key(name, int(head["number"])) for name, head in heads.items()])
    found = []
    for name, head in heads.items():
        row = rows.get(edition_key(name, int(head["number"])))
        if row is None:
            raise IntegrityError(f"the edition {head['number']} of the policy {name}, which is in force, is gone")
        edition = read_row(row)
        if edition.sha256 != head["sha256"]:
            raise IntegrityError(f"the policy {name} in force is not the one that was published as edition {head['number']}")
        found.append(edition)
    return found


def check_policies(editions: Sequence[Edition], manifest: Manifest) -> list[Check]:
    """Refuse a manifest that asks for less than the policies, and return the conditions under which they stay those in force.

    Raises:
        InvalidInputError: naming each field that is too weak, and the rule that it breaks.
    """
    problems = [
        Problem(objection.field, "policy", f"{objection.message} (edition {edition.number})")
        for edition in editions
        for objection in check_manifest(edition.policy, manifest)
    ]
    if problems:
        raise InvalidInputError(problems)
    return [Check(policy_key(e.policy.name), When(exists=True, equals={"number": e.number})) for e in editions]


def read_row(row: Mapping[str, Any]) -> Edition:
    """Return the edition that a row holds.

    Raises:
        IntegrityError: its document is not what its digest says.
    """
    document = bytes(row["document"])
    if sha256_hex(document) != row["sha256"]:
        raise IntegrityError(f"the edition {row['number']} of the policy {row['name']} is not what its digest says")
    policy = Policy.from_mapping(parse_canonical(document))
    return Edition(policy, int(row["number"]), str(row["sha256"]), str(row["by"]), str(row["reason"]), str(row["at"]))
