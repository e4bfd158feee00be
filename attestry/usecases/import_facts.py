"""What is known of a version that was made elsewhere: what was computed here, what is only said, and what it lacks to be served.

Two words, everywhere the same: `verified` is recomputed from bytes, `claimed` is what somebody said. There is nothing in between, since no
role of the registry saw how the files came to be.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from attestry.domain.imports import ImportDocument
from attestry.domain.stages import Stage
from attestry.domain.version import Version
from attestry.ports import Item, MetaStore, ObjectStore
from attestry.usecases.import_version import read_import_document
from attestry.usecases.records import model_key, stage_key
from attestry.usecases.serving import NOT_SERVED

MAX_LISTED: Final = 200


def describe_import(meta: MetaStore, store: ObjectStore, version: Version) -> dict[str, Any]:
    """Return what an imported version is, for people: `verified`, `claimed`, `mlmodel` and why it is not served here.

    Raises:
        IntegrityError: the import document is not the one that it was made by.
        NotFoundError: the recorded S3 version of it is gone.
    """
    document, record = read_import_document(store, version), read_import_record(meta, version)
    return facts_of(version, document, record)


def facts_of(version: Version, document: ImportDocument, record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts of an import, see `describe_import`.

    Args:
        version: the version.
        document: its import document.
        record: the record of the import; empty before its files are frozen.
    """
    frozen = {f.path: f.sha256 for f in version.frozen if f.path.startswith("model/")}
    listed = [{"path": f.path, "size": f.size, "sha256": frozen.get(f"model/{f.path}", "")} for f in document.files[:MAX_LISTED]]
    return {
        "verified": {
            "version_digest": version.version_digest,
            "count": len(document.files),
            "bytes": document.total_bytes,
            "files": listed,
        },
        "claimed": {**document.request.claimed, "submission": document.request.submission},
        "mlmodel": dict(record.get("claimed", {}).get("mlmodel", {})),
        "serving": NOT_SERVED,
    }


def read_import_record(meta: MetaStore, version: Version) -> dict[str, Any]:
    """Return the record of the import, empty before the files are frozen."""
    row = meta.get(stage_key(version.model, version.number, Stage.IMPORTED, 1))
    return record_among([row] if row else [])


def record_among(rows: list[Item]) -> dict[str, Any]:
    """Return the record of the import among the rows of a version, empty where there is none."""
    row = next((r for r in rows if r["sk"] == "STAGE#IMPORTED#001"), None)
    record: dict[str, Any] = json.loads(str(row["record"])) if row else {}
    return record


def packet_parts(meta: MetaStore, store: ObjectStore, version: Version) -> dict[str, Any]:
    """Return what the decision packet of an imported version says of how it was made, in the fields that every packet has.

    The model's own row tells who owns it; of code, data and environment nothing is known, and `import` has what is claimed.
    """
    row: Mapping[str, Any] = meta.get(model_key(version.model)) or {}
    about = {name: row.get(name) or "" for name in ("owner", "team", "purpose", "risk_tier")}
    unknown = {"name": "", "version": ""}
    return {
        "about": {**about, "labels": dict(row.get("labels") or {})},
        "lineage": {
            "source_data": [],
            "data_sets": {},
            "label": {},
            "preparation": [],
            "code": {"repository": "", "revision": "", "author": "", "archive_sha256": "", "clean": True, "diff_sha256": ""},
            "environment": {"id": "", "lock_sha256": "", "archive_sha256": "", "python": "", "platform": ""},
            "framework": unknown,
            "algorithm": unknown,
            "hyperparameters": {},
            "reproduction": {},
            "frozen_files": len(version.frozen),
        },
        "deployment": {"environment": version.deployment_environment, "serving": NOT_SERVED},
        "import": describe_import(meta, store, version),
    }
