"""Rebuild what the table must hold from the ledger, and compare it with what the API shows of the table.

The ledger is read and verified by the caller (`attestry.evidence.ledger_audit`); the registry is asked only for what is compared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from attestry.domain.replay import Difference, Index, compare_approvals, compare_people, compare_pointers, compare_version


class RegistryApi(Protocol):
    """What is asked of the registry."""

    def models(self) -> list[dict[str, Any]]:
        """Return all models."""

    def model(self, model: str) -> Any:
        """Return a model and what is deployed where."""

    def versions(self, model: str) -> list[dict[str, Any]]:
        """Return the versions of a model."""

    def version(self, model: str, number: int) -> Any:
        """Return all that is recorded of a version."""


def compare_with_table(
    index: Index, api: RegistryApi, *, people: Mapping[str, str] | None = None, advance: Callable[[str], None] = lambda _reference: None
) -> list[Difference]:
    """Return where the table differs from the replayed ledger.

    Events that were committed while the ledger was read are in the table and not in the index: whoever finds a difference at a version's
    last transition compares again.

    Args:
        index: the replayed ledger.
        api: the registry.
        people: login to person as the registry has them, or None to leave them out.
        advance: told each version before it is compared.
    """
    found: list[Difference] = []
    compared: set[str] = set()
    for row in api.models():
        model = str(row["model"])
        found += compare_pointers(index, model, api.model(model)["deployed"])
        for listed in api.versions(model):
            reference = f"{model}@{listed['number']}"
            advance(reference)
            shown = api.version(model, int(listed["number"]))
            found += compare_version(index, reference, shown, shown["transitions"])
            found += compare_approvals(index, reference, [*shown["approvals"], *shown.get("promotion_decisions", [])])
            compared.add(reference)
    found += [Difference(reference, "version", "there", None) for reference in sorted(index.transitions.keys() - compared)]
    if people is not None:
        found += compare_people(index, people)
    return found
