"""The decision packet as a page for people: made of the packet alone, with nothing to load and nothing to run, and fit to be printed.

The same packet gives the same bytes; what texts of others can do in it, `attestry.evidence.page` says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attestry.domain.cause import sentence_of
from attestry.evidence.packet import Packet
from attestry.evidence.page import Code, as_code, as_plain, as_text, facts_of, frame, section_of, table_of

_TIERS = {"low": "ok", "medium": "warn", "high": "bad"}


def render_page(packet: Packet) -> bytes:
    """Return the page in UTF-8."""
    content = packet.content
    parts = [
        _head(packet),
        _asked(packet),
        findings_box(content["findings"]),
        *(
            _import(content["import"])
            if "import" in content
            else [gates_section(content), metrics_section(content["metrics"], content["compared_with"], "deployed")]
        ),
        *_validations(content),
        _differences(packet),
        *([] if "import" in content else [_data(content["lineage"]), _training(content["lineage"])]),
        section_of("Recorded runs", _records(content["records"])),
        section_of("Deployment, once approved", facts_of(content["deployment"])),
        _foot(packet),
    ]
    return frame(f"Decision packet {packet.reference}", parts)


def _head(packet: Packet) -> str:
    content, about = packet.content, packet.content["about"]
    tier = str(about.get("risk_tier", ""))
    labels = ", ".join(f"{k}: {v}" for k, v in sorted(dict(about.get("labels") or {}).items()))
    facts = {
        "Owner": about.get("owner"),
        "Team": about.get("team"),
        "Labels": labels,
        "Submitted by": submitter_of(content["submitter"]),
        "Made because": sentence_of(content["model"], content.get("cause") or {}),
    }
    return (
        '<header><div class="kicker">Decision packet</div>'
        f"<h1>{as_text(packet.reference)}</h1>"
        f'<p class="purpose">{as_text(about.get("purpose"))}</p>'
        f'<p><span class="badge {_TIERS.get(tier, "warn")}">{as_text(tier)} risk</span></p>'
        f"{facts_of(facts)}</header>"
    )


def submitter_of(submitter: Mapping[str, Any]) -> str:
    """Return who submitted the candidate, as a text."""
    person = submitter.get("person")
    return f"{person} ({submitter.get('login')})" if person else f"{submitter.get('login')}: unproven when this was frozen"


def _asked(packet: Packet) -> str:
    content, policy = packet.content, packet.content["policy"]
    if policy.get("automatic") and "import" in content:
        asked = "The model is open: this version is approved by itself. Nobody is asked, and no gate judged it."
    elif policy.get("automatic"):
        asked = "The manifest's policy approves this version by itself, because every gate is passed. Nobody is asked."
    else:
        asked = f"{people_of(policy)} must approve; never the person who submitted the candidate. One rejection ends the version."
        if policy.get("signed"):
            asked += " Each approval needs the approver's own signature over the digest of this packet."
    for conflict in content.get("conflicts", []):
        asked += f" {conflict['person']} does not decide: {conflict['reason']}."
    rows = {
        "Version digest": Code(content["version_digest"]),
        "Packet digest": Code(packet.sha256),
        "Frozen": f"{content['opened']}, by transition {content['transition']}",
    }
    return f'<div class="box"><strong>What is decided</strong><p>{as_text(asked)}</p>{facts_of(rows)}</div>'


def people_of(policy: Mapping[str, Any]) -> str:
    """Return whom a policy asks, as the beginning of a sentence: `2 different persons in the role approver`."""
    count, roles = int(policy.get("count") or 1), " or ".join(str(r) for r in policy.get("roles", []))
    who = "One person" if count == 1 else f"{count} different persons"
    wanted = [f"{r['count']} in the role {' or '.join(r['roles'])}" for r in policy.get("require", [])]
    if wanted:
        return f"{who}, {', then '.join(wanted) if policy.get('in_order') else ' and '.join(wanted)}"
    return f"{who} in the role {roles}" if roles else who


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
            rows.append([as_text(cell) for cell in (*cells, facts["person"], facts["at"])])
        parts.append(section_of("Validation records, signed by validators", table_of(columns, rows)))
    if demands:
        told = [", ".join(f"{name.replace('_', ' ')} {value}" for name, value in demand.items()) for demand in demands]
        parts.append(f'<p class="note">{as_text("Before the approval can be completed, these have to stand: " + "; ".join(told))}</p>')
    return parts


def findings_box(findings: Sequence[Mapping[str, Any]]) -> str:
    """Return what a packet tells of open findings."""
    if not findings:
        return '<p class="note">No open finding of the reconciliation between table, ledger and stored files.</p>'
    columns = ("what", "where", "expected", "found", "opened")
    rows = ([as_text(f.get(c)) for c in columns] for f in findings)
    return f'<div class="box bad"><strong class="bad">Open findings: {len(findings)}</strong>{table_of(columns, rows)}</div>'


def gates_section(content: Mapping[str, Any]) -> str:
    """Return the section of the results of the gates that a packet tells."""
    rows = (
        [
            '<span class="badge ok">passed</span>' if gate.get("passed") else '<span class="badge bad">failed</span>',
            as_text(gate.get("name")),
            as_text(str(gate.get("rule", "")).replace("_", " ")),
            as_text(gate.get("threshold")),
            as_text(gate.get("value")),
            as_text(gate.get("reason")),
        ]
        for gate in content["gates"]
    )
    return section_of("Gates", table_of(("outcome", "gate", "rule", "threshold", "value", "finding"), rows))


def metrics_section(metrics: Mapping[str, Any], other: Mapping[str, Any], called: str) -> str:
    """Return the section of the version's metrics beside those of another one, which is `called` so; of none where it is empty."""
    before = dict(other.get("metrics") or {})
    columns = ["metric", "this version", *([f"{called}: version {other['number']}"] if other else [])]
    rows = (
        [as_text(name), as_text(metrics.get(name)), *([as_text(before.get(name))] if other else [])]
        for name in [*metrics, *(n for n in before if n not in metrics)]
    )
    return section_of("Metrics", table_of(columns, rows), "Computed by the registry on the hold-out, which training never received.")


def _import(told: Mapping[str, Any]) -> list[str]:
    """Return the sections of a version that was made elsewhere: what is verified and what is claimed stand apart."""
    verified, claimed, mlmodel = told["verified"], told["claimed"], told["mlmodel"]
    run, reading = claimed["run"], mlmodel.get("reading") or {}
    files = ([as_text(f["path"]), as_text(f["size"]), as_code(f["sha256"])] for f in verified["files"])
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
        "SHA-256 of the file": Code(mlmodel.get("sha256")),
    }
    note = "Digested by the registry while it froze them." + (f" {more} further files are in the artifact manifest." if more else "")
    return [
        f'<div class="box bad"><strong class="bad">Made elsewhere</strong><p>{as_text(warning)}</p></div>',
        section_of("Verified: the files", table_of(("path", "bytes", "SHA-256"), files), note),
        section_of("Claimed: where they come from", facts_of(says), "The word of who imported it. Nobody here saw the run."),
        section_of("Claimed: parameters", facts_of(run["params"], exact=True)),
        section_of("Claimed: metrics", facts_of(run["metrics"], exact=True), "Not computed by the registry; no gate rests on them."),
        section_of("Claimed: the MLmodel file", facts_of(model) if mlmodel else '<p class="note">None.</p>'),
    ]


def _differences(packet: Packet) -> str:
    other = packet.content["compared_with"]
    if not other:
        return section_of("Difference to the deployed version", '<p class="note">No version was deployed when this packet was frozen.</p>')
    rows = (
        [as_text(d.get("section")), as_text(d.get("field")), as_text(d.get("before")), as_text(d.get("after")), as_text(d.get("change"))]
        for d in packet.content["differences"]
    )
    body = table_of(("section", "field", f"version {other['number']}", f"version {packet.content['number']}", "change"), rows, kind="diff")
    note = f"Compared with {packet.compared_with}, digest {other['version_digest'][:12]}…, deployed in {other['environment']}."
    return section_of("Difference to the deployed version", body if packet.content["differences"] else '<p class="note">None.</p>', note)


def _data(lineage: Mapping[str, Any]) -> str:
    source = (
        [as_text(s.get("name")), as_text(s.get("origin")), as_text(s.get("licence")), as_text(s.get("uri")), as_code(s.get("sha256"))]
        for s in lineage["source_data"]
    )
    steps = (
        [as_text(s.get("name")), as_text(s.get("kind")), as_code(s.get("script")), as_text(s.get("parameters"))]
        for s in lineage["preparation"]
    )
    sets = {name: Code(digest) for name, digest in lineage["data_sets"].items()}
    return (
        section_of("Source data", table_of(("name", "origin", "licence", "file", "SHA-256"), source))
        + section_of("Preparation, in order", table_of(("step", "kind", "script", "parameters"), steps))
        + section_of("Prepared data sets", facts_of({**sets, "label": lineage["label"]}))
    )


def _training(lineage: Mapping[str, Any]) -> str:
    code, environment = lineage["code"], lineage["environment"]
    dirty = '<span class="badge bad">with changes that are not committed</span>'
    state = '<span class="badge ok">clean</span>' if code.get("clean") else dirty
    facts = {
        "Repository": code.get("repository"),
        "Revision": Code(code.get("revision")),
        "Author": code.get("author"),
        "Source archive": Code(code.get("archive_sha256")),
        **({"Difference": Code(code.get("diff_sha256"))} if code.get("diff_sha256") else {}),
    }
    runs = {
        "Framework": _named(lineage["framework"]),
        "Algorithm": _named(lineage["algorithm"]),
        "Python": f"{environment.get('python')}, {environment.get('platform')}",
        "Lock file": Code(environment.get("lock_sha256")),
        "Environment": Code(environment.get("archive_sha256")),
        "Reproduction": lineage["reproduction"],
        "Frozen files": lineage["frozen_files"],
    }
    return (
        section_of("Code", f"<p>{state}</p>{facts_of(facts)}")
        + section_of("Environment", facts_of(runs))
        + section_of(
            "Hyperparameters",
            facts_of(lineage["hyperparameters"], exact=True) if lineage["hyperparameters"] else '<p class="note">None.</p>',
        )
    )


def _records(records: Sequence[Mapping[str, Any]]) -> str:
    rows = (
        [
            as_text(r.get("stage")),
            as_text(r.get("attempt")),
            as_text(r.get("outcome")),
            as_text(r.get("ended")),
            as_text(r.get("rows")),
            as_code(r.get("sha256")),
        ]
        for r in records
    )
    return table_of(("stage", "attempt", "outcome", "ended", "rows of data", "SHA-256 of the record"), rows)


def _foot(packet: Packet) -> str:
    return (
        f"<footer><p>This page shows the packet <code>{packet.sha256}</code> and nothing else. The decision names that digest. "
        f"To check it: <code>attestry packet {as_text(packet.reference)}</code>, or "
        f"<code>sha256sum packet-{packet.content['transition']:06d}.json</code> beside this page.</p>"
        "<p>What is decided will be an event in the registry's ledger that names this digest, with an attestation signed by the function "
        "that takes decisions. Both, with the place in the ledger and its proof, are in the version's bundle: "
        f"<code>attestry bundle {as_text(packet.reference)} -o version.zip</code>, then "
        "<code>attestry verify version.zip --root ROOT.json</code>. "
        f"The event says <code>evidence</code> {packet.sha256}; for the minute until it is in the ledger the bundle calls it pending.</p>"
        f"<p>Candidate <code>{as_plain(packet.content['candidate'])}</code><br>"
        f"Policy <code>{as_plain(packet.content['policy_sha256'])}</code></p></footer>"
    )


def _named(component: Mapping[str, Any]) -> str:
    return f"{component.get('name')} {component.get('version')}"
