"""Laws of a reading's time: from `ts`, from `up`, from receipt."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.readings import Timed, WireReading, learned_offset_ms, resolve_time
from broker_config.refusals import Refusal
from tests.bridge.examples import DAY_MS, LAW, NOW_MS, POLICY, reading

CLOCK = POLICY.clock
AHEAD_MS = CLOCK.ahead_s * 1000
BEHIND_MS = CLOCK.behind_s * 1000
BOOTED_MS = NOW_MS - 3_600_000
YEAR_2000_MS = 946_684_800_000


def resolved(sent: WireReading, boot_offset_ms: int | None = None) -> Timed | str:
    answer = resolve_time(sent, CLOCK, received_ms=NOW_MS, boot_offset_ms=boot_offset_ms)
    return answer.code.name if isinstance(answer, Refusal) else answer


@pytest.mark.parametrize(
    ("ts", "up", "offset_ms", "expected"),
    [
        (NOW_MS - 5, None, None, Timed(NOW_MS - 5, "device")),
        (NOW_MS - 5, 1_000, BOOTED_MS, Timed(NOW_MS - 5, "device")),
        (None, 1_000, BOOTED_MS, Timed(BOOTED_MS + 1_000, "boot")),
        (None, 1_000, None, Timed(NOW_MS, "received")),
        (None, None, BOOTED_MS, Timed(NOW_MS, "received")),
        (None, None, None, Timed(NOW_MS, "received")),
        (0, None, None, "payload.clock_unset"),
        (YEAR_2000_MS, None, None, "payload.clock_unset"),
        (CLOCK.earliest_ms - 1, None, None, "payload.clock_unset"),
        (0, 1_000, BOOTED_MS, Timed(BOOTED_MS + 1_000, "boot")),
        (YEAR_2000_MS, 1_000, BOOTED_MS, Timed(BOOTED_MS + 1_000, "boot")),
        (0, 1_000, None, Timed(NOW_MS, "received")),
        (CLOCK.earliest_ms, None, None, "payload.clock_behind"),
        (NOW_MS + AHEAD_MS, None, None, Timed(NOW_MS + AHEAD_MS, "device")),
        (NOW_MS + AHEAD_MS + 1, None, None, "payload.clock_ahead"),
        (NOW_MS - BEHIND_MS, None, None, Timed(NOW_MS - BEHIND_MS, "device")),
        (NOW_MS - BEHIND_MS - 1, None, None, "payload.clock_behind"),
        (None, 3_600_000, BOOTED_MS, Timed(NOW_MS, "boot")),
        (None, 3_600_001, BOOTED_MS, Timed(NOW_MS, "boot")),
        (None, 0, NOW_MS - BEHIND_MS, Timed(NOW_MS - BEHIND_MS, "boot")),
        (None, 0, NOW_MS - BEHIND_MS - 1, (NOW_MS, "received")),
    ],
)
def test_the_time_of_a_reading(
    ts: int | None, up: int | None, offset_ms: int | None, expected: Timed | str
) -> None:
    assert resolved(reading(ts=ts, up=up), offset_ms) == expected


@LAW
@given(
    st.none() | st.integers(0, 2**53),
    st.none() | st.integers(0, 2**53),
    st.none() | st.integers(NOW_MS - 2**53, NOW_MS + 2**53),
)
def test_a_time_that_is_taken_is_near_the_server_s(
    ts: int | None, up: int | None, offset_ms: int | None
) -> None:
    answer = resolved(reading(ts=ts, up=up), offset_ms)
    if isinstance(answer, Timed):
        assert NOW_MS - BEHIND_MS <= answer.ts_ms <= NOW_MS + AHEAD_MS
        assert answer.ts_source in {"device", "boot", "received"}
    else:
        assert answer.startswith("payload.clock_")


def learn(readings: list[WireReading], received_ms: int, known_ms: int | None) -> int | None:
    return learned_offset_ms(readings, CLOCK, received_ms=received_ms, known_ms=known_ms)


uptimes = st.integers(0, DAY_MS)
known = st.none() | st.integers(NOW_MS - 30 * DAY_MS, NOW_MS)


@LAW
@given(st.lists(st.integers(NOW_MS - DAY_MS, NOW_MS) | st.none()), known)
def test_nothing_is_learned_without_an_uptime(
    times: list[int | None], known_ms: int | None
) -> None:
    assert learn([reading(ts=ts) for ts in times], NOW_MS, known_ms) == known_ms


@LAW
@given(uptimes, st.integers(-BEHIND_MS, AHEAD_MS), known, st.lists(uptimes))
def test_a_believable_clock_beside_the_uptime_says_it_exactly(
    up: int, skew_ms: int, known_ms: int | None, others: list[int]
) -> None:
    exact = reading(up=up, ts=NOW_MS + skew_ms)
    readings = [*(reading(up=other) for other in others), exact]
    assert learn(readings, NOW_MS, known_ms) == NOW_MS + skew_ms - up


@LAW
@given(uptimes, st.sampled_from([0, YEAR_2000_MS, CLOCK.earliest_ms - 1, NOW_MS + AHEAD_MS + 1]))
def test_a_clock_that_is_not_believed_says_nothing(up: int, ts: int) -> None:
    assert learn([reading(up=up, ts=ts)], NOW_MS, None) == NOW_MS - up


@LAW
@given(st.lists(uptimes, min_size=1), known)
def test_no_uptime_puts_its_reading_after_its_receipt(ups: list[int], known_ms: int | None) -> None:
    readings = [reading(up=up) for up in ups]
    offset_ms = learn(readings, NOW_MS, known_ms)
    assert offset_ms is not None
    assert all(offset_ms + up <= NOW_MS for up in ups)
    assert known_ms is None or offset_ms <= known_ms
    assert learn(readings, NOW_MS, offset_ms) == offset_ms
    assert learn(sorted(readings, key=lambda one: one.up or 0), NOW_MS, known_ms) == offset_ms


@LAW
@given(st.lists(st.tuples(uptimes, st.integers(0, DAY_MS)), min_size=1))
def test_a_boot_s_times_lie_between_the_truth_and_the_receipt(
    sent: list[tuple[int, int]],
) -> None:
    """The device booted at `BOOTED_MS`; each message has an uptime and a delay on its way."""
    offset_ms: int | None = None
    for up, delay_ms in sent:
        taken_ms = BOOTED_MS + up
        received_ms = taken_ms + delay_ms
        offset_ms = learn([reading(up=up)], received_ms, offset_ms)
        assert offset_ms is not None
        assert offset_ms >= BOOTED_MS
        timed = resolve_time(
            reading(up=up), CLOCK, received_ms=received_ms, boot_offset_ms=offset_ms
        )
        assert isinstance(timed, Timed)
        assert taken_ms <= timed.ts_ms <= received_ms
