"""The journal keeps what it took, in order, and its ledger balances after everything."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.journal import MAX_BOOTS, Journal, Rejection
from bridge.journal_reader import DeviceSeen, JournalReader
from bridge.outcomes import BootState, Judged, Ledger, RefusedReading
from bridge.seen import SeenRanges
from broker_config import refusals
from broker_config.broker.decision_log import DecisionRecord
from broker_config.errors import StorageError
from broker_config.refusals import refuse
from tests.bridge.examples import NOW_MS, delivery, judged

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bridge.journal_reader import StoredMessage
    from bridge.readings import Row

POLICY = "a revision"
LOG = 7


@pytest.fixture(name="path")
def fixture_path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@pytest.fixture(name="journal")
def fixture_journal(path: Path) -> Iterator[Journal]:
    journal = Journal(path)
    yield journal
    journal.close()


def append(
    journal: Journal,
    *messages: Judged,
    boots: dict[tuple[str, int], BootState] | None = None,
    heard: dict[str, int] | None = None,
    now_ms: int = NOW_MS,
) -> None:
    journal.append(messages, boots or {}, heard=heard or {}, policy=POLICY, now_ms=now_ms)


def decision(
    number: int, code: str = "publish.topic_denied", times: int = 1, at_ms: int = NOW_MS
) -> DecisionRecord:
    return DecisionRecord(
        number, at_ms, code, "dev-1", "192.0.2.7:1", "v1/dev-2/readings", "", "why", POLICY, times
    )


class Append(NamedTuple):
    """Messages, each as (accepted, duplicate, refused)."""

    messages: list[tuple[int, int, int]]


class Decide(NamedTuple):
    """The broker's refusals, each as (code, times)."""

    refusals: list[tuple[str, int]]


class Confirm(NamedTuple):
    """The database took so many messages, but not these rows of them."""

    limit: int
    rejected: frozenset[int]


few = st.integers(0, 3)
steps = st.lists(
    st.builds(Append, st.lists(st.tuples(few, few, few), min_size=1, max_size=4))
    | st.builds(
        Decide,
        st.lists(
            st.tuples(
                st.sampled_from(["publish.topic_denied", "connect.bad_password"]), st.integers(1, 9)
            ),
            min_size=1,
            max_size=3,
        ),
    )
    | st.builds(Confirm, st.integers(1, 6), st.frozensets(st.integers(0, 5)))
    | st.just("reopen"),
    max_size=12,
)


class Expected:
    """The ledger by plain counting."""

    def __init__(self) -> None:
        self.received = self.stored = self.duplicate = self.refused = 0
        self.waiting: list[list[Row]] = []

    def ledger(self) -> Ledger:
        pending = sum(len(rows) for rows in self.waiting)
        return Ledger(self.received, self.stored, self.duplicate, self.refused, pending)

    def append(self, messages: list[Judged]) -> None:
        for message in messages:
            self.received += message.received
            self.duplicate += message.duplicates
            self.refused += message.refused_readings
            if message.rows:
                self.waiting.append(message.rows)

    def decide(self, decisions: list[DecisionRecord]) -> None:
        publishes = sum(one.times for one in decisions if one.code.startswith("publish."))
        self.received += publishes
        self.refused += publishes

    def confirm(self, messages: list[StoredMessage], rejected: int) -> None:
        rows = sum(len(message.rows) for message in messages)
        self.stored += rows - rejected
        self.refused += rejected
        del self.waiting[: len(messages)]


def rejections(messages: list[StoredMessage], wanted: frozenset[int]) -> list[Rejection]:
    rows = [(m.id, p, row) for m in messages for p, row in enumerate(m.rows)]
    return [Rejection(*row, "no") for number, row in enumerate(rows) if number in wanted]


@settings(deadline=None, max_examples=60)
@given(steps)
def test_the_ledger_balances_after_any_sequence_and_after_every_reopening(
    sequence: list[Append | Decide | Confirm | str],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal.db"
        journal, reader, expected, decided = Journal(path), JournalReader(path), Expected(), 0
        for step in sequence:
            if isinstance(step, Append):
                messages = [judged(rows=a, duplicates=d, refused=r) for a, d, r in step.messages]
                append(journal, *messages)
                expected.append(messages)
            elif isinstance(step, Decide):
                decisions = [
                    decision(decided + number, code, times)
                    for number, (code, times) in enumerate(step.refusals, 1)
                ]
                decided += len(decisions)
                journal.append_decisions(decisions, log_id=LOG, heard={})
                expected.decide(decisions)
            elif isinstance(step, Confirm):
                taken = journal.pending(step.limit)
                if taken:
                    bad = rejections(taken, step.rejected)
                    journal.confirm(taken, bad, policy=POLICY, now_ms=NOW_MS)
                    expected.confirm(taken, len(bad))
            else:
                journal.close()
                journal = Journal(path)
            assert journal.ledger() == reader.ledger() == expected.ledger()
            assert journal.ledger().difference == 0
            assert [message.rows for message in journal.pending(1_000)] == expected.waiting
            assert journal.decision_id(LOG) == decided
        journal.close()
        reader.close()


class ReaderBesideAWriter(JournalReader):
    """A reader in whose middle a writer commits."""

    def __init__(self, path: Path, writer: Journal) -> None:
        super().__init__(path)
        self._writer = writer

    def pending_rows(self) -> int:
        append(self._writer, judged(rows=3))
        return super().pending_rows()


def test_the_ledger_is_read_at_one_instant_beside_a_writer(path: Path, journal: Journal) -> None:
    append(journal, judged(rows=1))
    reader = ReaderBesideAWriter(path, journal)
    assert reader.ledger().difference == 0
    reader.close()


@pytest.mark.parametrize("table", ["messages", "refusals", "boots", "devices", "counters"])
def test_what_cannot_be_written_whole_is_not_written_at_all(journal: Journal, table: str) -> None:
    append(journal, judged(rows=1, refused=1))
    before = list(journal._db.iterdump())
    ledger = journal.ledger()
    verb = "UPDATE" if table == "counters" else "INSERT"
    journal._db.execute(
        f"CREATE TRIGGER full BEFORE {verb} ON {table} BEGIN SELECT RAISE(ABORT, 'disk full'); END"
    )
    message = judged(rows=2, duplicates=1, refused=1)
    boots = {("dev-1", 1): BootState(SeenRanges([(1, 2)]))}
    with pytest.raises(StorageError, match="disk full"):
        append(journal, message, boots=boots, heard={"dev-1": NOW_MS})
    journal._db.execute("DROP TRIGGER full")
    assert list(journal._db.iterdump()) == before
    assert journal.ledger() == ledger
    append(journal, message, boots=boots, heard={"dev-1": NOW_MS})
    assert journal.ledger().difference == 0
    assert journal.boot("dev-1", 1).seen.ranges() == [(1, 2)]


@pytest.mark.parametrize("write", ["append", "append_decisions", "confirm"])
def test_a_database_that_takes_nothing_is_said_and_changes_nothing(
    journal: Journal, write: str
) -> None:
    append(journal, judged(rows=2))
    (stored,) = journal.pending(10)
    writes = {
        "append": lambda: append(journal, judged(rows=1)),
        "append_decisions": lambda: journal.append_decisions([decision(1)], log_id=LOG, heard={}),
        "confirm": lambda: journal.confirm(
            [stored], [Rejection(stored.id, 0, stored.rows[0], "no")], policy=POLICY, now_ms=1
        ),
    }
    journal._db.execute("PRAGMA query_only=ON")
    with pytest.raises(StorageError, match="cannot write"):
        writes[write]()
    assert journal.ledger() == Ledger(2, 0, 0, 0, 2)
    assert journal.pending(10) == [stored]
    journal._db.execute("PRAGMA query_only=OFF")
    writes[write]()
    assert journal.ledger().difference == 0


def test_a_closed_journal_says_so(path: Path) -> None:
    journal = Journal(path)
    journal.close()
    with pytest.raises(StorageError):
        append(journal, judged(rows=1))
    with pytest.raises(StorageError):
        journal.pending(1)


def test_a_journal_that_is_not_there_cannot_be_read(path: Path) -> None:
    with pytest.raises(StorageError):
        JournalReader(path)


def test_a_file_that_is_no_journal_is_said(path: Path) -> None:
    path.write_bytes(b"not a database" * 1_000)
    with pytest.raises(StorageError):
        Journal(path)


def test_pending_is_what_waits_oldest_first_and_no_more_than_asked(journal: Journal) -> None:
    messages = [judged(rows=1, at_ms=NOW_MS + number) for number in range(5)]
    append(journal, messages[0], judged(refused=1), *messages[1:])
    assert [one.rows for one in journal.pending(3)] == [one.rows for one in messages[:3]]
    journal.confirm(journal.pending(3), [], policy=POLICY, now_ms=NOW_MS)
    assert [one.rows for one in journal.pending(10)] == [one.rows for one in messages[3:]]


def boot_state(boot: int) -> BootState:
    return BootState(SeenRanges([(boot, boot + 3)]), boot * 1_000)


def test_what_is_remembered_of_a_boot_comes_back(path: Path, journal: Journal) -> None:
    state = BootState(SeenRanges([(0, 4), (7, 2**53)]), -5)
    append(journal, boots={("dev-1", 2**53): state, ("dev-1", 0): BootState(SeenRanges())})
    reader = JournalReader(path)
    assert reader.boot("dev-1", 2**53).seen.ranges() == [(0, 4), (7, 2**53)]
    assert reader.boot("dev-1", 2**53).offset_ms == -5
    assert reader.boot("dev-1", 0).offset_ms is None
    assert reader.boot("dev-2", 0).seen.ranges() == []
    append(journal, boots={("dev-1", 2**53): boot_state(1)})
    assert reader.boot("dev-1", 2**53).seen.ranges() == [(1, 4)]
    reader.close()


def remembered(journal: Journal, device: str) -> list[int]:
    return [boot for boot in range(200) if journal.boot(device, boot).offset_ms is not None]


def test_the_boots_least_recently_heard_are_forgotten_first(journal: Journal) -> None:
    append(journal, boots={("dev-2", 5): boot_state(5)}, now_ms=0)
    for boot in range(MAX_BOOTS):
        append(journal, boots={("dev-1", boot): boot_state(boot)}, now_ms=NOW_MS + boot)
    assert remembered(journal, "dev-1") == list(range(MAX_BOOTS))
    append(journal, boots={("dev-1", 0): boot_state(0)}, now_ms=NOW_MS + MAX_BOOTS)
    append(journal, boots={("dev-1", 100): boot_state(100)}, now_ms=NOW_MS + MAX_BOOTS + 1)
    assert remembered(journal, "dev-1") == [0, *range(2, MAX_BOOTS), 100]
    assert remembered(journal, "dev-2") == [5]


def test_one_batch_with_too_many_boots_keeps_the_highest(journal: Journal) -> None:
    append(journal, boots={("dev-1", boot): boot_state(boot) for boot in range(MAX_BOOTS + 10)})
    assert remembered(journal, "dev-1") == list(range(10, MAX_BOOTS + 10))


def test_devices_are_remembered_with_their_first_and_last_contact(journal: Journal) -> None:
    append(journal, judged("dev-1", rows=1), heard={"dev-1": 100, "dev-2": 100})
    append(journal, heard={"dev-1": 90, "dev-2": 120})
    journal.append_decisions([decision(1)], log_id=LOG, heard={"dev-3": 130})
    journal.confirm(journal.pending(1), [], policy=POLICY, now_ms=200)
    assert sorted(journal.devices()) == [
        DeviceSeen("dev-1", 100, 100, 200),
        DeviceSeen("dev-2", 100, 120, None),
        DeviceSeen("dev-3", 130, 130, None),
    ]


def test_a_device_whose_rows_were_all_rejected_has_stored_nothing(journal: Journal) -> None:
    append(journal, judged("dev-1", rows=1), heard={"dev-1": 100})
    (stored,) = journal.pending(1)
    bad = Rejection(stored.id, 0, stored.rows[0], "field type conflict")
    journal.confirm([stored], [bad], policy=POLICY, now_ms=200)
    assert journal.devices() == [DeviceSeen("dev-1", 100, 100, None)]
    (refusal,) = journal.refusals(limit=10)
    assert (refusal.code, refusal.detail, refusal.at_ms) == (
        "store.rejected",
        "field type conflict",
        200,
    )
    assert (refusal.payload, refusal.policy) == (b"a message of 1", POLICY)


@pytest.fixture(name="quarantine")
def fixture_quarantine(journal: Journal) -> Journal:
    """Three refusals: two in messages, at 1,000 and 2,000 ms, then one by the broker at 3,000."""
    for device, code, at_ms in (
        ("dev-1", refusals.OUT_OF_RANGE, 1_000),
        ("dev-2", refusals.NOT_JSON, 2_000),
    ):
        refused = RefusedReading(4, refuse(code, "why", rule="a rule"), 17, 4212)
        message = delivery(device.encode(), device, received_ms=at_ms)
        append(journal, Judged(message, device, 1, [], 0, [refused], []))
    journal.append_decisions([decision(7, times=12, at_ms=3_000)], log_id=LOG, heard={})
    return journal


def test_refusals_are_listed_newest_first_with_all_that_is_known(quarantine: Journal) -> None:
    broker, second, first = quarantine.refusals(limit=10)
    assert (first.device, first.code, first.at_ms, first.payload) == (
        "dev-1",
        "payload.out_of_range",
        1_000,
        b"dev-1",
    )
    assert (first.boot, first.n, first.position, first.times) == (17, 4212, 4, 1)
    assert (first.topic, first.rule, first.detail) == ("v1/dev-1/readings", "a rule", "why")
    assert (second.device, second.code) == ("dev-2", "payload.not_json")
    assert (broker.code, broker.address, broker.times) == (
        "publish.topic_denied",
        "192.0.2.7:1",
        12,
    )
    assert (broker.payload, broker.boot, broker.n) == (None, None, None)


@pytest.mark.parametrize(
    ("device", "code", "since_ms", "limit", "expected"),
    [
        (None, None, 0, 10, [3_000, 2_000, 1_000]),
        (None, None, 0, 2, [3_000, 2_000]),
        (None, None, 2_000, 10, [3_000, 2_000]),
        (None, None, 3_001, 10, []),
        ("dev-1", None, 0, 10, [3_000, 1_000]),
        ("dev-2", None, 0, 10, [2_000]),
        ("dev", None, 0, 10, []),
        (None, "payload.not_json", 0, 10, [2_000]),
        ("dev-1", "payload.not_json", 0, 10, []),
        ("dev-1", "payload.out_of_range", 500, 1, [1_000]),
    ],
)
def test_refusals_are_chosen_by_device_code_time_and_number(
    quarantine: Journal,
    device: str | None,
    code: str | None,
    since_ms: int,
    limit: int,
    expected: list[int],
) -> None:
    found = quarantine.refusals(limit=limit, device=device, code=code, since_ms=since_ms)
    assert [one.at_ms for one in found] == expected
