"""Sources: where the files of a new version lie, and that they are the caller's own.

Rules:
1. Files enter from below the caller's own upload prefix and from nowhere else, so nobody registers a path that is another's. The prefix is
   made of the authenticated identity; a source can name a folder below it, never it.
2. Two ways to write that: `attestry://uploads/<submission>[/<folder>]`, which the plugin sends after it has uploaded, and
   `s3://<model store>/candidates/<the caller's user ID>/<folder>`, for a client that put the files there itself.
3. Everything else is refused with a sentence that says what to do: `runs:/`, `models:/`, local paths, other buckets. The registry holds no
   credentials for other people's storage, and a tracking server's answer would prove nothing about who may read.
4. No source has `..`, `.`, an empty segment, a backslash, a control character, a query or a fragment, percent-encoded ones included.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit

from attestry.domain.names import find_broken_path_rule
from attestry.mlflow.errors import MlflowError, invalid

SCHEME: Final = "attestry"
UPLOADS: Final = "uploads"
MAX_SOURCE: Final = 2048

_MARKS: Final = ("%", "\\", "?", "#", "[", "]")
_SUBMISSION = re.compile(r"[0-9a-f]{16,64}")
_WAY_OUT: Final = (
    "The registry takes files from below your own upload prefix alone. With the plugin (pip install 'attestry[mlflow]', "
    "MLFLOW_REGISTRY_URI=attestry://) the client copies them there itself, with its own rights"
)


def own_folder(source: str, *, store: str, prefix: str) -> str:
    """Return the prefix in the model store below which a version's files lie, with a slash at the end.

    Args:
        source: what the client sent.
        store: the model store's bucket.
        prefix: the caller's own upload prefix, with a slash at the end.

    Raises:
        MlflowError: none of the caller's own folders, or no plain one; code INVALID_PARAMETER_VALUE.
    """
    if len(source) > MAX_SOURCE or not source.isprintable():
        raise _refused(source, f"it has more than {MAX_SOURCE} characters or holds control characters")
    # Nobody has to read an escape, in however many layers, where none is needed.
    if any(mark in source for mark in _MARKS):
        raise _refused(source, f"it holds one of {' '.join(_MARKS)}")
    parts = urlsplit(source)
    if parts.scheme == SCHEME and parts.netloc == UPLOADS:
        folder = parts.path.strip("/") if parts.path.startswith("/") else ""
        submission = folder.partition("/")[0]
        if not _SUBMISSION.fullmatch(submission):
            raise _refused(source, "it names no submission: attestry://uploads/<submission>")
        return f"{prefix}{_plain(folder, source)}/"
    if parts.scheme == "s3":
        return _in_bucket(source, parts.netloc, parts.path, store=store, prefix=prefix)
    raise _refused(source, f"{_kind(source, parts.scheme)}. {_WAY_OUT}")


def _in_bucket(source: str, bucket: str, path: str, *, store: str, prefix: str) -> str:
    key = path.removeprefix("/").removesuffix("/")
    if bucket != store:
        raise _refused(source, f"the bucket is not this registry's model store. {_WAY_OUT}")
    # The user ID of a session holds a colon, which rule 3 of paths allows; what is compared is the whole prefix, slash included.
    if not f"{key}/".startswith(prefix) or f"{key}/" == prefix:
        raise _refused(source, f"it lies not below {prefix}, which is what you may upload to. {_WAY_OUT}")
    return f"{prefix}{_plain(key.removeprefix(prefix), source)}/"


def _plain(path: str, source: str) -> str:
    broken = find_broken_path_rule(path)
    if broken is not None:
        raise _refused(source, broken.message)
    return path


def _kind(source: str, scheme: str) -> str:
    if scheme == "runs":
        return "a run of a tracking server, of which this registry knows nothing"
    if scheme == "models":
        return "a model of a tracking server, or a version whose files would have to be copied"
    if scheme in ("", "file") or (len(scheme) == 1 and source[1:2] == ":"):
        return "a local path, which only the client can read"
    return f"a location of scheme {scheme}"


def _refused(source: str, why: str) -> MlflowError:
    return invalid(f"Invalid model version source: {source[:200]!a}: {why}")
