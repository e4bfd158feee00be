"""Attestry: a serverless model registry for AWS in which every prediction can be traced, and proven."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from attestry.client.signer import PredictionSigner
    from attestry.sdk.models import LoadedModel, load_model
    from attestry.sdk.runs import Run, RunError, start_run

__version__ = "0.1.0"
__all__ = ["LoadedModel", "PredictionSigner", "Run", "RunError", "__version__", "load_model", "start_run"]

_OFFERED = {
    "LoadedModel": "attestry.sdk.models",
    "load_model": "attestry.sdk.models",
    "PredictionSigner": "attestry.client.signer",
    "Run": "attestry.sdk.runs",
    "RunError": "attestry.sdk.runs",
    "start_run": "attestry.sdk.runs",
}


def __getattr__(name: str) -> Any:
    """Import what is offered here on first use: the functions import this package too, and need none of it."""
    if name in _OFFERED:
        from importlib import import_module

        return getattr(import_module(_OFFERED[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
