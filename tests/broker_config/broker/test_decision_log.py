from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from broker_config import refusals
from broker_config.broker import decision_log
from broker_config.broker.decision_log import DecisionLog, DecisionRecord, PendingDecisions
from broker_config.errors import StorageError
from broker_config.refusals import Code, refuse
from tests.broker_config.strategies import UNTIMED

if TYPE_CHECKING:
    from pathlib import Path

CODES = refusals.every_code()


def a_record(n: int, times: int = 1) -> DecisionRecord:
    return DecisionRecord(
        id=0,
        at_ms=1_795_425_779_860 + n,
        code="publish.topic_denied",
        device=f"esp-{n}",
        address="192.0.2.7:4711",
        topic="v1/ü/readings\n\x1b",
        rule="",
        detail="no rule allows",
        policy="3f9c",
        times=times,
    )


def add(
    pending: PendingDecisions,
    code: Code = refusals.TOPIC_DENIED,
    *,
    at_ms: int = 1,
    device: str = "esp-1",
    topic: str = "t",
    rule: str = "",
    detail: str = "d",
) -> None:
    pending.add(
        refuse(code, detail, rule=rule),
        at_ms=at_ms,
        device=device,
        address="192.0.2.7:4711",
        topic=topic,
        policy="3f9c",
    )


# In memory


def test_equal_refusals_are_one_row_with_a_count() -> None:
    pending = PendingDecisions()
    for at_ms in (5, 6, 7):
        add(pending, at_ms=at_ms, detail=f"at {at_ms}")
    assert pending.take() == [
        DecisionRecord(
            0, 7, "publish.topic_denied", "esp-1", "192.0.2.7:4711", "t", "", "at 7", "3f9c", 3
        )
    ]
    assert pending.take() == []


def test_refusals_that_differ_are_rows_of_their_own() -> None:
    pending = PendingDecisions()
    add(pending)
    add(pending, refusals.SUBSCRIPTION_DENIED)
    add(pending, device="esp-2")
    add(pending, topic="u")
    add(pending, rule="r")
    assert [row.times for row in pending.take()] == [1] * 5


def test_a_storm_of_different_refusals_stays_small_and_is_counted_whole() -> None:
    pending = PendingDecisions()
    total = 3 * decision_log.MAX_PENDING
    for n in range(total):
        add(pending, CODES[n % 3], device=f"esp-{n}")
    rows = pending.take()
    assert len(rows) <= decision_log.MAX_PENDING + len(CODES)
    assert sum(row.times for row in rows) == total
    counts: Counter[str] = Counter()
    for row in rows:
        counts[row.code] += row.times
    assert set(counts.values()) == {total // 3}
    nameless = [row for row in rows if not row.device]
    assert {(row.address, row.topic, row.rule) for row in nameless} == {("", "", "")}


def test_what_is_given_back_is_added_to_what_came_since() -> None:
    pending = PendingDecisions()
    add(pending, at_ms=1, detail="old")
    add(pending, at_ms=1, device="esp-2")
    taken = pending.take()
    add(pending, at_ms=2, detail="new")
    add(pending, at_ms=2, device="esp-3")
    pending.give_back(taken)
    rows = {row.device: row for row in pending.take()}
    assert {device: row.times for device, row in rows.items()} == {
        "esp-1": 2,
        "esp-2": 1,
        "esp-3": 1,
    }
    assert (rows["esp-1"].at_ms, rows["esp-1"].detail) == (2, "new")


class PendingMachine(RuleBasedStateMachine):
    """Any order of refusals, flushes that succeed and flushes that fail, with a small limit."""

    LIMIT = 5
    USED = CODES[:3]

    def __init__(self) -> None:
        super().__init__()
        self._before = decision_log.MAX_PENDING
        decision_log.MAX_PENDING = self.LIMIT
        self.pending = PendingDecisions()
        self.under_way: list[DecisionRecord] | None = None
        self.refused: Counter[str] = Counter()
        self.written: Counter[str] = Counter()

    def teardown(self) -> None:
        decision_log.MAX_PENDING = self._before

    @rule(
        code=st.sampled_from(USED),
        device=st.sampled_from(["", *"abcdefghijkl"]),
        times=st.integers(1, 4),
    )
    def refuse(self, code: Code, device: str, times: int) -> None:
        for _ in range(times):
            add(self.pending, code, device=device)
        self.refused[code.name] += times

    @precondition(lambda self: self.under_way is None)
    @rule()
    def flush(self) -> None:
        self.under_way = self.pending.take()

    @precondition(lambda self: self.under_way is not None)
    @rule(fails=st.booleans())
    def flush_ends(self, *, fails: bool) -> None:
        rows, self.under_way = self.under_way or [], None
        if fails:
            self.pending.give_back(rows)
        else:
            self.count(rows, self.written)

    @invariant()
    def every_refusal_is_written_under_way_or_pending(self) -> None:
        found = Counter(self.written)
        self.count(self.under_way or [], found)
        self.count(self.waiting(), found)
        assert found == self.refused

    @invariant()
    def what_waits_is_bounded(self) -> None:
        assert len(self.waiting()) <= self.LIMIT + len(self.USED)

    def waiting(self) -> list[DecisionRecord]:
        return list(self.pending._rows.values())

    @staticmethod
    def count(rows: list[DecisionRecord], into: Counter[str]) -> None:
        for row in rows:
            assert row.times >= 1
            into[row.code] += row.times


TestPendingMachine = PendingMachine.TestCase
TestPendingMachine.settings = settings(UNTIMED, max_examples=60, stateful_step_count=40)


# On disk


def test_rows_come_back_as_they_were_in_order_from_a_position(tmp_path: Path) -> None:
    rows = [a_record(n, times=n + 1) for n in range(5)]
    with closing(DecisionLog(tmp_path / "broker.db")) as log:
        log.append(rows[:2])
        log.append([])
        log.append(rows[2:])
    with closing(DecisionLog(tmp_path / "broker.db", read_only=True)) as log:
        read = log.read_after(0, 100)
        assert [row._replace(id=0) for row in read] == rows
        ids = [row.id for row in read]
        assert ids == sorted(set(ids))
        assert [row.id for row in log.read_after(0, 2)] == ids[:2]
        assert [row.id for row in log.read_after(ids[1], 2)] == ids[2:4]
        assert log.read_after(ids[-1], 100) == []


def test_a_reader_sees_what_is_appended_after_it_opened(tmp_path: Path) -> None:
    with (
        closing(DecisionLog(tmp_path / "broker.db")) as log,
        closing(DecisionLog(tmp_path / "broker.db", read_only=True)) as reader,
    ):
        assert reader.read_after(0, 10) == []
        log.append([a_record(1)])
        assert [row.device for row in reader.read_after(0, 10)] == ["esp-1"]


def test_the_oldest_rows_are_forgotten_and_positions_never_return(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decision_log, "MAX_ROWS", 10)
    with closing(DecisionLog(tmp_path / "broker.db")) as log:
        for n in range(25):
            log.append([a_record(n)])
        assert [row.device for row in log.read_after(0, 100)] == [f"esp-{n}" for n in range(15, 25)]
        last = log.read_after(0, 100)[-1].id
        log.append([a_record(n) for n in range(100)])
        rows = log.read_after(0, 100)
    assert [row.device for row in rows] == [f"esp-{n}" for n in range(90, 100)]
    assert rows[0].id > last
    with closing(DecisionLog(tmp_path / "broker.db")) as log:
        log.append([a_record(7)])
        assert log.read_after(rows[-1].id, 100)[0].device == "esp-7"


@UNTIMED
@given(st.lists(st.integers(1, 12), max_size=8))
def test_the_log_keeps_the_newest_rows_and_never_more(batches: list[int]) -> None:
    with pytest.MonkeyPatch.context() as patch, pytest.MonkeyPatch.context():
        patch.setattr(decision_log, "MAX_ROWS", 10)
        patch.setattr(
            decision_log,
            "open_sqlite",
            lambda _path, schema, **_options: _in_memory(schema),
        )
        log = DecisionLog(None)  # type: ignore[arg-type]  # the file is in memory here
        with closing(log):
            written: list[str] = []
            for size in batches:
                devices = [f"esp-{len(written) + n}" for n in range(size)]
                log.append([a_record(0)._replace(device=device) for device in devices])
                written += devices
            assert [row.device for row in log.read_after(0, 1_000)] == written[-10:]


def _in_memory(schema: str) -> sqlite3.Connection:
    db = sqlite3.connect(":memory:", isolation_level=None)
    db.executescript(schema)
    return db


def test_an_append_that_fails_writes_nothing(tmp_path: Path) -> None:
    bad = a_record(2)._replace(code=None)  # type: ignore[arg-type]  # what the schema refuses
    with closing(DecisionLog(tmp_path / "broker.db")) as log:
        log.append([a_record(0)])
        with pytest.raises(StorageError, match="cannot write"):
            log.append([a_record(1), bad])
        assert [row.device for row in log.read_after(0, 10)] == ["esp-0"]
        log.append([a_record(3)])
        assert [row.device for row in log.read_after(0, 10)] == ["esp-0", "esp-3"]


def test_a_log_that_cannot_be_used_says_so_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot open"):
        DecisionLog(tmp_path / "broker.db", read_only=True)
    log = DecisionLog(tmp_path / "broker.db")
    log.close()
    with pytest.raises(StorageError, match="cannot read") as read:
        log.read_after(0, 1)
    with pytest.raises(StorageError, match="cannot write") as written:
        log.append([a_record(1)])
    assert "\n" not in f"{read.value}{written.value}"
