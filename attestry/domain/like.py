"""LIKE of searches: `%` stands for any characters, `_` for one.

Texts and patterns are strangers', and a regular expression of such a pattern takes time exponential in its `%`. So all places in the
pattern at which a text may stand are followed at once, as the bits of one number (Baeza-Yates and Gonnet, 1992): the time grows with the
text, and with the pattern by the word.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache


def is_like(text: str, pattern: str, *, fold: bool = False) -> bool:
    """Return whether a pattern stands for a text; with `fold` whatever their case."""
    compiled = _compile(pattern, fold)
    at, step, any_one, stay = 1, compiled.step, compiled.any_one, compiled.stay
    for character in text:
        taken = at & (step.get(character.casefold() if fold else character, 0) | any_one)
        at = taken << 1 | at & stay
        if not at:
            return False
    return bool(at & compiled.end)


@dataclass(frozen=True)
class _Pattern:
    """A pattern of n characters besides `%`; bit i of a number stands for the place behind the first i of them.

    Attributes:
        step: character to the places behind which it stands.
        any_one: the places behind which `_` stands.
        stay: the places at which `%` stands.
        end: the place behind the last character.
    """

    step: dict[str, int]
    any_one: int
    stay: int
    end: int


@lru_cache(maxsize=32)
def _compile(pattern: str, fold: bool) -> _Pattern:
    step: dict[str, int] = {}
    any_one, stay, place = 0, 0, 1
    for character in pattern:
        if character == "%":
            stay |= place
            continue
        if character == "_":
            any_one |= place
        else:
            known = character.casefold() if fold else character
            step[known] = step.get(known, 0) | place
        place <<= 1
    return _Pattern(step, any_one, stay, place)
