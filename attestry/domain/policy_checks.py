"""What a policy has against a manifest, before it is registered, and against a promotion of the past, by what was recorded then.

The rules are those of `attestry.domain.policies`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any, Final

from attestry.domain.approvals import ApprovalPolicy
from attestry.domain.gates import is_filled_in
from attestry.domain.manifest_record import Manifest
from attestry.domain.policies import ApprovalFloor, Approver, Objection, Policy, Promotion, Rule
from attestry.domain.requirements import Requirement, are_met

COMPARISONS: Final = frozenset({"no_worse_than_deployed", "no_worse_with_confidence", "superior_with_confidence"})
"""Rules of `attestry.domain.gates` that hold a version against the deployed one."""


def check_manifest(policy: Policy, manifest: Manifest) -> list[Objection]:
    """Return in which fields a manifest asks for less than a policy."""
    deployment = manifest.deployment
    return [
        objection
        for rule in _applying(policy, manifest, deployment.environment, *deployment.promotes_to)
        for objection in (
            *_weak_approval(policy, rule, manifest),
            *_weak_promotions(policy, rule, manifest),
            *_weak_gates(policy, rule, manifest),
            *_short(policy, rule, manifest),
        )
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


def compared_metrics(gates: Iterable[Mapping[str, Any]]) -> frozenset[str]:
    """Return which metrics were held against the deployed version's and passed, by the recorded gates, with confidence or without."""
    return frozenset(str(gate["name"]) for gate in gates if gate["rule"] in COMPARISONS and gate["passed"])


def replay_policy(policy: Policy, promotion: Promotion) -> list[Objection]:
    """Return why a policy would have stopped a promotion, judged by what was recorded then; empty where it would have let it pass."""
    return [
        objection
        for rule in _applying(policy, promotion.manifest, promotion.environment)
        for objection in (
            *_missing_approvals(policy, rule, promotion),
            *_missing_promoters(policy, rule, promotion),
            *_missed_gates(policy, rule, promotion),
            *_short(policy, rule, promotion.manifest),
        )
    ]


def unmet(name: str, floor: ApprovalFloor, approvers: Iterable[Approver], field_name: str, about: str = "") -> Iterator[Objection]:
    """Yield in what those who approved are fewer than a floor asks for, or others.

    Args:
        name: `<policy>/<rule>`.
        floor: what is asked.
        approvers: who approved.
        field_name: the field of the manifest that is concerned.
        about: what they approved, to go on the sentence with.
    """
    counted = [a for a in approvers if a.signed or not floor.signed]
    persons = {a.person for a in counted}
    unsigned = " of their own signature" if floor.signed else ""
    by = f"by {', '.join(sorted(persons))}" if persons else "by nobody"
    if len(persons) < floor.needed:
        yield Objection(name, field_name, f"{name} asks for {_persons(floor.needed)}{unsigned}{about}; approved {by}")
    elif not are_met([Requirement((role,), count) for role, count in sorted(floor.roles.items())], _acted(counted)):
        roles = ", ".join(f"{count} {role}" for role, count in sorted(floor.roles.items()))
        acted = ", ".join(f"{a.person} as {' and '.join(a.roles) or 'nobody'}" for a in counted)
        yield Objection(name, field_name, f"{name} asks for {roles}{about}; approved by {acted}")


def _applying(policy: Policy, manifest: Manifest, *environments: str) -> Iterator[Rule]:
    for rule in policy.rules:
        applies, model = rule.applies, manifest.model
        if (
            (not applies.models or any(fnmatchcase(model.name, pattern) for pattern in applies.models))
            and (not applies.risk_tiers or model.risk_tier in applies.risk_tiers)
            and (not applies.environments or not set(applies.environments).isdisjoint(environments))
            and all(model.labels.get(name) == value for name, value in applies.labels.items())
        ):
            yield rule


def _weak_approval(policy: Policy, rule: Rule, manifest: Manifest) -> Iterator[Objection]:
    yield from _weaker(f"{policy.name}/{rule.name}", rule.approval, _asked_by(manifest), "approval")


def _weak_promotions(policy: Policy, rule: Rule, manifest: Manifest) -> Iterator[Objection]:
    name, asked, deployment = f"{policy.name}/{rule.name}", _asked_by(manifest), manifest.deployment
    for environment, floor in sorted((rule.promotion or {}).items()):
        about = f" before a version comes to {environment}"
        if environment == deployment.environment:
            yield from _weaker(name, floor, asked, "approval", about)
        elif environment in deployment.promotes_to:
            own = asked.for_promotion(environment)
            if own is not None:
                yield from _weaker(name, floor, own, "deployment.promotion", about)
            elif floor.needed or floor.signed:
                message = f"{name} asks for {_persons(max(1, floor.needed))}{about}; the manifest asks nobody there"
                yield Objection(name, "deployment.promotion", message)


def _weaker(name: str, floor: ApprovalFloor, asked: ApprovalPolicy, section: str, about: str = "") -> Iterator[Objection]:
    """Yield in what a policy of a manifest's section asks for less than a floor."""
    needed = floor.needed
    if needed and asked.automatic:
        yield Objection(name, f"{section}.automatic", f"{name} asks for {_persons(needed)}{about}; the manifest lets the gates decide")
        return
    if needed > asked.needed:
        yield Objection(name, f"{section}.people", f"{name} asks for {_persons(needed)}{about}, the manifest for {asked.needed}")
    for role, count in sorted(floor.roles.items()):
        if _asked_of(asked, role) < count:
            message = f"{name} asks for {_persons(count)} in the role {role}{about}; the manifest lets others take their place"
            yield Objection(name, f"{section}.people", message)
    if floor.signed and not asked.signed:
        yield Objection(name, f"{section}.signed", f"{name} asks for the approvers' own signatures{about}")


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
    yield from unmet(f"{policy.name}/{rule.name}", rule.approval, promotion.approvers, "approval.people")


def _missing_promoters(policy: Policy, rule: Rule, promotion: Promotion) -> Iterator[Objection]:
    floor, deployment = (rule.promotion or {}).get(promotion.environment), promotion.manifest.deployment
    if floor is not None and promotion.promoters is not None:
        field_name = "approval.people" if promotion.environment == deployment.environment else "deployment.promotion"
        about = f" before a version comes to {promotion.environment}"
        yield from unmet(f"{policy.name}/{rule.name}", floor, promotion.promoters, field_name, about)


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


def _asked_by(manifest: Manifest) -> ApprovalPolicy:
    return ApprovalPolicy.of_manifest(manifest.approval, manifest.gates.records, promotion=manifest.deployment.promotion)


def _asked_of(asked: ApprovalPolicy, role: str) -> int:
    """Return how many persons of a role are asked for at least; where others may take their place, none."""
    return sum(r.count for r in asked.requirements if r.roles == (role,))


def _persons(count: int) -> str:
    return f"{count} person{'s' if count > 1 else ''}"
