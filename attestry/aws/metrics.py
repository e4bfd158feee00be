"""Counts for CloudWatch, written into the function's log in the Embedded Metric Format by Powertools' Metrics.

    count({Count.SEQUENCE_GAPS: 1}, deployment="attestry")

CloudWatch takes the numbers out of the log, so a function needs no right but that to its log. Every number has the dimensions
`deployment`, the prefix, and `service`, the function's name, which Powertools reads from POWERTOOLS_SERVICE_NAME. Models and versions
are never dimensions: each value of one is a metric of its own, paid for and kept; the log lines beside the numbers name them.

Importing Powertools costs about as much as everything of ours, so what answers predictions or runs registered code does not import this.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from aws_lambda_powertools.metrics import EphemeralMetrics, MetricUnit

NAMESPACE: Final = "Attestry"


class Count(StrEnum):
    """What is counted; the values are the metrics' names."""

    RECEIPTS_COLLECTED = "ReceiptsCollected"
    SEQUENCE_GAPS = "SequenceGaps"
    KEYS_NOT_COLLECTED = "KeysNotCollected"
    VERSIONS_SWEPT = "VersionsSwept"
    VERSIONS_UNMENDED = "VersionsUnmended"
    STAGES_ENDED = "StagesEnded"
    LEDGER_LEAVES = "LedgerLeaves"
    LEDGER_CONFLICTS = "LedgerConflicts"
    LEDGER_UNWITNESSED = "LedgerUnwitnessed"
    FINDINGS_OPENED = "FindingsOpened"
    AUDIT_NOTES_LOST = "AuditNotesLost"
    EVENTS_TOLD = "EventsTold"
    EVENTS_UNTOLD = "EventsUntold"
    DELIVERIES = "Deliveries"
    DELIVERIES_FAILED = "DeliveriesFailed"


def count(counts: Mapping[Count, int], *, deployment: str, service: str | None = None, **dimensions: str) -> None:
    """Write counts, zeros included: a zero says that somebody looked.

    Args:
        counts: how many of each; at most 100 names.
        deployment: the prefix, so that two deployments in one account are counted apart.
        service: in the place of the function's name, for what any function may count and one alarm watches.
        dimensions: further dimensions, each of few possible values.
    """
    # Not `Metrics`, whose numbers and dimensions all its instances in a process share.
    metrics = EphemeralMetrics(namespace=NAMESPACE, service=service)
    for name, value in {"deployment": deployment, **dimensions}.items():
        metrics.add_dimension(name=name, value=value)
    for counted, number in counts.items():
        metrics.add_metric(name=counted.value, unit=MetricUnit.Count, value=number)
    metrics.flush_metrics()
