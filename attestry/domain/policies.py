"""Policies: what a registry asks of every promotion, whatever a manifest says.

A policy is a named document with rules; each rule says to which models it applies and what their approvals and gates have to be at least.
Published, it has a number and a digest and is never edited: the next edition replaces it. A manifest that asks for less than the policies
in force is refused when it is registered, with the field that is too weak.

    format: 1
    name: standard
    rules:
      - name: high-risk
        applies: {risk_tiers: [high]}
        approval: {persons: 2, roles: {validator: 1}, signed: true}
        promotion: {production: {persons: 2, roles: {validator: 1}}}
        gates: {metrics: [{metric: accuracy, minimum: 0.9}], no_worse_than_deployed: [accuracy], required: [model.purpose]}

Rules:
- A rule applies where everything holds that `applies` names; an empty one applies to every model. A manifest is held against the rules of
  every environment that its versions may come to, not of the first one alone.
- `promotion` is what it takes at least to bring a version to an environment: of a manifest that promotes to it, its approval there; of one
  that deploys there straight away, the approval of the version, so that nobody is asked less for having left out what comes before.
- Every rule that applies counts, of all policies in force. They are not merged into the manifest, which stays what its author wrote.
- A replay judges promotions of the past by what was recorded then: who decided in which role, with which signature, on which metrics.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Final

import rfc8785

from attestry.domain.errors import IntegrityError, InvalidInputError, Problem
from attestry.domain.manifest_record import Manifest
from attestry.domain.manifest_sections import MetricGate
from attestry.domain.mapping_codec import decode_dataclass, encode_dataclass

MAX_RULES: Final = 100
MAX_YEARS: Final = 100
NAME: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?")
PUBLISHED: Final = "policy.published"
_SHA256: Final = re.compile("[0-9a-f]{64}")


def policy_subject(name: str) -> str:
    """Return what the events of a policy are about."""
    return f"policy/{name}"


@dataclass(frozen=True)
class Applies:
    """Which promotions a rule is about; what is empty does not narrow it.

    Attributes:
        models: names, with `*` and `?` as wildcards.
        risk_tiers: of the model.
        labels: of the model; each has to have the value.
        environments: where the version is to be deployed, or promoted.
    """

    models: tuple[str, ...] = ()
    risk_tiers: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    environments: tuple[str, ...] = ()


@dataclass(frozen=True)
class ApprovalFloor:
    """What an approval has to be at least.

    Attributes:
        persons: how many persons approve; from 1 on, gates alone do not.
        roles: role to how many of the persons act in it.
        signed: each approval carries the person's own signature.
    """

    persons: int = 0
    roles: Mapping[str, int] = field(default_factory=dict)
    signed: bool = False

    @property
    def needed(self) -> int:
        """Return how many persons it takes, by number and by role."""
        return max(self.persons, sum(self.roles.values()))


@dataclass(frozen=True)
class GateFloor:
    """What the gates have to be at least.

    Attributes:
        metrics: floors and ceilings; a manifest's gate may be stricter.
        no_worse_than_deployed: metrics that are compared with the deployed version.
        required: fields of the manifest that are filled in.
    """

    metrics: tuple[MetricGate, ...] = ()
    no_worse_than_deployed: tuple[str, ...] = ()
    required: tuple[str, ...] = ()


@dataclass(frozen=True)
class RetentionFloor:
    """What the retention has to be at least.

    Attributes:
        years: how many, from the day on which a version goes out of use.
        compliance: nobody may be able to shorten it.
    """

    years: int
    compliance: bool = False


@dataclass(frozen=True)
class Rule:
    """What is asked of the promotions that it applies to; `promotion` is by environment."""

    name: str
    applies: Applies = field(default_factory=Applies)
    approval: ApprovalFloor = field(default_factory=ApprovalFloor)
    gates: GateFloor = field(default_factory=GateFloor)
    retention: RetentionFloor | None = None
    promotion: Mapping[str, ApprovalFloor] | None = None


@dataclass(frozen=True)
class Policy:
    """A policy, as it is written."""

    name: str
    rules: tuple[Rule, ...] = ()
    description: str = ""
    format: int = 1

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> Policy:
        """Return the policy of a mapping.

        Raises:
            InvalidInputError: naming the fields and the rules that they break.
        """
        policy = decode_dataclass(cls, mapping)
        problems = list(_problems(policy))
        if problems:
            raise InvalidInputError(problems)
        return policy

    def to_mapping(self) -> dict[str, Any]:
        """Return the policy as JSON-ready mapping; `from_mapping` of it is equal to this."""
        return encode_dataclass(self)

    def to_bytes(self) -> bytes:
        """Return its canonical form (RFC 8785)."""
        return rfc8785.dumps(self.to_mapping())

    @property
    def digest(self) -> str:
        """Return SHA-256 of the canonical form, hex."""
        return hashlib.sha256(self.to_bytes()).hexdigest()


@dataclass(frozen=True)
class EditionName:
    """An edition of a policy, as the first event of a version names those that it was held against.

    Attributes:
        name: of the policy.
        number: counts from 1 for each name.
        sha256: digest of the canonical form, hex.
    """

    name: str
    number: int
    sha256: str

    def to_item(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {"name": self.name, "number": self.number, "sha256": self.sha256}

    def __str__(self) -> str:
        """Return it for a person."""
        return f"{self.name} edition {self.number} ({self.sha256[:16]})"


def named_editions(data: Mapping[str, Any]) -> list[EditionName]:
    """Return the editions that the first event of a version names; none where it was held against none, or none was recorded.

    Args:
        data: the facts of the event.

    Raises:
        IntegrityError: they are not written as the registry writes them, or one policy is named twice.
    """
    named = data.get("policies", [])
    editions = [EditionName(str(n["name"]), int(n["number"]), str(n["sha256"])) for n in named]
    for written, edition in zip(named, editions, strict=True):
        formed = (
            NAME.fullmatch(edition.name) and type(written["number"]) is int and edition.number > 0 and _SHA256.fullmatch(edition.sha256)
        )
        if not formed or dict(written) != edition.to_item():
            raise IntegrityError(f"the first event names the policy {edition.name!r:.80} in another form than the registry does")
    if len({edition.name for edition in editions}) != len(editions):
        raise IntegrityError("the first event names two editions of one policy")
    return editions


@dataclass(frozen=True)
class Approver:
    """One approval that was counted: the person, the roles that they acted in, and whether they signed it themselves."""

    person: str
    roles: tuple[str, ...]
    signed: bool


@dataclass(frozen=True)
class Promotion:
    """What was recorded of a version when it was promoted.

    Attributes:
        manifest: its manifest.
        environment: where it was deployed, or was to be.
        approvers: persons who approved; none where its gates alone did.
        promoters: persons who approved that it comes to the environment: by its promotion, or where that was its first environment, the
            approvers; None where it has not come there.
        metrics: what the registry computed.
        compared: metrics that were held against the deployed version's and passed.
    """

    manifest: Manifest
    environment: str
    approvers: tuple[Approver, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    compared: frozenset[str] = frozenset()
    promoters: tuple[Approver, ...] | None = None


@dataclass(frozen=True)
class Objection:
    """Why a rule stops a promotion.

    Attributes:
        rule: `<policy>/<rule>`.
        field: the field of the manifest that is concerned.
        message: the sentence for a person.
    """

    rule: str
    field: str
    message: str


def read_document(value: object) -> dict[str, Any]:
    """Return the mapping of a policy's document as a request carries it.

    Raises:
        InvalidInputError: no mapping.
    """
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        raise InvalidInputError.of("document", "type", "the policy's document is needed, a mapping")
    return value


def read_since(value: object) -> str:
    """Return a date as RFC 3339 in UTC.

    Raises:
        InvalidInputError: no `YYYY-MM-DD`.
    """
    try:
        return f"{date.fromisoformat(str(value)).isoformat()}T00:00:00.000000Z"
    except ValueError as error:
        raise InvalidInputError.of("since", "date", "a date YYYY-MM-DD is needed") from error


def _problems(policy: Policy) -> Iterator[Problem]:
    if policy.format != 1:
        yield Problem("format", "one_of", "1 is the only format")
    if not NAME.fullmatch(policy.name):
        yield Problem("name", "name", "lower-case letters, digits and hyphens are needed, at most 64")
    if len(policy.rules) > MAX_RULES:
        yield Problem("rules", "length", f"has more than {MAX_RULES} items")
    for name, count in Counter(rule.name for rule in policy.rules).items():
        if count > 1:
            yield Problem("rules", "unique", f"two rules are called {name}")
    for index, rule in enumerate(policy.rules):
        yield from _problems_of(rule, f"rules[{index}]")


def _problems_of(rule: Rule, path: str) -> Iterator[Problem]:
    if not NAME.fullmatch(rule.name):
        yield Problem(f"{path}.name", "name", "lower-case letters, digits and hyphens are needed, at most 64")
    floors = {"approval": rule.approval, **{f"promotion.{name}": floor for name, floor in sorted((rule.promotion or {}).items())}}
    for at, floor in floors.items():
        if floor.persons < 0 or any(count < 1 for count in floor.roles.values()):
            yield Problem(f"{path}.{at}", "minimum", "numbers of persons are 1 or more")
    if rule.retention is not None and not 1 <= rule.retention.years <= MAX_YEARS:
        yield Problem(f"{path}.retention.years", "range", f"1 to {MAX_YEARS} years are possible")
    for gate in rule.gates.metrics:
        if gate.minimum is None and gate.maximum is None:
            yield Problem(f"{path}.gates.metrics", "required", f"{gate.metric} has neither minimum nor maximum")
