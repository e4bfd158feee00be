"""REPORT.md: how a version was trained, on what data, how it was approved and promoted, for people who read no JSON.

Rules:

- The report follows from the other files of the bundle and from nothing else, so that a verifier can write it anew and
  refuse one that says something else. It is no evidence itself and says so. Another text needs another `FORMAT` of the bundle.
- Every section names the files that its facts come from.
- Texts that people wrote are shown without characters by which they could pass for the report's own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from attestry.domain.conditions import Terms
from attestry.domain.policies import named_editions, policy_subject
from attestry.evidence.bundle import BundleIndex

NOTHING: Final = "-"
_SPECIAL: Final = frozenset("\\`*_{}[]<>#|~")
_HIDDEN: Final = re.compile("[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")
"""Control characters, and characters that are not seen or change the order of others. Spelled out, since what Python takes for
printable changes with its version."""


@dataclass(frozen=True)
class Sources:
    """What the documents in a bundle are written from: its files, read but not verified."""

    index: BundleIndex
    files: Mapping[str, bytes]

    @cached_property
    def leaves(self) -> list[tuple[int | None, str, Mapping[str, Any]]]:
        """Return index, ledger time and event of every leaf, then the events that are not in the ledger yet."""
        found: list[tuple[int | None, str, Mapping[str, Any]]] = []
        for name in sorted(self.files):
            if name.startswith("ledger/leaves/"):
                leaf = self.json(name)
                found.append((int(name[-17:-5]), str(leaf["logged"]), leaf["event"]))
        found += [(None, "not yet", self.json(name)) for name in sorted(self.files) if name.startswith("ledger/pending/")]
        return found

    @cached_property
    def moves(self) -> list[tuple[int | None, str, Mapping[str, Any]]]:
        """Return the moves of the version, by their number."""
        return sorted((row for row in self.leaves if row[2]["subject"] == self.index.reference), key=lambda row: int(row[2]["sequence"]))

    @cached_property
    def manifest(self) -> Mapping[str, Any]:
        """Return the manifest, or an empty mapping."""
        return self.json("version/manifest.json")

    @cached_property
    def imported(self) -> Mapping[str, Any]:
        """Return the import document of a version that was made elsewhere, or an empty mapping."""
        return self.json("version/import.json")

    @cached_property
    def packet(self) -> Mapping[str, Any]:
        """Return the decision packet, or an empty mapping."""
        return self.json("version/packet.json")

    def json(self, name: str) -> Mapping[str, Any]:
        """Return a JSON object of the bundle; an empty one where there is none."""
        value = json.loads(self.files[name]) if name in self.files else {}
        return value if isinstance(value, Mapping) else {}

    def record(self, stage: str) -> Mapping[str, Any]:
        """Return the latest record of a stage, or an empty mapping."""
        names = [n for n in self.files if n.startswith(f"version/records/{stage}-")]
        return self.json(max(names, key=lambda n: int(n.rpartition("-")[2].removesuffix(".json")))) if names else {}

    def moves_of(self, *kinds: str, stage: str | None = None) -> list[tuple[int | None, str, Mapping[str, Any]]]:
        """Return the moves of some kinds, to a stage where one is given."""
        return [row for row in self.moves if row[2]["kind"] in kinds and stage in (None, row[2]["data"]["to"]["stage"])]


def render_report(index: BundleIndex, files: Mapping[str, bytes]) -> str:
    """Return REPORT.md.

    Args:
        index: what the bundle is.
        files: its files; README.md and REPORT.md are not looked at.
    """
    sources = Sources(index, files)
    sections = [
        _head(sources),
        _summary(sources),
        *([_prediction(sources)] if index.kind == "prediction" else []),
        *([made_elsewhere(sources)] if sources.imported else [_data(sources), _code(sources), _training(sources), _judgement(sources)]),
        _approval(sources),
        _promotion(sources),
        *([_policies(sources)] if any(name.startswith("policies/") for name in files) else []),
        _limits(),
    ]
    return "\n".join(sections)


def _head(s: Sources) -> str:
    what = f"prediction `{s.index.subject}`" if s.index.kind == "prediction" else f"version {s.index.reference}"
    return (
        f"# Evidence report: {what}\n\n"
        f"This report retells the evidence in this bundle in plain words. It is not evidence itself: a verifier writes it anew from the\n"
        f"signed files and refuses the bundle if it says anything else. Whether the signatures hold is what the verifier tells:\n\n"
        f"    attestry-verify BUNDLE.zip --root ROOT.json\n\n"
        f"`README.md` gives the commands to check each part with other tools.\n"
    )


def _summary(s: Sources) -> str:
    about = s.packet.get("about", {}) if s.imported else s.manifest.get("model", {})
    last = s.moves[-1] if s.moves else None
    to = last[2]["data"]["to"] if last else {}
    rows = [
        ("Model", plain(s.index.model)),
        ("Purpose, as its owner states it", plain(about.get("purpose"))),
        ("Owner, team, risk tier", ", ".join(plain(about.get(k)) for k in ("owner", "team", "risk_tier"))),
        ("Version", f"{s.index.number}"),
        ("Version digest", f"`{s.index.version_digest or NOTHING}`"),
        (
            "Submitted by",
            "; ".join(_who(e) for _, _, e in s.moves_of("candidate.registered", "version.imported", "submission.claimed")) or NOTHING,
        ),
        ("Approved by", "; ".join(_who(e) for _, _, e in s.moves_of("approval.given", "version.approved")) or "nobody"),
        ("Put in place by", "; ".join(_who(e) for _, _, e in s.moves_of("version.deployed", "version.rolled_back")) or "nobody"),
        (
            "Standing, as far as this bundle tells",
            f"{to.get('standing', NOTHING)} ({to.get('stage', NOTHING)} {to.get('status', NOTHING)})",
        ),
    ]
    ended = s.moves_of("version.killed", "version.retired")
    if ended:
        rows.append(("Revoked", "; ".join(f"{e['kind']} by {_who(e)} at {at}: {plain(e['data']['reason'])}" for _, at, e in ended)))
    return section("In short", table(("", ""), rows), "version/packet.json" if s.imported else "version/manifest.json", "ledger/leaves/")


def _prediction(s: Sources) -> str:
    from attestry.evidence.compact_jws import read_unverified

    claims = json.loads(read_unverified(s.files["prediction/receipt.jws"].decode(), name="receipt").payload)
    delegated = [(n, at, e) for n, at, e in s.leaves if e["kind"] == "key.delegated"]
    sealed = [(n, at, e) for n, at, e in s.leaves if e["kind"] == "key.sealed"]
    rows = [
        ("Prediction", f"`{plain(claims.get('prediction_id'))}`"),
        ("Signed at, by the clock of the serving process", _milliseconds(claims.get("time_ms"))),
        ("Made by", f"`{plain(claims.get('version'))}`"),
        ("Number under its key", plain(claims.get("sequence"))),
        ("Answer", plain(claims["output"]) if "output" in claims else f"SHA-256 `{plain(claims.get('output_sha256'))}`"),
        ("Salted digest of the request", f"`{plain(claims.get('request_sha256'))}`"),
        ("Key delegated", "; ".join(_place(n, at) for n, at, _ in delegated) or "no event in this bundle"),
        ("Sealed", "; ".join(f"{_place(n, at)}, numbers {e['data']['first']} to {e['data']['last']}" for n, at, e in sealed) or "not yet"),
    ]
    return section("The prediction", table(("", ""), rows), "prediction/", "ledger/leaves/")


def _data(s: Sources) -> str:
    data, record = s.manifest.get("data", {}), s.record("PROCESSING")
    sources = [
        (plain(d.get("name")), plain(d.get("origin")), plain(d.get("licence")), plain(d.get("uri")), f"`{plain(d.get('sha256'))}`")
        for d in data.get("source", [])
    ]
    counts = record.get("data", {}).get("rows", {})
    made = [
        (plain(o["name"]), plain(counts.get({"training": "train"}.get(o["name"], o["name"]))), f"`{plain(o['digest'])}`")
        for o in record.get("outputs", [])
    ]
    steps = [(plain(p.get("name")), plain(p.get("script")), plain(p.get("description"))) for p in data.get("preparation", [])]
    body = (
        "Source data, by the word of who submitted the candidate as to origin and licence; the digests were computed by the registry:\n\n"
        + table(("name", "origin", "licence", "from", "SHA-256"), sources)
        + "\n\nPrepared data sets, as the registry digested them after PROCESSING:\n\n"
        + table(("data set", "rows", "digest"), made)
        + f"\n\nLabel: {plain(data.get('label', {}).get('column'))}."
        + ("\n\nPreparation steps as the manifest lists them:\n\n" + table(("step", "script", "what"), steps) if steps else "")
    )
    return section("On what data", body, "version/manifest.json", "version/records/")


def _code(s: Sources) -> str:
    source, environment = s.manifest.get("source", {}), s.record("TRAINING").get("environment", {})
    dirty = source.get("dirty")
    rows = [
        ("Repository, revision (the submitter's word)", f"{plain(source.get('repository'))} at `{plain(source.get('revision'))}`"),
        ("Author of the commit (the submitter's word)", plain(source.get("author"))),
        ("Source archive, SHA-256", f"`{plain(source.get('sha256'))}`"),
        ("Changes beyond the revision", f"SHA-256 of the difference `{plain(dirty.get('diff_sha256'))}`" if dirty else "none"),
        ("Environment", f"Python {plain(environment.get('python'))}, lock file `{plain(environment.get('lock_sha256'))}`"),
        ("Packages", ", ".join(plain(p) for p in environment.get("packages", [])) or NOTHING),
    ]
    return section("With what code", table(("", ""), rows), "version/manifest.json", "version/records/")


def _training(s: Sources) -> str:
    rows = []
    for stage in ("PROCESSING", "TRAINING", "VALIDATION"):
        r = s.record(stage)
        if r:
            rows.append(
                (
                    stage,
                    plain(r["code"]["script"]),
                    plain(r["started"]),
                    plain(r["ended"]),
                    plain(r["outcome"]),
                    f"{plain(r['executor'])}, {_machine(r)}",
                    plain(r["attempt"]),
                )
            )
    parameters = [(plain(k), plain(v)) for k, v in sorted(s.record("TRAINING").get("parameters", {}).items())]
    failed = [(plain(e["data"]["to"]["stage"]), at, plain(e["data"]["reason"])) for _, at, e in s.moves_of("stage.failed")]
    body = table(("stage", "script", "began", "ended", "outcome", "ran on", "attempt"), rows) + "\n\nHyperparameters of the training:\n\n"
    body += table(("name", "value"), parameters)
    if failed:
        body += "\n\nAttempts that failed before:\n\n" + table(("stage", "logged", "why"), failed)
    return section("How it was trained", body, "version/records/", "attestations/ (SLSA provenance)")


def _machine(record: Mapping[str, Any]) -> str:
    ran = record.get("ran")
    if ran:
        machines = f"{plain(ran.get('instance_count') or '')} {plain(ran.get('instance_type') or '')}".strip()
        return ", ".join(part for part in (machines, f"{plain(ran.get('billable_seconds'))} s billed", plain(ran.get("job_arn"))) if part)
    resources = record["resources"]["configured"]
    return f"{plain(resources.get('memory_mib'))} MiB, {plain(resources.get('vcpu'))} vCPU"


def made_elsewhere(s: Sources) -> str:
    """Return the section of a version that was made elsewhere, in the place of those on data, code, training and judgement."""
    claimed, record = s.imported.get("claimed", {}), s.record("IMPORTED")
    run, mlmodel = claimed.get("run", {}), record.get("claimed", {}).get("mlmodel", {})
    verified = record.get("verified", {})
    reading = mlmodel.get("reading", {})
    rows = [
        ("Files, digested by the registry", f"{plain(verified.get('files'))} of {plain(verified.get('bytes'))} bytes in all"),
        ("Where they come from, as claimed", plain(claimed.get("source"))),
        ("Run, as claimed", ", ".join(plain(run.get(k)) for k in ("id", "experiment"))),
        ("Metrics, as claimed", plain(run.get("metrics")) if run.get("metrics") else NOTHING),
        ("Flavours, as the MLmodel file says", ", ".join(plain(f) for f in sorted(reading.get("flavors", {}))) or NOTHING),
        ("SHA-256 of the MLmodel file", f"`{plain(mlmodel.get('sha256'))}`"),
    ]
    listed = [(plain(f.get("path")), plain(f.get("size"))) for f in s.imported.get("files", [])]
    body = (
        "This version was made elsewhere and imported. Nothing of it was processed, trained or judged here: no gate was applied, and no\n"
        "metric was computed by the registry. What is called claimed is the word of who imported it.\n\n"
        + table(("", ""), rows)
        + "\n\n"
        + table(("file", "bytes"), listed)
    )
    return section("Where it comes from", body, "version/import.json", "version/records/", "attestations/ (import)")


def _judgement(s: Sources) -> str:
    record = s.record("VALIDATION")
    started = s.moves_of("stage.started", stage="VALIDATION")
    ended = s.moves_of("stage.succeeded", "version.rejected", stage="VALIDATION")
    metrics = [(plain(k), plain(v)) for k, v in sorted(record.get("metrics", {}).items())]
    gates = [
        (
            plain(g["name"]),
            plain(g["rule"]),
            plain(g["threshold"]),
            plain(g["value"]),
            "passed" if g["passed"] else "FAILED",
            plain(g["reason"]),
        )
        for g in record.get("gates", [])
    ]
    first = "; ".join(_place(n, at) for n, at, _ in started) or "never"
    last = "; ".join(_place(n, at) for n, at, _ in ended) or "not yet"
    body = (
        f"The rules were fixed before the evaluation: they were logged at {first}; the result at {last}.\n"
        f"The registry computed the metrics itself, on {plain(record.get('rows'))} rows of the hold-out, which training never received.\n\n"
        + table(("metric", "value"), metrics)
        + "\n\n"
        + table(("gate", "rule", "threshold", "value", "result", "in words"), gates)
    )
    if record.get("compared_with"):
        body += f"\n\nCompared with {plain(record['compared_with'])}, which stood deployed then."
    return section("How it was judged", body, "version/records/", "attestations/ (test result)")


def _approval(s: Sources) -> str:
    policy = s.packet.get("policy", {})
    if not policy:
        return section("How it was approved", "Its approval has not been opened.", "ledger/leaves/")
    if policy.get("automatic"):
        asks = "The policy asks for no person: what passes all gates is approved."
    else:
        signed = ", each with a signature of their own" if policy.get("signed") else ""
        roles = " or ".join(plain(r) for r in policy.get("roles", []))
        asks = f"The policy asks for {plain(policy.get('count'))} of: {roles}{signed}; never who submitted the candidate."
        if policy.get("require"):
            wanted = ", ".join(f"{plain(r['count'])} {plain(' or '.join(r['roles']))}" for r in policy["require"])
            order = ", in this order" if policy.get("in_order") else ""
            asks = f"The policy asks for {wanted}{order}{signed}; each person counts once, and never who submitted the candidate."
    decisions = []
    for n, at, e in s.moves_of("approval.given", "version.approved", "version.rejected", stage="APPROVAL"):
        data = e["data"]
        grade = "signed by person" if data.get("signed_by_person") else "recorded by registry"
        if console := data.get("console"):
            grade += f"; AWS console, CloudTrail event {plain(console['event_id'])}, SHA-256 `{plain(console['event_sha256'])}`"
        roles = ", ".join(plain(r) for r in e["principal"]["roles"])
        under = Terms.from_item(data["conditions"]) if data.get("conditions") else ""
        reason = plain(data["reason"]) + (f"; approved {plain(str(under))}" if under else "")
        decisions.append((_who(e), roles or "policy", plain(data.get("decision")), reason, _place(n, at), grade))
    packets = sorted({str(e["data"]["evidence"]) for _, _, e in s.moves_of("stage.started", stage="APPROVAL")})
    body = f"{asks}\n\nWhat was decided on is frozen in the decision packet, SHA-256 `{plain(', '.join(packets))}`.\n\n" + table(
        ("who", "as", "decision", "reason", "logged", "how it is recorded"), decisions
    )
    findings = s.packet.get("findings", [])
    if findings:
        body += f"\n\nWhen the approval opened, {len(findings)} findings of reconciliation were open; the packet lists them."
    return section("How it was approved", body, "version/packet.json", "signatures/", "attestations/ (approval)")


def _promotion(s: Sources) -> str:
    rows = []
    for n, at, e in s.moves:
        to = e["data"]["to"]
        state = f"{plain(to['stage'])} {plain(to['status'])}, {plain(to['standing'])}"
        rows.append((plain(e["sequence"]), plain(e["kind"]), state, _who(e), plain(e["data"]["reason"]), _place(n, at)))
    body = "Every move of the version, in order:\n\n" + table(("no.", "what", "state after", "by", "reason", "logged"), rows)
    return section("How it was promoted", body, "ledger/leaves/", "attestations/ (transition, deployment)")


def _policies(s: Sources) -> str:
    rows = []
    for edition in named_editions(s.moves[0][2]["data"]) if s.moves else []:
        events = {int(e["sequence"]): (n, at) for n, at, e in s.leaves if e["subject"] == policy_subject(edition.name)}
        since, until = (_place(*events[n]) if n in events else NOTHING for n in (edition.number, edition.number + 1))
        rows.append((plain(edition.name), plain(edition.number), f"`{edition.sha256}`", since, until))
    head = ("policy", "edition", "SHA-256", "in force from", "until")
    body = "When the version was registered it was held against these policies of the registry, whatever its manifest says:\n\n"
    return section("What the registry asked of it", body + table(head, rows), "policies/", "ledger/leaves/")


def _limits() -> str:
    return section(
        "What this does not show",
        "- Whether the answer was right. It shows what was answered, by what, and on whose approval.\n"
        "- What a submitter stated is kept as stated: origin and licence of data, author and revision of the code. The digests are the\n"
        "  registry's own.\n"
        "- The bundle shows the ledger up to its checkpoint, and of it the events that it contains. A revocation that was logged later,\n"
        "  or that the bundle's maker left out, is found by following the ledger: `attestry ledger verify`, or a newer bundle.\n"
        "- The time of a prediction is the clock of the process that signed it, held between the bounds of its delegation.\n"
        "- Who owns the registry's account and every witness of its ledger could have made all of this. A witness outside that account\n"
        "  rules that out from its first cosignature on; the verifier names it, or says `self-witnessed`.",
    )


def plain(value: Any) -> str:
    """Return a value as text that carries no markup and stays in its line."""
    if value is None or value == "":
        return NOTHING
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
    return "".join(f"\\{c}" if c in _SPECIAL else c for c in _HIDDEN.sub(" ", text))


def _who(event: Mapping[str, Any]) -> str:
    principal = event["principal"]
    return plain(principal.get("person") or principal.get("login"))


def _place(index: int | None, at: str) -> str:
    return "not in the ledger yet" if index is None else f"leaf {index}, {at}"


def _milliseconds(value: Any) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(int(value) / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def section(title: str, body: str, *files: str) -> str:
    """Return a section that names the files it comes from."""
    source = f"\n\n*From: {', '.join(files)}*" if files else ""
    return f"## {title}\n\n{body}{source}\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; the cells are text that is plain already."""
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *(f"| {' | '.join(row)} |" for row in rows)]
    return "\n".join(lines)
