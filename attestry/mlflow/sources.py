"""Sources: where the files of a new version lie, and that they are the caller's own.

Rules:
1. Files enter from a submission of the caller's own and from nowhere else, so nobody registers a path that is another's. A source names a
   submission; the prefix in which it lies is made of the authenticated identity.
2. Two ways to write that: `attestry://uploads/<submission>[?from=<where the files came from>]`, which the plugin sends after it has
   uploaded, and `s3://<model store>/candidates/<the caller's user ID>/<submission>/import`. What stands behind `from` is kept as a claim.
3. Everything else is refused with a sentence that says what to do: `runs:/`, `models:/`, local paths, other buckets. The registry holds no
   credentials for other people's storage, and a tracking server's answer would prove nothing about who may read.
4. No source has `..`, a backslash, a control character, or an escape: a submission is hexadecimal digits and nothing else.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from attestry.mlflow.errors import MlflowError, invalid

MAX_SOURCE: Final = 2048
FOLDER: Final = "import"

_UPLOADED = re.compile(r"attestry://uploads/(?P<submission>[0-9a-f]{16,64})/?(?:\?from=(?P<told>[\x21-\x7e]{0,1800}))?")
_IN_STORE = re.compile(r"s3://(?P<bucket>[a-z0-9.-]{3,63})/(?P<prefix>candidates/[^/]+/)(?P<submission>[0-9a-f]{16,64})/import/?")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):")
_WAY_OUT: Final = (
    "The registry takes files from your own uploads alone. With the plugin (pip install 'attestry[mlflow]', "
    "MLFLOW_REGISTRY_URI=attestry://) the client copies them there itself, with its own rights"
)


@dataclass(frozen=True)
class Source:
    """A submission of the caller's own.

    Attributes:
        submission: its ID.
        told: where the client says that the files came from; empty where it says nothing.
    """

    submission: str
    told: str = ""


def own_submission(source: str, *, store: str, prefix: str) -> Source:
    """Return the submission of the caller's own that a source names.

    Args:
        source: what the client sent.
        store: the model store's bucket.
        prefix: the caller's own upload prefix, `candidates/<user ID>/`.

    Raises:
        MlflowError: it names none; code INVALID_PARAMETER_VALUE.
    """
    if len(source) > MAX_SOURCE or not source.isprintable():
        raise _refused(source, f"it has more than {MAX_SOURCE} characters or holds control characters")
    if uploaded := _UPLOADED.fullmatch(source):
        told = unquote(uploaded["told"] or "", errors="replace")
        return Source(uploaded["submission"], told if told.isprintable() else "")
    if placed := _IN_STORE.fullmatch(source):
        if placed["bucket"] != store:
            raise _refused(source, f"the bucket is not this registry's model store. {_WAY_OUT}")
        if placed["prefix"] != prefix:
            raise _refused(source, f"it lies not below {prefix}, which is what you may upload to. {_WAY_OUT}")
        return Source(placed["submission"])
    raise _refused(source, f"{_kind(source)}. {_WAY_OUT}")


def _kind(source: str) -> str:
    found = _SCHEME.match(source)
    scheme = found[1].lower() if found else ""
    if scheme == "runs":
        return "a run of a tracking server, of which this registry knows nothing"
    if scheme == "models":
        return "a model of a tracking server, or a version whose files would have to be copied"
    if scheme in ("", "file"):
        return "a local path, which only the client can read"
    return "no submission of yours"


def _refused(source: str, why: str) -> MlflowError:
    return invalid(f"Invalid model version source: {source[:200]!a}: {why}")
