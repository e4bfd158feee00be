"""Reuse: take a stage of a refreshed version from an earlier version, where the same inputs were run before.

Rules:
- Only where the manifest asks for it (`refresh.reuse`), for a version that a refresh made, in its first attempt: whoever retries or redoes
  a stage, or reproduces a version, wants it run.
- The recipe of the run (`attestry.evidence.recipe`) is the recipe of the stage, bit for bit; what cannot be compared differs.
- The run is one that happened: of a parent that took it over itself, the version that ran it is named, and `through` which versions it was
  reached. None of them was killed, retired or rejected; the transaction that records the stage says so too.
- Rows only propose. Who records the stage opens the attestation of the run, which its own key has signed, and digests every file that it
  copies. A row, record or event that was planted has no such attestation.
- The files are copied, so that each version has its own: what becomes of the earlier one, disposal above all, leaves the later one whole.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from attestry.domain.cause import REFRESHES, kind_of
from attestry.domain.errors import ConflictError, IntegrityError, NotFoundError
from attestry.domain.manifest import Manifest
from attestry.domain.stages import Stage, Standing, Status
from attestry.domain.version import DataSet, FileRef, Version
from attestry.evidence.digests import sha256_hex
from attestry.evidence.predicates import read_move
from attestry.evidence.recipe import recipe_of
from attestry.ports import Check, MetaStore, When
from attestry.usecases.attest import Attestor
from attestry.usecases.pointer import KILLED, RETIRED
from attestry.usecases.records import load_version, stage_key, transition_key, version_key

REUSABLE: Final = (Stage.PROCESSING, Stage.TRAINING)
MAX_THROUGH: Final = 12
"""How often in a row a run is taken over before the stage is run again."""

_SUCCEEDED: Final = "stage.succeeded"
_ENDED: Final = (KILLED, RETIRED)
_OUT: Final = (Standing.RETIRED, Standing.REJECTED)


@dataclass(frozen=True)
class Run:
    """A run of a stage whose outputs another version takes.

    Attributes:
        reference: `MODEL@N` of the version that ran it.
        record: its record.
        attestation: of the move that recorded it, as the transition names it.
        transition: number of that move.
        versions: the versions that it was reached through, the one that ran it among them.
    """

    reference: str
    record: Mapping[str, Any]
    attestation: Mapping[str, Any]
    transition: int
    versions: tuple[Version, ...]

    def datasets(self) -> list[DataSet]:
        """Return the data sets that a run of PROCESSING made."""
        return [DataSet.from_item(output) for output in self.record["outputs"]]

    def model_files(self) -> list[FileRef]:
        """Return the model's files that a run of TRAINING made."""
        return [FileRef.from_item(file) for output in self.record["outputs"] if output["name"] == "model" for file in output["files"]]

    def still_in_use(self) -> list[Check]:
        """Return the conditions under which the run may be taken: no version that it is reached through was taken out of use meanwhile."""
        return [Check(version_key(v.model, v.number), When(exists=True, equals={"standing": v.standing.value})) for v in self.versions]


def asks_reuse(version: Version, manifest: Manifest, stage: Stage, attempt: int) -> bool:
    """Return whether a stage may be taken over at all."""
    asked = manifest.refresh.reuse if manifest.refresh else None
    return attempt == 1 and stage in REUSABLE and kind_of(version.cause) in REFRESHES and stage.value.lower() in (asked or ())


def propose_reuse(meta: MetaStore, version: Version, plan: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return where the outputs of a stage can be taken from; None where it has to run.

    Args:
        meta: the table.
        version: the version, for which `asks_reuse` holds.
        plan: the plan of the stage, as it would run.
    """
    stage = Stage(plan["stage"])
    try:
        place = _place_of(meta, version, stage)
        return place if place and recipe_of(load_run(meta, version.model, stage, place).record) == recipe_of(plan) else None
    except (ConflictError, IntegrityError, NotFoundError, KeyError, TypeError, ValueError):
        # What is not as the registry writes it is no ground for taking anything over.
        return None


def _place_of(meta: MetaStore, version: Version, stage: Stage) -> dict[str, Any] | None:
    parent = load_version(meta, version.model, int(version.cause["parent"]))
    partition = version_key(parent.model, parent.number).partition
    moves = meta.query(partition, prefix="TRANSITION#", newest_first=True)
    moved = next((m for m in moves if m["kind"] == _SUCCEEDED and m["to"]["stage"] == stage.value), None)
    row = meta.get(stage_key(parent.model, parent.number, stage, int(moved["data"]["attempt"]))) if moved else None
    if moved is None or row is None:
        return None
    taken = json.loads(row["record"]).get("reused_from")
    if taken is None:
        numbers = {"number": parent.number, "attempt": int(row["attempt"]), "transition": int(moved["number"])}
        return {**numbers, "record_sha256": str(row["record_sha256"]), "through": []}
    through = [*taken["through"], parent.number]
    return {**taken, "through": through} if len(through) <= MAX_THROUGH else None


def load_run(meta: MetaStore, model: str, stage: Stage, place: Mapping[str, Any]) -> Run:
    """Return the run that a plan names.

    Raises:
        ConflictError: a version that it is reached through is out of use, or has been made anew.
        IntegrityError: rows do not agree with each other.
        NotFoundError: there is no such run.
    """
    numbers = (int(place["number"]), *(int(n) for n in place["through"]))
    versions = tuple(load_version(meta, model, number) for number in numbers)
    for version in versions:
        _require_in_use(meta, version)
    origin = versions[0]
    row = meta.get(stage_key(model, origin.number, stage, int(place["attempt"])))
    moved = meta.get(transition_key(model, origin.number, int(place["transition"])))
    if row is None or moved is None or row["status"] != Status.SUCCEEDED.value:
        raise NotFoundError(f"{origin.reference} has no {stage} that succeeded in attempt {place['attempt']}")
    sha256 = sha256_hex(str(row["record"]).encode())
    if not sha256 == row["record_sha256"] == place["record_sha256"] == moved["evidence"]:
        raise IntegrityError(f"the record of {stage} of {origin.reference} is not as it was recorded")
    record = json.loads(row["record"])
    outputs = {output["name"]: output["digest"] for output in record["outputs"]}
    of_the_run = (record["model"], record["number"], record["stage"], record["attempt"], record["outcome"])
    if of_the_run != (model, origin.number, stage.value, int(place["attempt"]), "SUCCEEDED") or "reused_from" in record:
        raise IntegrityError(f"the record of {stage} of {origin.reference} is of another run")
    if outputs != _made(origin, stage):
        raise ConflictError(f"{stage} of {origin.reference} has been done again since")
    return Run(origin.reference, record, moved["attestation"], int(place["transition"]), versions)


def prove_run(attestor: Attestor, run: Run, place: Mapping[str, Any]) -> None:
    """Check that the function which records stages has recorded this run, whatever the rows around it say.

    Args:
        attestor: the function's own.
        run: the run.
        place: what the plan says of it.

    Raises:
        IntegrityError: no attestation by the function's present key tells of it.
    """
    said = run.attestation
    try:
        statement = attestor.open_own(str(said["sha256"]), str(said["key"]), str(said["version_id"]))
    except NotFoundError as error:
        raise IntegrityError(f"the attestation of {run.record['stage']} of {run.reference} is gone") from error
    facts, _ = read_move(statement)
    outputs = {output["name"]: output["digest"] for output in run.record["outputs"]}
    told = (facts["model"], facts["number"], facts["transition"], facts["kind"], facts["evidence"], facts["data"].get("outputs"))
    wanted = (run.record["model"], int(place["number"]), run.transition, _SUCCEEDED, place["record_sha256"], outputs)
    if told != wanted:
        raise IntegrityError(f"the attestation that {run.reference} names for {run.record['stage']} is of something else")


def _require_in_use(meta: MetaStore, version: Version) -> None:
    """Refuse a version that is out of use, also where its head was changed to hide that."""
    moves: Sequence[Mapping[str, Any]] = meta.query(version_key(version.model, version.number).partition, prefix="TRANSITION#")
    ended = next((str(m["kind"]) for m in moves if m["kind"] in _ENDED), "")
    if version.standing in _OUT or ended:
        raise ConflictError(f"{version.reference} stands {version.standing}{f' ({ended})' if ended else ''}; nothing is taken from it")


def _made(version: Version, stage: Stage) -> dict[str, str]:
    """Return what the version has of the stage as it stands, name to digest."""
    if stage is Stage.TRAINING:
        return {"model": version.version_digest}
    return {d.name: d.digest for d in version.datasets if not d.name.startswith("source/")}
