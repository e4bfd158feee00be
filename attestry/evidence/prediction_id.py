"""The ID of a prediction: `<key ID>-<sequence number>`.

Key and sequence number say where the receipt is (`attestry.usecases.collect.find_receipt`), so that no row per
prediction has to be kept as an index.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from attestry.domain.errors import InvalidInputError

MAX_SEQUENCE = 10**12 - 1

_KEY_ID = re.compile(r"[a-z2-7]{51}[aq]")
_PREDICTION_ID = re.compile(r"([a-z2-7]{51}[aq])-([1-9][0-9]{0,11})")


def is_key_id(text: object) -> bool:
    """Return whether this is a key ID: 256 bits in lower-case base32 (RFC 4648) without padding."""
    return isinstance(text, str) and _KEY_ID.fullmatch(text) is not None


@dataclass(frozen=True)
class PredictionId:
    """A prediction by the key that signed it and its number.

    Attributes:
        kid: ID of the key, see `attestry.evidence.delegation.key_id`.
        sequence: number of the prediction under that key, from 1 without gaps.

    Raises:
        InvalidInputError: on creation, when a part has not the form that the ID needs.
    """

    kid: str
    sequence: int

    def __post_init__(self) -> None:
        if not is_key_id(self.kid) or not 1 <= self.sequence <= MAX_SEQUENCE:
            raise InvalidInputError.of("prediction_id", "prediction_id", "no prediction has this key ID and number")

    def __str__(self) -> str:
        return f"{self.kid}-{self.sequence}"

    @classmethod
    def parse(cls, text: str) -> PredictionId:
        """Return the ID that the text is.

        Raises:
            InvalidInputError: the text is no prediction ID.
        """
        match = _PREDICTION_ID.fullmatch(text)
        if match is None:
            raise InvalidInputError.of("prediction_id", "prediction_id", "not of the form <key ID>-<number>")
        return cls(match[1], int(match[2]))
