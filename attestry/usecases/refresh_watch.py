"""What makes versions besides people and data: schedules and alarms, and where a candidate says that it waits for them.

Rules:
- A candidate's schedule stands in its own row, with the moment at which it is due next, and whoever looks asks the table for what is due.
  What was missed runs once, and the next due time follows from the schedule alone.
- A candidate is refreshed while it is in force: where another candidate of the model is deployed, its triggers are skipped.
- An alarm is asked for its state before anything is made; the message that it rang is only what makes somebody ask.

CANDIDATE#<digest>/HEAD                  schedule, anchor, due; in the collection REFRESHES, by the due time
ALARM#<alarm>/<model>#<candidate>        that a candidate waits for an alarm
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from attestry.domain.cause import CauseKind
from attestry.domain.errors import AttestryError, ConditionFailedError, UnavailableError
from attestry.domain.events import timestamp
from attestry.domain.manifest import Manifest
from attestry.domain.principal import registry_principal
from attestry.domain.schedule import read_schedule
from attestry.ports import AlarmReader, Item, Key, MetaStore, Put, Update, When
from attestry.usecases.records import candidate_key
from attestry.usecases.refresh import Refreshed, Refresher, Trigger, version_in_force

REFRESHES: Final = "REFRESHES"
MAX_DUE: Final = 200
"""How many candidates one look takes; the next look takes the rest."""


def schedule_attributes(manifest: Manifest, at: datetime) -> dict[str, Any]:
    """Return what the row of a candidate says of its schedule; nothing where it has none, or one that is never due any more."""
    text = manifest.refresh.schedule if manifest.refresh else None
    if text is None:
        return {}
    anchor = timestamp(at)
    return {"schedule": text, "anchor": anchor, **_due(text, anchor, at)}


def alarm_puts(manifest: Manifest, candidate: str) -> list[Put]:
    """Return the rows by which a candidate is found when an alarm rings."""
    names: Sequence[str] = manifest.refresh.alarms if manifest.refresh else ()
    row = {"model": manifest.model.name, "candidate": candidate}
    return [Put(Key(f"ALARM#{name}", f"{manifest.model.name}#{candidate}"), row, When()) for name in names]


class Watcher:
    """Looks after schedules and alarms.

    Args:
        meta: the table.
        refresher: makes versions.
    """

    def __init__(self, meta: MetaStore, refresher: Refresher) -> None:
        self._meta = meta
        self._refresher = refresher

    def run_due(self, at: datetime) -> list[Refreshed]:
        """Refresh the candidates that are due; one that a service keeps from it stays due.

        Returns:
            What became of each that was due.
        """
        done: list[Refreshed] = []
        for listed in self._meta.list_collection(REFRESHES, limit=MAX_DUE):
            if str(listed["gsi_sk"]) > timestamp(at):
                break
            row = self._meta.get(candidate_key(str(listed["candidate"])))
            if row is None or not row.get("due") or str(row["due"]) > timestamp(at):
                continue  # The index was behind.
            due = str(row["due"])
            trigger = Trigger(
                CauseKind.SCHEDULE,
                registry_principal("refresh-schedule"),
                f"it was due at {due}",
                facts={"due": due, "schedule": str(row["schedule"])},
                identity={"due": due},
            )
            outcome = self._refresh(row, trigger, at)
            done.append(outcome)
            if outcome.state != "UNAVAILABLE":
                self._advance(row, at)
        return done

    def ring(self, alarms: AlarmReader, name: str, at: datetime) -> list[Refreshed]:
        """Refresh the candidates that wait for an alarm, if it is in ALARM.

        Raises:
            UnavailableError: CloudWatch does not say; the event is delivered again.
        """
        waiting = self._meta.query(f"ALARM#{name}")
        state = alarms.find(name) if waiting else None
        done: list[Refreshed] = []
        for row in waiting:
            if state is None or state.state != "ALARM":
                why = f"the alarm {name} is {state.state if state else 'not there'}, not ALARM"
                done.append(self._refresher.skip(str(row["model"]), CauseKind.ALARM, why, at, {"alarm": name}))
                continue
            told = {"name": state.name, "state": state.state, "at": state.since}
            trigger = Trigger(
                CauseKind.ALARM,
                registry_principal("refresh-alarm"),
                f"the alarm {name} has been in ALARM since {state.since}",
                facts={"alarm": told},
                identity={"alarm": told},
            )
            done.append(self._refresh(row, trigger, at))
        if any(outcome.state == "UNAVAILABLE" for outcome in done):
            raise UnavailableError("; ".join(outcome.reason for outcome in done if outcome.state == "UNAVAILABLE"))
        return done

    def _refresh(self, row: Item, trigger: Trigger, at: datetime) -> Refreshed:
        model = str(row["model"])
        try:
            in_force = version_in_force(self._meta, model)
            if in_force.candidate != row["candidate"]:
                why = f"{in_force.reference}, of another candidate, is in force"
                return self._refresher.skip(model, trigger.kind, why, at, {**trigger.facts, "candidate": row["candidate"]})
            return self._refresher.refresh(model, trigger, at)
        except UnavailableError as error:
            return Refreshed("UNAVAILABLE", model, None, error.message)
        except AttestryError as error:
            return self._refresher.skip(model, trigger.kind, error.message, at, trigger.facts)

    def _advance(self, row: Item, at: datetime) -> None:
        changes = {"due": None, "gsi_pk": None, "gsi_sk": None, **_due(str(row["schedule"]), str(row["anchor"]), at)}
        try:
            self._meta.transact([Update(candidate_key(str(row["candidate"])), changes, When(exists=True, equals={"due": row["due"]}))])
        except ConditionFailedError:
            return  # Somebody else has.


def _due(text: str, anchor: str, at: datetime) -> dict[str, Any]:
    due = read_schedule(text).next_after(at, datetime.fromisoformat(anchor))
    return {"due": timestamp(due), "gsi_pk": REFRESHES, "gsi_sk": timestamp(due)} if due else {}
