"""Values in their order, by the hundred thousand: what is added, taken away or begun from is found by bisection.

They stand in blocks of some hundred, so that an insertion moves the rest of a block and not the rest of all.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

__all__ = ["Ordered"]

_BLOCK = 512


class Ordered:
    """Distinct values that compare with each other, smallest first.

    Args:
        values: what it begins with, in any order.
    """

    __slots__ = ("_blocks", "_lasts", "_length")

    def __init__(self, values: Iterable[Any] = ()) -> None:
        waiting = sorted(values)
        self._length = len(waiting)
        self._blocks = [waiting[begin : begin + _BLOCK] for begin in range(0, len(waiting), _BLOCK)]
        self._lasts = [block[-1] for block in self._blocks]

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Any]:
        for block in self._blocks:
            yield from block

    def add(self, value: Any) -> None:
        """Add a value that is not there yet."""
        self._length += 1
        if not self._blocks:
            self._blocks.append([value])
            self._lasts.append(value)
            return
        at = min(bisect_left(self._lasts, value), len(self._blocks) - 1)
        block = self._blocks[at]
        insort(block, value)
        if len(block) > 2 * _BLOCK:
            self._blocks[at : at + 1] = [block[:_BLOCK], block[_BLOCK:]]
            self._lasts[at : at + 1] = [block[_BLOCK - 1], block[-1]]
        else:
            self._lasts[at] = block[-1]

    def discard(self, value: Any) -> None:
        """Take a value away, if it is there."""
        at = bisect_left(self._lasts, value)
        if at == len(self._blocks):
            return
        block = self._blocks[at]
        place = bisect_left(block, value)
        if block[place] != value:
            return
        self._length -= 1
        del block[place]
        if block:
            self._lasts[at] = block[-1]
        else:
            del self._blocks[at], self._lasts[at]

    def ascending(self, low: Any = None, high: Any = None) -> Iterator[Any]:
        """Yield the values from `low` on and below `high`, where these are given, the smallest first."""
        begin, end = self._place(low, (0, 0)), self._place(high, (len(self._blocks), 0))
        for at in range(begin[0], min(end[0] + 1, len(self._blocks))):
            first = begin[1] if at == begin[0] else 0
            yield from islice(self._blocks[at], first, end[1] if at == end[0] else None)

    def descending(self, low: Any = None, high: Any = None) -> Iterator[Any]:
        """Yield the same values, the largest first."""
        begin, end = self._place(low, (0, 0)), self._place(high, (len(self._blocks), 0))
        for at in range(min(end[0], len(self._blocks) - 1), begin[0] - 1, -1):
            block = self._blocks[at]
            first = begin[1] if at == begin[0] else 0
            yield from map(block.__getitem__, range((end[1] if at == end[0] else len(block)) - 1, first - 1, -1))

    def _place(self, bound: Any, default: tuple[int, int]) -> tuple[int, int]:
        """Return the block and the place in it of the first value that is not below a bound."""
        if bound is None:
            return default
        at = bisect_left(self._lasts, bound)
        return at, bisect_left(self._blocks[at], bound) if at < len(self._blocks) else 0
