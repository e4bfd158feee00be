"""The parameters of a request: of the query for GET, else of the JSON body, checked for their types as they are taken.

MLflow's messages are Protocol Buffers in their JSON form: what a message does not know is passed over, an absent text is an empty one,
numbers may come as texts, and a list in a query is the same name several times.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl

from attestry.mlflow.errors import invalid, missing
from attestry.mlflow.rules import check_tag

MAX_TAGS: Final = 100
MAX_QUERY: Final = 16384


@dataclass(frozen=True)
class Fields:
    """Parameters by name, as they came."""

    values: Mapping[str, Any]

    @classmethod
    def of_query(cls, raw: str) -> Fields:
        """Return the parameters of a query as the client sent it.

        Args:
            raw: the query, percent-encoded. Not the gateway's own reading of it, which joins equal names with commas.

        Raises:
            MlflowError: it is too long, or not UTF-8.
        """
        if len(raw) > MAX_QUERY:
            raise invalid(f"the query exceeds the maximum length of {MAX_QUERY} characters")
        try:
            pairs = parse_qsl(raw, keep_blank_values=True, errors="strict", max_num_fields=200)
        except ValueError as error:
            raise invalid("the query is not the UTF-8 text that a client of MLflow sends") from error
        values: dict[str, list[str]] = {}
        for name, value in pairs:
            values.setdefault(name, []).append(value)
        return cls(values)

    @classmethod
    def of_body(cls, raw: bytes) -> Fields:
        """Return the parameters of a JSON body; an empty one has none.

        Raises:
            MlflowError: it is no JSON object.
        """
        try:
            body = json.loads(raw) if raw else {}
        except (ValueError, RecursionError) as error:
            raise invalid("the request body is not JSON") from error
        if not isinstance(body, dict):
            raise invalid("the request body is no JSON object")
        return cls(body)

    def optional(self, name: str) -> str | None:
        """Return a text, or None where it was not given.

        Raises:
            MlflowError: it is none.
        """
        value = self.values.get(name)
        if isinstance(value, list) and all(isinstance(v, str) for v in value) and value:
            value = value[-1]
        if value is None or isinstance(value, str):
            _require_text(name, value or "")
            return value
        raise invalid(f"Invalid value {_shown(value)} for parameter '{name}' supplied: Value was of type '{type(value).__name__}'.")

    def text(self, name: str) -> str:
        """Return a text, empty where it was not given.

        Raises:
            MlflowError: it is none.
        """
        return self.optional(name) or ""

    def required(self, name: str) -> str:
        """Return a text that must be there.

        Raises:
            MlflowError: it is not, or is no text.
        """
        value = self.text(name)
        if not value:
            raise missing(name)
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """Return a list of texts, empty where it was not given.

        Raises:
            MlflowError: it is none.
        """
        value = self.values.get(name)
        if value is None:
            return ()
        if not isinstance(value, list) or not all(isinstance(v, str) for v in value) or len(value) > MAX_TAGS:
            raise invalid(f"Invalid value {_shown(value)} for parameter '{name}' supplied: a list of texts is needed")
        for text in value:
            _require_text(name, text)
        return tuple(value)

    def count(self, name: str, default: int, at_most: int) -> int:
        """Return a whole number from 1.

        Raises:
            MlflowError: it is none, or larger than `at_most`.
        """
        value = self.values.get(name)
        if isinstance(value, list) and value:
            value = value[-1]
        if value is None:
            return default
        digits = value if isinstance(value, str) else str(value) if type(value) is int else ""
        if not (digits.isascii() and digits.isdigit() and len(digits) < 10 and int(digits) > 0):
            raise invalid(f"Invalid value for {name}. It must be a positive integer, but got {_shown(value)}")
        if int(digits) > at_most:
            raise invalid(f"Invalid value for request parameter {name}. It must be at most {at_most}, but got value {digits}")
        return int(digits)

    def flag(self, name: str) -> bool:
        """Return true or false, which is what an absent flag is.

        Raises:
            MlflowError: it is neither.
        """
        value = self.values.get(name, False)
        if isinstance(value, str) and value.lower() in ("true", "false"):
            return value.lower() == "true"
        if not isinstance(value, bool):
            raise invalid(f"Invalid boolean value: {_shown(value)}, must be 'true' or 'false'.")
        return value

    def tags(self) -> dict[str, str]:
        """Return the tags of a creation; of two with one key the later counts.

        Raises:
            MlflowError: no list of objects with key and value, too many, or a tag that nobody may set.
        """
        value = self.values.get("tags")
        if value is None:
            return {}
        if not isinstance(value, list) or len(value) > MAX_TAGS:
            raise invalid(f"Invalid value {_shown(value)} for parameter 'tags' supplied: a list of at most {MAX_TAGS} tags is needed")
        tags: dict[str, str] = {}
        for entry in value:
            if not isinstance(entry, dict):
                raise invalid(f"Invalid value {_shown(entry)} for parameter 'tags' supplied: a tag has key and value")
            tag = Fields(entry)
            key, text = check_tag(tag.text("key"), tag.text("value"))
            tags[key] = text
        return tags


def _require_text(name: str, value: str) -> None:
    if "\x00" in value or (not value.isascii() and any(0xD800 <= ord(c) <= 0xDFFF for c in value)):
        raise invalid(f"Invalid value {_shown(value)} for parameter '{name}' supplied: it holds NUL or half a character")


def _shown(value: object) -> str:
    return ascii(value)[:80]
