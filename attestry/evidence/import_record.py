"""The record of an import: what the registry found in the files that somebody brought, and what of it is nothing but said.

Rules:
- `verified` is what the registry computed itself: how many files and bytes, and the artifact manifest that names each by its digest.
- `claimed` names the import document by its digest, and what the `MLmodel` file says, as it was read. Neither is ever graded better: the
  registry did not see the run, and whoever writes the files writes that file too.
- It tells no time, so that a retry writes the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from attestry.evidence.predicates import IMPORT, Predicate

FORMAT: Final = 1
STAGE: Final = "IMPORTED"


def record_of(
    *, model: str, number: int, candidate: str, version_digest: str, files: int, total_bytes: int, source: str, mlmodel: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the record.

    Args:
        model: the model's name.
        number: the version's number.
        candidate: digest of the import document, hex.
        version_digest: digest of the artifact manifest, hex.
        files: how many files were imported.
        total_bytes: their size.
        source: where they come from, as it is claimed.
        mlmodel: `path`, `sha256` and `reading` of the MLmodel file, or `problem` in the place of the reading; empty where there is none.
    """
    return {
        "format": FORMAT,
        "stage": STAGE,
        "attempt": 1,
        "model": model,
        "number": number,
        "outcome": "SUCCEEDED",
        "error": "",
        "outputs": [{"name": "model", "digest": version_digest}],
        "verified": {"artifact_manifest": version_digest, "files": files, "bytes": total_bytes},
        "claimed": {"document": candidate, "source": source, "mlmodel": dict(mlmodel)},
    }


def attested_import(record: Mapping[str, Any], record_sha256: str) -> Predicate:
    """Return what the attestation of an import says: what is verified in full, what is claimed by its digests.

    Args:
        record: the record.
        record_sha256: its digest, hex.
    """
    mlmodel: Mapping[str, Any] = record["claimed"]["mlmodel"]
    claimed = {"document": record["claimed"]["document"], "source": record["claimed"]["source"][:500]}
    if mlmodel:
        claimed |= {"mlmodel_sha256": mlmodel["sha256"], "flavors": sorted(mlmodel.get("reading", {}).get("flavors", {}))[:50]}
    return Predicate(IMPORT, {"record": record_sha256, "verified": dict(record["verified"]), "claimed": claimed})
