"""Attestry: a serverless model registry for AWS in which every prediction can be traced, and proven."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from attestry.client.signer import PredictionSigner

__version__ = "0.1.0"
__all__ = ["PredictionSigner", "__version__"]


def __getattr__(name: str) -> Any:
    """Import what is offered here on first use: the functions import this package too, and need none of it."""
    if name == "PredictionSigner":
        from attestry.client.signer import PredictionSigner

        return PredictionSigner
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
