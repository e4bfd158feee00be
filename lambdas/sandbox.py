"""Runs a stranger's script. This function's role has no permissions, and its archive no dependencies."""

from __future__ import annotations

import os
import time
from typing import Any

from attestry.sandbox.run import Sandbox

_MARGIN_SECONDS = 2.0
_sandbox = Sandbox(memory_mib=int(os.environ.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "0")) or None)


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Run the job behind `{"job_url": ...}` and answer how it went; errors are answers, never exceptions."""
    deadline = time.monotonic() + context.get_remaining_time_in_millis() / 1000 - _MARGIN_SECONDS
    return _sandbox.run_from_url(str(event.get("job_url", "")), deadline)
