"""Reconcile a version: its rows with what the ledger says was done, and its objects with what the rows name.

Rules:
- A transition is made into its event again; the event has to be, byte for byte, in the ledger or on its way there.
- The head is what the transitions, as far as they hold, make of it, and what the records that they rest on say.
- A decision, and the record of a run, has the transition that it was written with, and the other way round.
- A decision was made by a login of the person; data, environment and lineage rows are as they were recorded.
- Each object that a row names lies on top, in its recorded S3 version; below `frozen/` there is nothing else.
- What rests on a row that is itself found wrong is not judged again: one edit is one finding.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from attestry.domain.approvals import ApprovalPolicy
from attestry.domain.custody import custody_after
from attestry.domain.errors import AttestryError
from attestry.domain.events import Event
from attestry.domain.holds import held_after
from attestry.domain.promotion import DECIDED, promotions_after
from attestry.domain.replay import PLACINGS
from attestry.domain.stages import LAPSED
from attestry.domain.validations import RECORDED as VALIDATED
from attestry.domain.validations import latest_of, unmet
from attestry.domain.version import Version
from attestry.evidence.digests import sha256_hex, tree_digest
from attestry.evidence.leaf import event_id
from attestry.evidence.trusted_root import MAY_SIGN
from attestry.evidence.validation_record import kept_of
from attestry.ports import Item, MetaStore, ObjectStore
from attestry.usecases.artifact_copy import MAX_COPY_BYTES, SORT, copy_among, load_artifact
from attestry.usecases.disposed import read_disposals
from attestry.usecases.findings import Observed
from attestry.usecases.ledger_bytes import LedgerBytes
from attestry.usecases.pointer import KILLED, RETIRED
from attestry.usecases.promotion_rows import PREFIX
from attestry.usecases.reconcile_catalogue import examine_version
from attestry.usecases.reconcile_inputs import examine_inputs
from attestry.usecases.reconcile_objects import compare_objects
from attestry.usecases.reconcile_people import examine_deciders
from attestry.usecases.reconcile_promotions import examine_packets, examine_promotions
from attestry.usecases.recorded import decision_problem, event_digest, event_of_transition
from attestry.usecases.records import version_key

RECORDED: Final = ("IMPORTED", "PROCESSING", "TRAINING", "VALIDATION")
FIRST: Final = ("candidate.registered", "version.imported")
"""Kinds of moves that a version begins with."""

KINDS: Final = tuple(sorted({kind for kinds in MAY_SIGN.values() for kind in kinds}))
_ENDED = {"stage.succeeded": "SUCCEEDED", "stage.failed": "FAILED", "version.rejected": "REJECTED"}


@dataclass
class _Rows:
    """The rows of a version, and which of its transitions hold."""

    reference: str
    partition: str
    head: Item | None
    transitions: dict[int, Item]
    stages: dict[str, Item]
    approvals: list[Item]
    copy: bytes | None
    promotions: list[Item] = field(default_factory=list)
    holding: list[Item] = field(default_factory=list)
    gone: Collection[tuple[str, str]] = ()

    def where(self, sort: str) -> str:
        return f"{self.partition}/{sort}"


class VersionExaminer:
    """Examines versions.

    Args:
        meta: the table.
        store: the model store.
        ledger: what the ledger says.
    """

    def __init__(self, meta: MetaStore, store: ObjectStore, ledger: LedgerBytes) -> None:
        self._meta = meta
        self._store = store
        self._ledger = ledger

    def examine(self, model: str, number: int) -> list[Observed]:
        """Return what is not as the registry left it.

        Raises:
            UnavailableError: a service did not answer.
        """
        rows = self._read(model, number)
        observed = self._transitions(model, number, rows)
        if rows.head is None:
            told = bool(rows.transitions) or bool(self._ledger.find([event_id(kind, rows.reference, 1) for kind in FIRST]))
            return [*observed, *([Observed("head.deleted", rows.where("HEAD"), rows.reference, "nothing")] if told else [])]
        try:
            version = Version.from_item(rows.head)
        except (KeyError, TypeError, ValueError) as error:
            return [*observed, Observed("head.changed", rows.where("HEAD"), "a version", f"{type(error).__name__}: {error}")]
        whole = not observed
        observed += list(_stage_rows(rows))
        observed += list(_decisions(version, rows))
        observed += list(examine_promotions(rows.partition, rows.promotions, rows.holding, [*rows.transitions]))
        if whole:
            unexplained = list(self._disposals(rows))
            observed += [*unexplained, *_head(version, rows)]
            observed += [] if unexplained else list(self._files(version, rows))
        if not observed:
            deciders = [*rows.approvals, *(r for r in rows.promotions if "decision" in r)]
            observed += list(examine_deciders(self._meta, rows.partition, deciders))
            observed += list(examine_packets(self._store, version.folder, rows.holding))
            if any(t["kind"] == "stage.succeeded" and t["to"]["stage"] == "PROCESSING" for t in rows.holding):
                observed += list(examine_inputs(self._meta, self._store, version, gone=rows.gone))
        if not observed:
            observed += list(examine_version(self._meta, self._store, version))
        return observed

    def _read(self, model: str, number: int) -> _Rows:
        partition = version_key(model, number).partition
        rows = {str(row["sk"]): row for row in self._meta.query(partition)}
        transitions = {int(s.removeprefix("TRANSITION#")): r for s, r in rows.items() if s[11:].isdigit() and s.startswith("TRANSITION#")}
        stages = {s: r for s, r in rows.items() if s.startswith("STAGE#")}
        approvals = [r for s, r in rows.items() if s.startswith("APPROVAL#")]
        promotions = [r for s, r in rows.items() if s.startswith(PREFIX)]
        copy = copy_among([*rows.values()])
        return _Rows(f"{model}@{number}", partition, rows.get("HEAD"), transitions, stages, approvals, copy, promotions)

    def _transitions(self, model: str, number: int, rows: _Rows) -> list[Observed]:
        observed: list[Observed] = []
        events: dict[int, Event] = {}
        for n, row in sorted(rows.transitions.items()):
            try:
                events[n] = event_of_transition(model, number, row)
            except AttestryError as error:
                observed.append(Observed("transition.changed", rows.where(str(row["sk"])), "a transition", error.message))
        written = self._ledger.digests(list(events.values()))
        for n, event in events.items():
            there, given = written.get(event.event_id), event_digest(event)
            where = rows.where(str(rows.transitions[n]["sk"]))
            if there is None or event.sequence != n:
                observed.append(Observed("transition.without_event", where, "an event that tells of it", f"none of {event.kind}"))
            elif there != given:
                observed.append(
                    Observed("transition.changed", where, f"the event of SHA-256 {there}", f"a row that makes {given or 'none'}")
                )
            else:
                rows.holding.append(rows.transitions[n])
        last = max([*rows.transitions, int((rows.head or {}).get("transition") or 0)], default=0)
        missing = [n for n in range(1, last + 1) if n not in rows.transitions]
        while rows.transitions or rows.head:
            # A history that was cut off at its end, with the head set back, still has its events.
            if not self._ledger.find([event_id(kind, rows.reference, last + 1) for kind in KINDS]):
                break
            last += 1
            missing.append(last)
        return observed + [Observed("transition.deleted", rows.where(f"TRANSITION#{n:06d}"), f"transition {n}", "nothing") for n in missing]

    def _disposals(self, rows: _Rows) -> Iterable[Observed]:
        """Read which objects may be missing, because moves that have their events name them as disposed."""
        try:
            rows.gone = read_disposals(self._store, rows.reference, rows.holding).objects.keys()
        except (AttestryError, KeyError, TypeError, ValueError) as error:
            yield Observed("disposal.list", rows.partition, "the lists of what was disposed", str(getattr(error, "message", error)))

    def _files(self, version: Version, rows: _Rows) -> Iterable[Observed]:
        frozen = {f.key: f.version_id for f in (*version.frozen, *((version.artifact,) if version.artifact else ()))}
        if frozen:
            yield from compare_objects(self._store, f"{version.folder}/frozen/", frozen, closed=True, gone=rows.gone)
        named = {str(t["attestation"]["key"]): str(t["attestation"]["version_id"]) for t in rows.holding}
        for moved in rows.holding:
            if moved["kind"] == VALIDATED:
                named |= kept_of(version.folder, moved["evidence"], moved["data"], str(moved["principal"]["person"]))
        if version.packet:
            named[str(version.packet["key"])] = str(version.packet["version_id"])
        for folder in sorted({key.partition("/evidence/")[0] for key in named}):
            below = {key: at for key, at in named.items() if key.startswith(f"{folder}/evidence/")}
            yield from compare_objects(self._store, f"{folder}/evidence/", below)
        for row in rows.stages.values():
            if row.get("record_key"):
                key = str(row["record_key"])
                yield from compare_objects(self._store, key, {key: str(row["record_version_id"])})
        if version.artifact is not None:
            yield from self._artifact(version, rows)

    def _artifact(self, version: Version, rows: _Rows) -> Iterable[Observed]:
        """Compare the head with the artifact manifest, whose digest the ledger has."""
        artifact, where = version.artifact, rows.where("HEAD")
        if artifact is None:
            return
        try:
            manifest, data = load_artifact(self._store, version)
        except AttestryError as error:
            yield Observed("head.artifact", where, version.version_digest, error.message)
            return
        if rows.copy != (data if len(data) <= MAX_COPY_BYTES else None):
            given = f"SHA-256 {sha256_hex(rows.copy)}" if rows.copy is not None else "nothing"
            yield Observed("artifact.copy", rows.where(SORT), f"SHA-256 {version.version_digest}", given)
        listed = {f.path: (f.size, f.sha256) for f in manifest.files}
        recorded = {f.path: (f.size, f.sha256) for f in version.frozen}
        if listed != recorded:
            differing = sorted(path for path in listed.keys() | recorded.keys() if listed.get(path) != recorded.get(path))
            yield Observed("head.frozen", where, "the files of the artifact manifest", f"others: {', '.join(differing)}")


def _stage_rows(rows: _Rows) -> Iterable[Observed]:
    """Compare runs of scripts with the transitions that began and ended them."""
    known: set[str] = set()
    for moved in rows.holding:
        stage, data = str(moved["to"]["stage"]), moved["data"]
        if stage not in RECORDED or "attempt" not in data or (moved["kind"] != "stage.started" and moved["kind"] not in _ENDED):
            continue
        sort = f"STAGE#{stage}#{int(data['attempt']):03d}"
        known.add(sort)
        row = rows.stages.get(sort)
        begun = moved["kind"] == "stage.started"
        if row is None:
            yield Observed("run.deleted", rows.where(sort), "the record of a run", "nothing")
            continue
        text = str(row.get("plan" if begun else "record", ""))
        given = {sha256_hex(text.encode()), str(row.get("plan_sha256" if begun else "record_sha256"))}
        if given != {str(moved["evidence"])} or (not begun and row.get("status") != _ENDED[moved["kind"]]):
            found = f"{row.get('status')}, {', '.join(sorted(given))}"
            yield Observed("run.changed", rows.where(sort), f"{moved['kind']} on {moved['evidence']}", found)
    for sort in sorted(rows.stages.keys() - known):
        if len(rows.holding) == len(rows.transitions):
            yield Observed("run.without_event", rows.where(sort), "a transition that began it", "none")


def _decisions(version: Version, rows: _Rows) -> Iterable[Observed]:
    holding = {int(t["number"]): t for t in rows.holding}
    decided = {}
    for row in rows.approvals:
        transition = row.get("transition")
        number = transition if isinstance(transition, int) else 0
        if number in rows.transitions and number not in holding:
            continue
        moved = holding.get(number)
        problem = decision_problem(version, row, moved)
        named = str(row["sk"]).removeprefix("APPROVAL#").partition("#")[0]
        if not problem and row["sk"] not in _places_of(row):
            problem = f"is the one of {row['person']} once more"
        where = rows.where(str(row["sk"]))
        if problem and (moved is None or moved["data"].get("person") != named):
            yield Observed("decision.without_event", where, "a transition that it was written with", f"it {problem}")
        elif problem:
            yield Observed("decision.changed", where, f"transition {number}", f"it {problem}")
        decided[str(row["sk"])] = row
    for number, moved in holding.items():
        if moved["kind"] in DECIDED:
            continue  # on a promotion, whose rows are compared by themselves
        person = moved["data"].get("person")
        # A row that tells of another move, in an earlier opening, does not stand for this one.
        there = [r for r in rows.approvals if r["sk"] in _places_of(moved["data"]) and r.get("transition") not in holding.keys() - {number}]
        if person and "decision" in moved["data"] and not there:
            yield Observed("decision.deleted", rows.where(f"APPROVAL#{person}"), f"the decision of transition {number}", "nothing")


def _places_of(decision: Mapping[str, Any]) -> set[str]:
    """Return the sort keys that a decision may have: the person's, in the first opening of the approval or in the one that it names."""
    person, opened = decision.get("person"), decision.get("opened")
    return {f"APPROVAL#{person}", *([f"APPROVAL#{person}#{opened:06d}"] if isinstance(opened, int) else [])}


def _head(version: Version, rows: _Rows) -> Iterable[Observed]:
    """Compare the head with what the transitions make of it, field by field."""
    where, head = rows.where("HEAD"), rows.head or {}
    expected = {**_from_transitions(rows.holding), **_from_records(rows)}
    demands = ApprovalPolicy.from_item(version.approval_policy).records
    expected["unvalidated"] = bool(unmet(demands, expected["validations"]))
    for name, value in expected.items():
        given = head.get(name)
        if _comparable(given) != _comparable(value):
            yield Observed(f"head.{name}", where, _text(value), _text(given))
    outputs = _outputs(rows.holding)
    for dataset in version.datasets:
        digest = outputs.get(dataset.name) if not dataset.name.startswith("source/") else dataset.files[0].sha256 if dataset.files else None
        actual = tree_digest(dataset.files) if not dataset.name.startswith("source/") else digest
        if digest is not None and not digest == dataset.digest == actual:
            yield Observed("head.datasets", where, f"{dataset.name} {digest}", f"{dataset.name} {dataset.digest}, files {actual}")
    if version.version_digest and version.artifact and version.artifact.sha256 != version.version_digest:
        yield Observed("head.artifact", where, version.version_digest, version.artifact.sha256)


def _from_transitions(transitions: list[Item]) -> dict[str, Any]:
    last, first = transitions[-1], transitions[0]
    kinds = [str(t["kind"]) for t in transitions]
    expected: dict[str, Any] = {**last["to"], "transition": int(last["number"]), "version_digest": last["version_digest"]}
    decided = [kind for kind in kinds if kind in ("version.approved", "version.rejected", LAPSED)]
    expected["approved"] = decided[-1:] == ["version.approved"]
    retirement: dict[str, Any] = {}
    retires_on = ""
    for moved in transitions:
        if moved["kind"] in (KILLED, RETIRED):
            who = moved["principal"].get("person") or moved["principal"]["login"]
            retirement, retires_on = {"kind": moved["kind"], "by": who, "reason": moved["reason"], "at": moved["at"]}, ""
        elif moved["kind"] == "retirement.scheduled":
            retires_on = moved["data"]["on"]
        elif moved["kind"] in PLACINGS:
            expected["deployment_environment"] = moved["data"].get("environment")
            retires_on = moved["data"].get("retires_on", retires_on)
        elif moved["kind"] == "submission.claimed" or (moved is first and moved["kind"] in FIRST):
            told = moved["data"].get("cause") or {}
            expected["submitter_person"] = told["submitter"] if "submitter" in told else moved["principal"].get("person")
    if first["kind"] in FIRST:
        expected["target"] = first["data"].get("target", "")
        cause = first["data"].get("cause")
        expected |= {"candidate": first["data"]["candidate"], "execution_id": first["data"]["execution"]}
        if cause:
            expected |= {"cause": cause, "barred": cause.get("barred", [])}
    approvals: list[Item] = [t["data"] for t in transitions if t["kind"] == "version.approved"]
    terms = approvals[-1].get("terms", {}) if expected["approved"] else {}
    custody = custody_after(transitions)
    expected["promotions"] = promotions_after(transitions)
    kept = {"legal_hold": custody.legal_hold, "disposal": custody.disposal, "held": held_after(transitions)}
    kept["validations"] = latest_of(transitions)
    return {**expected, **kept, "retirement": retirement, "retires_on": retires_on, "terms": terms}


def _from_records(rows: _Rows) -> dict[str, Any]:
    """Return what the latest records say that the transitions rest on."""
    expected: dict[str, Any] = {}
    for moved in rows.holding:
        if moved["kind"] == "stage.reopened":
            # What the stage that is done again had come to counts no more.
            expected |= {"schema": []} if moved["data"]["stage"] == "PROCESSING" else {"metrics": {}, "gates": []}
        if moved["kind"] not in ("stage.succeeded", "version.rejected") or "attempt" not in moved["data"]:
            continue
        row = rows.stages.get(f"STAGE#{moved['to']['stage']}#{int(moved['data']['attempt']):03d}")
        if row is None or sha256_hex(str(row.get("record", "")).encode()) != moved["evidence"]:
            continue
        record = json.loads(row["record"])
        expected |= {name: record[name] for name in ("metrics", "gates") if name in record}
        if "schema" in record.get("data", {}):
            features = set(record["data"]["feature_columns"])
            expected["schema"] = [c for c in record["data"]["schema"] if c["name"] in features]
    return expected


def _outputs(transitions: list[Item]) -> dict[str, str]:
    outputs: dict[str, str] = {}
    for moved in transitions:
        if moved["kind"] == "stage.succeeded":
            outputs |= moved["data"].get("outputs", {})
    return outputs


def _comparable(value: Any) -> Any:
    """Return a value in which absent and empty are the same, as they are in a row and its decoded form."""
    return None if value in ("", [], {}, None, False) else json.dumps(value, sort_keys=True, default=str)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)
