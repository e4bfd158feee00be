"""Serves versions to the functions predict and deploy. This function's role has no permissions, and its archive no dependencies."""

from __future__ import annotations

import os
import time
from typing import Any

from attestry.sandbox.serving import ModelServer

MARGIN_SECONDS = 1.0
_server = ModelServer(memory_mib=int(os.environ.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "0")) or None)


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Load a version, or predict with it; what goes wrong is an answer, never an exception. See `ModelServer.handle`."""
    deadline = time.monotonic() + context.get_remaining_time_in_millis() / 1000 - MARGIN_SECONDS
    return _server.handle(event, deadline)
