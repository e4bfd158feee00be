"""Names, tags, aliases, numbers and texts, as MLflow's clients write them.

Rules:
1. A name of MLflow holds no `/` and no `:`, and is no path that leads elsewhere (`.`, `..`, `a//b`). What a name is to the registry, and
   which further characters it refuses, says `attestry.domain.catalogue`.
2. Tags below `attestry.` are the registry's own: they are neither shown to MLflow nor set by it.
3. An alias is made of letters, digits, `_` and `-`; `latest` and `v<number>` are MLflow's own.
4. A version is a whole number from 1.
"""

from __future__ import annotations

import posixpath
import re
from typing import Final

from attestry.mlflow.errors import invalid, missing

MAX_NAME: Final = 256
MAX_TAG_KEY: Final = 250
MAX_TAG_VALUE: Final = 5000
MAX_ALIAS: Final = 255
MAX_TEXT: Final = 5000

OWN_TAGS: Final = "attestry."
PROMPT_TAG: Final = "mlflow.prompt.is_prompt"
"""Marks a prompt, which MLflow keeps as a model without files."""

_ALIAS = re.compile(r"[\w-]+")
_VERSION_ALIAS = re.compile(r"[vV][0-9]+")
_TAG_KEY = re.compile(r"[/\w.\- :]+")


def check_name(name: str, parameter: str = "name") -> str:
    """Return a name that keeps rule 1.

    Raises:
        MlflowError: it breaks it.
    """
    if not name.strip():
        raise missing(parameter)
    if "/" in name or ":" in name:
        raise invalid(f"Invalid model name '{name}'. Names cannot contain '/' or ':'.")
    if posixpath.normpath(name) != name or name in (".", ".."):
        raise invalid(f"Invalid value \"{name}\" for parameter '{parameter}' supplied: Names may be treated as files in certain cases.")
    if len(name) > MAX_NAME or not name.isprintable():
        raise invalid(f"'{parameter}' exceeds the maximum length of {MAX_NAME} characters or holds control characters")
    return name


def check_alias(alias: str, *, settable: bool = False) -> str:
    """Return an alias that keeps rule 3; one that may be set is not MLflow's own.

    Raises:
        MlflowError: it breaks the rule.
    """
    if not alias:
        raise invalid("Registered model alias name cannot be empty.")
    if not alias.isascii() or not _ALIAS.fullmatch(alias):
        raise invalid(f"Invalid alias name: '{alias}'. Names may only contain alphanumerics, underscores (_), and dashes (-).")
    if len(alias) > MAX_ALIAS:
        raise invalid(f"'Registered model alias name' exceeds the maximum length of {MAX_ALIAS} characters")
    if settable and alias.lower() == "latest":
        raise invalid("'latest' alias name (case insensitive) is reserved.")
    if settable and _VERSION_ALIAS.fullmatch(alias):
        raise invalid(f"Version alias name '{alias}' is reserved.")
    return alias


def check_version(text: str) -> int:
    """Return a version's number (rule 4).

    Raises:
        MlflowError: it is none.
    """
    digits = text.strip()
    if not (digits.isascii() and digits.isdigit() and len(digits) < 10 and int(digits) > 0):
        raise invalid(f"Parameter 'version' must be an integer, got '{text}'.")
    return int(digits)


def check_tag(key: str, value: str = "") -> tuple[str, str]:
    """Return key and value of a tag that somebody may set or delete (rule 2).

    Raises:
        MlflowError: the key is empty, too long, a path that leads elsewhere or the registry's own, or the value is too long.
    """
    if not key:
        raise missing("key")
    if key.startswith(OWN_TAGS):
        raise invalid(f"Invalid value \"{key}\" for parameter 'key' supplied: tags that begin with '{OWN_TAGS}' are the registry's own")
    if not _TAG_KEY.fullmatch(key) or posixpath.normpath(key) != key or key.startswith(("/", "..")):
        raise invalid(
            f"Invalid value \"{key}\" for parameter 'key' supplied: Names may only contain alphanumerics, underscores (_), dashes (-), "
            "periods (.), spaces ( ), colon(:) and slashes (/)."
        )
    if len(key) > MAX_TAG_KEY:
        raise invalid(f"'key' exceeds the maximum length of {MAX_TAG_KEY} characters")
    if len(value) > MAX_TAG_VALUE:
        raise invalid(f"'value' exceeds the maximum length of {MAX_TAG_VALUE} characters")
    return key, value


def check_description(text: str) -> str:
    """Return a description.

    Raises:
        MlflowError: it is too long.
    """
    if len(text) > MAX_TEXT:
        raise invalid(f"'description' exceeds the maximum length of {MAX_TEXT} characters")
    return text
