"""The decision packet as a page for people: made of the packet alone, with nothing to load and nothing to run, and fit to be printed.

Rules:
- The same packet gives the same bytes.
- Every text is escaped. Control characters, and characters that show text in another order than it has, are shown as U+FFFD, and the
  direction of each text is its own: what a submitter wrote cannot change what stands beside it.
- The page forbids itself scripts and anything from elsewhere (Content-Security-Policy).
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any, Final

from attestry.domain.cause import sentence_of
from attestry.evidence.packet import Packet

_REORDERING = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_TIERS = {"low": "ok", "medium": "warn", "high": "bad"}

_STYLE: Final = """
:root { --ink: #1b2733; --soft: #5b6b7b; --line: #d9e0e7; --head: #f3f6f9; --ok: #11704a; --warn: #8a5a00; --bad: #a3262a; }
* { box-sizing: border-box; }
body { margin: 0; background: #eef1f5; color: var(--ink); font: 15px/1.5 system-ui, "Segoe UI", Roboto, Arial, sans-serif; }
main { max-width: 62rem; margin: 2rem auto; padding: 2.5rem 3rem; background: #fff; border: 1px solid var(--line); border-radius: 8px; }
header { border-bottom: 2px solid var(--ink); padding-bottom: 1rem; margin-bottom: 1.5rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: .2rem 0 .4rem; }
h2 { font-size: 1.05rem; margin: 2rem 0 .6rem; }
p { margin: .4rem 0; }
.kicker { color: var(--soft); letter-spacing: .08em; text-transform: uppercase; font-size: .75rem; }
.purpose { font-size: 1.05rem; }
.note { color: var(--soft); }
table { border-collapse: collapse; width: 100%; margin: .3rem 0; }
th, td { text-align: left; vertical-align: top; padding: .35rem .7rem .35rem 0; border-bottom: 1px solid var(--line); }
thead th { color: var(--soft); font-weight: 600; font-size: .8rem; border-bottom-color: var(--ink); white-space: nowrap; }
td { overflow-wrap: break-word; }
.diff td:nth-child(3), .diff td:nth-child(4) { overflow-wrap: anywhere; }
tbody th { font-weight: 500; color: var(--soft); width: 13rem; }
tr { break-inside: avoid; }
code { font: 12.5px/1.45 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; overflow-wrap: anywhere; }
.badge { display: inline-block; padding: .05rem .55rem; border-radius: 1rem; border: 1px solid; font-size: .8rem; }
.badge { font-weight: 600; white-space: nowrap; }
.ok { color: var(--ok); } .warn { color: var(--warn); } .bad { color: var(--bad); }
.box { margin: 1rem 0; padding: .8rem 1rem; background: var(--head); border-radius: 4px; }
.box { border: 1px solid var(--line); border-left: 4px solid var(--ink); }
.box.bad { border-left-color: var(--bad); } .box.bad, .box.bad td { color: var(--ink); }
footer { margin-top: 2.5rem; padding-top: 1rem; border-top: 1px solid var(--line); color: var(--soft); font-size: .85rem; }
@media (max-width: 46rem) { main { margin: 0; padding: 1.2rem; border: 0; } tbody th { width: 8rem; } }
@media print {
  body { background: #fff; font-size: 11px; } main { margin: 0; padding: 0; border: 0; max-width: none; } h2 { break-after: avoid; }
}
"""


def render_page(packet: Packet) -> bytes:
    """Return the page in UTF-8."""
    content = packet.content
    parts = [
        _head(packet),
        _asked(packet),
        _findings(content["findings"]),
        *(_import(content["import"]) if "import" in content else [_gates(content), _metrics(content)]),
        *_validations(content),
        _differences(packet),
        *([] if "import" in content else [_data(content["lineage"]), _training(content["lineage"])]),
        _section("Recorded runs", _records(content["records"])),
        _section("Deployment, once approved", _facts(content["deployment"])),
        _foot(packet),
    ]
    title = f"Decision packet {packet.reference}"
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; "
        "form-action 'none'\">"
        '<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="referrer" content="no-referrer">'
        f"<title>{_plain(title)}</title><style>{_STYLE}</style></head>\n<body><main>\n" + "\n".join(parts) + "\n</main></body></html>\n"
    ).encode()


def _head(packet: Packet) -> str:
    content, about = packet.content, packet.content["about"]
    tier = str(about.get("risk_tier", ""))
    labels = ", ".join(f"{k}: {v}" for k, v in sorted(dict(about.get("labels") or {}).items()))
    facts = {
        "Owner": about.get("owner"),
        "Team": about.get("team"),
        "Labels": labels,
        "Submitted by": _submitter(content["submitter"]),
        "Made because": sentence_of(content["model"], content.get("cause") or {}),
    }
    return (
        '<header><div class="kicker">Decision packet</div>'
        f"<h1>{_text(packet.reference)}</h1>"
        f'<p class="purpose">{_text(about.get("purpose"))}</p>'
        f'<p><span class="badge {_TIERS.get(tier, "warn")}">{_text(tier)} risk</span></p>'
        f"{_facts(facts)}</header>"
    )


def _submitter(submitter: Mapping[str, Any]) -> str:
    person = submitter.get("person")
    return f"{person} ({submitter.get('login')})" if person else f"{submitter.get('login')}: unproven when this was frozen"


def _asked(packet: Packet) -> str:
    content, policy = packet.content, packet.content["policy"]
    if policy.get("automatic") and "import" in content:
        asked = "The model is open: this version is approved by itself. Nobody is asked, and no gate judged it."
    elif policy.get("automatic"):
        asked = "The manifest's policy approves this version by itself, because every gate is passed. Nobody is asked."
    else:
        count, roles = int(policy.get("count") or 1), " or ".join(str(r) for r in policy.get("roles", []))
        who = "One person" if count == 1 else f"{count} different persons"
        wanted = [f"{r['count']} in the role {' or '.join(r['roles'])}" for r in policy.get("require", [])]
        who, roles = (
            (f"{who}, {', then '.join(wanted) if policy.get('in_order') else ' and '.join(wanted)}", "") if wanted else (who, roles)
        )
        role = f" in the role {roles}" if roles else ""
        asked = f"{who}{role} must approve; never the person who submitted the candidate. One rejection ends the version."
        if policy.get("signed"):
            asked += " Each approval needs the approver's own signature over the digest of this packet."
    for conflict in content.get("conflicts", []):
        asked += f" {conflict['person']} does not decide: {conflict['reason']}."
    rows = {
        "Version digest": _Code(content["version_digest"]),
        "Packet digest": _Code(packet.sha256),
        "Frozen": f"{content['opened']}, by transition {content['transition']}",
    }
    return f'<div class="box"><strong>What is decided</strong><p>{_text(asked)}</p>{_facts(rows)}</div>'


def _validations(content: Mapping[str, Any]) -> list[str]:
    """Return the validation records that stood, and what the policy demands of them."""
    records, demands = content.get("validations", {}), content["policy"].get("records", [])
    parts = []
    if records:
        columns = ("record", "effect", "interval", "p-value", "overlap", "violations", "by", "at")
        rows = []
        for place, facts in sorted(records.items()):
            interval = f"{facts['low']} to {facts['high']}" if "low" in facts else ""
            cells = (place, facts.get("effect"), interval, facts.get("p_value"), facts.get("overlap_rows"), facts.get("violations"))
            rows.append([_text(cell) for cell in (*cells, facts["person"], facts["at"])])
        parts.append(_section("Validation records, signed by validators", _table(columns, rows)))
    if demands:
        told = [", ".join(f"{name.replace('_', ' ')} {value}" for name, value in demand.items()) for demand in demands]
        parts.append(f'<p class="note">{_text("Before the approval can be completed, these have to stand: " + "; ".join(told))}</p>')
    return parts


def _findings(findings: Sequence[Mapping[str, Any]]) -> str:
    if not findings:
        return '<p class="note">No open finding of the reconciliation between table, ledger and stored files.</p>'
    columns = ("what", "where", "expected", "found", "opened")
    rows = ([_text(f.get(c)) for c in columns] for f in findings)
    return f'<div class="box bad"><strong class="bad">Open findings: {len(findings)}</strong>{_table(columns, rows)}</div>'


def _gates(content: Mapping[str, Any]) -> str:
    rows = (
        [
            '<span class="badge ok">passed</span>' if gate.get("passed") else '<span class="badge bad">failed</span>',
            _text(gate.get("name")),
            _text(str(gate.get("rule", "")).replace("_", " ")),
            _text(gate.get("threshold")),
            _text(gate.get("value")),
            _text(gate.get("reason")),
        ]
        for gate in content["gates"]
    )
    return _section("Gates", _table(("outcome", "gate", "rule", "threshold", "value", "finding"), rows))


def _metrics(content: Mapping[str, Any]) -> str:
    metrics, other = content["metrics"], content["compared_with"]
    before = dict(other.get("metrics") or {})
    columns = ["metric", "this version", *([f"deployed: version {other['number']}"] if other else [])]
    rows = (
        [_text(name), _text(metrics.get(name)), *([_text(before.get(name))] if other else [])]
        for name in [*metrics, *(n for n in before if n not in metrics)]
    )
    return _section("Metrics", _table(columns, rows), "Computed by the registry on the hold-out, which training never received.")


def _import(told: Mapping[str, Any]) -> list[str]:
    """Return the sections of a version that was made elsewhere: what is verified and what is claimed stand apart."""
    verified, claimed, mlmodel = told["verified"], told["claimed"], told["mlmodel"]
    run, reading = claimed["run"], mlmodel.get("reading") or {}
    files = ([_text(f["path"]), _text(f["size"]), _code(f["sha256"])] for f in verified["files"])
    more = verified["count"] - len(verified["files"])
    warning = (
        "This version was made elsewhere. Nothing of it was processed, trained or judged here: no gate was applied, and the registry "
        "computed no metric. Files such as pickles run code when they are loaded; the registry has never loaded them."
    )
    says = {
        "Where from": claimed["source"],
        "Run": run["id"],
        "Experiment": run["experiment"],
        "Description": claimed["description"],
        "Tags": claimed["tags"],
    }
    model = {
        "Flavours": sorted(reading.get("flavors", {})),
        "Python": reading.get("python_version"),
        "Loaded by": reading.get("loader_module"),
        "Requirements": reading.get("requirements"),
        "Signature": reading.get("signature"),
        "Could not be read": mlmodel.get("problem"),
        "SHA-256 of the file": _Code(mlmodel.get("sha256")),
    }
    note = "Digested by the registry while it froze them." + (f" {more} further files are in the artifact manifest." if more else "")
    return [
        f'<div class="box bad"><strong class="bad">Made elsewhere</strong><p>{_text(warning)}</p></div>',
        _section("Verified: the files", _table(("path", "bytes", "SHA-256"), files), note),
        _section("Claimed: where they come from", _facts(says), "The word of who imported it. Nobody here saw the run."),
        _section("Claimed: parameters", _facts(run["params"], exact=True)),
        _section("Claimed: metrics", _facts(run["metrics"], exact=True), "Not computed by the registry; no gate rests on them."),
        _section("Claimed: the MLmodel file", _facts(model) if mlmodel else '<p class="note">None.</p>'),
    ]


def _differences(packet: Packet) -> str:
    other = packet.content["compared_with"]
    if not other:
        return _section("Difference to the deployed version", '<p class="note">No version was deployed when this packet was frozen.</p>')
    rows = (
        [_text(d.get("section")), _text(d.get("field")), _text(d.get("before")), _text(d.get("after")), _text(d.get("change"))]
        for d in packet.content["differences"]
    )
    body = _table(("section", "field", f"version {other['number']}", f"version {packet.content['number']}", "change"), rows, kind="diff")
    note = f"Compared with {packet.compared_with}, digest {other['version_digest'][:12]}…, deployed in {other['environment']}."
    return _section("Difference to the deployed version", body if packet.content["differences"] else '<p class="note">None.</p>', note)


def _data(lineage: Mapping[str, Any]) -> str:
    source = (
        [_text(s.get("name")), _text(s.get("origin")), _text(s.get("licence")), _text(s.get("uri")), _code(s.get("sha256"))]
        for s in lineage["source_data"]
    )
    steps = (
        [_text(s.get("name")), _text(s.get("kind")), _code(s.get("script")), _text(s.get("parameters"))] for s in lineage["preparation"]
    )
    sets = {name: _Code(digest) for name, digest in lineage["data_sets"].items()}
    return (
        _section("Source data", _table(("name", "origin", "licence", "file", "SHA-256"), source))
        + _section("Preparation, in order", _table(("step", "kind", "script", "parameters"), steps))
        + _section("Prepared data sets", _facts({**sets, "label": lineage["label"]}))
    )


def _training(lineage: Mapping[str, Any]) -> str:
    code, environment = lineage["code"], lineage["environment"]
    dirty = '<span class="badge bad">with changes that are not committed</span>'
    state = '<span class="badge ok">clean</span>' if code.get("clean") else dirty
    facts = {
        "Repository": code.get("repository"),
        "Revision": _Code(code.get("revision")),
        "Author": code.get("author"),
        "Source archive": _Code(code.get("archive_sha256")),
        **({"Difference": _Code(code.get("diff_sha256"))} if code.get("diff_sha256") else {}),
    }
    runs = {
        "Framework": _named(lineage["framework"]),
        "Algorithm": _named(lineage["algorithm"]),
        "Python": f"{environment.get('python')}, {environment.get('platform')}",
        "Lock file": _Code(environment.get("lock_sha256")),
        "Environment": _Code(environment.get("archive_sha256")),
        "Reproduction": lineage["reproduction"],
        "Frozen files": lineage["frozen_files"],
    }
    return (
        _section("Code", f"<p>{state}</p>{_facts(facts)}")
        + _section("Environment", _facts(runs))
        + _section(
            "Hyperparameters", _facts(lineage["hyperparameters"], exact=True) if lineage["hyperparameters"] else '<p class="note">None.</p>'
        )
    )


def _records(records: Sequence[Mapping[str, Any]]) -> str:
    rows = (
        [
            _text(r.get("stage")),
            _text(r.get("attempt")),
            _text(r.get("outcome")),
            _text(r.get("ended")),
            _text(r.get("rows")),
            _code(r.get("sha256")),
        ]
        for r in records
    )
    return _table(("stage", "attempt", "outcome", "ended", "rows of data", "SHA-256 of the record"), rows)


def _foot(packet: Packet) -> str:
    return (
        f"<footer><p>This page shows the packet <code>{packet.sha256}</code> and nothing else. The decision names that digest. "
        f"To check it: <code>attestry packet {_text(packet.reference)}</code>, or "
        f"<code>sha256sum packet-{packet.content['transition']:06d}.json</code> beside this page.</p>"
        "<p>What is decided will be an event in the registry's ledger that names this digest, with an attestation signed by the function "
        "that takes decisions. Both, with the place in the ledger and its proof, are in the version's bundle: "
        f"<code>attestry bundle {_text(packet.reference)} -o version.zip</code>, then "
        "<code>attestry verify version.zip --root ROOT.json</code>. "
        f"The event says <code>evidence</code> {packet.sha256}; for the minute until it is in the ledger the bundle calls it pending.</p>"
        f"<p>Candidate <code>{_plain(packet.content['candidate'])}</code><br>"
        f"Policy <code>{_plain(packet.content['policy_sha256'])}</code></p></footer>"
    )


class _Code(str):
    """A text that is shown as code: digests and revisions."""

    __slots__ = ()

    def __new__(cls, value: object) -> _Code:
        return super().__new__(cls, "" if value is None else str(value))


def _section(title: str, body: str, note: str = "") -> str:
    told = f'<p class="note">{_text(note)}</p>' if note else ""
    return f"<section><h2>{_plain(title)}</h2>{told}{body}</section>"


def _facts(facts: Mapping[str, Any], *, exact: bool = False) -> str:
    """Return a table of names and values.

    Args:
        facts: the values.
        exact: the names are somebody's own, so that each counts as it is, with an empty value too.
    """
    rows = "".join(
        f'<tr><th scope="row">{_text(name if exact else name.replace("_", " "))}</th><td>{_text(value)}</td></tr>'
        for name, value in facts.items()
        if exact or value not in (None, "", [], {})
    )
    return f"<table><tbody>{rows}</tbody></table>"


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, kind: str = "rows") -> str:
    """Return a table; the cells of the rows are HTML already."""
    head = "".join(f'<th scope="col">{_text(c)}</th>' for c in columns)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f'<table class="{kind}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def _named(component: Mapping[str, Any]) -> str:
    return f"{component.get('name')} {component.get('version')}"


def _code(value: Any) -> str:
    return f"<code>{_plain(value)}</code>" if value else ""


def _text(value: Any) -> str:
    """Return a value as HTML with a direction of its own."""
    if isinstance(value, _Code):
        return _code(value)
    plain = _plain(value)
    return f"<bdi>{plain}</bdi>" if plain else ""


def _plain(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{_plain(k)}: {_plain(v)}" for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(_plain(v) for v in value)
    shown = value if isinstance(value, str) else json.dumps(value)
    return escape("".join("\ufffd" if _is_unsafe(c) else c for c in shown), quote=True)


def _is_unsafe(character: str) -> bool:
    return character in _REORDERING or (unicodedata.category(character) in ("Cc", "Cs") and character not in "\n\t")
