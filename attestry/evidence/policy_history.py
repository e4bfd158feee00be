"""The policies of a registry over its whole ledger: that no version was registered past one.

    history = PolicyHistory()
    audit_ledger(read, keys, visit=history.visit)
    for departure in history.finish(): ...

A bundle shows that the policies which a version was held against were in force. That it was held against all of them shows only to who
reads every leaf: the first event of each version names, of every policy that had been published by then, the edition that was in force. As
in a bundle, a margin is left for what happened at one moment.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from attestry.domain.errors import IntegrityError
from attestry.domain.policies import PUBLISHED, EditionName, named_editions, policy_subject
from attestry.evidence.checks_moves import FIRST
from attestry.evidence.checks_policies import is_well_before
from attestry.evidence.leaf import Leaf


@dataclass(frozen=True)
class _Registered:
    subject: str
    logged: str
    data: Mapping[str, Any]


class PolicyHistory:
    """Follows the publications and the registrations of a ledger, leaf by leaf."""

    def __init__(self) -> None:
        self._published: dict[str, list[tuple[str, EditionName]]] = {}
        self._waiting: deque[_Registered] = deque()
        self._departures: list[str] = []

    def visit(self, leaf: Leaf) -> None:
        """Take the next leaf of the ledger."""
        kind, data = leaf.event["kind"], leaf.event["data"]
        while self._waiting and is_well_before(self._waiting[0].logged, leaf.logged):
            self._departures += self._judge(self._waiting.popleft())
        if kind == PUBLISHED:
            name = str(leaf.event["subject"]).removeprefix(policy_subject(""))
            edition = EditionName(name, int(data["number"]), str(data["sha256"]))
            self._published.setdefault(name, []).append((leaf.logged, edition))
        elif kind in FIRST:
            # What is published within the margin has still to come.
            self._waiting.append(_Registered(str(leaf.event["subject"]), leaf.logged, data))

    def finish(self) -> list[str]:
        """Return, once all leaves were taken, each version that was registered past a policy, and past which, a sentence each."""
        while self._waiting:
            self._departures += self._judge(self._waiting.popleft())
        return list(self._departures)

    def _judge(self, registered: _Registered) -> Iterator[str]:
        try:
            named = {edition.name: edition for edition in named_editions(registered.data)}
        except (IntegrityError, LookupError, TypeError, ValueError):
            yield f"{registered.subject} names its policies in another form than the registry does"
            return
        for name in sorted({*named, *self._published}):
            possible = self._possible(name, registered.logged)
            if named.get(name) not in possible:
                wanted = " or ".join("none" if edition is None else str(edition) for edition in possible)
                past = f"under {named.get(name, 'none')} of the policy {name}; in force was {wanted}"
                yield f"{registered.subject} was registered at {registered.logged} {past}"

    def _possible(self, name: str, at: str) -> list[EditionName | None]:
        """Return the editions of a policy that can have been in force at a time; None among them where there may have been none."""
        published = self._published.get(name, [])
        editions: list[EditionName | None] = [None, *(edition for _, edition in published)]
        begins = ["", *(logged for logged, _ in published)]
        ends = [*begins[1:], ""]
        return [
            edition
            for edition, begin, end in zip(editions, begins, ends, strict=True)
            if not (begin and is_well_before(at, begin)) and not (end and is_well_before(end, at))
        ]
