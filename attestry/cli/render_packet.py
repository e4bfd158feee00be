"""A decision packet, as tables for people."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from attestry.cli.packet import summary
from attestry.cli.render import differences, facts, table, text
from attestry.cli.render_import import made_elsewhere
from attestry.cli.validations import outcome
from attestry.domain.cause import sentence_of
from attestry.evidence.packet import Packet


def packet(of: Packet) -> RenderableType:
    """Return all of a packet that a decision turns on; `--html` and `--json` have the rest."""
    content, lineage = of.content, of.content["lineage"]
    head, *rest = summary(of)
    about = {k: content["about"].get(k) for k in ("purpose", "risk_tier", "owner", "team")}
    submitter = content["submitter"]
    about |= {
        "submitted_by": submitter.get("person") or f"{submitter.get('login')}, unproven when this was frozen",
        "made_because": sentence_of(content["model"], content.get("cause") or {}),
        "version_digest": content["version_digest"],
        "frozen": f"{content['opened']}, by transition {content['transition']}",
        "policy": content["policy"],
    }
    parts: list[RenderableType] = [Text(head, style="bold"), *(text(line) for line in rest), facts(about)]
    if content["findings"]:
        found = table("open finding", "where", "expected", "found")
        for row in content["findings"]:
            found.add_row(*(text(row.get(k)) for k in ("what", "where", "expected", "found")))
        parts.append(found)
    if content.get("validations"):
        recorded = table("record", "what it came to", "by", "at", title="validation records when this was frozen")
        for place, validated in sorted(content["validations"].items()):
            recorded.add_row(*(text(cell) for cell in (place, outcome(validated), validated["person"], validated["at"])))
        parts.append(recorded)
    if "import" in content:
        return Group(*parts, *made_elsewhere(content["import"]), *_differences(of))
    gates = table("gate", "rule", "threshold", "value", "outcome", "why", title="gates")
    for gate in content["gates"]:
        cells = (text(gate.get(k)) for k in ("name", "rule", "threshold", "value"))
        gates.add_row(*cells, text("passed" if gate.get("passed") else "failed"), text(gate.get("reason")))
    parts.append(gates)
    parts += _differences(of)
    made_of = {
        "revision": lineage["code"]["revision"],
        **{f"source {s['name']}": s["sha256"] for s in lineage["source_data"]},
        **lineage["data_sets"],
        "environment": lineage["environment"]["archive_sha256"],
    }
    records = table("stage", "attempt", "outcome", "rows of data", "SHA-256 of the record", title="recorded runs")
    for row in content["records"]:
        records.add_row(*(text(row.get(k)) for k in ("stage", "attempt", "outcome", "rows", "sha256")))
    return Group(*parts, Text("made of", style="bold"), facts(made_of), records)


def _differences(of: Packet) -> list[RenderableType]:
    if not of.compared_with:
        return []
    return [Text(f"difference to {of.compared_with}", style="bold"), differences(of.content["differences"])]
