"""What the API answers, as tables for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

_COLOURS = {
    "SUCCEEDED": "green",
    "DEPLOYED": "bold green",
    "APPROVED": "green",
    "RUNNING": "yellow",
    "ROLLBACK": "cyan",
    "FAILED": "red",
    "REJECTED": "red",
    "passed": "green",
    "failed": "red",
    "missing": "yellow",
    "pending": "yellow",
    "not reached": "dim",
    "verified": "green",
    "attested": "cyan",
    "claimed": "yellow",
}
_LONGEST_FACT = 200
_VERDICTS = {"PROVEN": "bold green", "SIGNED-UNANCHORED": "bold green", "INCOMPLETE": "bold yellow", "BROKEN": "bold red"}


def models(rows: Sequence[Mapping[str, Any]]) -> RenderableType:
    """Return the table of models."""
    table = _table("model", "owner", "team", "risk", "versions", "purpose")
    for row in rows:
        table.add_row(*(_text(row.get(k)) for k in ("model", "owner", "team", "risk_tier", "versions", "purpose")))
    return table


def model(row: Mapping[str, Any]) -> RenderableType:
    """Return a model, and what is deployed where."""
    facts = _facts({k: v for k, v in row.items() if k != "deployed"})
    table = _table("environment", "version", "previous", "since", "digest", "", title="deployed")
    for pointer in row.get("deployed", []):
        cells = (_text(pointer.get(k)) for k in ("environment", "number", "previous", "at"))
        table.add_row(*cells, _short(pointer.get("version_digest")), _out_of_use(pointer.get("vacant")))
    return Group(facts, table, *_findings(row))


def versions(rows: Sequence[Mapping[str, Any]]) -> RenderableType:
    """Return the table of a model's versions."""
    table = _table("version", "stage", "status", "standing", "submitted by", "created", "metrics", "error")
    for row in rows:
        table.add_row(
            f"{row['model']}@{row['number']}",
            _text(row.get("stage")),
            _text(row.get("status")),
            _text(row.get("standing")),
            _text(row.get("submitter_person") or "unproven"),
            _text(row.get("created")),
            _metrics(row.get("metrics")),
            _text(_out_of_use(row.get("retirement")) or row.get("error")),
        )
    return table


def version(row: Mapping[str, Any]) -> RenderableType:
    """Return all of a version: head, stages, gates, transitions, decisions."""
    head = {k: row.get(k) for k in ("stage", "status", "standing", "error", "candidate", "version_digest", "folder", "attempt")}
    head |= {"submitter": row.get("submitter_person") or _unproven(row), "created": row.get("created"), "updated": row.get("updated")}
    head |= {"made_because": _because(row)}
    head |= {"out_of_use": _out_of_use(row.get("retirement")), "retires_on": row.get("retires_on")}
    head |= {"held": _hold(row.get("held")), "legal_hold": _hold(row.get("legal_hold")), "disposal": _disposal(row.get("disposal"))}
    return Group(
        Text(f"{row['model']}@{row['number']}", style="bold"),
        _facts(head),
        _stages(row),
        *_how_made(row),
        _transitions(row),
        _approvals(row),
        *_validations(row),
        *_promotions(row),
        *_reproductions(row),
        *_findings(row),
    )


def _how_made(row: Mapping[str, Any]) -> list[RenderableType]:
    """Return metrics and gates, or of a version that was made elsewhere what is verified and what is claimed."""
    if not row.get("import"):
        return [_metrics_table(row), _gates(row)]
    from attestry.cli.render_import import made_elsewhere

    return made_elsewhere(row["import"])


def _because(row: Mapping[str, Any]) -> str:
    from attestry.domain.cause import sentence_of

    return sentence_of(str(row["model"]), row.get("cause") or {})


def _hold(held: Mapping[str, Any] | None) -> str:
    return f"since {held['at']} by {held['by']}: {held['reason']}" if held else ""


def _disposal(disposal: Mapping[str, Any] | None) -> str:
    if not disposal:
        return ""
    if disposal["state"] == "requested":
        return f"asked for by {disposal['by']} at {disposal['at']}"
    told = f"{disposal['objects']} objects disposed, digests kept; asked for by {disposal['by']}, confirmed by {disposal['confirmed_by']}"
    return told + (f"; {disposal['left']} left under locks" if disposal.get("left") else "")


def _unproven(row: Mapping[str, Any]) -> str:
    """Return what it means that no person stands behind a submission, and what is done about it."""
    reference = f"{row['model']}@{row['number']}"
    return (
        f"unproven: its login maps to no person, so it is not approved. Once an admin has mapped it (attestry people add), "
        f"that person says so: attestry claim {reference}"
    )


def _stages(row: Mapping[str, Any]) -> Table:
    table = _table("stage", "attempt", "status", "begun", "ended", "error", title="runs")
    for stage in row.get("stages", []):
        table.add_row(*(_text(stage.get(k)) for k in ("stage", "attempt", "status", "begun", "ended", "error")))
    return table


def _metrics_table(row: Mapping[str, Any]) -> Table:
    table = _table("metric", "value", title="metrics on the hold-out")
    for name, value in (row.get("metrics") or {}).items():
        table.add_row(name, _text(value))
    return table


def _gates(row: Mapping[str, Any]) -> Table:
    table = _table("gate", "rule", "outcome", "why", title="gates")
    for gate in row.get("gates") or []:
        outcome = _text("passed" if gate.get("passed") else "failed")
        table.add_row(_text(gate.get("name")), _text(gate.get("rule")), outcome, _text(gate.get("reason")))
    return table


def _transitions(row: Mapping[str, Any]) -> Table:
    table = _table("#", "what", "stage", "status", "standing", "by", "at", "reason", title="transitions")
    for step in row.get("transitions", []):
        to = step.get("to") or {}
        state = (_text(to.get(k)) for k in ("stage", "status", "standing"))
        table.add_row(
            _text(step.get("number")),
            _text(step.get("kind")),
            *state,
            _who(step.get("principal")),
            _text(step.get("at")),
            _text(step.get("reason")),
        )
    return table


def _promotions(row: Mapping[str, Any]) -> list[RenderableType]:
    """Return who asked for promotions that people decide on, how far they are, and who decided."""
    if not row.get("promotions"):
        return []
    table = _table("to", "state", "asked for by", "from", "on packet", "until", title="promotions")
    for environment, told in sorted(row["promotions"].items()):
        cells = (_text(told.get(k)) for k in ("state", "asked_by", "origin"))
        table.add_row(_text(environment), *cells, _short(told.get("packet")), _text(told.get("until")))
    decided = _decisions(row.get("promotion_decisions", []), "decisions on promotions")
    return [table, decided]


def _approvals(row: Mapping[str, Any]) -> Table:
    return _decisions(row.get("approvals", []), "decisions")


def _decisions(rows: Sequence[Mapping[str, Any]], title: str) -> Table:
    table = _table("person", "decision", "at", "reason", "on packet", "proof", title=title)
    for decision in rows:
        cells = (_text(decision.get(k)) for k in ("person", "decision", "at", "reason"))
        proof = "signed by person" if decision.get("signed_by_person") else "recorded by registry"
        if console := decision.get("console"):
            mfa = "with MFA" if console["mfa"] else "without MFA"
            proof += f", AWS console {mfa}, CloudTrail event {console['event_id']} (SHA-256 {_short(console['event_sha256'])})"
        table.add_row(*cells, _short(decision.get("evidence")), proof)
    return table


def _validations(row: Mapping[str, Any]) -> list[RenderableType]:
    """Return the latest records of validators, and what the manifest demands of them and does not stand."""
    records, policy = row.get("validations") or {}, row.get("approval_policy") or {}
    if not records and not policy.get("records"):
        return []
    from attestry.cli.validations import outcome
    from attestry.domain.approvals import ApprovalPolicy
    from attestry.domain.validations import unmet

    shown = _table("record", "what it came to", "by", "at", "transition", "SHA-256", title="validation records")
    for place, facts in sorted(records.items()):
        cells = (place, outcome(facts), facts["person"], facts["at"], facts["transition"])
        shown.add_row(*map(_text, cells), _short(facts["record"]))
    lacking = unmet(ApprovalPolicy.from_item(policy).records, records)
    return [shown, *(Text(f"demanded: {sentence}", style="red") for sentence in lacking)]


def _reproductions(row: Mapping[str, Any]) -> list[RenderableType]:
    if not row.get("reproductions"):
        return []
    table = _table("run", "verdict", "what differs", "at", title="reproductions")
    for told in row["reproductions"]:
        what = ", ".join(str(d["what"]) for d in told.get("differs", []))
        run = f"{row['model']}@{(told.get('run') or {}).get('number')}"
        table.add_row(*(_text(v) for v in (run, told.get("verdict"), what, told.get("at"))))
    return [table]


def findings(rows: Sequence[Mapping[str, Any]]) -> RenderableType:
    """Return the table of open findings."""
    if not rows:
        return Text("no open findings")
    table = _table("about", "what", "where", "expected", "found", "since", title="findings")
    for row in rows:
        about = f"{row['model']}@{row['number']}" if row.get("number") else row.get("model") or "registry"
        table.add_row(*(_text(v) for v in (about, *(row.get(k) for k in ("what", "where", "expected", "found", "opened")))))
    return table


def _findings(row: Mapping[str, Any]) -> list[RenderableType]:
    return [findings(row["findings"])] if row.get("findings") else []


def _out_of_use(told: Mapping[str, Any] | None) -> str:
    if not told:
        return ""
    act = "killed" if told.get("kind") == "version.killed" else "retired"
    return f"{_plain(act)} at {_plain(told.get('at'))} by {_plain(told.get('by'))}: {_plain(told.get('reason'))}"


def differences(rows: Sequence[Mapping[str, Any]]) -> RenderableType:
    """Return the table of differences."""
    if not rows:
        return Text("no differences")
    table = _table("section", "field", "before", "after", "change")
    for row in rows:
        field = row.get("field", row.get("path", ""))
        table.add_row(_text(row.get("section")), _text(field), _text(row.get("before")), _text(row.get("after")), _text(row.get("change")))
    return table


def facts(row: Mapping[str, Any]) -> RenderableType:
    """Return any mapping as a list of its fields."""
    return _facts(row)


def people(rows: Sequence[Mapping[str, Any]]) -> RenderableType:
    """Return the table of persons."""
    table = _table("person", "name", "logins", "added", "SSH keys")
    for row in rows:
        keys = ", ".join(f"{key.get('fingerprint')}{' (withdrawn)' if key.get('withdrawn') else ''}" for key in row.get("ssh_keys", []))
        logins = ", ".join(row.get("logins", []))
        table.add_row(_text(row["person"]), _text(row.get("name")), _text(logins), _text(row.get("added")), _text(keys))
    return table


def prediction(row: Mapping[str, Any]) -> RenderableType:
    """Return a prediction: what, by which version, under which ID."""
    head = Text.assemble((str(row["prediction_id"]), "bold"), f"  by {row['model']}@{row['version']}")
    table = _table("#", "prediction")
    for index, output in enumerate(row["output"]):
        table.add_row(str(index), _text(output))
    return Group(head, table)


def trace(document: Mapping[str, Any]) -> RenderableType:
    """Return a trace: the verdict, each step, and every fact with its grade."""
    verdict = str(document["verdict"])
    steps = _table("step", "outcome", "detail")
    for step in document.get("steps", []):
        steps.add_row(_text(step["step"]), _text(step["outcome"]), _text(step["detail"]))
    table = _table("field", "grade", "value", title="facts")
    for step in (document.get("proof") or {}).get("steps", []):
        steps.add_row(Text(f"proof: {step['step']}"), _text(step["outcome"]), _text(step["detail"]))
    skipped = ("format", "verdict", "deep", "steps", "proof")
    for section, content in document.items():
        if section not in skipped:
            for path, grade, value in _graded(section, content):
                table.add_row(Text(path), _text(grade), _cut(_text(value)))
    reason = f" ({document['proof']['reason']})" if "proof" in document else ""
    return Group(Text(f"{verdict}{reason}", style=_VERDICTS.get(verdict, "bold")), steps, table)


def _graded(path: str, content: Any) -> list[tuple[str, str, Any]]:
    """Return path, grade and value of every graded fact below."""
    if isinstance(content, Mapping) and "grade" in content and "value" in content:
        return [(path, str(content["grade"]), content["value"])]
    if isinstance(content, Mapping):
        return [row for name, part in content.items() for row in _graded(f"{path}.{name}", part)]
    if isinstance(content, list):
        return [row for index, part in enumerate(content) for row in _graded(f"{path}[{index}]", part)]
    return [(path, "", content)]


def table(*columns: str, title: str | None = None) -> Table:
    """Return an empty table with these columns."""
    return _table(*columns, title=title)


def text(value: Any) -> Text:
    """Return a value as text that carries no markup of its own."""
    return _text(value)


def _table(*columns: str, title: str | None = None) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, header_style="dim", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _facts(row: Mapping[str, Any]) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, value in row.items():
        if value not in (None, "", [], {}):
            table.add_row(name.replace("_", " "), _text(value))
    return table


def _text(value: Any) -> Text:
    """Return a value as text that carries no markup of its own."""
    plain = _plain(value)
    return Text(plain, style=_COLOURS.get(plain, ""))


def _plain(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, Mapping):
        return ", ".join(f"{k}={_plain(v)}" for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(_plain(v) for v in value)
    text = str(value)
    return "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text)


def _cut(text: Text) -> Text:
    """Return the beginning of a long value; `--json` prints all of it."""
    return text if len(text) <= _LONGEST_FACT else text[:_LONGEST_FACT] + Text("…")


def _metrics(metrics: Mapping[str, Any] | None) -> str:
    return ", ".join(f"{name} {_plain(value)[:6]}" for name, value in (metrics or {}).items())


def _short(digest: Any) -> str:
    return str(digest or "")[:12]


def _who(principal: Mapping[str, Any] | None) -> Text:
    return _text((principal or {}).get("person") or (principal or {}).get("login"))
