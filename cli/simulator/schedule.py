"""When a board takes a reading, and with which timestamp. Pure: the time is an argument.

Timestamps are ms since 1970 UTC. Those of one schedule are strictly increasing, so that no two
readings of a board can be taken for one, and never in the future, because the server refuses
those.
"""

from __future__ import annotations

import math
from typing import Protocol

MAX_RATE_HZ = 1_000.0
"""Timestamps are whole milliseconds: faster, two readings would share one."""

MAX_CATCH_UP_MS = 10_000
"""A board that stood still longer (its machine slept) does not invent the readings it missed."""


class Schedule(Protocol):
    """Decides which readings to take now."""

    def pull(self, now_ms: int, room: int) -> list[int]:
        """The timestamps of the readings to take now.

        Args:
            now_ms: the time, ms since 1970 UTC.
            room: how many readings more fit into the board's in-flight window.
        """

    def next_ms(self) -> int | None:
        """When to pull next at the latest; None when only `room` decides, or nothing follows."""

    def stop(self) -> None:
        """Takes no further reading."""

    @property
    def finished(self) -> bool:
        """Whether no further reading follows."""


class Paced:
    """One reading every `1 / rate_hz` seconds, whether there is room or not.

    A reading carries the time it was due, so a late timer does not show in the timestamps.

    Args:
        rate_hz: readings a second, above 0 and at most `MAX_RATE_HZ`.
        starts_ms: when the board is switched on.
        phase: its place in the interval, from 0 to 1: boards do not all measure together.
        count: how many to take; None for no end.

    Raises:
        ValueError: if `rate_hz` is out of range.
    """

    def __init__(
        self, rate_hz: float, *, starts_ms: int, phase: float = 0.0, count: int | None = None
    ) -> None:
        if not 0 < rate_hz <= MAX_RATE_HZ:
            msg = f"a rate of {rate_hz} readings a second: use above 0 and at most {MAX_RATE_HZ:g}"
            raise ValueError(msg)
        self._period_ms = 1_000 / rate_hz
        self._origin_ms = starts_ms + phase * self._period_ms
        self._step = 0
        self._left = math.inf if count is None else count
        self._last_ms = -1

    @property
    def finished(self) -> bool:
        """Whether no further reading follows."""
        return self._left <= 0

    def stop(self) -> None:
        """Takes no further reading."""
        self._left = 0

    def next_ms(self) -> int | None:
        """When the next reading is due."""
        if self.finished:
            return None
        return max(math.floor(self._origin_ms + self._step * self._period_ms), self._last_ms + 1)

    def pull(self, now_ms: int, room: int) -> list[int]:  # noqa: ARG002 - a sensor does not wait
        """The timestamps of every reading that is due by now."""
        due_ms = self.next_ms()
        if due_ms is not None and due_ms < now_ms - MAX_CATCH_UP_MS:
            self._origin_ms, self._step = now_ms, 0
        taken: list[int] = []
        while (due_ms := self.next_ms()) is not None and due_ms <= now_ms:
            taken.append(due_ms)
            self._last_ms = due_ms
            self._step += 1
            self._left -= 1
        return taken


class FullSpeed:
    """The next reading as soon as there is room for it, for load tests.

    The timestamps begin `count` ms in the past: so they stay one ms apart and never run ahead of
    the clock, however fast the readings follow.

    Args:
        count: how many to take.
    """

    def __init__(self, count: int) -> None:
        self._left = count
        self._last_ms = -1

    @property
    def finished(self) -> bool:
        """Whether no further reading follows."""
        return self._left <= 0

    def stop(self) -> None:
        """Takes no further reading."""
        self._left = 0

    def next_ms(self) -> None:
        """None: room decides, not time."""

    def pull(self, now_ms: int, room: int) -> list[int]:
        """As many timestamps as there is room for."""
        taken: list[int] = []
        for _ in range(min(room, self._left)):
            self._last_ms = max(self._last_ms + 1, now_ms - self._left)
            taken.append(self._last_ms)
            self._left -= 1
        return taken
