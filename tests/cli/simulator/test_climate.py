"""The simulated day stays within what the sensors can measure, and moves like a day."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cli.simulator import climate

DAY_MS = 86_400_000
MINUTE_MS = 60_000
MIDNIGHT_MS = 1_795_384_800_000
"""2026-11-23 00:00 in South Africa."""

seeds = st.integers(0, 2**32 - 1)
times_ms = st.integers(0, 4_102_444_800_000)


def day_of(seed: int, quantity: str, step_ms: int = 5 * MINUTE_MS) -> list[float]:
    samples = (
        climate.sample(seed, MIDNIGHT_MS + offset_ms) for offset_ms in range(0, DAY_MS, step_ms)
    )
    return [sample.values[quantity] for sample in samples if quantity in sample.values]


@given(seeds, times_ms)
def test_every_value_is_one_that_the_sensor_can_give(seed: int, at_ms: int) -> None:
    values, faults = climate.sample(seed, at_ms)
    assert 0.1 <= values["gas_ratio"] <= 10.0
    assert values["gas_ratio"] == round(values["gas_ratio"], 2)
    if faults:
        assert set(values) == {"gas_ratio"}
        assert faults == ("dht11.timeout",)
        return
    assert set(values) == {"temperature_c", "humidity_pct", "gas_ratio"}
    assert 0.0 <= values["temperature_c"] <= 50.0
    assert 20.0 <= values["humidity_pct"] <= 90.0
    # Aosong DHT11 manual: 1 °C and 1 %RH.
    assert values["temperature_c"].is_integer()
    assert values["humidity_pct"].is_integer()


@given(seeds, times_ms)
def test_the_same_board_at_the_same_time_sees_the_same(seed: int, at_ms: int) -> None:
    assert climate.sample(seed, at_ms) == climate.sample(seed, at_ms)


@given(seeds, times_ms)
def test_no_value_jumps_within_a_minute(seed: int, at_ms: int) -> None:
    before, after = climate.sample(seed, at_ms), climate.sample(seed, at_ms + MINUTE_MS)
    if before.faults or after.faults:
        return
    steps = {name: abs(after.values[name] - before.values[name]) for name in before.values}
    assert steps["temperature_c"] <= 1
    assert steps["humidity_pct"] <= 3
    assert steps["gas_ratio"] <= 0.05


@given(seeds)
def test_afternoon_is_warmer_and_drier_than_early_morning(seed: int) -> None:
    def mean_at(hour: int, quantity: str) -> float:
        start_ms = MIDNIGHT_MS + hour * 3_600_000
        values = [
            climate.sample(seed, start_ms + minute * MINUTE_MS).values.get(quantity)
            for minute in range(60)
        ]
        known = [value for value in values if value is not None]
        return sum(known) / len(known)

    assert mean_at(15, "temperature_c") > mean_at(3, "temperature_c")
    assert mean_at(15, "humidity_pct") < mean_at(3, "humidity_pct")


def test_cooking_lowers_the_gas_ratio() -> None:
    ratios = day_of(climate.seed_of("kitchen"), "gas_ratio", step_ms=30 * MINUTE_MS)
    supper, night = ratios[18 * 2 : 19 * 2], ratios[1 * 2 : 4 * 2]
    assert max(supper) < min(night)


def test_boards_differ() -> None:
    days = {tuple(day_of(climate.seed_of(f"dev-{n}"), "gas_ratio")) for n in range(20)}
    assert len(days) == 20


def test_a_sensor_fails_once_in_a_long_while() -> None:
    seed = climate.seed_of("esp32-0001")
    taken = 20_000
    faults = sum(bool(climate.sample(seed, MIDNIGHT_MS + n * 10_000).faults) for n in range(taken))
    assert 1 <= faults <= taken / 500
