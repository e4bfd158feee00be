"""What can go wrong while a script is run for somebody: one base, one sentence each.

The sandbox ships without the rest of the registry, so it has a tree of its own; `run_job` turns every one of them into an
answer, and none ever reaches the function's caller as an exception.
"""

from __future__ import annotations


class SandboxError(Exception):
    """Base: the job cannot be run or its result cannot be used; the message is for the person who submitted it."""


class BadJobError(SandboxError):
    """The job document breaks its format."""


class FetchError(SandboxError):
    """An input could not be read, or is not the bytes that the job names."""


class TamperedFileError(FetchError):
    """An input has another size or digest than was recorded for it."""


class UnsafeArchiveError(SandboxError):
    """An archive holds something that must not be unpacked: a link, a special file, a path that leads outside."""


class OutputError(SandboxError):
    """What the script left in its output folders cannot be taken over."""


class UploadError(SandboxError):
    """The place for an output refused it."""


class LeftoverProcessError(SandboxError):
    """Processes of an earlier script are still alive, so nothing else may run beside them."""


class ServingError(SandboxError):
    """The process that serves a model did not start, died, or answered nonsense."""
