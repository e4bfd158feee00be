"""What a service says about a job that has ended: its own description, read into facts of the stage.

Read are DescribeTrainingJob, DescribeProcessingJob and DescribeTransformJob of SageMaker, DescribeJobs of Batch and GetJobRun of EMR
Serverless, as the API answers or as Step Functions' `.sync` tasks do, whose members all begin with a capital. The description of a job that
failed or was stopped is the `Cause` of the error that such a task raises.

The service says this, not the job: which machine, for how long, from which image. An exit message alone is the job's own word, and is kept
as its reason to fail, which no gate reads.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from attestry.domain.errors import IntegrityError
from attestry.domain.jobs import Service

SUCCEEDED, FAILED, STOPPED, TIMED_OUT = "SUCCEEDED", "FAILED", "STOPPED", "TIMED_OUT"
_OUTCOMES = {
    "Completed": SUCCEEDED,
    "Failed": FAILED,
    "Stopped": STOPPED,
    "SUCCEEDED": SUCCEEDED,
    "SUCCESS": SUCCEEDED,
    "FAILED": FAILED,
    "CANCELLED": STOPPED,
}
_EXIT_CODE = re.compile(r"exit code:? *(\d{1,3})\b", re.IGNORECASE)
_TIMEOUTS = ("MaxRuntimeExceeded", "MaxWaitTimeExceeded", "Job attempt duration exceeded timeout", "execution timeout")
_MAX_REASON = 1500


@dataclass(frozen=True)
class JobFacts:
    """A job that has ended.

    Attributes:
        service: what ran it.
        outcome: SUCCEEDED, FAILED, STOPPED or TIMED_OUT.
        job_name: its name; empty where the service never took the job.
        job_arn: its ARN.
        container: image that it ran from, as the service names it.
        container_digest: SHA-256 of that image, hex.
        instance_type: machine type; empty where the service has none.
        instance_count: number of machines; None where the service has none.
        billable_seconds: seconds that are paid for, of one machine; None where the service does not say.
        usage: what is paid for otherwise, such as `vcpu_hours`, as text.
        exit_code: of the container; None where the service does not say.
        exit_reason: why it ended so, in the service's or the job's words; empty on success.
        log_location: where its output lies: `group` and `stream`, or `uri`.
        interruptions: how often a spot machine was taken away.
        started, ended: UTC, RFC 3339; empty where the service does not say.
    """

    service: Service
    outcome: str
    job_name: str = ""
    job_arn: str = ""
    container: str = ""
    container_digest: str = ""
    instance_type: str = ""
    instance_count: int | None = None
    billable_seconds: int | None = None
    usage: Mapping[str, str] = field(default_factory=dict)
    exit_code: int | None = None
    exit_reason: str = ""
    log_location: Mapping[str, str] = field(default_factory=dict)
    interruptions: int = 0
    started: str = ""
    ended: str = ""

    def to_item(self) -> dict[str, Any]:
        """Return the facts for the record, JSON values without fractions."""
        return {**asdict(self), "service": self.service.value}

    @property
    def failure(self) -> str:
        """A sentence that says why the stage failed; empty on success."""
        if self.outcome == SUCCEEDED:
            return ""
        said = {FAILED: "failed", STOPPED: "was stopped", TIMED_OUT: "ran past its limit"}[self.outcome]
        return f"the {self.service} job {said}: {self.exit_reason or 'the service gives no reason'}"


def job_facts(service: str, answer: Mapping[str, Any]) -> JobFacts:
    """Return the facts of a job from its service's description.

    Args:
        service: one of `Service`.
        answer: the description.

    Raises:
        IntegrityError: the description is of another kind, or of a job that has not ended.
    """
    kind = Service(service)
    read = {
        Service.SAGEMAKER_PROCESSING: _read_processing,
        Service.SAGEMAKER_TRAINING: _read_training,
        Service.SAGEMAKER_TRANSFORM: _read_transform,
        Service.BATCH: _read_batch,
        Service.EMR_SERVERLESS: _read_spark,
    }[kind]
    return read(_Answer(answer))


def failed_job_facts(service: str, error: Mapping[str, Any]) -> JobFacts:
    """Return the facts of a job from the error that its task raised.

    Args:
        service: one of `Service`.
        error: `Error` and `Cause` as Step Functions caught them; the cause of a job that ended is its description, and is a plain sentence
            where the service refused the request.
    """
    name, cause = str(error.get("Error", "the task failed")), str(error.get("Cause", ""))
    try:
        described = json.loads(cause)
        facts = job_facts(service, described)
    except (ValueError, TypeError, AttributeError, IntegrityError):
        outcome = TIMED_OUT if name == "States.Timeout" else FAILED
        return JobFacts(Service(service), outcome, exit_reason=f"{name}: {cause}"[:_MAX_REASON])
    if facts.outcome == SUCCEEDED:
        # What the task raised stands above what the description says.
        return JobFacts(facts.service, FAILED, facts.job_name, facts.job_arn, exit_reason=f"{name}: the job completed all the same")
    return facts


def check_job(facts: JobFacts, planned: Mapping[str, Any]) -> None:
    """Check that a description is of the job that was planned.

    Args:
        facts: what the service says.
        planned: `service`, `name` and `container` of the plan.

    Raises:
        IntegrityError: it is another job, or ran from another image.
    """
    for what, found, wanted in (
        ("service", facts.service.value, planned["service"]),
        ("name", facts.job_name, planned["name"]),
        ("image", facts.container_digest, digest_of(str(planned["container"]))),
    ):
        if found and found != wanted:
            raise IntegrityError(f"the job that ended has the {what} {found}; planned was {wanted}")
    if facts.outcome == SUCCEEDED and not facts.job_name:
        raise IntegrityError("the service's answer names no job")


def digest_of(image: str) -> str:
    """Return the SHA-256 that an image is named with, in hex; empty where it is named otherwise."""
    return image.partition("@sha256:")[2]


class _Answer:
    """A description whose members may begin with a capital or not."""

    def __init__(self, value: Any) -> None:
        self._value = {str(k)[:1].lower() + str(k)[1:]: v for k, v in value.items()} if isinstance(value, Mapping) else {}

    def get(self, name: str) -> Any:
        return self._value.get(name[:1].lower() + name[1:])

    def text(self, name: str) -> str:
        value = self.get(name)
        return value if isinstance(value, str) else ""

    def number(self, name: str) -> int | None:
        value = self.get(name)
        return int(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None

    def below(self, *names: str) -> _Answer:
        found = self
        for name in names:
            found = _Answer(found.get(name))
        return found

    def items(self, name: str) -> list[_Answer]:
        value = self.get(name)
        return [_Answer(v) for v in value] if isinstance(value, Sequence) and not isinstance(value, str) else []


def _outcome(status: str, reason: str) -> str:
    if status not in _OUTCOMES:
        raise IntegrityError(f"the service's answer is of no job that has ended: its status is {status or 'missing'}")
    outcome = _OUTCOMES[status]
    if outcome != SUCCEEDED and any(word.lower() in reason.lower() for word in _TIMEOUTS):
        return TIMED_OUT
    return outcome


def _read_training(answer: _Answer) -> JobFacts:
    reason = answer.text("FailureReason")
    transitions = answer.items("SecondaryStatusTransitions")
    last = f"{answer.text('SecondaryStatus')} {transitions[-1].text('StatusMessage') if transitions else ''}"
    outcome = _outcome(answer.text("TrainingJobStatus"), f"{reason} {last}")
    name, image = answer.text("TrainingJobName"), answer.below("AlgorithmSpecification").text("TrainingImage")
    machines = answer.below("ResourceConfig")
    return JobFacts(
        Service.SAGEMAKER_TRAINING,
        outcome,
        name,
        answer.text("TrainingJobArn"),
        image,
        digest_of(image),
        machines.text("InstanceType"),
        machines.number("InstanceCount"),
        answer.number("BillableTimeInSeconds"),
        exit_code=_exit_code(outcome, reason),
        exit_reason=_reason(outcome, reason or last.strip()),
        log_location={"group": "/aws/sagemaker/TrainingJobs", "stream": f"{name}/"},
        interruptions=sum(t.text("Status") == "Interrupted" for t in transitions),
        started=_time(answer.get("TrainingStartTime")),
        ended=_time(answer.get("TrainingEndTime")),
    )


def _read_processing(answer: _Answer) -> JobFacts:
    reason = " ".join(part for part in (answer.text("FailureReason"), answer.text("ExitMessage")) if part)
    outcome = _outcome(answer.text("ProcessingJobStatus"), reason)
    name, image = answer.text("ProcessingJobName"), answer.below("AppSpecification").text("ImageUri")
    machines = answer.below("ProcessingResources", "ClusterConfig")
    started, ended = _seconds(answer.get("ProcessingStartTime")), _seconds(answer.get("ProcessingEndTime"))
    return JobFacts(
        Service.SAGEMAKER_PROCESSING,
        outcome,
        name,
        answer.text("ProcessingJobArn"),
        image,
        digest_of(image),
        machines.text("InstanceType"),
        machines.number("InstanceCount"),
        _between(started, ended),
        exit_code=_exit_code(outcome, reason),
        exit_reason=_reason(outcome, reason),
        log_location={"group": "/aws/sagemaker/ProcessingJobs", "stream": f"{name}/"},
        started=_time(answer.get("ProcessingStartTime")),
        ended=_time(answer.get("ProcessingEndTime")),
    )


def _read_transform(answer: _Answer) -> JobFacts:
    reason, machines = answer.text("FailureReason"), answer.below("TransformResources")
    outcome = _outcome(answer.text("TransformJobStatus"), reason)
    name = answer.text("TransformJobName")
    started, ended = _seconds(answer.get("TransformStartTime")), _seconds(answer.get("TransformEndTime"))
    return JobFacts(
        Service.SAGEMAKER_TRANSFORM,
        outcome,
        name,
        answer.text("TransformJobArn"),
        instance_type=machines.text("InstanceType"),
        instance_count=machines.number("InstanceCount"),
        billable_seconds=_between(started, ended),
        exit_reason=_reason(outcome, reason),
        log_location={"group": "/aws/sagemaker/TransformJobs", "stream": f"{name}/"},
        started=_time(answer.get("TransformStartTime")),
        ended=_time(answer.get("TransformEndTime")),
    )


def _read_batch(answer: _Answer) -> JobFacts:
    jobs = answer.items("jobs")
    job = jobs[0] if jobs else answer
    container, attempts = job.below("container"), job.items("attempts")
    reason = " ".join(part for part in (job.text("statusReason"), container.text("reason")) if part)
    outcome = _outcome(job.text("status"), reason)
    image, options = container.text("image"), container.below("logConfiguration", "options")
    lasted = [_between(_seconds(a.get("startedAt")), _seconds(a.get("stoppedAt"))) for a in attempts or [job]]
    known = [seconds for seconds in lasted if seconds is not None]
    return JobFacts(
        Service.BATCH,
        outcome,
        job.text("jobName"),
        job.text("jobArn"),
        image,
        digest_of(image),
        container.text("instanceType"),
        1,
        sum(known) if known else None,
        exit_code=container.number("exitCode"),
        exit_reason=_reason(outcome, reason),
        log_location={"group": options.text("awslogs-group") or "/aws/batch/job", "stream": container.text("logStreamName")},
        interruptions=sum(a.text("statusReason").startswith("Host EC2") for a in attempts),
        started=_time(job.get("startedAt")),
        ended=_time(job.get("stoppedAt")),
    )


def _read_spark(answer: _Answer) -> JobFacts:
    run = answer.below("jobRun") if answer.get("jobRun") else answer
    reason = run.text("stateDetails")
    outcome = _outcome(run.text("state"), reason)
    image, billed = run.below("imageConfiguration"), run.below("billedResourceUtilization")
    monitoring = run.below("configurationOverrides", "monitoringConfiguration")
    usage = {
        "vcpu_hours": billed.get("vCPUHour"),
        "memory_gb_hours": billed.get("memoryGBHour"),
        "storage_gb_hours": billed.get("storageGBHour"),
    }
    uri = f"{monitoring.below('s3MonitoringConfiguration').text('logUri').rstrip('/')}/"
    return JobFacts(
        Service.EMR_SERVERLESS,
        outcome,
        run.text("name"),
        run.text("arn"),
        image.text("imageUri"),
        image.text("resolvedImageDigest").removeprefix("sha256:") or digest_of(image.text("imageUri")),
        billable_seconds=run.number("totalExecutionDurationSeconds"),
        usage={name: f"{value}" for name, value in usage.items() if isinstance(value, (int, float))},
        exit_code=_exit_code(outcome, reason),
        exit_reason=_reason(outcome, reason),
        log_location={"uri": f"{uri}applications/{run.text('applicationId')}/jobs/{run.text('jobRunId')}/"} if uri != "/" else {},
        started=_time(run.get("startedAt") or run.get("createdAt")),
        ended=_time(run.get("endedAt") or run.get("updatedAt")),
    )


def _reason(outcome: str, reason: str) -> str:
    return "" if outcome == SUCCEEDED else reason[:_MAX_REASON]


def _exit_code(outcome: str, reason: str) -> int | None:
    found = _EXIT_CODE.search(reason)
    return 0 if outcome == SUCCEEDED else int(found.group(1)) if found else None


def _seconds(value: Any) -> float | None:
    """Return a time in seconds since 1970, of a number of milliseconds or seconds, or of a text."""
    if isinstance(value, datetime):
        return value.timestamp()
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        # Before 1973 nothing ran here, so a larger number than seconds can be counts milliseconds.
        return value / 1000 if value > 1e11 else float(value)
    if isinstance(value, str):
        try:
            return datetime.fromisoformat(value.replace("Z", "+00:00")).timestamp()
        except ValueError:
            return None
    return None


def _between(started: float | None, ended: float | None) -> int | None:
    return None if started is None or ended is None else max(0, round(ended - started))


def _time(value: Any) -> str:
    seconds = _seconds(value)
    if seconds is None:
        return ""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
