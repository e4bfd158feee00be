"""The alarms: that the metrics which they watch are written, and what they go off for."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from attestry.aws.audit import SERVICE
from attestry.aws.metrics import NAMESPACE, Count, count
from infra.monitoring import BUSY, ERRORS
from tests.infra.template import Template

CONFIGURATIONS = pytest.mark.parametrize(("configuration", "prefix"), [("synthesis", "attestry"), ("open_network", "registry-two")])


def alarms_of(template: Template) -> dict[str, dict[str, Any]]:
    return {alarm["AlarmName"]: alarm for alarm in template.of_type("AWS::CloudWatch::Alarm").values()}


def dimensions_of(alarm: dict[str, Any]) -> dict[str, str]:
    return {dimension["Name"]: dimension["Value"] for dimension in alarm.get("Dimensions", [])}


def written_by(
    template: Template, function: str, counted: Count, capture: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Any:
    """Return the metric that a function writes under the environment that the template gives it."""
    (properties,) = [f for f in template.of_type("AWS::Lambda::Function").values() if f["FunctionName"].endswith(f"-{function}")]
    environment = properties["Environment"]["Variables"]
    monkeypatch.setenv("POWERTOOLS_SERVICE_NAME", environment["POWERTOOLS_SERVICE_NAME"])
    count({counted: 1}, deployment=environment["ATTESTRY_PREFIX"])
    document = json.loads(capture.readouterr().out)
    (metrics,) = document["_aws"]["CloudWatchMetrics"]
    (names,) = metrics["Dimensions"]
    return metrics["Namespace"], metrics["Metrics"][0]["Name"], {name: document[name] for name in names}


@CONFIGURATIONS
@pytest.mark.parametrize(
    ("name", "function", "counted"),
    [
        ("sequence-gaps", "collect", Count.SEQUENCE_GAPS),
        ("keys-not-collected", "collect", Count.KEYS_NOT_COLLECTED),
        ("versions-unmended", "sweep", Count.VERSIONS_UNMENDED),
        ("ledger-conflicts", "sequence", Count.LEDGER_CONFLICTS),
        ("ledger-unwitnessed", "sequence", Count.LEDGER_UNWITNESSED),
        ("findings-opened", "reconcile", Count.FINDINGS_OPENED),
        ("events-untold", "tell", Count.EVENTS_UNTOLD),
    ],
)
def test_one_is_enough_to_raise_the_alarm(
    configuration: str,
    prefix: str,
    name: str,
    function: str,
    counted: Count,
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    template = request.getfixturevalue(configuration).template
    alarm = alarms_of(template)[f"{prefix}-{name}"]
    watched = (alarm["Namespace"], alarm["MetricName"], dimensions_of(alarm))
    assert watched == written_by(template, function, counted, capsys, monkeypatch)
    assert (alarm["Statistic"], alarm["Threshold"], alarm["EvaluationPeriods"]) == ("Sum", 1, 1)
    assert alarm["ComparisonOperator"] == "GreaterThanOrEqualToThreshold"
    assert alarm["TreatMissingData"] == "notBreaching"


@CONFIGURATIONS
@pytest.mark.parametrize(
    ("name", "function", "counted", "seconds"),
    [
        ("ledger-stalled", "sequence", Count.LEDGER_LEAVES, 300),
        ("telling-stalled", "tell", Count.EVENTS_TOLD, 300),
        ("reconciliation-stalled", "reconcile", Count.FINDINGS_OPENED, 3600),
    ],
)
def test_a_function_that_does_not_count_any_more_raises_an_alarm_by_its_silence(
    configuration: str,
    prefix: str,
    name: str,
    function: str,
    counted: Count,
    seconds: int,
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    template = request.getfixturevalue(configuration).template
    alarm = alarms_of(template)[f"{prefix}-{name}"]
    watched = (alarm["Namespace"], alarm["MetricName"], dimensions_of(alarm))
    assert watched == written_by(template, function, counted, capsys, monkeypatch)
    # A zero that was counted is a sample like any other; only silence has none.
    assert (alarm["Statistic"], alarm["Threshold"], alarm["EvaluationPeriods"], alarm["Period"]) == ("SampleCount", 1, 3, seconds)
    assert (alarm["ComparisonOperator"], alarm["TreatMissingData"]) == ("LessThanThreshold", "breaching")


def test_an_execution_that_hangs_raises_an_alarm(template: Template) -> None:
    alarm = alarms_of(template)["attestry-pipeline-timed-out"]
    (pipeline,) = [m for m in template.of_type("AWS::StepFunctions::StateMachine").values() if m["StateMachineName"] == "attestry-pipeline"]
    assert alarm["MetricName"] == "ExecutionsTimedOut"
    assert dimensions_of(alarm)["StateMachineArn"].endswith(":stateMachine:attestry-pipeline")
    assert json.loads(pipeline["DefinitionString"])["TimeoutSeconds"] == 31 * 86_400


def fits(pattern: str, line: dict[str, str]) -> bool:
    """Evaluate the few forms of CloudWatch's filter patterns that ours are made of; `*` at the end of a text is anything."""

    def compare(match: re.Match[str]) -> str:
        name, operator, text = match.groups()
        same = line[name].startswith(text[:-1]) if text.endswith("*") else line[name] == text
        return str(same == (operator == "="))

    formula = re.sub(r'\$\.(\w+) (=|!=) "([^"]*)"', compare, pattern.strip("{ }"))
    formula = formula.replace("&&", "and").replace("||", "or")
    assert re.fullmatch(r"(True|False|and|or|[() ])+", formula)
    return bool(eval(formula))


@pytest.mark.parametrize(
    ("status", "answered", "error", "busy"),
    [
        ("200", "200", False, False),
        ("409", "409", False, False),
        ("429", "-", False, False),
        ("500", "500", True, False),
        ("500", "-", True, False),
        ("502", "502", True, False),
        ("504", "-", True, False),
        ("503", "503", False, True),
        ("503", "-", True, False),
    ],
)
def test_a_503_of_ours_is_no_error_and_one_of_the_gateway_is(status: str, answered: str, error: bool, busy: bool) -> None:
    line = {"status": status, "answered": answered}
    assert (fits(ERRORS, line), fits(BUSY, line)) == (error, busy)


@CONFIGURATIONS
def test_the_api_s_alarms_count_lines_of_the_access_log(configuration: str, prefix: str, request: pytest.FixtureRequest) -> None:
    template = request.getfixturevalue(configuration).template
    (stage,) = template.of_type("AWS::ApiGatewayV2::Stage").values()
    line = json.loads(stage["AccessLogSettings"]["Format"])
    groups = {name: group["LogGroupName"] for name, group in template.of_type("AWS::Logs::LogGroup").items()}
    filters = list(template.of_type("AWS::Logs::MetricFilter").values())
    assert {entry["FilterPattern"] for entry in filters} == {ERRORS, BUSY}
    alarms = alarms_of(template)
    for entry, name, periods in ((ERRORS, "api-errors", 1), (BUSY, "api-busy", 3)):
        (found,) = [one for one in filters if one["FilterPattern"] == entry]
        (made,) = found["MetricTransformations"]
        alarm = alarms[f"{prefix}-{name}"]
        assert groups[found["LogGroupName"]] == f"/aws/vendedlogs/{prefix}/api"
        assert set(re.findall(r"\$\.(\w+)", entry)) <= line.keys()
        # A metric of a filter has exactly the dimensions that the filter names, with the values in the line.
        assert {d["Key"]: line[d["Value"].removeprefix("$.")] for d in made["Dimensions"]} == dimensions_of(alarm) == {"deployment": prefix}
        assert (alarm["Namespace"], alarm["MetricName"]) == (made["MetricNamespace"], made["MetricName"])
        assert (made["MetricNamespace"], made["MetricValue"], alarm["EvaluationPeriods"]) == (NAMESPACE, "1", periods)
        assert (alarm["Threshold"], alarm["Statistic"]) == (5, "Sum")


def test_metrics_of_the_registry_name_no_model_and_no_version(template: Template) -> None:
    own = [alarm for alarm in alarms_of(template).values() if alarm["Namespace"] == NAMESPACE]
    assert len(own) == 13
    assert {name for alarm in own for name in dimensions_of(alarm)} == {"deployment", "service"}


@CONFIGURATIONS
def test_one_lost_audit_note_raises_the_alarm_whichever_function_lost_it(
    configuration: str, prefix: str, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    template = request.getfixturevalue(configuration).template
    alarm = alarms_of(template)[f"{prefix}-audit-notes-lost"]
    count({Count.AUDIT_NOTES_LOST: 1}, deployment=prefix, service=SERVICE)
    document = json.loads(capsys.readouterr().out)
    assert (alarm["Namespace"], alarm["MetricName"], alarm["Threshold"]) == (NAMESPACE, "AuditNotesLost", 1)
    assert dimensions_of(alarm) == {name: document[name] for name in document["_aws"]["CloudWatchMetrics"][0]["Dimensions"][0]}


@CONFIGURATIONS
def test_every_function_that_attests_is_told_how_long_to_retain(configuration: str, prefix: str, request: pytest.FixtureRequest) -> None:
    functions = request.getfixturevalue(configuration).template.of_type("AWS::Lambda::Function").values()
    environments = [f.get("Environment", {}).get("Variables", {}) for f in functions]
    attesting = [e for e in environments if "ATTESTRY_SIGNING_KEY" in e]
    assert len(attesting) > 5
    assert all({"ATTESTRY_RETENTION_MODE", "ATTESTRY_RETENTION_DAYS"} <= e.keys() for e in attesting)
