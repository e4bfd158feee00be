"""Refresh: a new version of a candidate that is registered already, because time passed, data came, an alarm rang, or a person asked.

Rules:
- What is refreshed is what is deployed, or a younger version of the same candidate that is still on its way; the version says from which
  parent it was made, why, and what differed.
- The same trigger makes one version, however often and by how many at once it is delivered: candidate, kind and inputs make a key, and the
  key's row is written in the transaction that makes the version. Data that the parent is made of already make nothing.
- One refreshed version of a model is on its way at a time, and by itself none is made before the cool-down has passed.
- Nobody becomes the approver of what is his by refreshing it: who submitted the candidate, who asked for the refresh and who brought the
  data are barred from deciding on the version, as persons.

REFRESH#<model>/HEAD               rev, last (number, kind, at)
REFRESH#<model>/KEY#<digest>       number of the version that the trigger made
REFRESH#<model>/SKIP#<time>#...    a trigger that made nothing, and why; expires
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from attestry.domain.cause import REFRESHES, Cause, CauseKind, changes_between, is_reproduction, kind_of, require_few, trigger_key
from attestry.domain.errors import ConditionFailedError, ConflictError, InvalidInputError, NotFoundError, UnprovenIdentityError
from attestry.domain.events import shorten, timestamp
from attestry.domain.manifest import Manifest
from attestry.domain.principal import Principal
from attestry.domain.schedule import read_period
from attestry.domain.stages import Stage, Standing, Status
from attestry.domain.version import Version
from attestry.ports import ABSENT, Item, Key, MetaStore, Notifier, ObjectStore, Pipeline, Put, Update, When, Write
from attestry.usecases.attest import Attestor
from attestry.usecases.executions import start_attempt
from attestry.usecases.manifests import load_manifest, load_registered_manifest
from attestry.usecases.new_version import Candidate, Defaults, first_head, version_writes
from attestry.usecases.pointer import number_in
from attestry.usecases.policies import check_policies, policies_in_force
from attestry.usecases.records import candidate_key, load_version, model_key, version_key
from attestry.usecases.source_data import NewData, place_data
from attestry.usecases.sources import SourceFiles

TRIES = 24
LOOK_BACK = 60
"""How many versions back a parent is looked for where none is deployed."""

SKIPS_KEPT = timedelta(days=90)
_ON_ITS_WAY = (Stage.REGISTERED, Stage.PROCESSING, Stage.TRAINING, Stage.VALIDATION)


@dataclass(frozen=True)
class Trigger:
    """Why a version is to be made.

    Attributes:
        kind: schedule, data, alarm, manual or reproduction.
        by: who or what asks.
        reason: a sentence for the record.
        facts: what the cause tells besides: the alarm, the due time, where data came from.
        identity: what makes it this trigger and no other, beside candidate and kind.
        data: source files that take the place of the parent's, by name.
    """

    kind: CauseKind
    by: Principal
    reason: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    identity: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, NewData] = field(default_factory=dict)


@dataclass(frozen=True)
class Refreshed:
    """What became of a trigger.

    Attributes:
        state: `MADE`, `MADE_BEFORE` (the same trigger was here before), `NOTHING` (the data are the parent's), `WAITS` (data that are taken
            once the version on its way, or the cool-down, has ended) or `SKIPPED`.
        model: the model.
        number: the version that was made, or that is of these data already; None where there is none.
        reason: why none was made, a sentence.
    """

    state: str
    model: str
    number: int | None = None
    reason: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the answer of API and functions."""
        return {"state": self.state, "model": self.model, "version": self.number, "reason": self.reason}


def refresh_key(model: str) -> Key:
    """Return the key of what is known of a model's refreshes."""
    return Key(f"REFRESH#{model}")


class Refresher:
    """Makes refreshed versions.

    Args:
        meta: the table.
        attestor: signs with the function's own key.
        store: the model store.
        pipeline: the state machine.
        notifier: tells people.
        defaults: what the registry adds to every version.
    """

    def __init__(
        self, meta: MetaStore, attestor: Attestor, store: ObjectStore, pipeline: Pipeline, notifier: Notifier, defaults: Defaults
    ) -> None:
        self._meta = meta
        self._attestor = attestor
        self._store = store
        self._pipeline = pipeline
        self._notifier = notifier
        self._defaults = defaults

    def refresh(self, model: str, trigger: Trigger, at: datetime, *, parent: int | None = None) -> Refreshed:
        """Make a version, once for each trigger.

        Args:
            model: the model's name.
            trigger: why.
            at: the time.
            parent: number of the version to make it from; None for the one in force, see `version_in_force`.

        Raises:
            NotFoundError: no such model or version.
            ConflictError: the parent is out of use, or others kept changing the model.
            UnprovenIdentityError: a login that maps to no person asks, or nobody knows yet who submitted the candidate.
            InvalidInputError: data of a source that the manifest does not have, or of too many; or the manifest breaks a policy that came
                into force since it was registered.
            UnavailableError: a service failed; the trigger may come again.
        """
        for _ in range(TRIES):
            origin = self._parent(model, parent, trigger.kind)
            manifest = load_registered_manifest(self._store, origin)
            before = {s.name: s.sha256 for s in load_manifest(self._store, origin).data.source}
            after = {**before, **{name: new.sha256 for name, new in trigger.data.items()}}
            cause = self._cause(origin, manifest, trigger, before, after)
            ended = self._made_before(origin, cause) or self._held_up(model, manifest, origin, cause, trigger, at)
            if ended:
                return ended
            version = self._make(origin, manifest, trigger, cause, at)
            if version is not None:
                start_attempt(self._pipeline, version)
                facts = {"model": model, "version": version.number, "cause": dict(version.cause)}
                self._notifier.notify(f"{version.reference} is made: {trigger.kind.value}", facts)
                return Refreshed("MADE", model, version.number)
        raise ConflictError(f"{model} is being changed by many others; try again")

    def skip(self, model: str, kind: CauseKind, reason: str, at: datetime, facts: Mapping[str, Any]) -> Refreshed:
        """Record a trigger that makes nothing, with the reason; the same again is recorded again."""
        row = {"model": model, "kind": kind.value, "reason": shorten(reason), "at": timestamp(at), "facts": dict(facts)}
        expires = int((at + SKIPS_KEPT).timestamp())
        key = Key(refresh_key(model).partition, f"SKIP#{timestamp(at)}#{trigger_key('', kind, facts)[:16]}")
        self._meta.transact([Put(key, {**row, "expires": expires}, When())])
        return Refreshed("SKIPPED", model, None, reason)

    def _parent(self, model: str, number: int | None, kind: CauseKind = CauseKind.MANUAL) -> Version:
        origin = load_version(self._meta, model, number) if number is not None else version_in_force(self._meta, model)
        if origin.standing is Standing.RETIRED:
            raise ConflictError(f"{origin.reference} was {origin.out_of_use}; nothing is made of it")
        if kind in REFRESHES:
            origin.require_not_held("is not refreshed")
        if is_reproduction(origin.cause):
            raise ConflictError(f"{origin.reference} was made to reproduce another version; refresh {model}@{origin.cause['parent']}")
        return origin

    def _cause(self, origin: Version, manifest: Manifest, trigger: Trigger, before: Mapping[str, str], after: Mapping[str, str]) -> Cause:
        changed = changes_between(manifest, before, after)
        inputs = {s.name: after[s.name] for s in manifest.data.source if after[s.name] != s.sha256}
        unknown = sorted(set(trigger.data) - set(before))
        if unknown:
            message = f"{unknown[0]!r:.80} is no source of the manifest; it has {', '.join(sorted(before))}"
            raise InvalidInputError.of("data", "known_source", message)
        require_few(list(inputs))
        first = self._first_of(origin)
        asked = trigger.by.require_person("ask for a new version") if trigger.kind not in _BY_THEMSELVES else None
        if trigger.kind is CauseKind.MANUAL and first.submitter_person is None:
            raise UnprovenIdentityError(
                f"nobody knows yet who submitted {first.reference}, so a person cannot ask for a new version of it: attestry claim "
                f"{first.reference}"
            )
        kept = [str(i["by"]) for i in origin.inputs if i["name"] in inputs and i["name"] not in trigger.data]
        brought = [new.by for name, new in trigger.data.items() if name in inputs]
        identity = {**trigger.identity, **({"parent": origin.number, "data": dict(after)} if trigger.data else {})}
        return Cause(
            kind=trigger.kind,
            parent=origin.number,
            changed=changed,
            inputs=inputs,
            facts=trigger.facts,
            key=trigger_key(origin.candidate, trigger.kind, identity),
            deploy=_deploys(manifest, trigger.kind),
            submitter=asked or first.submitter_person,
            barred=tuple(sorted({p for p in (first.submitter_person, asked, *kept, *brought) if p})),
        )

    def _first_of(self, origin: Version) -> Version:
        """Return the version that the candidate was registered as: who stands behind that stands behind the candidate."""
        row = self._meta.get(candidate_key(origin.candidate))
        return load_version(self._meta, origin.model, int(row["number"])) if row else origin

    def _made_before(self, origin: Version, cause: Cause) -> Refreshed | None:
        row = self._meta.get(_trigger_row(origin.model, cause.key))
        if row is not None:
            version = load_version(self._meta, origin.model, int(row["number"]))
            self._go_on(version)
            return Refreshed("MADE_BEFORE", origin.model, version.number, f"{version.reference} was made by the same trigger")
        if cause.kind is CauseKind.DATA and not cause.changed:
            self._go_on(origin)
            return Refreshed("NOTHING", origin.model, origin.number, f"{origin.reference} is made of these data already")
        return None

    def _go_on(self, version: Version) -> None:
        """Start a version that an earlier try, cut off behind its transaction, made and did not start."""
        if version.stage is Stage.REGISTERED:
            start_attempt(self._pipeline, version)

    def _held_up(self, model: str, manifest: Manifest, origin: Version, cause: Cause, trigger: Trigger, at: datetime) -> Refreshed | None:
        """Return why no version is made now, or None."""
        if cause.kind not in REFRESHES:
            return None
        last: Mapping[str, Any] = (self._meta.get(refresh_key(model)) or {}).get("last") or {}
        why = self._busy(model, last)
        cooldown = manifest.refresh.cooldown if manifest.refresh else None
        if not why and last and cooldown and cause.kind is not CauseKind.MANUAL:
            until = datetime.fromisoformat(str(last["at"])) + read_period(cooldown, field="refresh.cooldown")
            why = f"{model}@{last['number']} was made at {last['at']}, and the cool-down ends at {timestamp(until)}" if at < until else ""
        if not why:
            return None
        if cause.kind is CauseKind.DATA:
            return Refreshed("WAITS", model, None, why)
        return self.skip(model, cause.kind, why, at, {**trigger.facts, "parent": origin.number})

    def _busy(self, model: str, last: Mapping[str, Any]) -> str:
        row = self._meta.get(version_key(model, int(last["number"]))) if last else None
        if row is None:
            return ""
        version = Version.from_item(row)
        running = version.stage in _ON_ITS_WAY and version.status in (Status.RUNNING, Status.SUCCEEDED)
        return f"{version.reference} is on its way, in {version.stage} {version.status}" if running and _in_use(version) else ""

    def _make(self, origin: Version, manifest: Manifest, trigger: Trigger, cause: Cause, at: datetime) -> Version | None:
        """Make the version in one transaction; None where somebody else changed the model meanwhile."""
        row = self._meta.get(refresh_key(origin.model))
        head = self._meta.get(model_key(origin.model))
        if head is None:
            raise NotFoundError(f"there is no model {origin.model}")
        in_force = policies_in_force(self._meta)
        checks = check_policies(in_force, manifest)
        policies = [edition.reference for edition in in_force]
        inputs = self._inputs(origin, manifest, trigger, cause)
        first = self._first_of(origin)
        submitter = first.submitter if trigger.kind in _BY_THEMSELVES else trigger.by
        files = SourceFiles(origin.manifest, *origin.code, origin.diff)
        made_from = Candidate(manifest, origin.candidate, files, origin.upload_folder)
        version = first_head(
            self._defaults,
            made_from,
            int(head["next"]),
            submitter=submitter,
            person=cause.submitter,
            at=at,
            cause=cause,
            inputs=inputs,
            environment=origin.environment if trigger.kind is CauseKind.REPRODUCTION else None,
        )
        rev = {"next": version.number + 1, "rev": int(head["rev"]) + 1}
        writes: list[Write] = [
            Update(model_key(origin.model), rev, When(exists=True, equals={"rev": head["rev"]})),
            Put(_trigger_row(origin.model, cause.key), {"number": version.number, "kind": cause.kind.value, "at": timestamp(at)}),
            *version_writes(self._attestor, manifest, version, trigger.by, trigger.reason, at, policies),
            *checks,
        ]
        if cause.kind in REFRESHES:
            writes.append(_note(origin.model, row, version, at))
        try:
            self._meta.transact(writes)
        except ConditionFailedError:
            return None
        return version

    def _inputs(self, origin: Version, manifest: Manifest, trigger: Trigger, cause: Cause) -> tuple[Mapping[str, Any], ...]:
        """Return the files that take the place of the manifest's, those that are new placed under their digests."""
        kept = {str(i["name"]): i for i in origin.inputs}
        inputs: list[Mapping[str, Any]] = []
        for source in manifest.data.source:
            if source.name in cause.inputs:
                new = trigger.data.get(source.name)
                inputs.append(place_data(self._store, source, new) if new else kept[source.name])
        return tuple(inputs)


_BY_THEMSELVES = frozenset({CauseKind.SCHEDULE, CauseKind.DATA, CauseKind.ALARM})


def version_in_force(meta: MetaStore, model: str) -> Version:
    """Return the version that a refresh is made from.

    It is what stands deployed, in production before other environments, or a younger version of the same candidate that is on its way into
    its place. Where nothing is deployed it is the youngest that was not rejected, or else the youngest. An imported version is passed over:
    it has no recipe that could be run again.

    Raises:
        NotFoundError: no such model, or none of its versions is in use.
    """
    head = meta.get(model_key(model))
    if head is None:
        raise NotFoundError(f"there is no model {model}")
    pointers = sorted(meta.query(model_key(model).partition, prefix="POINTER#"), key=lambda p: (p["environment"] != "production", p["sk"]))
    deployed = next((n for p in pointers if (n := number_in(p)) is not None), None)
    newest = int(head["next"]) - 1
    numbers = range(newest, max(0, newest - LOOK_BACK), -1)
    rows = meta.get_many([version_key(model, n) for n in numbers])
    versions = [Version.from_item(rows[key]) for n in numbers if (key := version_key(model, n)) in rows]
    usable = [v for v in versions if _in_use(v)]
    standing = None
    if deployed is not None:
        standing = next((v for v in versions if v.number == deployed), None) or load_version(meta, model, deployed)
    if standing is not None and not standing.imported:
        coming = (v for v in usable if v.number > standing.number and v.candidate == standing.candidate and _is_coming(v))
        return next(coming, standing)
    if not usable:
        raise NotFoundError(f"no version of {model} is in use, so there is nothing to refresh")
    return next((v for v in usable if v.standing is not Standing.REJECTED), usable[0])


def _in_use(version: Version) -> bool:
    return version.standing is not Standing.RETIRED and not is_reproduction(version.cause) and not version.imported


def _is_coming(version: Version) -> bool:
    if version.standing in (Standing.CANARY, Standing.SHADOW):
        return True
    return version.standing in (Standing.CANDIDATE, Standing.APPROVED) and version.status is not Status.FAILED and not version.deployed_at


def _deploys(manifest: Manifest, kind: CauseKind) -> str:
    if kind is CauseKind.REPRODUCTION:
        return "never"
    waits = manifest.refresh is not None and manifest.refresh.deploy == "people" and manifest.approval.automatic
    return "people" if waits else "automatic"


def _trigger_row(model: str, key: str) -> Key:
    return Key(refresh_key(model).partition, f"KEY#{key}")


def _note(model: str, row: Item | None, version: Version, at: datetime) -> Write:
    last = {"number": version.number, "kind": kind_of(version.cause).value, "at": timestamp(at)}
    if row is None:
        return Put(refresh_key(model), {"model": model, "last": last, "rev": 1}, ABSENT)
    return Update(refresh_key(model), {"last": last, "rev": int(row["rev"]) + 1}, When(exists=True, equals={"rev": row["rev"]}))
