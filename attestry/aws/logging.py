"""Logs as JSON lines with the request they belong to, by Powertools' formatter.

Nothing here or elsewhere logs an event or a header: an event carries the caller's signature.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING, Final

from aws_lambda_powertools.logging.formatter import LambdaPowertoolsFormatter

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

_QUIET: Final = ("botocore", "boto3", "urllib3", "s3transfer")
_formatter: LambdaPowertoolsFormatter | None = None


def configure_logging(context: LambdaContext | None = None) -> None:
    """Let the process log JSON lines at ATTESTRY_LOG_LEVEL (INFO by default), each with function, request ID and trace ID.

    To call at the start of every invocation; the first call sets the process up.

    Args:
        context: the invocation's context, whose request ID the following lines carry.
    """
    global _formatter
    if _formatter is None:
        _formatter = LambdaPowertoolsFormatter(utc=True, log_record_order=["level", "message", "timestamp"])
        handler = logging.StreamHandler(sys.stdout)
        handler.setFormatter(_formatter)
        root = logging.getLogger()
        # The runtime's own handler would print every line a second time, as text.
        root.handlers = [h for h in root.handlers if type(h).__module__ != "awslambdaric.bootstrap"] + [handler]
        root.setLevel(os.environ.get("ATTESTRY_LOG_LEVEL") or "INFO")
        for name in _QUIET:
            logging.getLogger(name).setLevel(logging.WARNING)
    if context is not None:
        _formatter.append_keys(function=context.function_name, request_id=context.aws_request_id)
