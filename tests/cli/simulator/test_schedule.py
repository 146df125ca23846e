"""Readings are taken when they are due, each with a time of its own."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.simulator.schedule import MAX_CATCH_UP_MS, FullSpeed, Paced

START_MS = 1_795_425_779_860

steps_ms = st.lists(st.integers(-50, 5_000), max_size=60)


def clock_of(steps: list[int]) -> list[int]:
    times_ms = [START_MS]
    for step_ms in steps:
        times_ms.append(times_ms[-1] + step_ms)
    return times_ms


@given(rate_hz=st.floats(0.01, 1_000), phase=st.floats(0, 1), steps=steps_ms)
def test_paced_times_increase_and_are_never_in_the_future(
    rate_hz: float, phase: float, steps: list[int]
) -> None:
    schedule = Paced(rate_hz, starts_ms=START_MS, phase=phase)
    taken: list[int] = []
    for now_ms in clock_of(steps):
        pulled = schedule.pull(now_ms, room=0)
        assert all(ts_ms <= now_ms for ts_ms in pulled)
        taken += pulled
        next_ms = schedule.next_ms()
        assert next_ms is not None
        assert next_ms > now_ms
    assert all(before < after for before, after in pairwise(taken))


def test_a_late_timer_does_not_show_in_the_timestamps() -> None:
    schedule = Paced(10, starts_ms=START_MS)
    assert schedule.pull(START_MS + 7, room=0) == [START_MS]
    assert schedule.pull(START_MS + 350, room=0) == [START_MS + 100 * n for n in (1, 2, 3)]
    assert schedule.next_ms() == START_MS + 400


def test_a_board_that_slept_does_not_invent_what_it_missed() -> None:
    schedule = Paced(10, starts_ms=START_MS)
    schedule.pull(START_MS, room=0)
    woken_ms = START_MS + 100 + MAX_CATCH_UP_MS + 1
    assert schedule.pull(woken_ms, room=0) == [woken_ms]
    assert schedule.next_ms() == woken_ms + 100


def test_paced_ends_after_its_count() -> None:
    schedule = Paced(1_000, starts_ms=START_MS, count=3)
    assert schedule.pull(START_MS + 100, room=0) == [START_MS, START_MS + 1, START_MS + 2]
    assert schedule.finished
    assert schedule.next_ms() is None
    assert schedule.pull(START_MS + 200, room=0) == []


@pytest.mark.parametrize("rate_hz", [0, -1, 1_000.5, float("inf"), float("nan")])
def test_a_rate_that_no_board_can_keep_is_an_error(rate_hz: float) -> None:
    with pytest.raises(ValueError, match="readings a second"):
        Paced(rate_hz, starts_ms=START_MS)


@given(
    count=st.integers(0, 500),
    pulls=st.lists(st.tuples(st.integers(0, 100), st.integers(0, 200)), max_size=40),
)
def test_full_speed_fills_the_room_without_running_ahead_of_the_clock(
    count: int, pulls: list[tuple[int, int]]
) -> None:
    schedule = FullSpeed(count)
    taken: list[int] = []
    now_ms = START_MS
    for step_ms, room in pulls:
        now_ms += step_ms
        pulled = schedule.pull(now_ms, room)
        assert len(pulled) == min(room, count - len(taken))
        assert all(ts_ms < now_ms for ts_ms in pulled)
        taken += pulled
    assert all(before < after for before, after in pairwise(taken))
    assert schedule.finished == (len(taken) == count)


def test_full_speed_times_increase_when_the_clock_steps_back() -> None:
    schedule = FullSpeed(10)
    taken = schedule.pull(START_MS, room=5) + schedule.pull(START_MS - 60_000, room=5)
    assert all(before < after for before, after in pairwise(taken))


@pytest.mark.parametrize("schedule", [Paced(1, starts_ms=START_MS), FullSpeed(10)])
def test_a_stopped_schedule_takes_nothing(schedule: Paced | FullSpeed) -> None:
    schedule.stop()
    assert schedule.finished
    assert schedule.pull(START_MS + 5_000, room=10) == []
    assert schedule.next_ms() is None
