"""Laws of ingest health: no false alarm for a steady device, no excuse for a silent one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bridge import health
from bridge.health import (
    REFUSAL_PARTS,
    DeviceCounts,
    Expectation,
    HealthBook,
    HealthReport,
    RefusalCount,
)
from tests.bridge.examples import LAW, NOW_MS

if TYPE_CHECKING:
    from collections.abc import Iterator

WINDOW_S = 60
WINDOW_MS = WINDOW_S * 1000
LONG_AGO_MS = NOW_MS - 100 * WINDOW_MS


def book(started_ms: int = LONG_AGO_MS) -> HealthBook:
    return HealthBook(window_s=WINDOW_S, started_ms=started_ms)


def expect(*devices: str, interval_s: float = 10.0) -> dict[str, Expectation]:
    return {device: Expectation(interval_s, revoked=False) for device in devices}


def steady(
    interval_s: float, phase: float, delays: list[float], *, from_ms: int, until_ms: int
) -> Iterator[int]:
    """When readings of a device are stored: regular, each late by a part of its interval."""
    interval_ms = interval_s * 1000
    number = 0
    while True:
        delay = delays[number % len(delays)]
        at_ms = from_ms + int((phase + number + delay) * interval_ms)
        if at_ms > until_ms:
            return
        yield at_ms
        number += 1


def measured(
    watched: HealthBook,
    stored_ms: list[int],
    expectations: dict[str, Expectation],
    from_ms: int,
    until_ms: int,
) -> list[HealthReport]:
    """A report a second, between the readings of `dev-1`."""
    reports = []
    waiting = sorted(stored_ms)
    for now_ms in range(from_ms, until_ms, 997):
        while waiting and waiting[0] <= now_ms:
            watched.stored("dev-1", 1, waiting.pop(0))
        reports.append(watched.report(expectations, now_ms))
    return reports


intervals = st.floats(0.25, 120) | st.sampled_from([1.0, 2.0, 5.0, 10.0, 29.9, 30.0, 30.1, 60.0])
phases = st.floats(0, 1)
delays = st.lists(st.floats(0, 0.5) | st.sampled_from([0.0, 0.5]), min_size=1, max_size=7)


@settings(deadline=None, max_examples=300)
@given(intervals, phases, delays)
def test_a_steady_device_is_never_missed_whatever_its_phase_and_jitter(
    interval_s: float, phase: float, late: list[float]
) -> None:
    """From its very first contact on, with readings late by up to half an interval."""
    until_ms = NOW_MS + 3 * WINDOW_MS
    stored_ms = list(steady(interval_s, phase, late, from_ms=NOW_MS, until_ms=until_ms))
    reports = measured(
        book(NOW_MS), stored_ms, expect("dev-1", interval_s=interval_s), NOW_MS, until_ms
    )
    assert [report.ratio for report in reports if report.ratio != 1.0] == []
    assert all(report.devices.late + report.devices.silent == 0 for report in reports)


@settings(deadline=None, max_examples=300)
@example(interval_s=10.0, phase=0.95, late=[0.0, 0.0, 0.5])
@given(intervals, phases, delays)
def test_a_restart_does_not_make_a_steady_device_miss(
    interval_s: float, phase: float, late: list[float]
) -> None:
    until_ms = NOW_MS + 2 * WINDOW_MS
    stored_ms = list(steady(interval_s, phase - 2, late, from_ms=NOW_MS, until_ms=until_ms))
    restarted = book(NOW_MS)
    restarted.remember("dev-1", LONG_AGO_MS, max(at for at in stored_ms if at < NOW_MS))
    reports = measured(
        restarted,
        [at for at in stored_ms if at >= NOW_MS],
        expect("dev-1", interval_s=interval_s),
        NOW_MS,
        until_ms,
    )
    assert [report.ratio for report in reports if report.ratio != 1.0] == []
    assert all(report.devices.reporting == 1 for report in reports)


@settings(deadline=None, max_examples=60)
@given(st.floats(0.25, 30), phases)
def test_a_device_that_falls_silent_is_missed_more_and_more(
    interval_s: float, phase: float
) -> None:
    stored_ms = list(
        steady(interval_s, phase, [0.0], from_ms=NOW_MS - 2 * WINDOW_MS, until_ms=NOW_MS)
    )
    watched, expectations = book(), expect("dev-1", interval_s=interval_s)
    for at_ms in stored_ms:
        watched.stored("dev-1", 1, at_ms)
    silent_ms = int(3 * interval_s * 1000 + health.SLACK_MS)
    reports = measured(watched, [], expectations, NOW_MS, NOW_MS + 2 * WINDOW_MS)
    ratios = [report.ratio for report in reports]
    assert ratios == sorted(ratios, reverse=True)
    assert ratios[0] == 1.0
    assert ratios[-1] == 0.0
    last_ms = stored_ms[-1]
    now = watched.state("dev-1", expectations["dev-1"], last_ms + silent_ms)
    later = watched.state("dev-1", expectations["dev-1"], last_ms + silent_ms + 1)
    assert (now, later) == ("late", "silent")
    assert reports[-1].devices.silent == 1
    assert reports[-1].silent_since_ms == last_ms


def test_the_outage_of_a_third_of_the_devices_is_a_third_of_health() -> None:
    watched = book()
    names = [f"dev-{number}" for number in range(30)]
    for at_ms in range(NOW_MS - 3 * WINDOW_MS, NOW_MS, 10_000):
        for number, name in enumerate(names):
            if number % 3 or at_ms < NOW_MS - 2 * WINDOW_MS:
                watched.stored(name, 1, at_ms)
    report = watched.report(expect(*names), NOW_MS)
    assert report.ratio == pytest.approx(2 / 3)
    assert report.devices == DeviceCounts(30, 20, 0, 10, 0)


@LAW
@given(st.integers(1, 1_000))
def test_a_busy_device_does_not_hide_a_silent_one(extra: int) -> None:
    watched = book()
    watched.stored("quiet", 1, LONG_AGO_MS)
    for at_ms in range(NOW_MS - WINDOW_MS, NOW_MS, 1_000):
        watched.stored("busy", extra, at_ms)
    report = watched.report(expect("busy", "quiet", interval_s=5), NOW_MS)
    assert report.ratio == 0.5
    assert (report.devices.reporting, report.devices.silent) == (1, 1)


@pytest.mark.parametrize("interval_s", [1.0, 60.0, 3600.0])
def test_a_device_that_was_never_heard_is_not_expected(interval_s: float) -> None:
    report = book().report(expect("dev-1", "dev-2", interval_s=interval_s), NOW_MS)
    assert (report.ratio, report.expected, report.silent_since_ms) == (1.0, 0.0, None)
    assert report.devices == DeviceCounts(2, 0, 0, 0, 2)


@pytest.mark.parametrize("interval_s", [1.0, 30.0, 60.0])
def test_a_device_that_was_heard_but_never_stored_is_missed(interval_s: float) -> None:
    """It is refused from its first message on: that is an outage, not an unpacked box."""
    watched, expectations = book(), expect("dev-1", interval_s=interval_s)
    watched.heard("dev-1", NOW_MS)
    late_ms = NOW_MS + int(1.5 * interval_s * 1000) + health.SLACK_MS + 1
    assert watched.report(expectations, late_ms - 1).devices.reporting == 1
    assert watched.report(expectations, late_ms).devices.late == 1
    silent_ms = NOW_MS + int(3 * interval_s * 1000) + health.SLACK_MS + 1
    report = watched.report(expectations, silent_ms)
    assert (report.ratio, report.devices.silent) == (0.0, 1)
    assert report.silent_since_ms == NOW_MS


def test_a_revoked_device_is_in_no_count() -> None:
    watched = book()
    watched.stored("dev-1", 1, LONG_AGO_MS)
    expectations = {"dev-1": Expectation(1.0, revoked=True)}
    report = watched.report(expectations, NOW_MS)
    assert (report.ratio, report.expected) == (1.0, 0.0)
    assert report.devices == DeviceCounts(0, 0, 0, 0, 0)
    assert watched.state("dev-1", expectations["dev-1"], NOW_MS) == "revoked"


def test_a_device_that_nobody_enrolled_is_in_no_count() -> None:
    watched = book()
    watched.stored("stranger", 5, NOW_MS)
    report = watched.report(expect("dev-1"), NOW_MS)
    assert (report.expected, report.stored) == (0.0, 0.0)


def test_a_device_slower_than_the_window_counts_by_its_state() -> None:
    watched, expectations = book(), expect("dev-1", interval_s=3600)
    watched.stored("dev-1", 1, NOW_MS)
    late_ms = NOW_MS + 5_400_000 + health.SLACK_MS
    states = [
        (
            watched.report(expectations, now_ms).ratio,
            watched.state("dev-1", expectations["dev-1"], now_ms),
        )
        for now_ms in (NOW_MS, NOW_MS + 3_600_000, late_ms, late_ms + 1, NOW_MS + 10_805_001)
    ]
    assert states == [
        (1.0, "reporting"),
        (1.0, "reporting"),
        (1.0, "reporting"),
        (0.0, "late"),
        (0.0, "silent"),
    ]


def test_slow_devices_weigh_as_much_as_they_send() -> None:
    watched = book()
    expectations = {**expect("slow", interval_s=120), **expect("fast", interval_s=1)}
    watched.heard("slow", LONG_AGO_MS)
    for at_ms in range(NOW_MS - 2 * WINDOW_MS, NOW_MS, 1_000):
        watched.stored("fast", 1, at_ms)
    report = watched.report(expectations, NOW_MS)
    assert report.expected == 58.5
    assert report.stored == 58.0


def test_at_the_start_nothing_is_missed_and_a_device_that_stays_away_is_missed_later() -> None:
    started, expectations = book(NOW_MS), expect("dev-1", interval_s=10)
    started.remember("dev-1", LONG_AGO_MS, LONG_AGO_MS + 5)
    assert started.stored_ms("dev-1") == LONG_AGO_MS + 5
    assert started.report(expectations, NOW_MS).ratio == 1.0
    assert started.report(expectations, NOW_MS).devices.reporting == 1
    report = started.report(expectations, NOW_MS + 36_000)
    assert (report.ratio, report.devices.silent) == (0.0, 1)
    assert report.silent_since_ms == NOW_MS


def test_an_idle_system_is_well() -> None:
    report = book().report({}, NOW_MS)
    assert report == HealthReport(1.0, 0.0, 0.0, DeviceCounts(0, 0, 0, 0, 0), (), None)


def test_a_backlog_that_drains_at_once_counts_no_more_than_was_expected() -> None:
    watched = book()
    watched.stored("dev-1", 1, NOW_MS - 2 * WINDOW_MS)
    watched.stored("dev-1", 5_000, NOW_MS)
    report = watched.report(expect("dev-1", interval_s=1), NOW_MS)
    assert (report.stored, report.expected, report.ratio) == (58.0, 58.0, 1.0)


refusal_notes = st.lists(
    st.tuples(
        st.sampled_from(["payload.not_json", "publish.topic_denied"]),
        st.sampled_from(["dev-1", "dev-2", ""]),
        st.integers(1, 9),
        st.integers(0, 2 * WINDOW_MS),
    ),
    max_size=20,
)


@LAW
@given(refusal_notes)
def test_refusals_are_counted_while_they_are_in_the_window(
    notes: list[tuple[str, str, int, int]],
) -> None:
    """The window moves on in steps: what is as old as the last step may be counted or not."""
    watched = book()
    step_ms = WINDOW_MS // REFUSAL_PARTS
    kept = [note for note in notes if note[3] < WINDOW_MS - step_ms or note[3] > WINDOW_MS]
    for code, device, count, age_ms in sorted(kept, key=lambda note: -note[3]):
        watched.refused(code, device, count, NOW_MS - age_ms)
    expected = []
    for wanted in ("payload.not_json", "publish.topic_denied"):
        recent = [n for n in kept if n[0] == wanted and n[3] < WINDOW_MS]
        if recent:
            expected.append(
                RefusalCount(
                    wanted,
                    sum(note[2] for note in recent),
                    len({note[1] for note in recent}),
                    NOW_MS - min(note[3] for note in recent),
                )
            )
    found = watched.report({}, NOW_MS).refusals
    assert sorted(one._replace(first_ms=0) for one in found) == sorted(expected)
    assert all(NOW_MS - WINDOW_MS - step_ms <= one.first_ms <= one.last_ms for one in found)
    assert [one.times for one in found] == sorted((one.times for one in found), reverse=True)


def test_invented_names_cannot_fill_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "MAX_REFUSED_DEVICES", 10)
    watched = book()
    for number in range(1_000):
        watched.refused("connect.unknown_identity", f"dev-{number}", 1, NOW_MS)
    (count,) = watched.report({}, NOW_MS).refusals
    assert count.times == 1_000
    assert count.devices == 11
