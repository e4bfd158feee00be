"""The table as an index over the ledger, and what has happened in a form that two stories can be compared in."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

from attestry.domain import replay
from attestry.ports import Item, Key
from tests.crash.evidence import Entry, Evidence

FACTS = ("attempt", "approved_by", "candidate", "capture_rate", "decision", "environment", "folder", "number", "on", "opened", "outputs")
FACTS += (
    "person",
    "policy_sha256",
    "previous",
    "rate",
    "revision",
    "set_by",
    "signed_by_person",
    "vacated",
    "logins",
    "trusted_root_sha256",
)


def compare_table(evidence: Evidence, rows: Mapping[Key, Item]) -> None:
    """Invariant 6: the table is what the ledger says, and nothing is left to be logged."""
    assert not [key for key in rows if key.partition in ("OUTBOX", "CONFLICT")]
    index = replay.replay(entry.event for entry in evidence.entries)
    partitions: dict[str, dict[str, Item]] = defaultdict(dict)
    for key, row in rows.items():
        partitions[key.partition][key.sort] = row
    differences: list[replay.Difference] = []
    for name, part in partitions.items():
        if name.startswith("VERSION#"):
            reference = "@".join(name.split("#")[1:])
            differences += replay.compare_version(index, reference, part["HEAD"], below(part, "TRANSITION#"))
            decisions = [row for row in below(part, "PROMOTION#") if "decision" in row]
            differences += replay.compare_approvals(index, reference, [*below(part, "APPROVAL#"), *decisions])
        elif name.startswith("MODEL#"):
            differences += replay.compare_pointers(index, name.removeprefix("MODEL#"), below(part, "POINTER#"))
    logins = {str(row["login"]): str(row["person"]) for key, row in rows.items() if key.partition.startswith("LOGIN#")}
    differences += replay.compare_people(index, logins)
    assert not differences, [difference.to_item() for difference in differences]
    assert {f"VERSION#{r.replace('@', '#')}" for r in evidence.versions} == {name for name in partitions if name.startswith("VERSION#")}
    listed = {key.partition.removeprefix("LEAF#"): row["index"] for key, row in rows.items() if key.partition.startswith("LEAF#")}
    assert listed == {str(entry.event["id"]): entry.index for entry in evidence.entries}


def below(part: Mapping[str, Item], prefix: str) -> list[Item]:
    return [row for sort, row in part.items() if sort.startswith(prefix)]


def outcome(evidence: Evidence, rows: Mapping[Key, Item]) -> dict[str, Any]:
    """What has happened, without times, addresses of bytes and what is drawn at random: invariant 7 asks that retries change nothing of it.

    Keys of predictions and audited acts are left out: who does not get an answer asks again, and is answered under another number or
    refused a second time.
    """
    moves: dict[str, Any] = {}
    for reference, entries in evidence.versions.items():
        moves[reference] = [(e.kind, e.data["to"], e.data["reason"], e.data["version_digest"], facts_of(e)) for e in entries]
    others = [e for e in evidence.entries if "@" not in e.subject and not e.kind.startswith(("key.", "audit."))]
    heads = {f"{k.partition}/{k.sort}": row for k, row in rows.items() if k.sort == "HEAD" and k.partition.startswith("VERSION#")}
    pointers = {f"{k.partition}/{k.sort}": row for k, row in rows.items() if k.sort.startswith("POINTER#")}
    told = [facts_of(e) for e in others]
    return {
        **moves,
        "events": dict(Counter(entry.kind for entry in others)),
        "facts": sorted(map(repr, told)),
        "heads": {
            name: {n: row.get(n) for n in ("attempt", "approved", "retires_on")} | {"waits": bool(row.get("token"))}
            for name, row in heads.items()
        },
        "pointers": {name: {n: row.get(n) for n in ("number", "previous", "capture_rate", "rev")} for name, row in pointers.items()},
    }


def facts_of(entry: Entry) -> dict[str, Any]:
    who = entry.event["principal"]
    told = {"login": who["login"], "person": who["person"], "subject": entry.subject}
    return {**told, **{name: entry.data[name] for name in FACTS if name in entry.data}}
