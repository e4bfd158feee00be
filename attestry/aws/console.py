"""Executions of `RegistryDecision`, for the functions that it calls: the ports and settings of one call, put together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from attestry.aws.trail import automation_of, execution_of, read_call
from attestry.ports import CallRecord

if TYPE_CHECKING:
    from attestry.aws.settings import Settings

SOURCE = "aws.states"
SIGNAL_SOURCE = "aws.ssm"
DETAIL_TYPE = "AWS API Call via CloudTrail"


def started_execution(event: Mapping[str, Any], settings: Settings) -> tuple[str, CallRecord] | None:
    """Return the execution of `RegistryDecision` that an event of EventBridge tells the start of, and who started it.

    None where the event is another one, comes from another source than the service or another account, or is not CloudTrail's. EventBridge
    lets nobody but AWS send events of a source that begins with `aws.`; what says otherwise about itself is not asked further.
    """
    detail = event.get("detail")
    if not isinstance(detail, Mapping) or not is_cloudtrail(event, SOURCE, settings):
        return None
    execution = execution_of(detail)
    machine = settings.decision_arn.replace(":stateMachine:", ":execution:")
    if execution is None or not execution.startswith(f"{machine}:"):
        return None
    return execution, read_call(detail)


def sent_signal(event: Mapping[str, Any], settings: Settings) -> tuple[str, CallRecord] | None:
    """Return the automation that an event of EventBridge tells a signal to, and who sent it; None for any other event, as above."""
    detail = event.get("detail")
    if not isinstance(detail, Mapping) or not is_cloudtrail(event, SIGNAL_SOURCE, settings):
        return None
    automation = automation_of(detail)
    return None if automation is None else (automation, read_call(detail))


def is_cloudtrail(event: Mapping[str, Any], source: str, settings: Settings) -> bool:
    """Return whether an event says that CloudTrail of the registry's own account sent it, about a service."""
    return (event.get("source"), event.get("detail-type"), event.get("account")) == (source, DETAIL_TYPE, settings.account)
