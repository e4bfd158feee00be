"""`attestry ledger rebuild --check`: the replayed ledger beside the table."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from attestry.client.api import RegistryClient
from attestry.client.errors import ApiError
from attestry.client.rebuild import compare_with_table
from attestry.domain.replay import Index
from attestry.evidence.ledger_audit import LedgerAudit


def login_map(client: RegistryClient) -> dict[str, str] | None:
    """Return login to person, or None for a caller whom the registry does not show people to."""
    try:
        return {str(login): str(row["person"]) for row in client.people() for login in row["logins"]}
    except ApiError as error:
        if error.status == 403:
            return None
        raise


def compared(
    audit: LedgerAudit, index: Index, client: RegistryClient, people: Mapping[str, str] | None, *, say: Callable[[str], None]
) -> dict[str, Any]:
    """Return what `--json` prints: size and root of the ledger, what was compared, and each difference."""
    differences = compare_with_table(index, client, people=people, advance=say)
    return {
        "verdict": "DIFFERENT" if differences else "EQUAL",
        "size": audit.checkpoint.size,
        "root": audit.checkpoint.root.hex(),
        "versions": len(index.transitions),
        "people_compared": people is not None,
        "differences": [d.to_item() for d in differences],
    }


def differences_table(told: Mapping[str, Any]) -> RenderableType:
    """Return the comparison for people."""
    head = Text(f"{told['verdict']}: {told['versions']} versions replayed from {told['size']} leaves")
    if not told["people_compared"]:
        head.append("; people are not shown to you and were not compared")
    if not told["differences"]:
        return head
    table = Table("where", "what", "the ledger says", "the table says", box=None, pad_edge=False)
    for row in told["differences"]:
        table.add_row(row["where"], row["what"], _short(row["ledger"]), _short(row["table"]))
    return Group(head, table)


def _short(value: Any) -> Text:
    if value is None:
        return Text("nothing", style="dim")
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    return Text(text if len(text) <= 80 else f"{text[:77]}...")
