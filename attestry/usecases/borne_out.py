"""Whether the table bears an event out that waits for the ledger, where one row says so.

Who changes a row writes its event in the same transaction. So an event of these kinds that comes without its row was written by somebody
who may write the outbox and not the row: a function that was taken over, or a hand. It is set aside and never enters the ledger.

| kind | borne out by |
|---|---|
| `person.changed` | the person's row had this revision at this time |
| `grant.given`, `grant.withdrawn`, `model.placed`, `access.published`, `webhook.*` | the row that they change lists them |
| `run.started`, `run.ended` | the head of the run lists them |
| `root.published` | the row of the root has targets of this version with the same trusted root, or later ones |

Moves are not judged here: their attestations are, by whoever verifies. Of the other kinds docs/threat-model.md says what remains.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from attestry.access.events import ABOUT, mark_of, row_of
from attestry.domain.webhooks import KINDS as WEBHOOK_KINDS
from attestry.ports import Item, Key, MetaStore
from attestry.usecases.records import person_key
from attestry.usecases.run_rows import RUN_KINDS, run_key, run_of_event
from attestry.usecases.webhooks import row_of_subject

PERSON: Final = "person.changed"
ROOT: Final = "root.published"
_ROOT_KEY: Final = Key("ROOT")
_READ_ROWS: Final = 100

Event = Mapping[str, Any]


def find_unborne(meta: MetaStore, events: Sequence[Event]) -> dict[str, str]:
    """Return event ID to the reason, of the events that no row bears out; a round trip for a hundred rows, none where there are none.

    Args:
        meta: the table.
        events: events that are not in the ledger, of any kinds.
    """
    keys = {str(event["id"]): _row_of(event) for event in events if event["kind"] in (PERSON, ROOT, *ABOUT, *WEBHOOK_KINDS, *RUN_KINDS)}
    wanted = list(dict.fromkeys(keys.values()))
    rows: dict[Key, Item] = {}
    for start in range(0, len(wanted), _READ_ROWS):
        rows |= meta.get_many(wanted[start : start + _READ_ROWS])
    unborne = [e for e in events if (key := keys.get(str(e["id"]))) is not None and not _bears_out(rows.get(key), e)]
    return {str(e["id"]): f"no row bears out {e['kind']} {e['sequence']} of {e['subject']}" for e in unborne}


def _row_of(event: Event) -> Key:
    if event["kind"] in ABOUT:
        return row_of(event)
    if event["kind"] in WEBHOOK_KINDS:
        return row_of_subject(str(event["subject"]))
    if event["kind"] in RUN_KINDS:
        return run_key(run_of_event(event))
    return _ROOT_KEY if event["kind"] == ROOT else person_key(str(event["subject"]).removeprefix("person/"))


def _bears_out(row: Item | None, event: Event) -> bool:
    number = int(event["sequence"])
    if row is None or number < 1:
        return False
    try:
        if event["kind"] == PERSON:
            return bool(event["subject"] == f"person/{row['person']}" and row["changed"][number - 1] == event["at"])
        if event["kind"] in ABOUT or event["kind"] in WEBHOOK_KINDS:
            return bool(row["changed"][number - 1] == mark_of(event))
        if event["kind"] in RUN_KINDS:
            return bool(number == 1 and row["changed"][RUN_KINDS.index(event["kind"])] == mark_of(event))
        targets = int(row["versions"]["targets"])
        return targets > number or (targets == number and row["trusted_root_sha256"] == event["data"]["trusted_root_sha256"])
    except (KeyError, TypeError, ValueError, IndexError):
        # An event, or a row, that is not as the registry writes it.
        return False
