"""What policies of the registry ask of a version that was made elsewhere: it has no manifest, and no metric was computed of it.

Rules:
- A rule that asks for persons, roles or signatures raises what an import's approval policy asks for; what brings a version to the
  environment that imports belong to counts as well, since an import comes there without a promotion.
- A rule that asks for metrics or for fields of a manifest lets no import pass.
- A rule that narrows by labels or by risk tier is held against those of the model when the import was made; the event of the import says
  which they were.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from attestry.domain.approvals import ApprovalPolicy
from attestry.domain.errors import Problem
from attestry.domain.policies import ApprovalFloor, Policy, Rule
from attestry.domain.policy_checks import rules_for
from attestry.domain.requirements import Requirement, total

ONE_APPROVER: Final = ApprovalPolicy(automatic=False, roles=("approver",), count=1)
ENVIRONMENT: Final = "production"
"""Where an imported version belongs until somebody puts it elsewhere."""


@dataclass(frozen=True)
class ImportSubject:
    """The model of an import, as rules narrow by it: risk tier, empty where nobody has named one, and labels."""

    model: str
    risk_tier: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of_head(cls, model: str, head: Mapping[str, Any]) -> ImportSubject:
        """Return the subject that the model's row describes; of a model without a row, nothing is known."""
        labels = head.get("labels")
        told = {str(k): str(v) for k, v in labels.items()} if isinstance(labels, Mapping) else {}
        return cls(model, str(head.get("risk_tier") or ""), told)

    def to_item(self, policies: Iterable[Policy]) -> dict[str, Any]:
        """Return what the event of an import says of the model: the risk tier, and those labels that some rule of these policies names."""
        named = {name for policy in policies for rule in policy.rules for name in rule.applies.labels}
        return {"risk_tier": self.risk_tier, "labels": {k: v for k, v in sorted(self.labels.items()) if k in named}}

    def rules(self, policy: Policy) -> list[Rule]:
        """Return the rules of a policy that apply to an import of the model."""
        return rules_for(policy, model=self.model, risk_tier=self.risk_tier, labels=self.labels, environment=ENVIRONMENT)


def impossible(rule: Rule) -> Iterator[Problem]:
    """Yield what a rule asks for and no import has."""
    gates = rule.gates
    asked = [*(m.metric for m in gates.metrics), *gates.no_worse_than_deployed]
    if asked:
        yield Problem("model", "policy", f"{rule.name} judges {', '.join(asked)}; of an import the registry computes no metric")
    if gates.required:
        yield Problem("model", "policy", f"{rule.name} asks for {', '.join(gates.required)} of a manifest, and an import has none")


def floors_of_import(rule: Rule) -> tuple[ApprovalFloor, ...]:
    """Return what a rule asks of who approves an import: it belongs to its environment without a promotion."""
    there = (rule.promotion or {}).get(ENVIRONMENT)
    return (rule.approval, *([there] if there else []))


def raised(asked: ApprovalPolicy, rule: Rule) -> ApprovalPolicy:
    """Return a policy that asks for what was asked for, and for what the floors of a rule do."""
    for floor in floors_of_import(rule):
        asked = _raised_to(asked, floor)
    return asked


def _raised_to(asked: ApprovalPolicy, floor: ApprovalFloor) -> ApprovalPolicy:
    needed = floor.needed
    if not needed and not floor.signed:
        return asked
    if asked.automatic:
        asked = ONE_APPROVER
    signed = asked.signed or floor.signed
    if not floor.roles and not asked.require:
        return replace(asked, count=max(asked.needed, needed), signed=signed)
    counts = {r.roles: r.count for r in asked.require}
    for role, count in sorted(floor.roles.items()):
        counts[(role,)] = max(counts.get((role,), 0), count)
    short = max(asked.needed, needed) - sum(counts.values())
    if short > 0:
        others = ONE_APPROVER.roles if asked.require else asked.roles
        counts[others] = counts.get(others, 0) + short
    require = tuple(Requirement(roles, count) for roles, count in counts.items())
    roles = tuple(dict.fromkeys(role for requirement in require for role in requirement.roles))
    return replace(asked, require=require, roles=roles, count=total(require), signed=signed)
