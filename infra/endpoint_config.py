"""Settings of what versions are served by besides the inference function. Part of `infra.config.Config`."""

from __future__ import annotations

import re
from typing import Any

from infra.executor_config import MAX_MODELS, NAME

FUNCTION, SAGEMAKER = "function", "sagemaker"
TARGETS = (FUNCTION, SAGEMAKER)


def with_endpoints(config: Any) -> bool:
    """Return whether versions may be served by SageMaker."""
    return SAGEMAKER in config.deployment_targets


def broken_rule(config: Any) -> tuple[str, str] | None:
    """Return the first setting of the targets that cannot be, with the rule, or None.

    Args:
        config: an `infra.config.Config`.
    """
    targets, models = config.deployment_targets, config.endpoint_models
    if FUNCTION not in targets or not set(targets) <= set(TARGETS) or len(set(targets)) < len(targets):
        return "deployment_targets", f"must be of {', '.join(TARGETS)}, each once, and {FUNCTION} always among them"
    for model in models:
        if not re.fullmatch(NAME, model):
            return "endpoint_models", f"must be names of models, not {model!r}"
    if len(set(models)) < len(models) or len(models) > MAX_MODELS:
        return "endpoint_models", f"must be at most {MAX_MODELS} models, each once"
    if with_endpoints(config) and not models:
        return "endpoint_models", "must name the models that SageMaker may serve; each gets a role for its containers"
    if models and not with_endpoints(config):
        return "endpoint_models", "must name none where deploymentTargets has no sagemaker"
    return None
