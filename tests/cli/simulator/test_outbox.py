"""Laws of the outbox: a reading leaves it by a receipt or by a full outbox, and is counted."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from cli.simulator.outbox import MAX_WAIT_MS, Outbox, Reading, Settled

BOOT = 17


def reading(n: int, boot: int = BOOT) -> Reading:
    return Reading(boot, n, 1_795_425_779_860 + n, {"temperature_c": 23.0})


def filled(count: int, **options: int) -> Outbox:
    outbox = Outbox(**options)
    for n in range(count):
        outbox.append(reading(n))
    return outbox


def numbers(readings: list[Reading]) -> list[int]:
    return [one.n for one in readings]


def send(outbox: Outbox, now_ms: int, limit: int | None = None) -> list[int]:
    batch = outbox.due(now_ms, limit)
    outbox.mark_sent(batch, now_ms)
    return numbers(batch)


def seen(first: int, last: int, boot: Any = BOOT) -> dict[str, Any]:
    return {"seen": [{"boot": boot, "from": first, "to": last}]}


def refused(n: int, action: str) -> dict[str, Any]:
    code = "payload.out_of_range"
    return {"refused": [{"boot": BOOT, "n": n, "code": code, "detail": "", "action": action}]}


def test_a_sent_reading_stays_until_its_receipt() -> None:
    outbox = filled(3)
    assert send(outbox, 0) == [0, 1, 2]
    assert outbox.waiting == 3
    assert outbox.settle(seen(0, 1)) == Settled(2, 0, 0)
    assert outbox.waiting == 1
    assert outbox.settle(seen(0, 1)) == Settled(0, 0, 0)


def test_the_receipt_of_the_design_document() -> None:
    receipt = json.loads(
        '{"seen": [{"boot": 17, "from": 4200, "to": 4211}], "refused": [{"boot": 17, "n": 4212, '
        '"code": "payload.out_of_range", "detail": "humidity_pct 183 > 100", "action": "drop"}], '
        '"policy": "3f9c"}'
    )
    outbox = Outbox()
    for n in range(4200, 4215):
        outbox.append(reading(n))
    assert outbox.settle(receipt) == Settled(12, 1, 0)
    assert numbers(outbox.due(0)) == [4213, 4214]


def test_a_receipt_of_another_boot_settles_nothing() -> None:
    outbox = filled(3)
    assert outbox.settle(seen(0, 2, boot=BOOT - 1)) == Settled(0, 0, 0)
    assert outbox.waiting == 3


def test_a_range_far_wider_than_the_outbox_settles_what_is_there() -> None:
    outbox = filled(3)
    assert outbox.settle(seen(0, 2**53)) == Settled(3, 0, 0)


def test_no_receipt_means_another_try_with_doubling_waits() -> None:
    outbox = filled(1, resend_ms=1_000)
    sent_at_ms = [now_ms for now_ms in range(0, 16_000, 500) if send(outbox, now_ms)]
    assert sent_at_ms == [0, 1_000, 3_000, 7_000, 15_000]


def test_waits_end_at_five_minutes() -> None:
    outbox = filled(1, resend_ms=1_000)
    now_ms = 0
    for _ in range(50):
        assert send(outbox, now_ms) == [0]
        now_ms += MAX_WAIT_MS
    assert outbox.due(now_ms - 1) == []


def test_the_window_limits_what_is_unanswered() -> None:
    outbox = filled(10, window=4)
    assert send(outbox, 0) == [0, 1, 2, 3]
    assert send(outbox, 1) == []
    outbox.settle(seen(1, 2))
    assert send(outbox, 2) == [4, 5]


def test_a_limit_takes_the_oldest() -> None:
    outbox = filled(10)
    assert send(outbox, 0, limit=3) == [0, 1, 2]
    assert send(outbox, 0, limit=3) == [3, 4, 5]


def test_an_overdue_reading_goes_before_a_new_one() -> None:
    outbox = filled(2, resend_ms=1_000)
    send(outbox, 0)
    outbox.append(reading(2))
    assert send(outbox, 1_000) == [0, 1, 2]


def test_what_is_sent_again_goes_out_oldest_first() -> None:
    outbox = filled(3)
    send(outbox, 0)
    outbox.settle(refused(0, "hold"))
    outbox.append(reading(3))
    assert send(outbox, MAX_WAIT_MS) == [0, 1, 2, 3]


@pytest.mark.parametrize("action", ["hold", "reprovision", "an action of a later version"])
def test_every_action_but_drop_keeps_the_reading_and_tries_later(action: str) -> None:
    outbox = filled(2, window=1, hold_ms=1_000)
    assert send(outbox, 0) == [0]
    assert outbox.settle(refused(0, action)) == Settled(0, 0, 1)
    assert outbox.waiting == 2
    assert send(outbox, 1) == [1], "a held reading must not stop the others"
    outbox.settle(seen(1, 1))
    assert send(outbox, 999) == []
    assert send(outbox, 1_000) == [0]
    outbox.settle(refused(0, action))
    assert send(outbox, 2_999) == []
    assert send(outbox, 3_000) == [0]


def test_drop_deletes_and_counts() -> None:
    outbox = filled(2)
    send(outbox, 0)
    assert outbox.settle(refused(0, "drop")) == Settled(0, 1, 0)
    assert outbox.dropped == 1
    assert outbox.waiting == 1


def test_a_full_outbox_loses_its_oldest_and_says_so() -> None:
    outbox = filled(5, capacity=3)
    assert outbox.overflowed == 2
    assert numbers(outbox.due(0)) == [2, 3, 4]


def test_a_lost_connection_makes_everything_unsent_in_order() -> None:
    outbox = filled(6, window=4)
    send(outbox, 0)
    outbox.settle(refused(1, "hold"))
    outbox.settle(seen(2, 2))
    outbox.connection_lost()
    assert send(outbox, 1) == [0, 3, 4, 5]


def test_the_same_key_twice_is_an_error() -> None:
    outbox = filled(1)
    with pytest.raises(ValueError, match="reading 0 of boot 17"):
        outbox.append(reading(0))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=20,
)
odd_numbers = st.none() | st.booleans() | st.floats() | st.text(max_size=3) | st.integers()
odd_entries = st.fixed_dictionaries(
    {},
    optional={
        "boot": st.just(BOOT) | odd_numbers,
        "from": odd_numbers,
        "to": odd_numbers,
        "n": odd_numbers | json_values,
        "action": st.sampled_from(["drop", "hold", "reprovision"]) | json_values,
    },
)
odd_receipts = st.fixed_dictionaries(
    {}, optional={"seen": st.lists(odd_entries | json_values), "refused": st.lists(odd_entries)}
)


@given(json_values | odd_receipts)
def test_no_receipt_can_break_a_board(receipt: object) -> None:
    outbox = filled(5)
    settled = outbox.settle(receipt)
    assert outbox.waiting == 5 - settled.seen - settled.dropped


@pytest.mark.parametrize(
    "entry",
    [
        {"boot": BOOT, "from": 2, "to": 1},
        {"boot": BOOT, "from": 0},
        {"boot": str(BOOT), "from": 0, "to": 4},
        {"boot": BOOT, "from": False, "to": True},
        {"boot": BOOT, "from": 0.0, "to": 4.0},
    ],
)
def test_a_malformed_range_settles_nothing(entry: dict[str, object]) -> None:
    assert filled(5).settle({"seen": [entry]}) == Settled(0, 0, 0)


class OutboxMachine(RuleBasedStateMachine):
    """Any order of events, beside a model that only knows sets."""

    CAPACITY, WINDOW, RESEND_MS = 8, 3, 100

    def __init__(self) -> None:
        super().__init__()
        self.outbox = Outbox(
            capacity=self.CAPACITY, window=self.WINDOW, resend_ms=self.RESEND_MS, hold_ms=50
        )
        self.now_ms = 0
        self.next_n = 0
        self.waiting: list[int] = []
        self.seen = self.dropped = self.overflowed = 0

    @rule()
    def append(self) -> None:
        self.outbox.append(reading(self.next_n))
        self.waiting.append(self.next_n)
        self.next_n += 1
        if len(self.waiting) > self.CAPACITY:
            self.waiting.pop(0)
            self.overflowed += 1

    @rule(wait_ms=st.integers(0, 500), limit=st.none() | st.integers(1, 5), sent=st.booleans())
    def look(self, wait_ms: int, limit: int | None, *, sent: bool) -> None:
        self.now_ms += wait_ms
        batch = self.outbox.due(self.now_ms, limit)
        due = numbers(batch)
        assert due == sorted(due)
        assert set(due) <= set(self.waiting)
        assert len(due) <= min(self.WINDOW, limit or self.WINDOW)
        if sent:
            self.outbox.mark_sent(batch, self.now_ms)
            if limit is None:
                assert self.outbox.due(self.now_ms) == []

    @rule(first=st.integers(0, 10), length=st.integers(0, 10**9))
    def receipt(self, first: int, length: int) -> None:
        covered = [n for n in self.waiting if first <= n <= first + length]
        assert self.outbox.settle(seen(first, first + length)) == Settled(len(covered), 0, 0)
        self.waiting = [n for n in self.waiting if n not in covered]
        self.seen += len(covered)

    @rule(n=st.integers(0, 10), action=st.sampled_from(["drop", "hold", "reprovision"]))
    def refusal(self, n: int, action: str) -> None:
        known = n in self.waiting
        drop = known and action == "drop"
        assert self.outbox.settle(refused(n, action)) == Settled(0, drop, known and not drop)
        if drop:
            self.waiting.remove(n)
            self.dropped += 1

    @rule()
    def connection_lost(self) -> None:
        self.outbox.connection_lost()

    @rule()
    def wait_long_enough(self) -> None:
        self.now_ms += MAX_WAIT_MS
        expected = len(self.waiting)
        assert len(self.outbox.due(self.now_ms)) == min(self.WINDOW, expected)

    @invariant()
    def nothing_is_lost(self) -> None:
        outbox = self.outbox
        assert outbox.waiting == len(self.waiting)
        assert (outbox.seen, outbox.dropped, outbox.overflowed) == (
            self.seen,
            self.dropped,
            self.overflowed,
        )
        assert outbox.appended == self.next_n
        assert outbox.appended == (
            outbox.seen + outbox.dropped + outbox.overflowed + outbox.waiting
        )


TestOutboxMachine = OutboxMachine.TestCase
TestOutboxMachine.settings = settings(max_examples=100, stateful_step_count=60)
