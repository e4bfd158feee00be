"""Which targets a registry deploys to: what a manifest asks beyond them is refused before there is a version."""

from __future__ import annotations

from attestry.domain.endpoints import SAGEMAKER, EndpointSettings
from attestry.domain.errors import InvalidInputError
from attestry.domain.manifest import ManifestDocument


def check_target(document: ManifestDocument, endpoints: EndpointSettings) -> None:
    """Refuse what this registry would have to serve otherwise than the manifest says.

    Args:
        document: the manifest.
        endpoints: what the deployment says about endpoints.

    Raises:
        InvalidInputError: under the field of the manifest.
    """
    manifest = document.manifest
    if manifest.deployment.target != SAGEMAKER or manifest.model.name in endpoints.models:
        return
    known = ", ".join(sorted(endpoints.models))
    what = f"serves these models by SageMaker: {known}" if known else "serves versions by its inference function"
    raise InvalidInputError([document.problem("deployment.target", "available", f"this registry {what}")])
