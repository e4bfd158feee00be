"""What a manifest may ask of what serves the version: rules between `deployment.target` and `deployment.endpoint`.

They are generators as those of `attestry.domain.manifest_rules`, which runs them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from attestry.domain.manifest_executors import SAGEMAKER_MAX_IMAGE, Finding


def check_target(value: Any) -> Iterator[Finding]:
    """An endpoint has its image and machines named, and nothing else has an endpoint."""
    deployment = value.get("deployment")
    if not isinstance(deployment, Mapping):
        return
    target, endpoint = deployment.get("target", "function"), deployment.get("endpoint")
    if target != "sagemaker":
        if endpoint is not None:
            yield (
                ("deployment", "endpoint"),
                "not_with",
                "has no meaning with the target 'function'; leave it out, or set 'target: sagemaker'",
            )
        return
    if endpoint is None:
        yield ("deployment", "endpoint"), "required", "is missing: 'sagemaker' needs the image and the machines that serve the version"
    if not isinstance(endpoint, Mapping):
        return
    instance, image = endpoint.get("instance"), endpoint.get("container")
    if isinstance(instance, str) and not instance.startswith("ml."):
        message = f"'sagemaker' has instance types that begin with 'ml.'; did you mean 'ml.{instance}'?"
        yield ("deployment", "endpoint", "instance"), "pattern", message
    if isinstance(image, str) and len(image) > SAGEMAKER_MAX_IMAGE:
        message = f"'sagemaker' takes images whose name has at most {SAGEMAKER_MAX_IMAGE} characters, the digest included"
        yield ("deployment", "endpoint", "container"), "length", message
