"""Every reading of every message gets exactly one outcome."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.boot_book import BootBook
from bridge.judge import Judgement, judge
from bridge.outcomes import BootState, Judged
from broker_config.errors import StorageError
from broker_config.refusals import every_code
from broker_config.topics import parse_topic
from tests.bridge.examples import DAY_MS, LAW, NOW_MS, PAYLOADS, POLICY, delivery, nothing_known

SITES = {"dev-1": "hall", "dev-2": "yard"}
DESIGN_VALUES = {"temperature_c": 23.4, "humidity_pct": 51.0, "gas_ratio": 0.83}
GOOD = {"boot": 17, "n": 4211, "ts": NOW_MS, "values": DESIGN_VALUES}


def fresh() -> Judgement:
    return Judgement(POLICY, POLICY.revision, SITES, BootBook(nothing_known))


def judged(payload: object, by: Judgement | None = None, **where: Any) -> Judged:
    return judge(delivery(payload, **where), by or fresh(), arrival=1_000)


def codes(message: Judged) -> list[str]:
    return [one.refusal.code.name for one in message.refused]


def assert_conserved(message: Judged) -> None:
    assert message.received >= 1
    assert message.received == len(message.rows) + message.duplicates + message.refused_readings
    assert all(one.refusal.code in every_code() for one in message.refused)
    positions = [one.position for one in message.refused]
    assert positions == sorted(set(positions))
    assert all(0 <= position < message.received for position in positions)


@LAW
@given(st.lists(st.tuples(PAYLOADS, st.booleans()), min_size=1, max_size=4))
def test_received_is_accepted_and_duplicate_and_refused_for_any_messages(
    messages: list[tuple[bytes, bool]],
) -> None:
    by = fresh()
    for position, (payload, retained) in enumerate(messages):
        message = judge(delivery(payload, retained=retained), by, arrival=position * 1_000)
        assert_conserved(message)
        assert message.device == "dev-1"
        assert len(message.keys) <= len(message.rows) + message.duplicates
        for row in message.rows:
            assert (row.device, row.site) == ("dev-1", "hall")
            assert abs(row.time_ns // 1_000_000 - NOW_MS) <= POLICY.clock.behind_s * 1000


@LAW
@given(PAYLOADS)
def test_a_message_judged_again_adds_no_reading_that_has_a_key(payload: bytes) -> None:
    by = fresh()
    first = judge(delivery(payload), by, arrival=1_000)
    again = judge(delivery(payload), by, arrival=2_000)
    assert_conserved(again)
    assert set(first.keys) <= set(again.keys)
    assert again.duplicates >= len(first.keys)
    keyless = len(first.rows) + first.duplicates - len(first.keys)
    assert len(again.rows) == keyless
    third = judge(delivery(payload), by, arrival=3_000)
    assert (third.duplicates, third.keys, third.refused) == (
        again.duplicates,
        again.keys,
        again.refused,
    )


@LAW
@given(
    st.text(max_size=40) | st.sampled_from(["v1/dev-1", "v1//readings", "v2/dev-1/readings"]),
    PAYLOADS,
)
def test_any_topic_that_is_not_a_device_s_readings_is_refused_whole(
    topic: str, payload: bytes
) -> None:
    message = judged(payload, topic=topic)
    assert_conserved(message)
    assert codes(message) == ["publish.topic_invalid"]
    assert message.received == 1
    parsed = parse_topic(topic)
    assert message.device == (parsed.device if parsed else "")


@pytest.mark.parametrize(
    ("where", "device", "code"),
    [
        ({"topic": "v1/dev-1/heartbeat"}, "dev-1", "publish.topic_invalid"),
        ({"topic": "v1/dev-1/receipt"}, "dev-1", "publish.topic_invalid"),
        ({"topic": "v1/dev-1/readings/x"}, "", "publish.topic_invalid"),
        ({"topic": "/v1/dev-1/readings"}, "", "publish.topic_invalid"),
        ({"topic": "v1/a b/readings"}, "", "publish.topic_invalid"),
        ({"device": "dev-9"}, "dev-9", "connect.unknown_identity"),
        ({"device": "DEV-1"}, "DEV-1", "connect.unknown_identity"),
        ({"device": "dev-9", "retained": True}, "dev-9", "connect.unknown_identity"),
    ],
)
def test_where_a_message_comes_from_is_judged_first(
    where: dict[str, Any], device: str, code: str
) -> None:
    message = judged(GOOD, **where)
    assert (message.device, codes(message), message.rows) == (device, [code], [])
    assert_conserved(message)


def test_a_retained_reading_is_taken_once_and_only_with_a_key() -> None:
    by = fresh()
    assert len(judged(GOOD, by, retained=True).rows) == 1
    assert judged(GOOD, by, retained=True).duplicates == 1
    for missing in ("boot", "n"):
        keyless = {key: value for key, value in GOOD.items() if key != missing}
        assert codes(judged(keyless, by, retained=True)) == ["publish.retained"]


def test_a_message_from_elsewhere_teaches_nothing() -> None:
    by = fresh()
    judged(GOOD, by, device="dev-9")
    judged(GOOD, by, topic="v1/dev-1/status")
    assert by.boots.take_changed() == {}
    assert len(judged(GOOD, by).rows) == 1


def test_the_reading_of_the_design_document_becomes_a_row() -> None:
    message = judged(GOOD)
    (row,) = message.rows
    assert (row.device, row.site, row.ts_source) == ("dev-1", "hall", "device")
    assert row.values == DESIGN_VALUES
    assert row.time_ns // 1_000_000 == NOW_MS
    assert message.keys == [(17, 4211)]


def test_each_reading_of_an_array_has_its_own_outcome() -> None:
    bad = {**GOOD, "n": 4212, "values": {"humidity_pct": 183}}
    unset = {**GOOD, "n": 4213, "ts": 0}
    message = judged([GOOD, bad, GOOD, 7, unset, {**GOOD, "n": 4214}])
    assert [row.time_ns // 1_000_000 for row in message.rows] == [GOOD["ts"]] * 2
    assert message.rows[0].time_ns != message.rows[1].time_ns
    assert message.duplicates == 1
    assert [(one.position, one.refusal.code.name, one.boot, one.n) for one in message.refused] == [
        (1, "payload.out_of_range", 17, 4212),
        (3, "payload.wrong_shape", None, None),
        (4, "payload.clock_unset", 17, 4213),
    ]
    assert message.keys == [(17, 4211), (17, 4211), (17, 4214)]


def test_a_refused_reading_may_be_sent_again_put_right() -> None:
    by = fresh()
    assert codes(judged({**GOOD, "values": {"humidity_pct": 183}}, by)) == ["payload.out_of_range"]
    assert len(judged(GOOD, by).rows) == 1


def test_a_reading_that_was_accepted_is_a_duplicate_whatever_it_says_now() -> None:
    by = fresh()
    judged(GOOD, by)
    message = judged({**GOOD, "values": {"humidity_pct": 183}}, by)
    assert (message.duplicates, message.refused, message.keys) == (1, [], [(17, 4211)])


@pytest.mark.parametrize("other", [{"boot": 18}, {"n": 4212}, {"device": "dev-2"}])
def test_a_duplicate_has_the_same_device_and_boot_and_number(other: dict[str, Any]) -> None:
    by = fresh()
    judged(GOOD, by)
    device = other.pop("device", "dev-1")
    assert len(judged({**GOOD, **other}, by, device=device).rows) == 1


@pytest.mark.parametrize("missing", [("boot",), ("n",), ("boot", "n")])
def test_without_a_key_nothing_is_a_duplicate(missing: tuple[str, ...]) -> None:
    by = fresh()
    sent = {key: value for key, value in GOOD.items() if key not in missing}
    assert [len(judged(sent, by).rows) for _ in range(2)] == [1, 1]
    assert judged(sent, by).keys == []


def test_an_uptime_beside_a_clock_dates_the_readings_without_one() -> None:
    by = fresh()
    judged({**GOOD, "ts": NOW_MS - 1_000, "up": 60_000}, by)
    message = judged({"boot": 17, "n": 1, "up": 20_000, "values": DESIGN_VALUES}, by)
    (row,) = message.rows
    assert (row.ts_source, row.time_ns // 1_000_000) == ("boot", NOW_MS - 41_000)


def test_an_outbox_without_a_clock_keeps_its_distances() -> None:
    sent = [{"boot": 1, "n": n, "up": n * 1_000, "values": DESIGN_VALUES} for n in range(10)]
    rows = judged(sent).rows
    assert [row.time_ns // 1_000_000 - NOW_MS for row in rows] == [
        (n - 9) * 1_000 for n in range(10)
    ]


@pytest.mark.parametrize("clock", [{}, {"up": 500}])
def test_readings_of_two_boots_never_overwrite_each_other(clock: dict[str, int]) -> None:
    """A device without a clock that sleeps between readings begins each boot at n 0.

    InfluxDB keeps one point a series and time, so two rows with one time are one row in the end.
    """
    sent = [{"boot": boot, "n": 0, **clock, "values": DESIGN_VALUES} for boot in (1, 2, 3)]
    message = judged(sent)
    assert len(message.rows) == 3
    assert len({row.time_ns for row in message.rows}) == 3


def test_one_impossible_uptime_does_not_turn_away_the_rest_of_its_boot() -> None:
    """A boot 285,000 years ago: the reading is wrong, the ones after it are not."""
    by = fresh()
    judged({"boot": 1, "n": 1, "up": 2**53, "values": DESIGN_VALUES}, by)
    assert codes(judged({"boot": 1, "n": 2, "up": 60_000, "values": DESIGN_VALUES}, by)) == []


def test_a_refused_reading_s_uptime_is_as_good_as_any() -> None:
    by = fresh()
    judged({"boot": 1, "n": 1, "up": DAY_MS, "values": {"humidity_pct": 183}}, by)
    (row,) = judged({"boot": 1, "n": 2, "up": DAY_MS - 5, "values": DESIGN_VALUES}, by).rows
    assert (row.ts_source, row.time_ns // 1_000_000) == ("boot", NOW_MS - 5)


def test_what_was_learned_is_what_has_to_be_written() -> None:
    by = fresh()
    judged([{**GOOD, "up": 60_000}, {"boot": 18, "values": DESIGN_VALUES}], by)
    ((key, state),) = by.boots.take_changed().items()
    assert (key, state.offset_ms) == (("dev-1", 17), NOW_MS - 60_000)
    assert state.seen.ranges() == [(4211, 4211)]


def test_a_memory_that_cannot_be_read_is_said() -> None:
    def unreadable(_device: str, _boot: int) -> BootState:
        raise StorageError("disk")

    by = fresh()._replace(boots=BootBook(unreadable))
    with pytest.raises(StorageError):
        judged(GOOD, by)
