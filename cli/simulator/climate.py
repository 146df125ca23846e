"""A plausible day indoors, as a DHT11 and an MQ135 would see it. Pure.

Everything is a function of the board's seed and the time, so that a board restarted at noon
shows noon's values, and two runs of the same board agree.
"""

from __future__ import annotations

import math
import zlib
from functools import lru_cache
from typing import NamedTuple

DHT11_TIMEOUT = "dht11.timeout"
"""The sensor did not answer its start signal; the board has no temperature and no humidity."""

TEMPERATURE_RANGE_C = (0.0, 50.0)
HUMIDITY_RANGE_PCT = (20.0, 90.0)
"""Measuring ranges, Aosong DHT11 product manual. Its resolution is 1 °C and 1 %RH: the two
fraction bytes of its 40-bit frame are zero."""

GAS_RATIO_RANGE = (0.1, 10.0)
"""Ordinates of the sensitivity curves, Rs/R0, in Hanwei's MQ-135 datasheet."""

_FAULT_PROBABILITY = 1 / 2_000
"""At one reading every 10 s, one fault in five and a half hours."""

_HOUR_MS = 3_600_000
_DAY_H = 24.0
_UTC_OFFSET_H = 2.0
"""South African Standard Time, all year."""

_SLOW_MS = 20 * 60_000
_FAST_MS = 15_000
"""Time between two independent values of the slow noise (doors, sun behind clouds) and of the
fast noise (the sensor itself)."""

_WARMEST_H = 15.0
_BREAKFAST_H = 7.0
_SUPPER_H = 18.5
_COOKING_H = 1.2
"""Hours of local time, and how long cooking is in the air."""

_MASK = (1 << 64) - 1


class Sample(NamedTuple):
    """What the sensors gave at one moment.

    Attributes:
        values: by quantity: `temperature_c` (°C), `humidity_pct` (%RH), `gas_ratio` (Rs/R0).
        faults: names of the sensors' faults; their quantities are missing from `values`.
    """

    values: dict[str, float]
    faults: tuple[str, ...]


class _Room(NamedTuple):
    """What makes one board's room unlike the others."""

    mean_c: float
    swing_c: float
    mean_pct: float
    shift_h: float
    clean_ratio: float
    kitchen: float


def seed_of(device_id: str) -> int:
    """The seed of a board: the CRC-32 of its id."""
    return zlib.crc32(device_id.encode())


def sample(seed: int, at_ms: int) -> Sample:
    """What the board's sensors give at `at_ms` (ms since 1970 UTC)."""
    room = _room(seed)
    gas_ratio = _gas_ratio(room, seed, at_ms)
    if _unit(seed + 1, at_ms) < _FAULT_PROBABILITY:
        return Sample({"gas_ratio": gas_ratio}, (DHT11_TIMEOUT,))
    warmth_c = (
        room.swing_c * math.cos(math.tau * (_local_h(at_ms) - _WARMEST_H - room.shift_h) / _DAY_H)
        + 0.6 * _noise(seed + 2, at_ms, _SLOW_MS)
        + 0.15 * _noise(seed + 3, at_ms, _FAST_MS)
    )
    # The water in the air stays while the temperature moves, so relative humidity falls by about
    # 3 % of saturation for each degree (Magnus formula near 22 °C and 50 %RH).
    humidity_pct = room.mean_pct - 3.0 * warmth_c + 4.0 * _noise(seed + 4, at_ms, _SLOW_MS)
    values = {
        "temperature_c": _clamp(round(room.mean_c + warmth_c), TEMPERATURE_RANGE_C),
        "humidity_pct": _clamp(round(humidity_pct), HUMIDITY_RANGE_PCT),
        "gas_ratio": gas_ratio,
    }
    return Sample(values, ())


@lru_cache(maxsize=16_384)
def _room(seed: int) -> _Room:
    trait = [_unit(seed, index) for index in range(6)]
    return _Room(
        mean_c=20.0 + 6.0 * trait[0],
        swing_c=1.5 + 3.0 * trait[1],
        mean_pct=42.0 + 16.0 * trait[2],
        shift_h=2.0 * trait[3] - 1.0,
        clean_ratio=0.9 + 0.3 * trait[4],
        kitchen=0.1 + 0.4 * trait[5],
    )


def _gas_ratio(room: _Room, seed: int, at_ms: int) -> float:
    """Rs/R0 falls when there is gas in the air: after breakfast a little, after supper more."""
    hour = _local_h(at_ms) - room.shift_h
    cooking = 0.5 * _bump(hour - _BREAKFAST_H) + _bump(hour - _SUPPER_H)
    ratio = room.clean_ratio * (1.0 - room.kitchen * cooking)
    ratio += 0.05 * _noise(seed + 5, at_ms, _SLOW_MS) + 0.01 * _noise(seed + 6, at_ms, _FAST_MS)
    return _clamp(round(ratio, 2), GAS_RATIO_RANGE)


def _local_h(at_ms: int) -> float:
    return (at_ms / _HOUR_MS + _UTC_OFFSET_H) % _DAY_H


def _bump(distance_h: float) -> float:
    """1 at distance 0, falling to 0 within a few hours, the same on both sides of midnight."""
    nearest_h = (distance_h + _DAY_H / 2) % _DAY_H - _DAY_H / 2
    return math.exp(-((nearest_h / _COOKING_H) ** 2))


def _noise(seed: int, at_ms: int, period_ms: int) -> float:
    """Value noise: a smooth curve in [-1, 1] through one random value every `period_ms`."""
    index, offset_ms = divmod(at_ms, period_ms)
    fraction = offset_ms / period_ms
    weight = fraction * fraction * (3.0 - 2.0 * fraction)
    before, after = _unit(seed, index), _unit(seed, index + 1)
    return 2.0 * (before + weight * (after - before)) - 1.0


def _unit(seed: int, index: int) -> float:
    """A number in [0, 1) from two integers: the finaliser of SplitMix64 (Steele et al., 2014)."""
    z = (seed * 0x9E3779B97F4A7C15 + index * 0xD1B54A32D192ED03) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return ((z ^ (z >> 31)) >> 11) / (1 << 53)


def _clamp(value: float, bounds: tuple[float, float]) -> float:
    return min(max(float(value), bounds[0]), bounds[1])
