"""Steps of a verification: a stage that was not run but taken from an earlier version.

Rules:
- Only a refreshed version takes a stage over, and only one that its manifest names in `refresh.reuse`.
- Its record names no job, log or claim of a script, since none ran. It names the run by the digest of that run's record.
- The run's own record is in the bundle. It has the same recipe, and its files are those of this version, byte for byte. That the record was
  proven to be the registry's when the stage was taken is attested by who recorded it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attestry.domain.cause import REFRESHES, kind_of
from attestry.domain.errors import IntegrityError
from attestry.evidence.canonical import parse_canonical
from attestry.evidence.case import Case
from attestry.evidence.digests import sha256_hex
from attestry.evidence.recipe import recipe_of, same_outputs


def check_reused(case: Case, record: Mapping[str, Any]) -> None:
    """Check the record of a stage that was taken from an earlier version.

    Raises:
        IntegrityError: it may not have been taken, or is not what was taken.
        MissingError: the record of the run is not in the bundle.
    """
    stage, place = str(record["stage"]), record["reused_from"]
    cause = case.need_moves()[0].entry.data.get("cause") or {}
    refresh = case.need_manifest().refresh
    if kind_of(cause) not in REFRESHES or refresh is None or stage.lower() not in (refresh.reuse or ()):
        raise IntegrityError(f"{stage} was taken from another version, and nobody asked for that")
    if "job" in record or "ran" in record or record["log"] or record["claimed"]:
        raise IntegrityError(f"{stage} was taken from another version, and yet names a run")
    if record["outcome"] != "SUCCEEDED":
        return
    raw = case.need(f"version/reused/{stage}.json")
    if sha256_hex(raw) != place["record_sha256"]:
        raise IntegrityError(f"{stage} was taken from a run with another record than the one in the bundle")
    run = parse_canonical(raw)
    if (run["model"], run["number"], run["attempt"]) != (record["model"], place["number"], place["attempt"]):
        raise IntegrityError(f"{stage} was taken from another run than its record names")
    if run["outcome"] != "SUCCEEDED" or "reused_from" in run or not run["number"] < record["number"]:
        raise IntegrityError(f"{stage} was taken from what is no run of an earlier version that succeeded")
    if recipe_of(run) != recipe_of(record):
        raise IntegrityError(f"{stage} was taken from a run with other inputs")
    if not same_outputs(record, run):
        raise IntegrityError(f"{stage} has other files than the run that it was taken from")
