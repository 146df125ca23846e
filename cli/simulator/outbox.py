"""The outbox of one board: a reading stays in it until a receipt covers it. Pure.

A PUBACK settles nothing here, because a broker sends one for a message that its access rules
have just refused. The law: every reading that was appended was either seen, dropped, pushed out
by a newer one, or is waiting.

Times are ms of any clock that does not run backwards.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import msgspec

from broker_config.refusals import Action

DEFAULT_CAPACITY = 2_000
"""Readings. At one every 10 s five and a half hours: longer than the outage of 4 h 15 min that
this system exists for."""

DEFAULT_WINDOW = 500
"""Readings that may be on their way. Receipts come once a second, so it is also the most
readings a second that one board gets through."""

RESEND_MS = 10_000
"""First wait for a receipt: ten times the interval at which the server sends them."""

HOLD_MS = 5_000
"""First wait after the server asked to hold a reading."""

MAX_WAIT_MS = 300_000
"""Waits double up to 5 minutes, so that a server in trouble is not kept there by its boards."""


class Reading(msgspec.Struct, frozen=True, omit_defaults=True):
    """One reading as it goes over the wire.

    Attributes:
        boot: boot counter of the board; with `n` the key of the reading.
        n: sequence number within the boot.
        ts: when it was taken, ms since 1970 UTC.
        values: quantity to value; the unit is in the quantity's name.
        faults: names of sensor faults.
    """

    boot: int
    n: int
    ts: int
    values: dict[str, float]
    faults: tuple[str, ...] = ()


class Settled(NamedTuple):
    """What one receipt did: how many readings it settled, and how many it put off."""

    seen: int
    dropped: int
    held: int


class _Key(NamedTuple):
    boot: int
    n: int


@dataclass(slots=True, eq=False)
class _Slot:
    reading: Reading
    serial: int
    place: OrderedDict[_Key, _Slot]
    sends: int = 0
    holds: int = 0
    sent_ms: int = 0
    due_ms: int = 0


class Outbox:
    """Readings of one board that no receipt has covered yet, oldest first.

    Args:
        capacity: most readings kept; the oldest gives way to a new one.
        window: most readings that are sent and unanswered at a time.
        resend_ms: first wait for a receipt before sending again; doubles.
        hold_ms: first wait after `hold` or `reprovision`; doubles.

    Attributes:
        appended, seen, dropped, overflowed: totals since the start.
    """

    def __init__(
        self,
        *,
        capacity: int = DEFAULT_CAPACITY,
        window: int = DEFAULT_WINDOW,
        resend_ms: int = RESEND_MS,
        hold_ms: int = HOLD_MS,
    ) -> None:
        if min(capacity, window, resend_ms, hold_ms) < 1:
            msg = "capacity, window, resend_ms and hold_ms must each be at least 1"
            raise ValueError(msg)
        self._capacity = capacity
        self._window = window
        self._resend_ms = resend_ms
        self._hold_ms = hold_ms
        self._slots: OrderedDict[_Key, _Slot] = OrderedDict()
        # Every slot is in `_slots`, and in exactly one of these: its `place`.
        self._unsent: OrderedDict[_Key, _Slot] = OrderedDict()
        self._in_flight: OrderedDict[_Key, _Slot] = OrderedDict()
        self._held: OrderedDict[_Key, _Slot] = OrderedDict()
        self._next_due_ms: float = math.inf
        self.appended = 0
        self.seen = 0
        self.dropped = 0
        self.overflowed = 0

    @property
    def waiting(self) -> int:
        """How many readings no receipt has settled yet."""
        return len(self._slots)

    @property
    def room(self) -> int:
        """How many readings more could be sent if all that wait were sent."""
        return max(self._window - len(self._slots), 0)

    def append(self, reading: Reading) -> None:
        """Adds a reading, pushing out the oldest when full.

        Raises:
            ValueError: if a reading of the same (boot, n) is waiting.
        """
        key = _Key(reading.boot, reading.n)
        if key in self._slots:
            msg = f"reading {key.n} of boot {key.boot} is already in the outbox"
            raise ValueError(msg)
        if len(self._slots) >= self._capacity:
            self._remove(next(iter(self._slots)))
            self.overflowed += 1
        slot = _Slot(reading, self.appended, self._unsent)
        self._slots[key] = slot
        self._unsent[key] = slot
        self.appended += 1

    def due(self, now_ms: int, limit: int | None = None) -> list[Reading]:
        """The readings to send now, oldest first, at most `limit`.

        Those never sent, those whose receipt is overdue and those held long enough; never more
        than the window has room for. Call `mark_sent` with what was sent of them.
        """
        late: list[_Slot] = []
        room = max(self._window - len(self._in_flight), 0)
        if now_ms >= self._next_due_ms:
            ripe = [slot for slot in self._held.values() if slot.due_ms <= now_ms][:room]
            room -= len(ripe)
            late = [slot for slot in self._in_flight.values() if slot.due_ms <= now_ms] + ripe
            if not late:
                self._next_due_ms = min((slot.due_ms for slot in self._timed()), default=math.inf)
        unsent = islice(self._unsent.values(), room if limit is None else min(room, limit))
        slots = [*late, *unsent]
        if late:
            slots.sort(key=lambda slot: slot.serial)
        return [slot.reading for slot in slots[:limit]]

    def mark_sent(self, readings: Iterable[Reading], now_ms: int) -> None:
        """Records that these went out now; their receipts are awaited from here on."""
        for reading in readings:
            key = _Key(reading.boot, reading.n)
            slot = self._slots.get(key)
            if slot is None:
                continue
            slot.sends += 1
            slot.sent_ms = now_ms
            self._put(key, slot, self._in_flight, _wait_ms(self._resend_ms, slot.sends))

    def connection_lost(self) -> None:
        """Makes everything that is in flight unsent again: it may have died with the connection.

        What the server asked to hold stays held.
        """
        for slot in self._in_flight.values():
            slot.sends = 0
            slot.place = self._unsent
        both = {**self._in_flight, **self._unsent}
        self._in_flight.clear()
        self._unsent.clear()
        self._unsent.update(sorted(both.items(), key=lambda item: item[1].serial))

    def settle(self, receipt: object) -> Settled:
        """Applies one receipt (DESIGN, "A receipt"), the JSON value as it was decoded.

        Ranges in `seen` and refusals with action `drop` delete; every other action keeps the
        reading and sends it again later. What has not the form of a receipt is passed over,
        because a board must survive whatever a server sends.
        """
        if not isinstance(receipt, dict):
            return Settled(0, 0, 0)
        seen = sum(self._settle_range(item) for item in _objects(receipt.get("seen")))
        dropped = held = 0
        for refusal in _objects(receipt.get("refused")):
            key = _key_of(refusal, "n")
            if key is None or key not in self._slots:
                continue
            if refusal.get("action") == Action.DROP.value:
                self._remove(key)
                dropped += 1
            else:
                self._hold(key)
                held += 1
        self.seen += seen
        self.dropped += dropped
        return Settled(seen, dropped, held)

    def _settle_range(self, item: dict[object, object]) -> int:
        first, last = _key_of(item, "from"), _key_of(item, "to")
        if first is None or last is None or last.n < first.n:
            return 0
        if last.n - first.n < len(self._slots):
            keys = [_Key(first.boot, n) for n in range(first.n, last.n + 1)]
        else:
            # A range may be far wider than the outbox: walk the shorter of the two.
            keys = list(self._slots)
        covered = [key for key in keys if first <= key <= last and key in self._slots]
        for key in covered:
            self._remove(key)
        return len(covered)

    def _hold(self, key: _Key) -> None:
        slot = self._slots[key]
        slot.holds += 1
        self._put(key, slot, self._held, _wait_ms(self._hold_ms, slot.holds))

    def _put(self, key: _Key, slot: _Slot, place: OrderedDict[_Key, _Slot], wait_ms: int) -> None:
        del slot.place[key]
        slot.place = place
        place[key] = slot
        slot.due_ms = slot.sent_ms + wait_ms
        self._next_due_ms = min(self._next_due_ms, slot.due_ms)

    def _remove(self, key: _Key) -> None:
        slot = self._slots.pop(key)
        del slot.place[key]

    def _timed(self) -> Iterator[_Slot]:
        yield from self._in_flight.values()
        yield from self._held.values()


def _wait_ms(first_ms: int, attempt: int) -> int:
    """The wait after the `attempt`-th time (1, 2, …): doubling from `first_ms` to the maximum."""
    doublings = min(attempt - 1, 32)
    return min(first_ms << doublings, max(MAX_WAIT_MS, first_ms))


def _objects(value: object) -> list[dict[object, object]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _key_of(item: dict[object, object], field: str) -> _Key | None:
    boot, n = item.get("boot"), item.get(field)
    # JSON's true and false are int to Python, but no counter.
    if type(boot) is not int or type(n) is not int:
        return None
    return _Key(boot, n)
