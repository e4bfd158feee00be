"""Under which approval policy an imported version stands: no file of it can say that, so it is the model's, and the registry's.

Rules:
- A model that people approve asks the same of an import as of its version before, where that asked people; else one approver.
- No gate judges an import, so the gates alone never approve one. Only a model whose mode is `open` lets its versions pass by themselves,
  unless a policy of the registry asks for persons.
- A policy in force that asks for more persons, roles or signatures raises what is asked. One that asks for metrics or for fields of a
  manifest refuses the import: the registry has computed no metric, and there is no manifest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from attestry.domain.approvals import ApprovalPolicy
from attestry.domain.errors import InvalidInputError, Problem
from attestry.domain.policies import ApprovalFloor, Rule
from attestry.domain.policy_checks import rules_for
from attestry.domain.requirements import Requirement, total
from attestry.ports import Check, Item, Key, MetaStore, When
from attestry.usecases.policies import Edition, policy_key
from attestry.usecases.records import version_key

ONE_APPROVER: Final = ApprovalPolicy(automatic=False, roles=("approver",), count=1)
OPEN: Final = "open"
ENVIRONMENT: Final = "production"
"""Where an imported version belongs until somebody puts it elsewhere."""


def policy_for_import(
    meta: MetaStore, editions: Sequence[Edition], model: str, head: Mapping[str, Any] | None, signed_tiers: frozenset[str]
) -> ApprovalPolicy:
    """Return the approval policy of an import.

    Args:
        meta: the table.
        editions: the registry's policies in force.
        model: the model's name.
        head: the model's row; None for a model that the import makes.
        signed_tiers: risk tiers whose approvals need the approvers' own signatures.

    Raises:
        InvalidInputError: a policy in force asks for what no import has.
    """
    row = head or {}
    tier = str(row.get("risk_tier") or "")
    base = ApprovalPolicy(automatic=True) if _is_open(meta, model) else _of_model(meta, model, row)
    rules = _rules(editions, model, row)
    problems = [problem for rule in rules for problem in _impossible(rule)]
    if problems:
        raise InvalidInputError(problems)
    for rule in rules:
        base = _raised(base, *_floors(rule))
    return replace(base, signed=True) if not base.automatic and tier in signed_tiers else base


def require_met(meta: MetaStore, editions: Sequence[Edition], model: str, head: Mapping[str, Any] | None, asked: ApprovalPolicy) -> None:
    """Refuse an import whose policy, written down by an earlier try, asks for less than the model and the policies in force do.

    Raises:
        InvalidInputError: it does, or a policy in force asks for what no import has.
    """
    if asked.automatic and not _is_open(meta, model):
        raise InvalidInputError.of("submission", "policy", f"{model} is open no more; begin another import")
    for rule in _rules(editions, model, head or {}):
        if any(_impossible(rule)) or _raised(asked, *_floors(rule)) != asked:
            message = f"{rule.name} asks for more than the policy that this import was begun under; begin another one"
            raise InvalidInputError.of("submission", "policy", message)


def policies_hold(editions: Sequence[Edition]) -> list[Check]:
    """Return the conditions under which the policies stay those in force."""
    return [Check(policy_key(e.policy.name), When(exists=True, equals={"number": e.number})) for e in editions]


def _is_open(meta: MetaStore, model: str) -> bool:
    """Return whether the model's entry in the catalogue says that its versions pass by themselves; without an entry they never do."""
    row = meta.get(Key(f"CATALOGUE#{model}"))
    return row is not None and row.get("mode") == OPEN and not row.get("deleted")


def _of_model(meta: MetaStore, model: str, head: Mapping[str, Any]) -> ApprovalPolicy:
    before = int(head.get("next") or 1) - 1
    row: Item | None = meta.get(version_key(model, before)) if before else None
    asked = ApprovalPolicy.from_item(row["approval_policy"]) if row and row.get("approval_policy") else ONE_APPROVER
    # Who wrote the code is not known of an import, so independence of it cannot be judged; the submitter never decides in any case.
    return ONE_APPROVER if asked.automatic else replace(asked, independent=False)


def _rules(editions: Sequence[Edition], model: str, row: Mapping[str, Any]) -> list[Rule]:
    subject: dict[str, Any] = {"model": model, "risk_tier": str(row.get("risk_tier") or ""), "labels": _labels(row)}
    return [rule for edition in editions for rule in rules_for(edition.policy, **subject, environment=ENVIRONMENT)]


def _labels(row: Mapping[str, Any]) -> dict[str, str]:
    labels = row.get("labels")
    return {str(k): str(v) for k, v in labels.items()} if isinstance(labels, Mapping) else {}


def _impossible(rule: Rule) -> Iterator[Problem]:
    gates = rule.gates
    asked = [*(m.metric for m in gates.metrics), *gates.no_worse_than_deployed]
    if asked:
        yield Problem("model", "policy", f"{rule.name} judges {', '.join(asked)}; of an import the registry computes no metric")
    if gates.required:
        yield Problem("model", "policy", f"{rule.name} asks for {', '.join(gates.required)} of a manifest, and an import has none")


def _floors(rule: Rule) -> tuple[ApprovalFloor, ...]:
    """Return what a rule asks of who approves an import: it belongs to its environment without a promotion."""
    there = (rule.promotion or {}).get(ENVIRONMENT)
    return (rule.approval, *([there] if there else []))


def _raised(asked: ApprovalPolicy, *floors: ApprovalFloor) -> ApprovalPolicy:
    """Return a policy that asks for what was asked for, and for what floors do."""
    for floor in floors:
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
