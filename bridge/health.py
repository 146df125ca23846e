"""Ingest health: what is expected of every device, what was stored, and who is missing. Pure.

ingest_health = readings stored in the window / readings expected in it, of enrolled devices.
Times are those of a clock that nobody sets (`clock.steady_ms`), in ms.
A device is expected from its first contact on, a refused one included: a box of boards that are
enrolled and not yet unpacked is `never_seen`, and no outage (docs/decisions/0004).
"""

from __future__ import annotations

from array import array
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Container, Mapping

BUCKETS = 60
"""The window is counted in so many parts."""

REFUSAL_PARTS = 12
"""The window of refusals moves on in so many steps."""

MAX_REFUSED_DEVICES = 10_000
"""Most devices told apart in one step, so that invented names cannot fill memory."""

SETTLE_MS = 2_000
"""What was due in the last moments may still be on its way: it is not missed yet, in ms."""

LATE_INTERVALS = 1.5
SILENT_INTERVALS = 3.0
"""A device is late, or silent, after so many of its intervals without a stored reading."""

SLACK_MS = 5_000
"""Added to both, for network and batches, in ms."""


class Expectation(NamedTuple):
    """What is expected of one enrolled device."""

    interval_s: float
    revoked: bool


class DeviceCounts(NamedTuple):
    """Devices by state; revoked ones are in none."""

    enrolled: int
    reporting: int
    late: int
    silent: int
    never_seen: int


class RefusalCount(NamedTuple):
    """Refusals of one code in the window.

    Attributes:
        devices: how many different devices.
        last_ms: when the last one happened.
        enrolled_times: how many of them were of enrolled devices.
        missing_devices: how many of the devices that are late or silent it happened to.
        since_ms: since when those are quiet (their median); None where there are none.
        first_ms: when the first one in the window happened, to a twelfth of it.
    """

    code: str
    times: int
    devices: int
    last_ms: int
    enrolled_times: int = 0
    missing_devices: int = 0
    since_ms: int | None = None
    first_ms: int = 0


class HealthReport(NamedTuple):
    """Ingest health at one instant.

    Attributes:
        ratio: `stored / expected`, 1.0 where nothing is expected.
        stored: readings stored in the window, no more than were expected of each device, so that
            one busy device does not hide a silent one.
        silent_since_ms: since when the late and silent devices are quiet: their median, because
            one board that has been dead for long does not date an outage; None without any.
    """

    ratio: float
    expected: float
    stored: float
    devices: DeviceCounts
    refusals: tuple[RefusalCount, ...]
    silent_since_ms: int | None


class RefusalWindow:
    """Refusals of the last window by code and device, in bounded memory."""

    def __init__(self, window_ms: int) -> None:
        self._part_ms = max(1, window_ms // REFUSAL_PARTS)
        self._parts: dict[int, dict[tuple[str, str], tuple[int, int]]] = {}

    def add(self, code: str, device: str, count: int, at_ms: int) -> None:
        """Count refusals of one code; beyond `MAX_REFUSED_DEVICES` without the device's name."""
        part = self._parts.setdefault(at_ms // self._part_ms, {})
        if (code, device) not in part and len(part) >= MAX_REFUSED_DEVICES:
            device = ""
        before, last_ms = part.get((code, device), (0, 0))
        part[code, device] = (before + count, max(last_ms, at_ms))

    def counts(
        self, now_ms: int, *, enrolled: Container[str], missing: Mapping[str, int]
    ) -> tuple[RefusalCount, ...]:
        """What was refused in the window, the most frequent code first.

        Args:
            missing: the devices that are late or silent, and since when each is quiet.
        """
        self._forget_old(now_ms)
        devices: dict[str, set[str]] = {}
        totals: dict[str, tuple[int, int]] = {}
        of_enrolled: dict[str, int] = {}
        first_part: dict[str, int] = {}
        for number, part in sorted(self._parts.items()):
            for (code, device), (count, last_ms) in part.items():
                first_part.setdefault(code, number)
                devices.setdefault(code, set()).add(device)
                total, latest_ms = totals.get(code, (0, 0))
                totals[code] = (total + count, max(latest_ms, last_ms))
                if device in enrolled:
                    of_enrolled[code] = of_enrolled.get(code, 0) + count
        found = []
        for code, (total, last_ms) in totals.items():
            quiet_since = [missing[device] for device in devices[code] if device in missing]
            found.append(
                RefusalCount(
                    code,
                    total,
                    len(devices[code]),
                    last_ms,
                    of_enrolled.get(code, 0),
                    len(quiet_since),
                    int(median(quiet_since)) if quiet_since else None,
                    min(first_part[code] * self._part_ms, last_ms),
                )
            )
        return tuple(sorted(found, key=lambda one: (-one.times, one.code)))

    def of_devices(self, now_ms: int) -> dict[str, int]:
        """How much was refused in the window, by device."""
        self._forget_old(now_ms)
        found: dict[str, int] = {}
        for part in self._parts.values():
            for (_code, device), (count, _last_ms) in part.items():
                found[device] = found.get(device, 0) + count
        return found

    def _forget_old(self, now_ms: int) -> None:
        oldest = now_ms // self._part_ms - REFUSAL_PARTS
        self._parts = {number: part for number, part in self._parts.items() if number > oldest}


class _Device:
    __slots__ = ("buckets", "first_ms", "latest_bucket", "stored_ms")

    def __init__(self, first_ms: int, stored_ms: int | None) -> None:
        self.first_ms = first_ms
        self.stored_ms = stored_ms
        self.latest_bucket = 0
        self.buckets: array[int] | None = None


class HealthBook:
    """What was heard and stored lately, in memory that depends on the number of devices only."""

    def __init__(self, *, window_s: int, started_ms: int) -> None:
        self._window_ms = window_s * 1000
        self._bucket_ms = max(1, self._window_ms // BUCKETS)
        self._ring = BUCKETS + BUCKETS // 2 + 2
        self._started_ms = started_ms
        self._devices: dict[str, _Device] = {}
        self._refusals = RefusalWindow(self._window_ms)

    def remember(self, device: str, first_ms: int, stored_ms: int | None) -> None:
        """Take over what an earlier run knew of a device."""
        self._devices[device] = _Device(first_ms, stored_ms)

    def heard(self, device: str, at_ms: int) -> None:
        """A device made contact, whatever came of it."""
        if device and device not in self._devices:
            self._devices[device] = _Device(at_ms, None)

    def stored(self, device: str, count: int, at_ms: int) -> None:
        """The database confirmed `count` readings of a device."""
        self.heard(device, at_ms)
        known = self._devices[device]
        known.stored_ms = at_ms
        bucket = at_ms // self._bucket_ms
        if known.buckets is None:
            known.buckets = array("L", bytes(array("L").itemsize * self._ring))
            known.latest_bucket = bucket
        self._advance(known, bucket)
        known.buckets[bucket % self._ring] += count

    def refused(self, code: str, device: str, count: int, at_ms: int) -> None:
        """`count` readings or connections of a device were refused."""
        self._refusals.add(code, device, count, at_ms)

    def refused_devices(self, now_ms: int) -> dict[str, int]:
        """How much was refused in the window, by device."""
        return self._refusals.of_devices(now_ms)

    def stored_ms(self, device: str) -> int | None:
        """When a reading of a device was last stored; None when none ever was."""
        known = self._devices.get(device)
        return known.stored_ms if known else None

    def state(self, device: str, expected: Expectation, now_ms: int) -> str:
        """`reporting`, `late`, `silent`, `never_seen` or `revoked`."""
        if expected.revoked:
            return "revoked"
        known = self._devices.get(device)
        if known is None:
            return "never_seen"
        quiet_ms = now_ms - self._reference_ms(known)
        interval_ms = expected.interval_s * 1000
        if quiet_ms <= LATE_INTERVALS * interval_ms + SLACK_MS:
            return "reporting"
        return "late" if quiet_ms <= SILENT_INTERVALS * interval_ms + SLACK_MS else "silent"

    def report(self, expectations: Mapping[str, Expectation], now_ms: int) -> HealthReport:
        """Measure now; costs some ten microseconds a device."""
        expected_sum = stored_sum = 0.0
        missing: dict[str, int] = {}
        states = {"reporting": 0, "late": 0, "silent": 0, "never_seen": 0, "revoked": 0}
        for device, expectation in expectations.items():
            state = self.state(device, expectation, now_ms)
            states[state] += 1
            known = self._devices.get(device)
            if known is None or expectation.revoked:
                continue
            expected, stored = self._of_one(known, expectation, now_ms, state)
            expected_sum += expected
            stored_sum += min(stored, expected)
            if state in ("late", "silent"):
                missing[device] = self._reference_ms(known)
        ratio = stored_sum / expected_sum if expected_sum > 0 else 1.0
        enrolled = sum(states.values()) - states["revoked"]
        counts = DeviceCounts(
            enrolled, states["reporting"], states["late"], states["silent"], states["never_seen"]
        )
        return HealthReport(
            ratio,
            expected_sum,
            stored_sum,
            counts,
            self._refusals.counts(now_ms, enrolled=expectations, missing=missing),
            int(median(missing.values())) if missing else None,
        )

    def _of_one(
        self, known: _Device, expectation: Expectation, now_ms: int, state: str
    ) -> tuple[float, float]:
        """(expected, stored) of one device in the window."""
        interval_ms = expectation.interval_s * 1000
        if interval_ms > self._window_ms / 2:
            # The window holds one reading or none: it counts as whole while the last is not late.
            share = self._window_ms / interval_ms
            if known.stored_ms is not None and (
                now_ms - known.stored_ms <= LATE_INTERVALS * interval_ms + SLACK_MS
            ):
                return share, share
            return (0.0 if state == "reporting" else share), 0.0
        # What came in the half interval before the window is counted too (`_stored_since`). After
        # a start there is nothing before; then the first reading may be that much later.
        due_from_ms = max(
            now_ms - self._window_ms, self._started_ms + interval_ms / 2, known.first_ms
        )
        expected = max(0, int((now_ms - SETTLE_MS - due_from_ms) / interval_ms))
        return float(expected), float(self._stored_since(known, now_ms, interval_ms))

    def _stored_since(self, known: _Device, now_ms: int, interval_ms: float) -> int:
        """Readings stored in the window and the half interval before it, for jitter."""
        if known.buckets is None:
            return 0
        newest = now_ms // self._bucket_ms
        self._advance(known, newest)
        parts = min(self._ring, int((self._window_ms + interval_ms / 2) // self._bucket_ms) + 1)
        return sum(known.buckets[(newest - back) % self._ring] for back in range(parts))

    def _advance(self, known: _Device, bucket: int) -> None:
        """Clear the buckets that time has passed over."""
        if known.buckets is None or bucket <= known.latest_bucket:
            return
        for passed in range(max(known.latest_bucket + 1, bucket - self._ring + 1), bucket + 1):
            known.buckets[passed % self._ring] = 0
        known.latest_bucket = bucket

    def _reference_ms(self, known: _Device) -> int:
        """Since when a device has been quiet; the time before this process began is not its."""
        return max(known.stored_ms or known.first_ms, self._started_ms)
