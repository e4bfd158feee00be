"""Under which approval policy an imported version stands: no file of it can say that, so it is the model's, and the registry's.

Rules:
- A model that people approve asks the same of an import as of its version before, where that asked people; else one approver.
- No gate judges an import, so the gates alone never approve one. Only a model whose mode is `open` lets its versions pass by themselves,
  unless a policy of the registry asks for persons.
- A policy in force that asks for more persons, roles or signatures raises what is asked. One that asks for metrics or for fields of a
  manifest refuses the import: the registry has computed no metric, and there is no manifest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from attestry.domain.approvals import ApprovalPolicy
from attestry.domain.errors import InvalidInputError
from attestry.domain.import_floor import ONE_APPROVER, ImportSubject, impossible, raised
from attestry.domain.policies import Rule
from attestry.ports import Check, Item, MetaStore, When
from attestry.usecases.policies import Edition, policy_key
from attestry.usecases.records import version_key

OPEN: Final = "open"
PASSES: Final = When(exists=True, equals={"mode": OPEN, "deleted": None})
"""The condition under which a model's entry in the catalogue lets its versions pass by themselves."""


def policy_for_import(
    meta: MetaStore, editions: Sequence[Edition], model: str, head: Mapping[str, Any] | None, signed_tiers: frozenset[str], *, is_open: bool
) -> ApprovalPolicy:
    """Return the approval policy of an import.

    Args:
        meta: the table.
        editions: the registry's policies in force.
        model: the model's name.
        head: the model's row; None for a model that the import makes.
        signed_tiers: risk tiers whose approvals need the approvers' own signatures.
        is_open: whether the model's versions pass by themselves, see `passes_by_itself`.

    Raises:
        InvalidInputError: a policy in force asks for what no import has.
    """
    row = head or {}
    tier = str(row.get("risk_tier") or "")
    base = ApprovalPolicy(automatic=True) if is_open else _of_model(meta, model, row)
    rules = _rules(editions, model, row)
    problems = [problem for rule in rules for problem in impossible(rule)]
    if problems:
        raise InvalidInputError(problems)
    for rule in rules:
        base = raised(base, rule)
    return replace(base, signed=True) if not base.automatic and tier in signed_tiers else base


def require_met(editions: Sequence[Edition], model: str, head: Mapping[str, Any] | None, asked: ApprovalPolicy, *, is_open: bool) -> None:
    """Refuse an import whose policy, written down by an earlier try, asks for less than the model and the policies in force do.

    Args:
        editions: the registry's policies in force.
        model: the model's name.
        head: the model's row; None for a model that the import makes.
        asked: what was written down.
        is_open: whether the model's versions pass by themselves, see `passes_by_itself`.

    Raises:
        InvalidInputError: it does, or a policy in force asks for what no import has.
    """
    if asked.automatic and not is_open:
        raise InvalidInputError.of("submission", "policy", f"{model} is open no more; begin another import")
    for rule in _rules(editions, model, head or {}):
        if any(impossible(rule)) or raised(asked, rule) != asked:
            message = f"{rule.name} asks for more than the policy that this import was begun under; begin another one"
            raise InvalidInputError.of("submission", "policy", message)


def passes_by_itself(entry: Mapping[str, Any] | None) -> bool:
    """Return whether a model's entry in the catalogue says that its versions pass by themselves; without an entry they never do."""
    return entry is not None and entry.get("mode") == OPEN and not entry.get("deleted")


def policies_hold(editions: Sequence[Edition]) -> list[Check]:
    """Return the conditions under which the policies stay those in force."""
    return [Check(policy_key(e.policy.name), When(exists=True, equals={"number": e.number})) for e in editions]


def _of_model(meta: MetaStore, model: str, head: Mapping[str, Any]) -> ApprovalPolicy:
    before = int(head.get("next") or 1) - 1
    row: Item | None = meta.get(version_key(model, before)) if before else None
    asked = ApprovalPolicy.from_item(row["approval_policy"]) if row and row.get("approval_policy") else ONE_APPROVER
    # Who wrote the code is not known of an import, so independence of it cannot be judged; the submitter never decides in any case.
    return ONE_APPROVER if asked.automatic else replace(asked, independent=False)


def _rules(editions: Sequence[Edition], model: str, row: Mapping[str, Any]) -> list[Rule]:
    subject = ImportSubject.of_head(model, row)
    return [rule for edition in editions for rule in subject.rules(edition.policy)]
