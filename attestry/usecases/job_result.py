"""What a job came to, for the record of its stage: facts that its service tells, checked against the plan, and the log that it left.

A job's answer reaches the registry through Step Functions alone. Nothing in it decides about outputs: those are digested where they lie.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from attestry.domain.archive import ArchiveLimits, iterate_archive
from attestry.domain.errors import IntegrityError, InvalidInputError, NotFoundError
from attestry.domain.job_facts import SUCCEEDED, JobFacts, check_job, failed_job_facts, job_facts
from attestry.domain.jobs import Service, archive_key
from attestry.ports import ObjectStore
from attestry.usecases.jobs import MAX_LOG_BYTES, MAX_OUTPUT_BYTES

_SLACK = 4096
_REASON = re.compile(r"^\[attestry: (.{1,1000})\]$")


def read_job(run: Mapping[str, Any] | None, planned: Mapping[str, Any]) -> JobFacts:
    """Return the facts of the job that ran a stage.

    Args:
        run: `{"service", "answer"}` or `{"service", "error": {"Error", "Cause"}}`, as the pipeline passes it on.
        planned: `service`, `name` and `container` of the stage's plan.

    Raises:
        IntegrityError: the answer is of another job than the plan's, or of one that has not ended.
    """
    told = run or {}
    error, answer = told.get("error"), told.get("answer")
    if isinstance(error, Mapping):
        facts = failed_job_facts(planned["service"], error)
    elif isinstance(answer, Mapping) and told.get("service") == planned["service"]:
        facts = job_facts(planned["service"], answer)
    else:
        raise IntegrityError(f"the pipeline passed on no answer of {planned['service']}")
    check_job(facts, planned)
    return facts


def with_own_reason(facts: JobFacts, log: bytes | None) -> JobFacts:
    """Return the facts of a failed job with the reason that its own log ends with, where the service repeats none (Batch, Spark)."""
    if facts.outcome == SUCCEEDED or not log:
        return facts
    lines = log.decode("utf-8", "replace").rstrip().splitlines()
    found = _REASON.match(lines[-1]) if lines else None
    if found is None or found.group(1) in facts.exit_reason:
        return facts
    return replace(facts, exit_reason=f"{facts.exit_reason}: {found.group(1)}" if facts.exit_reason else found.group(1))


def read_log(scratch: ObjectStore, prefix: str, planned: Mapping[str, Any] | None) -> bytes | None:
    """Return the log that a run left in scratch, at most `MAX_LOG_BYTES` and a little; None where there is none that can be read.

    Args:
        scratch: the scratch bucket.
        prefix: the run's prefix.
        planned: the job of the plan; None for the sandbox.
    """
    service, name = (planned["service"], planned["name"]) if planned else ("", "")
    try:
        if service == Service.SAGEMAKER_TRAINING:
            return _log_in_archive(scratch, archive_key(prefix, service, name, "output"))
        if service == Service.EMR_SERVERLESS:
            return _driver_log(scratch, f"{prefix}out/log/")
        key = f"{prefix}out/log/log.txt" if service == Service.SAGEMAKER_PROCESSING else f"{prefix}log.txt"
        return scratch.read(key, max_bytes=MAX_LOG_BYTES + _SLACK)
    except (NotFoundError, InvalidInputError):
        return None


def _log_in_archive(scratch: ObjectStore, key: str) -> bytes | None:
    """Return `log.txt` of the archive that SageMaker makes of a training's output folder."""
    limits = ArchiveLimits(max_files=100_000, max_bytes=MAX_OUTPUT_BYTES, max_file_bytes=MAX_OUTPUT_BYTES)
    with scratch.open(key) as stream:
        for member in iterate_archive(stream, limits, field="SM_OUTPUT_DATA_DIR"):
            if member.path == "log.txt":
                return member.stream.read(MAX_LOG_BYTES + _SLACK)
    return None


def _driver_log(scratch: ObjectStore, prefix: str) -> bytes | None:
    """Return what Spark's driver printed, as EMR Serverless leaves it: stderr, then stdout, gzip each."""
    keys = {v.key for v in scratch.list_versions(prefix) if v.is_latest and not v.is_delete_marker}
    printed = []
    for name in ("stderr.gz", "stdout.gz"):
        for key in sorted(k for k in keys if k.endswith(f"/SPARK_DRIVER/{name}")):
            try:
                with scratch.open(key) as stream, gzip.GzipFile(fileobj=stream) as unpacked:
                    printed.append(unpacked.read(MAX_LOG_BYTES // 2))
            except (OSError, EOFError):
                continue
    return b"".join(printed) or None
