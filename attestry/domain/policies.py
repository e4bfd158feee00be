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
        gates: {metrics: [{metric: accuracy, minimum: 0.9}], no_worse_than_deployed: [accuracy], required: [model.purpose]}

Rules:
- A rule applies where everything holds that `applies` names; an empty one applies to every model.
- Every rule that applies counts, of all policies in force. They are not merged into the manifest, which stays what its author wrote.
- A replay judges promotions of the past by what was recorded then: who decided in which role, with which signature, on which metrics.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from fnmatch import fnmatchcase
from typing import Any, Final

import rfc8785

from attestry.domain.approvals import ApprovalPolicy
from attestry.domain.errors import InvalidInputError, Problem
from attestry.domain.gates import is_filled_in
from attestry.domain.manifest_record import Manifest
from attestry.domain.manifest_sections import MetricGate
from attestry.domain.mapping_codec import decode_dataclass, encode_dataclass
from attestry.domain.requirements import Requirement, are_met

MAX_RULES: Final = 100
MAX_YEARS: Final = 100
NAME: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?")


@dataclass(frozen=True)
class Applies:
    """Which promotions a rule is about; what is empty does not narrow it.

    Attributes:
        models: names, with `*` and `?` as wildcards.
        risk_tiers: of the model.
        labels: of the model; each has to have the value.
        environments: where the version is to be deployed.
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
    """What is asked of the promotions that it applies to."""

    name: str
    applies: Applies = field(default_factory=Applies)
    approval: ApprovalFloor = field(default_factory=ApprovalFloor)
    gates: GateFloor = field(default_factory=GateFloor)
    retention: RetentionFloor | None = None


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
        metrics: what the registry computed.
        compared: metrics that were held against the deployed version's and passed.
    """

    manifest: Manifest
    environment: str
    approvers: tuple[Approver, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    compared: frozenset[str] = frozenset()


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


def check_manifest(policy: Policy, manifest: Manifest) -> list[Objection]:
    """Return in which fields a manifest asks for less than a policy."""
    return [
        objection
        for rule in _applying(policy, manifest, manifest.deployment.environment)
        for objection in (*_weak_approval(policy, rule, manifest), *_weak_gates(policy, rule, manifest), *_short(policy, rule, manifest))
    ]


def rules_for(policy: Policy, *, model: str, risk_tier: str, labels: Mapping[str, str], environment: str) -> list[Rule]:
    """Return the rules of a policy that apply to a model in an environment, where there is no manifest that would tell them.

    A rule that narrows by risk tier applies to a model whose tier nobody has named: what is not known is not taken for harmless.
    """
    return [
        rule
        for rule in policy.rules
        if (not rule.applies.models or any(fnmatchcase(model, pattern) for pattern in rule.applies.models))
        and (not rule.applies.risk_tiers or not risk_tier or risk_tier in rule.applies.risk_tiers)
        and (not rule.applies.environments or environment in rule.applies.environments)
        and all(labels.get(name) == value for name, value in rule.applies.labels.items())
    ]


def replay_policy(policy: Policy, promotion: Promotion) -> list[Objection]:
    """Return why a policy would have stopped a promotion, judged by what was recorded then; empty where it would have let it pass."""
    return [
        objection
        for rule in _applying(policy, promotion.manifest, promotion.environment)
        for objection in (
            *_missing_approvals(policy, rule, promotion),
            *_missed_gates(policy, rule, promotion),
            *_short(policy, rule, promotion.manifest),
        )
    ]


def _applying(policy: Policy, manifest: Manifest, environment: str) -> Iterator[Rule]:
    for rule in policy.rules:
        applies, model = rule.applies, manifest.model
        if (
            (not applies.models or any(fnmatchcase(model.name, pattern) for pattern in applies.models))
            and (not applies.risk_tiers or model.risk_tier in applies.risk_tiers)
            and (not applies.environments or environment in applies.environments)
            and all(model.labels.get(name) == value for name, value in applies.labels.items())
        ):
            yield rule


def _weak_approval(policy: Policy, rule: Rule, manifest: Manifest) -> Iterator[Objection]:
    floor, asked, name = rule.approval, ApprovalPolicy.of_manifest(manifest.approval, manifest.gates.records), f"{policy.name}/{rule.name}"
    needed = max(floor.persons, sum(floor.roles.values()))
    if needed and asked.automatic:
        yield Objection(name, "approval.automatic", f"{name} asks for {_persons(needed)}; the manifest lets the gates decide")
        return
    if needed > asked.needed:
        yield Objection(name, "approval.people", f"{name} asks for {_persons(needed)}, the manifest for {asked.needed}")
    for role, count in sorted(floor.roles.items()):
        if _asked_of(asked, role) < count:
            message = f"{name} asks for {_persons(count)} in the role {role}; the manifest lets others take their place"
            yield Objection(name, "approval.people", message)
    if floor.signed and not asked.signed:
        yield Objection(name, "approval.signed", f"{name} asks for the approvers' own signatures")


def _weak_gates(policy: Policy, rule: Rule, manifest: Manifest) -> Iterator[Objection]:
    name = f"{policy.name}/{rule.name}"
    limits = {gate.metric: gate for gate in manifest.gates.metrics}
    for floor in rule.gates.metrics:
        gate = limits.get(floor.metric)
        for side in ("minimum", "maximum"):
            wanted, given = getattr(floor, side), getattr(gate, side, None)
            if wanted is not None and (given is None or (given < wanted if side == "minimum" else given > wanted)):
                has = "has none" if given is None else f"says {given:g}"
                message = f"{name} asks for a {side} of {wanted:g} for {floor.metric}; the manifest {has}"
                yield Objection(name, "gates.metrics", message)
    compared = {gate.metric for gate in manifest.gates.no_worse_than_deployed}
    for metric in rule.gates.no_worse_than_deployed:
        if metric not in compared:
            yield Objection(name, "gates.no_worse_than_deployed", f"{name} asks that {metric} is compared with the deployed version's")
    yield from _unfilled(name, rule, manifest)


def _missing_approvals(policy: Policy, rule: Rule, promotion: Promotion) -> Iterator[Objection]:
    floor, name = rule.approval, f"{policy.name}/{rule.name}"
    counted = [a for a in promotion.approvers if a.signed or not floor.signed]
    persons = {a.person for a in counted}
    needed = max(floor.persons, sum(floor.roles.values()))
    unsigned = " of their own signature" if floor.signed else ""
    if len(persons) < needed:
        message = f"{name} asks for {_persons(needed)}{unsigned}; approved {'by ' + ', '.join(sorted(persons)) if persons else 'by nobody'}"
        yield Objection(name, "approval.people", message)
    elif not are_met([Requirement((role,), count) for role, count in sorted(floor.roles.items())], _acted(counted)):
        roles = ", ".join(f"{count} {role}" for role, count in sorted(floor.roles.items()))
        acted = ", ".join(f"{a.person} as {' and '.join(a.roles) or 'nobody'}" for a in counted)
        yield Objection(name, "approval.people", f"{name} asks for {roles}; approved by {acted}")


def _acted(approvers: Iterable[Approver]) -> dict[str, set[str]]:
    """Return each person's roles; of one who is named twice they are taken together."""
    acted: dict[str, set[str]] = {}
    for approver in approvers:
        acted.setdefault(approver.person, set()).update(approver.roles)
    return acted


def _missed_gates(policy: Policy, rule: Rule, promotion: Promotion) -> Iterator[Objection]:
    name = f"{policy.name}/{rule.name}"
    for floor in rule.gates.metrics:
        value = promotion.metrics.get(floor.metric)
        if value is None:
            yield Objection(name, "gates.metrics", f"{name} judges {floor.metric}, which was not computed")
        elif (floor.minimum is not None and value < floor.minimum) or (floor.maximum is not None and value > floor.maximum):
            wanted = f"at least {floor.minimum:g}" if floor.minimum is not None and value < floor.minimum else f"at most {floor.maximum:g}"
            yield Objection(name, "gates.metrics", f"{name} asks for {floor.metric} of {wanted}; it was {value:g}")
    for metric in rule.gates.no_worse_than_deployed:
        if metric not in promotion.compared:
            message = f"{name} asks that {metric} is compared with the deployed version's, which it was not"
            yield Objection(name, "gates.no_worse_than_deployed", message)
    yield from _unfilled(name, rule, promotion.manifest)


def _unfilled(name: str, rule: Rule, manifest: Manifest) -> Iterator[Objection]:
    mapping = manifest.to_mapping()
    for path in rule.gates.required:
        if not is_filled_in(path, mapping):
            yield Objection(name, path, f"{name} asks that {path} is filled in")


def _short(policy: Policy, rule: Rule, manifest: Manifest) -> Iterator[Objection]:
    floor, given, name = rule.retention, manifest.retention, f"{policy.name}/{rule.name}"
    if floor is None:
        return
    if given is None or given.years < floor.years:
        has = f"says {given.years}" if given else "names no retention"
        yield Objection(name, "retention.years", f"{name} asks for a retention of {floor.years} years; the manifest {has}")
    elif floor.compliance and given.mode != "compliance":
        yield Objection(name, "retention.mode", f"{name} asks for a retention that nobody can shorten (mode compliance)")


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
        path = f"rules[{index}]"
        if not NAME.fullmatch(rule.name):
            yield Problem(f"{path}.name", "name", "lower-case letters, digits and hyphens are needed, at most 64")
        if rule.approval.persons < 0 or any(count < 1 for count in rule.approval.roles.values()):
            yield Problem(f"{path}.approval", "minimum", "numbers of persons are 1 or more")
        if rule.retention is not None and not 1 <= rule.retention.years <= MAX_YEARS:
            yield Problem(f"{path}.retention.years", "range", f"1 to {MAX_YEARS} years are possible")
        for gate in rule.gates.metrics:
            if gate.minimum is None and gate.maximum is None:
                yield Problem(f"{path}.gates.metrics", "required", f"{gate.metric} has neither minimum nor maximum")


def _asked_of(asked: ApprovalPolicy, role: str) -> int:
    """Return how many persons of a role are asked for at least; where others may take their place, none."""
    return sum(r.count for r in asked.requirements if r.roles == (role,))


def _persons(count: int) -> str:
    return f"{count} person{'s' if count > 1 else ''}"
