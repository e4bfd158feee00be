"""REPORT.md of a batch of audited acts: who did, read or tried what, for people who read no JSON.

It follows from the other files of the bundle and from nothing else, as the report of a version does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from attestry.evidence.bundle import BundleIndex
from attestry.evidence.report import NOTHING, Sources, plain, section, table

_HEAD: Final = """\
# Audited acts: batch {number}

This report retells the evidence in this bundle in plain words. It is not evidence itself: a verifier writes it anew from the files and
refuses the bundle if it says anything else. Whether the signatures hold is what the verifier tells:

    attestry-verify BUNDLE.zip --root ROOT.json
"""

_LIMITS: Final = """\
- An act that the registry's function could not note down: such a failure is counted and raises an alarm.
- What the gateway refused before a function was asked; that is in the gateway's access log and in CloudTrail.
- A count above 16 is at least what it says and less than double; acts that went beyond the bounds of a minute stand under `other`."""


def render_audit_report(index: BundleIndex, files: Mapping[str, bytes]) -> str:
    """Return REPORT.md of a bundle of kind `audit`."""
    acts = [json.loads(line) for line in files.get("audit/batch.jsonl", b"").splitlines()]
    head = ("First", "Who", "Address", "Act", "On", "Outcome", "Count")
    place = [(f"{number}", at) for number, at, _ in Sources(index, files).leaves]
    return "\n".join(
        [
            _HEAD.format(number=index.number),
            section("In the ledger", table(("Leaf", "Logged"), place), "ledger/leaves/"),
            section("Acts", table(head, [_row(act) for act in acts]), "audit/batch.jsonl"),
            section("What this does not show", _LIMITS),
        ]
    )


def _row(act: Mapping[str, Any]) -> tuple[str, ...]:
    who = act.get("principal")
    if not isinstance(who, Mapping):
        return (plain(str(act["sk"])[:16]), "a row that no function of the registry wrote", *[NOTHING] * 5)
    reason = f" ({plain(act['reason'])})" if act.get("reason") else ""
    return (
        plain(act.get("first")),
        plain(who.get("person") or who.get("login") or who.get("subject")),
        plain(who.get("address")),
        plain(act.get("act")),
        plain(act.get("object")),
        f"{plain(act.get('outcome'))}{reason}",
        plain(act.get("count")),
    )
