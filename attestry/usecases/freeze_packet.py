"""Freeze the decision packet: collect what a decision on a version rests on, and write it once.

The gate freezes it in front of the transition that opens APPROVAL. A try that was cut off in between leaves the packet behind; the next try
finds and uses it, although another version may be deployed by then: what an approver decides on is what was frozen.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from attestry.domain.approvals import ApprovalPolicy
from attestry.domain.errors import IntegrityError
from attestry.domain.events import timestamp
from attestry.domain.manifest_record import Manifest
from attestry.domain.version import Version
from attestry.evidence.packet import FORMAT, MAX_PACKET_BYTES, Packet, packet_key, page_key
from attestry.evidence.packet_page import render_page
from attestry.ports import MetaStore, ObjectStore
from attestry.usecases.browse import compare_versions
from attestry.usecases.conflicts import conflicts_at_opening
from attestry.usecases.import_facts import packet_parts
from attestry.usecases.manifests import load_manifest
from attestry.usecases.pointer import number_in
from attestry.usecases.records import load_version, pointer_key, version_key

_FINDING = ("what", "where", "expected", "found", "opened")


@dataclass(frozen=True)
class FrozenPacket:
    """A packet, and where it lies.

    Attributes:
        packet: the packet.
        place: for the version's head: `sha256`, `key`, `version_id`, `transition`, and of the page `page_sha256`.
    """

    packet: Packet
    place: Mapping[str, Any]


def freeze_packet(meta: MetaStore, store: ObjectStore, version: Version, at: datetime) -> FrozenPacket:
    """Write the packet of the transition that opens the version's approval, and the page that shows it; both once, and retained.

    Args:
        meta: the table.
        store: the model store.
        version: the version, in front of the transition.
        at: the time.

    Raises:
        IntegrityError: at the packet's place lies something that is not a packet of this opening.
    """
    transition = version.transition + 1
    collected = _collect(meta, store, version, transition, at)
    conflicts = conflicts_at_opening(meta, version, fresh_eyes=ApprovalPolicy.from_item(version.approval_policy).fresh_eyes)
    validations = {place: dict(facts) for place, facts in version.validations.items()}
    further = {"conflicts": conflicts, "validations": validations}
    packet = Packet.make({**collected, **{name: value for name, value in further.items() if value}})
    key = packet_key(version.folder, transition)
    there = store.stat(key)
    if there is not None:
        found = Packet.parse(store.read(key, there.version_id, max_bytes=MAX_PACKET_BYTES))
        if not found.is_retry_of(packet):
            raise IntegrityError(f"{key} is not the decision packet of {version.reference}")
        packet = found
    kept = store.put_new(key, packet.raw, content_type="application/json", retain=True)
    page = render_page(packet)
    shown = store.put_new(page_key(version.folder, transition), page, content_type="text/html; charset=utf-8", retain=True)
    place = {
        "sha256": kept.sha256,
        "key": kept.key,
        "version_id": kept.version_id,
        "transition": transition,
        "page_sha256": shown.sha256,
    }
    return FrozenPacket(packet, place)


def open_findings(meta: MetaStore, model: str, number: int) -> list[dict[str, str]]:
    """Return what reconciliation has found about the version and nobody has closed, oldest first."""
    rows = meta.query(f"FINDINGS#{model}#{number}", prefix="FINDING#")
    found = [
        {"id": str(row["sk"]).removeprefix("FINDING#"), **{k: _text(row[k]) for k in _FINDING if row.get(k) not in (None, "")}}
        for row in rows
        if not row.get("closed")
    ]
    return sorted(found, key=lambda f: (f.get("opened", ""), f["id"]))


def _collect(meta: MetaStore, store: ObjectStore, version: Version, transition: int, at: datetime) -> dict[str, Any]:
    made = packet_parts(meta, store, version) if version.imported else _made_here(store, version)
    pointer = meta.get(pointer_key(version.model, version.deployment_environment))
    number = number_in(pointer)
    deployed = load_version(meta, version.model, number) if number is not None else None
    compared: dict[str, Any] = {}
    if deployed is not None:
        compared = {
            "environment": version.deployment_environment,
            "number": deployed.number,
            "version_digest": deployed.version_digest,
            "metrics": dict(deployed.metrics),
        }
    policy = ApprovalPolicy.from_item(version.approval_policy)
    return {
        "format": FORMAT,
        "model": version.model,
        "number": version.number,
        "version_digest": version.version_digest,
        "candidate": version.candidate,
        "transition": transition,
        "opened": timestamp(at),
        "submitter": version.submitter.to_item(),
        "cause": dict(version.cause),
        "reproductions": _reproductions(meta, version),
        "metrics": dict(version.metrics),
        "gates": [dict(gate) for gate in version.gates],
        "compared_with": compared,
        "differences": compare_versions(store, deployed, version) if deployed is not None else [],
        "records": _records(meta, version),
        "findings": open_findings(meta, version.model, version.number),
        "policy": policy.to_item(),
        "policy_sha256": policy.digest,
        **made,
    }


def _made_here(store: ObjectStore, version: Version) -> dict[str, Any]:
    """Return what the manifest says of how the version was made."""
    manifest = load_manifest(store, version)
    mapping = manifest.to_mapping()
    return {
        "about": {k: mapping["model"][k] for k in ("owner", "team", "purpose", "risk_tier", "labels")},
        "lineage": _lineage(version, manifest, mapping),
        "deployment": {**mapping["deployment"], "inference_script": version.inference_script},
    }


def _lineage(version: Version, manifest: Manifest, mapping: Mapping[str, Any]) -> dict[str, Any]:
    environment, source = version.environment, manifest.source
    return {
        "source_data": [
            {"name": s.name, "sha256": s.sha256, "origin": s.origin, "uri": s.uri, "licence": s.licence or ""} for s in manifest.data.source
        ],
        "data_sets": {d.name: d.digest for d in version.datasets if not d.name.startswith("source/")},
        "label": mapping["data"]["label"],
        "preparation": mapping["data"]["preparation"],
        "code": {
            "repository": source.repository,
            "revision": source.revision,
            "author": source.author,
            "archive_sha256": source.sha256,
            "clean": source.dirty is None,
            "diff_sha256": source.dirty.diff_sha256 if source.dirty else "",
        },
        "environment": {
            "id": environment.id if environment else "",
            "lock_sha256": environment.lock_sha256 if environment else "",
            "archive_sha256": environment.archive.sha256 if environment and environment.archive else "",
            "python": environment.python if environment else "",
            "platform": environment.platform if environment else "",
        },
        "framework": mapping["environment"]["framework"],
        "algorithm": mapping["environment"]["algorithm"],
        "hyperparameters": mapping["training"]["hyperparameters"],
        "reproduction": mapping["reproduction"],
        "frozen_files": len(version.frozen),
    }


def _records(meta: MetaStore, version: Version) -> list[dict[str, Any]]:
    """Return every recorded run of a stage: outcome and digest, and how many rows of data it speaks of."""
    rows = meta.query(version_key(version.model, version.number).partition, prefix="STAGE#")
    return [
        {
            "stage": row["stage"],
            "attempt": row["attempt"],
            "outcome": row["status"],
            "ended": row.get("ended", ""),
            "sha256": row["record_sha256"],
            "rows": _rows_of(row),
        }
        for row in sorted(rows, key=lambda r: (r.get("ended", ""), r["sk"]))
        if row.get("record_sha256")
    ]


def _reproductions(meta: MetaStore, version: Version) -> list[dict[str, Any]]:
    """Return what came out each time the recipe was run again."""
    rows = meta.query(version_key(version.model, version.number).partition, prefix="REPRODUCTION#")
    return [{"verdict": r["verdict"], "run": int(r["run"]["number"]), "at": r["at"], "differing": int(r["differing"])} for r in rows]


def _rows_of(row: Mapping[str, Any]) -> dict[str, int]:
    record = json.loads(row.get("record") or "{}")
    counts = (record.get("data") or {}).get("rows") or ({"holdout": record["rows"]} if "rows" in record else {})
    return {str(name): int(count) for name, count in counts.items()}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str, sort_keys=True, ensure_ascii=False)
