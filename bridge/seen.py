"""Which sequence numbers of one boot were already accepted, as ranges. Pure.

The key of deduplication is (device, boot, n). A device counts `n` up, so what it has sent is one
range and stays small; what is stored and what a receipt says are the same ranges.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_RANGES = 1_024
"""Ranges kept for one boot. A device that sends its numbers in so wild an order that more arise
loses the memory of the lowest: a repeat of those is written again; onto the same row where it has
a `ts`."""


class SeenRanges:
    """A set of integers kept as sorted, disjoint, non-adjacent closed ranges."""

    __slots__ = ("_from", "_to")

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        self._from: list[int] = []
        self._to: list[int] = []
        for low, high in ranges:
            self._from.append(low)
            self._to.append(high)

    def __contains__(self, n: int) -> bool:
        """Whether `n` was added."""
        position = bisect_left(self._to, n)
        return position < len(self._to) and self._from[position] <= n

    def add(self, n: int) -> bool:
        """Add `n`; False when it was there already."""
        starts, ends = self._from, self._to
        if ends and ends[-1] == n - 1:
            ends[-1] = n
            return True
        position = bisect_left(ends, n)
        if position < len(ends) and starts[position] <= n:
            return False
        joins_left = position > 0 and ends[position - 1] == n - 1
        joins_right = position < len(starts) and starts[position] == n + 1
        if joins_left and joins_right:
            ends[position - 1] = ends[position]
            del starts[position], ends[position]
        elif joins_left:
            ends[position - 1] = n
        elif joins_right:
            starts[position] = n
        else:
            starts.insert(position, n)
            ends.insert(position, n)
            if len(starts) > MAX_RANGES:
                del starts[0], ends[0]
        return True

    def ranges(self) -> list[tuple[int, int]]:
        """The ranges, lowest first, both ends included."""
        return list(zip(self._from, self._to, strict=True))
