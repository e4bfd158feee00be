"""Cause: why a version was made, from which parent, and on which data.

Rules:
- A version that a manifest's upload made has the cause `registration`, or `revision` where the manifest differs from its parent's in the
  code alone. Every other cause makes a version of a candidate that is there already.
- The first event of the version carries the whole cause, so that it is attested and logged before anything runs.
- The manifest names the data that the candidate was registered with. Where a version is made of other data, `inputs` names those, by
  digest; everything else of the manifest holds as it is.
- `barred` are the persons who stand behind the version: who submitted the candidate, who asked for this version, and who brought data that
  it is made of. None of them decides on it, whichever login they come by.
- A version with the cause `import` was made elsewhere. It has no manifest, no data and no parent here, and only a person deploys it.
- A version with the cause `reproduction` is never approved and never deployed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Final

import rfc8785

from attestry.domain.errors import InvalidInputError
from attestry.domain.manifest_record import Manifest

MAX_CHANGED: Final = 6
"""How many source files of a version may differ from the manifest's: each is named in the first event, which has at most 4 KiB."""


class CauseKind(StrEnum):
    """Why a version was made."""

    REGISTRATION = "registration"
    SCHEDULE = "schedule"
    REVISION = "revision"
    DATA = "data"
    ALARM = "alarm"
    MANUAL = "manual"
    REPRODUCTION = "reproduction"
    IMPORT = "import"


REFRESHES: Final = frozenset({CauseKind.SCHEDULE, CauseKind.DATA, CauseKind.ALARM, CauseKind.MANUAL})
"""Causes that make a version of a candidate that was registered before, to be used."""


@dataclass(frozen=True)
class DataChange:
    """A source file that is another one than the parent was made of: its name in the manifest, and both digests, hex."""

    name: str
    before: str
    after: str

    def to_item(self) -> dict[str, str]:
        """Return the change as it is stored."""
        return {"name": self.name, "before": self.before, "after": self.after}


@dataclass(frozen=True)
class Cause:
    """Why a version was made.

    Attributes:
        kind: see `CauseKind`.
        parent: number of the version that it was made from; None for a registration.
        changed: source files that differ from the parent's.
        inputs: source files that differ from the manifest's: name to SHA-256, hex.
        facts: what belongs to the kind: `alarm`, `state` and `at`; `due`; `before` and `after` of a revision; who or what asked.
        key: digest under which the same trigger is known again; empty where a manifest's digest is that.
        deploy: `automatic` where the pipeline deploys what was approved, `people` where a person has to ask for it, `never`.
        submitter: the person who stands behind the version as its submitter; None while unproven. Of a registration it is the principal's.
        barred: the persons who may not decide on it.
    """

    kind: CauseKind
    parent: int | None = None
    changed: tuple[DataChange, ...] = ()
    inputs: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    key: str = ""
    deploy: str = "automatic"
    submitter: str | None = None
    barred: tuple[str, ...] = ()

    def to_item(self) -> dict[str, Any]:
        """Return the cause as event, head row and attestation hold it; what is empty is left out."""
        item: dict[str, Any] = {"kind": self.kind.value, "parent": self.parent}
        if self.kind in (CauseKind.REGISTRATION, CauseKind.REVISION):
            return {**item, **self.facts}
        if self.kind is CauseKind.IMPORT:
            return {**item, **self.facts, "barred": list(self.barred), "deploy": "people"}
        more = {
            "changed": [c.to_item() for c in self.changed],
            "inputs": dict(self.inputs),
            "barred": list(self.barred),
            "key": self.key,
        }
        return {**item, **self.facts, **{k: v for k, v in more.items() if v}, "deploy": self.deploy, "submitter": self.submitter}


REGISTRATION: Final = Cause(CauseKind.REGISTRATION)


def kind_of(cause: Mapping[str, Any]) -> CauseKind:
    """Return the kind of a stored cause; versions of former times have none, and were registered.

    Raises:
        InvalidInputError: no kind that is known here.
    """
    try:
        return CauseKind(cause.get("kind") or CauseKind.REGISTRATION)
    except ValueError as error:
        raise InvalidInputError.of("cause.kind", "enum", f"{cause.get('kind')!r:.80} is no cause of a version") from error


def is_reproduction(cause: Mapping[str, Any]) -> bool:
    """Return whether the version was made to be compared, and never to be used."""
    return kind_of(cause) is CauseKind.REPRODUCTION


def is_import(cause: Mapping[str, Any]) -> bool:
    """Return whether the version's files were made elsewhere, so that nothing of it was processed, trained or judged here."""
    return cause.get("kind") == CauseKind.IMPORT


def waits_for_deployer(cause: Mapping[str, Any]) -> bool:
    """Return whether the version is put in place only when a person asks for it."""
    return cause.get("deploy") == "people"


def sentence_of(model: str, cause: Mapping[str, Any]) -> str:
    """Return for people why a version was made."""
    try:
        kind = kind_of(cause)
    except InvalidInputError:
        return str(cause.get("kind"))
    if kind is CauseKind.REGISTRATION:
        return "its manifest was uploaded"
    if kind is CauseKind.IMPORT:
        return "its files were imported; it was made elsewhere"
    parent = f"{model}@{cause.get('parent')}"
    if kind is CauseKind.REPRODUCTION:
        return f"to reproduce {parent}; it is never deployed"
    alarm: Mapping[str, Any] = cause.get("alarm") or {}
    told = {
        CauseKind.REVISION: "another revision of the code",
        CauseKind.SCHEDULE: f"its schedule, due {cause.get('due')}",
        CauseKind.DATA: "new data",
        CauseKind.ALARM: f"the alarm {alarm.get('name')}, {alarm.get('state')} since {alarm.get('at')}",
        CauseKind.MANUAL: "a person asked for it",
    }[kind]
    changed = ", ".join(f"{c['name']} {c['before'][:12]} -> {c['after'][:12]}" for c in cause.get("changed", ()))
    return f"{told}; from {parent}{f'; data {changed}' if changed else ''}"


def trigger_key(candidate: str, kind: CauseKind, facts: Mapping[str, Any]) -> str:
    """Return the digest by which a trigger is known again: SHA-256, hex, over candidate, kind and what makes it that trigger."""
    return hashlib.sha256(rfc8785.dumps({"candidate": candidate, "kind": kind.value, "facts": dict(facts)})).hexdigest()


def with_inputs(manifest: Manifest, cause: Mapping[str, Any]) -> Manifest:
    """Return the manifest with the digests of the data that a version is really made of.

    Raises:
        InvalidInputError: the cause names a source that the manifest does not have.
    """
    inputs: Mapping[str, str] = cause.get("inputs") or {}
    if not inputs:
        return manifest
    known = {source.name for source in manifest.data.source}
    unknown = sorted(set(inputs) - known)
    if unknown:
        named = ", ".join(sorted(known))
        raise InvalidInputError.of("data", "known_source", f"{unknown[0]!r:.80} is no source of the manifest; it has {named}")
    # The S3 version belongs to the bytes that the manifest names.
    sources = tuple(replace(s, sha256=inputs[s.name], version_id=None) if s.name in inputs else s for s in manifest.data.source)
    return replace(manifest, data=replace(manifest.data, source=sources))


def changes_between(manifest: Manifest, before: Mapping[str, str], after: Mapping[str, str]) -> tuple[DataChange, ...]:
    """Return the source files that differ between two sets of digests, in the manifest's order.

    Args:
        manifest: names the sources.
        before: name to SHA-256, hex, of the parent.
        after: the same of the version that is made.
    """
    return tuple(DataChange(s.name, before[s.name], after[s.name]) for s in manifest.data.source if before.get(s.name) != after.get(s.name))


def require_few(names: Sequence[str]) -> None:
    """Refuse more files that differ from the manifest than an event can name.

    Raises:
        InvalidInputError: there are more than `MAX_CHANGED`.
    """
    if len(names) > MAX_CHANGED:
        message = f"{len(names)} source files differ from the manifest's; where more than {MAX_CHANGED} do, submit a new manifest"
        raise InvalidInputError.of("data", "changed", message)
