"""What people are told when a promotion waits for their decision, and that nobody fails to be told.

The transaction that opens a promotion leaves a row in the partition LAPSES which says that people are to be told. The gate tells them at
once and marks the row; where it was cut off in between, the sweep finds the row unmarked and tells them. Of a promotion that has ended by
then nobody is told. They may be told twice, when the gate was cut off between telling and marking: a notice decides nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from attestry.domain.errors import ConditionFailedError
from attestry.domain.events import timestamp
from attestry.domain.promotion import Promotion, State, policy_for, promotion_of
from attestry.domain.version import Version
from attestry.ports import Item, MetaStore, Notifier, Put, Update, When
from attestry.usecases.approval_notice import ConsoleWays, start_promotion_runbook, ways_in_console
from attestry.usecases.conditions import lapse_put

ASKED: Final = "promotion_asked"
"""What such a row is about, among those that are due."""

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


def tell_asked(meta: MetaStore, notifier: Notifier, version: Version, asked: Put, ways: ConsoleWays | None) -> None:
    """Tell people of a promotion that was just opened, start the approval runbook where the registry uses it, and mark that they were told.

    The sweep, which tells in the gate's place, starts no runbook: whoever wants to decide in one starts it.
    """
    environment, automation = str(asked.item["environment"]), ""
    promotion, policy = promotion_of(version, environment), policy_for(version, environment)
    if ways is not None and promotion is not None and policy is not None:
        automation = start_promotion_runbook(version, promotion, policy, ways)
    told = asked_notice(version, asked.item, ways, automation)
    if told is not None:
        notifier.notify(*told)
    try:
        meta.transact([Update(asked.key, {"told": True}, When(exists=True))])
    except ConditionFailedError:
        return  # the sweep was there before


def asked_notice(
    version: Version, row: Item | Mapping[str, Any], ways: ConsoleWays | None = None, automation: str = ""
) -> tuple[str, dict[str, Any]] | None:
    """Return subject and message about a promotion that waits; None where people were told, or it waits no more.

    Neither the message nor a link in it decides anything.

    Args:
        version: the version, as it is by now.
        row: the row of `asked_put`.
        ways: how people approve in the AWS console; None for not at all.
        automation: the execution of the runbook that waits for them, or empty.
    """
    environment = str(row["environment"])
    found = promotion_of(version, environment)
    if row.get("told") or found is None or (found.state, found.opened) != (State.OPEN, int(row["opening"])) or found.why_not(version):
        return None
    return f"the promotion of {version.reference} to {environment} waits for approval", _message(version, found, row, ways, automation)


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
