"""What the exit codes of the command line mean; `docs/cli.md` lists them."""

from __future__ import annotations

from enum import IntEnum

from attestry.domain.errors import AttestryError


class ExitCode(IntEnum):
    """How a command ended."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    FORBIDDEN = 4
    BROKEN = 5
    UNAVAILABLE = 6


_BY_CODE = {
    "integrity": ExitCode.BROKEN,
    "endpoint": ExitCode.FORBIDDEN,
    "not_running": ExitCode.UNAVAILABLE,
    "version_reference": ExitCode.USAGE,
}
_BY_STATUS = {
    401: ExitCode.FORBIDDEN,
    403: ExitCode.FORBIDDEN,
    404: ExitCode.NOT_FOUND,
    429: ExitCode.UNAVAILABLE,
    503: ExitCode.UNAVAILABLE,
    504: ExitCode.UNAVAILABLE,
}


def exit_code_of(error: AttestryError) -> ExitCode:
    """Return the exit code for an error, of the registry or of the client."""
    return _BY_CODE.get(error.code) or _BY_STATUS.get(error.status, ExitCode.FAILED)
