"""Which executors and images a registry runs: what a manifest asks beyond them is refused before there is a version."""

from __future__ import annotations

from collections.abc import Iterator

from attestry.domain.errors import InvalidInputError, Problem
from attestry.domain.jobs import JobSettings
from attestry.domain.manifest import ManifestDocument
from attestry.domain.stages import SCRIPT_STAGES
from attestry.usecases.stage_plan import container_of, settings_of


def check_executors(document: ManifestDocument, jobs: JobSettings) -> None:
    """Refuse what this registry would have to run elsewhere, or from another image, than the manifest says.

    Args:
        document: the manifest.
        jobs: what the deployment says about jobs.

    Raises:
        InvalidInputError: with every problem, each under the field of the manifest.
    """
    problems = list(_problems(document, jobs))
    if problems:
        raise InvalidInputError(problems)


def _problems(document: ManifestDocument, jobs: JobSettings) -> Iterator[Problem]:
    for stage in SCRIPT_STAGES:
        section, name = settings_of(document.manifest, stage), stage.value.lower()
        executor = section.executor
        if executor == "lambda":
            continue
        if executor not in jobs.executors:
            enabled = " and ".join(jobs.executors)
            yield document.problem(f"{name}.executor", "available", f"this registry runs stages on {enabled}, not on {executor}")
            continue
        if executor == "batch" and not (jobs.batch_spot_queue if section.resources.spot else jobs.batch_queue):
            field, what = ("resources.spot", "spot queue") if section.resources.spot else ("executor", "queue")
            yield document.problem(f"{name}.{field}", "available", f"this registry has no Batch {what}")
        images = {"batch": jobs.batch_definitions, "emr-serverless": jobs.emr_applications}.get(executor)
        if images is not None and container_of(document.manifest, stage) not in images:
            field = f"{name}.container" if section.container else "environment.container"
            known = ", ".join(sorted(images)) or "none"
            yield document.problem(field, "available", f"this registry runs no such image on {executor}; it runs: {known}")
