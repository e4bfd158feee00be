"""Logs as JSON lines with the request they belong to.

A line has `level`, `message`, `timestamp`, `location`, what the call gave as `extra`, and, inside an invocation, `service`, `function`,
`request_id` and `xray_trace_id`: the keys of Powertools' Logger, so that queries over both read alike. The formatter is the standard
library's, because importing Powertools costs about as much as everything of ours in the path of a cold prediction.

Nothing here or elsewhere logs an event or a header: an event carries the caller's signature.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from datetime import UTC, datetime
from typing import Any, Final, Protocol

_QUIET: Final = ("botocore", "boto3", "tuf", "urllib3", "s3transfer")
_RECORD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
"""What every record of `logging` has; the rest is what a call gave as `extra`."""


class Invocation(Protocol):
    """What logs take from Lambda's context."""

    @property
    def function_name(self) -> str:
        """Return the function's name."""

    @property
    def aws_request_id(self) -> str:
        """Return the ID of the invocation."""


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of JSON; what JSON cannot tell is told by `repr`, so a line is never lost.

    Attributes:
        keys: what each line carries besides: of the function and of the invocation.
    """

    def __init__(self) -> None:
        super().__init__()
        service = os.environ.get("POWERTOOLS_SERVICE_NAME")
        self.keys: dict[str, str] = {"service": service} if service else {}

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line: dict[str, Any] = {
            "level": record.levelname,
            "message": record.getMessage(),
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "location": f"{record.name}.{record.funcName}:{record.lineno}",
            **self.keys,
            **{name: value for name, value in vars(record).items() if name not in _RECORD},
        }
        if trace := _trace_id():
            line["xray_trace_id"] = trace
        if record.exc_info and record.exc_info[0]:
            line["exception"] = self.formatException(record.exc_info)
            line["exception_name"] = record.exc_info[0].__name__
        return json.dumps(line, separators=(",", ":"), skipkeys=True, default=repr)


_formatter: JsonFormatter | None = None


def configure_logging(context: Invocation | None = None) -> None:
    """Let the process log JSON lines at ATTESTRY_LOG_LEVEL (INFO by default), each with function, request ID and trace ID.

    To call at the start of every invocation; the first call sets the process up.

    Args:
        context: the invocation's context, whose request ID the following lines carry.
    """
    global _formatter
    if _formatter is None:
        _formatter = JsonFormatter()
        handler = logging.StreamHandler(sys.stdout)
        handler.setFormatter(_formatter)
        root = logging.getLogger()
        # The runtime's own handler would print every line a second time, as text.
        root.handlers = [h for h in root.handlers if type(h).__module__ != "awslambdaric.bootstrap"] + [handler]
        root.setLevel(os.environ.get("ATTESTRY_LOG_LEVEL") or "INFO")
        for name in _QUIET:
            logging.getLogger(name).setLevel(logging.WARNING)
    if context is not None:
        _formatter.keys |= {"function": context.function_name, "request_id": context.aws_request_id}


def _trace_id() -> str:
    """Return the root of X-Ray's trace header, which the runtime sets for each invocation."""
    parts = dict(part.partition("=")[::2] for part in os.environ.get("_X_AMZN_TRACE_ID", "").split(";"))
    return parts.get("Root", "")
