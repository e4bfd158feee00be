"""What people are told when a promotion waits for their decision, and that nobody fails to be told.

The transaction that opens a promotion leaves a row in the partition LAPSES which says that people are to be told. The gate tells them at
once and marks the row; where it was cut off in between, the sweep finds the row unmarked and has the gate tell them: it alone knows where
the API answers and may start the approval runbook, so what people are told late is what they would have been told at once. Of a promotion
that has ended by then nobody is told. They may be told twice, when the gate was cut off between telling and marking: a notice decides
nothing, and the runbook is started once for each opening.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, Final

from attestry.domain.errors import ConditionFailedError
from attestry.domain.events import timestamp
from attestry.domain.promotion import Promotion, State, policy_for, promotion_of
from attestry.domain.version import Version
from attestry.ports import Item, MetaStore, Notifier, Put, Update, When
from attestry.usecases.approval_notice import ConsoleWays, start_promotion_runbook, ways_in_console
from attestry.usecases.conditions import lapse_put
from attestry.usecases.records import load_version

ASKED: Final = "promotion_asked"
"""What such a row is about, among those that are due."""

TELL: Final = "tell_promotion"
"""What the gate is asked then."""

GRACE: Final = timedelta(minutes=2)
"""How long the sweep leaves the telling to the gate."""


def asked_put(version: Version, environment: str, opened: int, service: Mapping[str, Any], at: datetime) -> Put:
    """Return the write that has people told of a promotion.

    Args:
        version: the version, with its promotion about to be opened.
        environment: where to.
        opened: number of the transition that opens it.
        service: what the packet says of the version's service so far.
        at: the time.
    """
    put = lapse_put(version.model, version.number, opened, timestamp(at + GRACE), ASKED, environment)
    return Put(put.key, {**put.item, "service": dict(service)}, put.when)


def tell_asked(meta: MetaStore, notifier: Notifier, version: Version, asked: Put, ways: ConsoleWays | None) -> bool:
    """Tell people of a promotion that waits, start the approval runbook where the registry uses it, and mark that they were told.

    Args:
        meta: the table.
        notifier: tells people.
        version: the version, as it is by now.
        asked: the row that says that people are to be told, see `asked_put`.
        ways: how people approve in the AWS console; None for not at all.

    Returns:
        Whether anybody was told; nobody is of a promotion that waits no more.
    """
    promotion = _waiting(version, asked.item)
    if promotion is not None:
        automation = str(asked.item.get("automation", "")) or _start_runbook(meta, version, promotion, asked, ways)
        notifier.notify(*_notice(version, promotion, asked.item, ways, automation))
    with suppress(ConditionFailedError):  # another one who told was there before
        meta.transact([Update(asked.key, {"told": True}, When(exists=True))])
    return promotion is not None


def _start_runbook(meta: MetaStore, version: Version, promotion: Promotion, asked: Put, ways: ConsoleWays | None) -> str:
    """Start the runbook, and keep its execution's ID with the row: Systems Manager does not tell it a second time."""
    policy = policy_for(version, promotion.environment)
    automation = "" if ways is None or policy is None else start_promotion_runbook(version, promotion, policy, ways)
    if automation:
        with suppress(ConditionFailedError):
            meta.transact([Update(asked.key, {"automation": automation}, When(exists=True))])
    return automation


def asked_again(row: Item) -> dict[str, Any]:
    """Return what the gate is asked when a row is due of which nobody was told: the event of its function."""
    told = {name: str(row.get(name, "")) for name in ("model", "environment", "due", "automation")}
    return {"action": TELL, **told, "version": int(row["number"]), "opening": int(row["opening"]), "service": dict(row["service"])}


def tell_again(meta: MetaStore, notifier: Notifier, asked: Mapping[str, Any], ways: ConsoleWays | None) -> bool:
    """Tell people of a promotion as `tell_asked` does, in the place of who was cut off before.

    Args:
        meta: the table.
        notifier: tells people.
        asked: what `asked_again` made.
        ways: how people approve in the AWS console; None for not at all.

    Raises:
        NotFoundError: no such version.
    """
    version = load_version(meta, str(asked["model"]), int(asked["version"]))
    due, environment = str(asked["due"]), str(asked["environment"])
    put = lapse_put(version.model, version.number, int(asked["opening"]), due, ASKED, environment)
    item = {**put.item, "service": dict(asked["service"]), "automation": str(asked["automation"])}
    return tell_asked(meta, notifier, version, Put(put.key, item, put.when), ways)


def _waiting(version: Version, row: Mapping[str, Any]) -> Promotion | None:
    """Return the promotion that a row is about, if it still waits for its decision."""
    found = promotion_of(version, str(row["environment"]))
    if found is None or (found.state, found.opened) != (State.OPEN, int(row["opening"])) or found.why_not(version):
        return None
    return found


def _notice(
    version: Version, promotion: Promotion, row: Mapping[str, Any], ways: ConsoleWays | None, automation: str
) -> tuple[str, dict[str, Any]]:
    """Return subject and message; neither the message nor a link in it decides anything."""
    subject = f"the promotion of {version.reference} to {promotion.environment} waits for approval"
    return subject, _message(version, promotion, row, ways, automation)


def _message(version: Version, promotion: Promotion, row: Mapping[str, Any], ways: ConsoleWays | None, automation: str) -> dict[str, Any]:
    reference, environment = version.reference, promotion.environment
    policy = policy_for(version, environment)
    route = f"{ways.api_url if ways else ''}/v1/models/{version.model}/versions/{version.number}/packet?promotion={environment}"
    acts = (f"packet {reference}", f"approve {reference} --reason '...'", f"reject {reference} --reason '...'")
    console: dict[str, Any] = {}
    if ways is not None and policy is not None:
        told = ways_in_console(version, ways, promotion.packet, automation, signed=policy.signed, promotion=environment)
        console = {"console": told} if told else {}
    return {
        "model": version.model,
        "version": version.number,
        "from": promotion.origin,
        "to": environment,
        "asked_by": promotion.asked_by,
        "service": dict(row["service"]),
        "metrics": dict(version.metrics),
        "policy": policy.to_item() if policy else {},
        "packet_sha256": promotion.packet,
        "packet": f"attestry packet {reference} --promotion {environment} --html FILE, or GET {route}, whose `page` is a link",
        "commands": [f"attestry {act} --promotion {environment}" for act in acts],
        **console,
    }
