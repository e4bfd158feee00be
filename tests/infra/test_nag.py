"""cdk-nag's AwsSolutions, NIST 800-53 R5, HIPAA, PCI and Serverless packs."""

from __future__ import annotations

from infra.findings import ACKNOWLEDGED
from infra.findings_endpoints import ACKNOWLEDGED_ENDPOINTS
from infra.findings_jobs import ACKNOWLEDGED_JOBS
from infra.findings_runbook import ACKNOWLEDGED_WITH_RUNBOOK
from infra.nag import Acknowledgement, Finding, unacknowledged, unused
from tests.infra.conftest import Synthesis


def test_every_pack_reports(synthesis: Synthesis) -> None:
    assert {finding.pack for finding in synthesis.findings} == {
        "AwsSolutions",
        "NIST.800.53.R5",
        "HIPAA.Security",
        "PCI.DSS.321",
        "Serverless",
    }


def test_every_finding_is_acknowledged_with_a_reason(synthesis: Synthesis) -> None:
    assert unacknowledged(synthesis.findings, ACKNOWLEDGED) == []
    assert all(len(entry.reason) > 40 for entry in ACKNOWLEDGED)


def test_no_acknowledgement_outlives_its_finding(synthesis: Synthesis) -> None:
    assert unused(synthesis.findings, ACKNOWLEDGED) == []


def test_every_finding_of_executors_targets_and_runbook_is_acknowledged_and_none_is_excused_in_vain(all_executors: Synthesis) -> None:
    more = [*ACKNOWLEDGED_JOBS, *ACKNOWLEDGED_ENDPOINTS, *ACKNOWLEDGED_WITH_RUNBOOK]
    assert unacknowledged(all_executors.findings, [*ACKNOWLEDGED, *more]) == []
    assert unused(all_executors.findings, more) == []
    assert all(len(entry.reason) > 40 for entry in more)


def test_an_acknowledgement_covers_only_its_rule_resource_and_detail() -> None:
    entry = Acknowledgement(("IAM5",), ("A/Role",), "because", "Resource::x/[*]")
    assert entry.covers(Finding("P", "IAM5", "Resource::x/*", "A/Role"))
    assert not entry.covers(Finding("P", "IAM5", "Resource::x/*/y/*", "A/Role"))
    assert not entry.covers(Finding("P", "IAM5", "Resource::x/*", "B/Role"))
    assert not entry.covers(Finding("P", "IAM4", "Resource::x/*", "A/Role"))


def test_an_acknowledgement_that_matches_nothing_is_reported() -> None:
    entry = Acknowledgement(("L1", "L2"), ("A",), "because")
    assert unused([Finding("P", "L1", "", "A")], [entry]) == [("L2", "A", "")]
