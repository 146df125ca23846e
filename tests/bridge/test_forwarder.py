"""From the journal to the database: nothing is left out but what the database itself refuses."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge import forwarder as forwarder_module
from bridge.forwarder import BACKOFF_MAX_S, BACKOFF_MIN_S
from bridge.line_protocol import READINGS, Point
from bridge.outcomes import Ledger
from broker_config.clock import steady_ms
from broker_config.errors import (
    SinkBusyError,
    SinkError,
    SinkMissingError,
    SinkRejectedError,
    SinkTooLargeError,
    SinkUnauthorizedError,
    SinkUnreachableError,
    StorageError,
)
from tests.bridge.examples import NOW_MS, judged, row
from tests.bridge.wiring import Bridge, running, until

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bridge.outcomes import Judged


def commit(bridge: Bridge, *messages: Judged) -> None:
    bridge.journal.append(messages, {}, heard={}, policy="p", now_ms=NOW_MS)


def numbered(count: int, first: int = 0) -> list[Judged]:
    """Messages of one row each, whose times are their numbers in ms after `NOW_MS`."""
    return [judged(rows=1, at_ms=NOW_MS + number) for number in range(first, first + count)]


def number_of(point: Point) -> int:
    return point.time_ns // 1_000_000 - NOW_MS


def refusing(bad: Callable[[int], bool]) -> Callable[[Sequence[Point]], None]:
    """As InfluxDB: 400 for the whole request when one line of it is bad."""

    def before_write(points: Sequence[Point]) -> None:
        found = [number_of(point) for point in points if bad(number_of(point))]
        if found:
            raise SinkRejectedError(f"line {found[0]} is bad")

    return before_write


def failing(*answers: SinkError | None) -> Callable[[Sequence[Point]], None]:
    """One answer a write, then yes for ever."""
    script = list(answers)

    def before_write(_points: Sequence[Point]) -> None:
        answer = script.pop(0) if script else None
        if answer is not None:
            raise answer

    return before_write


@pytest.fixture(autouse=True)
def fixture_short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forwarder_module, "BACKOFF_MIN_S", 0.001)
    monkeypatch.setattr(forwarder_module, "BACKOFF_MAX_S", 0.002)


def test_rows_are_written_in_the_order_of_the_journal(tmp_path: Path) -> None:
    async def scenario() -> None:
        with Bridge(tmp_path) as bridge:
            commit(bridge, *numbered(250))
            while await bridge.forwarder.forward_once():
                pass
            assert [number_of(point) for point in bridge.sink.taken] == list(range(250))
            assert bridge.sink.attempts == 3
            assert bridge.journal.ledger() == Ledger(250, 250, 0, 0, 0)
            assert not await bridge.forwarder.forward_once()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "answer",
    [
        SinkUnreachableError("refused"),
        SinkUnauthorizedError("401"),
        SinkMissingError("404"),
        SinkBusyError("503", retry_after_s=0.001),
    ],
    ids=lambda answer: type(answer).__name__,
)
def test_a_database_that_is_away_gets_everything_when_it_is_back(
    tmp_path: Path, answer: SinkError
) -> None:
    async def scenario() -> None:
        with Bridge(tmp_path) as bridge:
            commit(bridge, *numbered(5))
            away = True

            def before_write(_points: Sequence[Point]) -> None:
                if away:
                    raise answer

            bridge.sink.before_write = before_write
            async with running(bridge.forwarder.run()):
                await until(lambda: bridge.sink.attempts >= 5)
                assert bridge.forwarder.state.state == answer.state
                assert bridge.forwarder.state.problem == str(answer)
                assert bridge.journal.ledger() == Ledger(5, 0, 0, 0, 5)
                away = False
                await until(lambda: not bridge.journal.pending_rows())
                await until(lambda: bridge.forwarder.state.state == "ready")
            assert bridge.forwarder.state.problem == ""
            assert [number_of(point) for point in bridge.sink.taken] == list(range(5))
            assert bridge.journal.ledger() == Ledger(5, 5, 0, 0, 0)
            assert bridge.journal.refusals(limit=10) == []

    asyncio.run(scenario())


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 60), st.data())
def test_exactly_the_bad_rows_are_isolated(count: int, data: st.DataObject) -> None:
    bad = data.draw(st.sets(st.integers(0, count - 1)))
    limit = data.draw(st.none() | st.integers(1, count))

    async def scenario(folder: Path) -> None:
        with Bridge(folder) as bridge:
            commit(bridge, *numbered(count))
            refuse = refusing(lambda number: number in bad)

            def before_write(points: Sequence[Point]) -> None:
                if limit is not None and len(points) > limit:
                    raise SinkTooLargeError("413")
                refuse(points)

            bridge.sink.before_write = before_write
            assert await bridge.forwarder.forward_once()
            rows = [point for point in bridge.sink.taken if point.measurement == READINGS]
            assert [number_of(point) for point in rows] == [
                number for number in range(count) if number not in bad
            ]
            refusals = bridge.journal.refusals(limit=1_000)
            assert {one.code for one in refusals} <= {"store.rejected"}
            assert sorted(one.detail for one in refusals) == sorted(
                f"line {number} is bad" for number in bad
            )
            assert bridge.journal.ledger() == Ledger(count, count - len(bad), 0, len(bad), 0)
            latest = max((number for number in range(count) if number not in bad), default=None)
            kept = bridge.latest.get("dev-1")
            assert (kept.time_ns // 1_000_000 - NOW_MS if kept else None) == latest

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(scenario(Path(folder)))


def test_a_database_that_refuses_everything_is_not_the_rows_fault(tmp_path: Path) -> None:
    """Such as an HTTPS server that is spoken to in HTTP: 400 to whatever is sent."""

    def refuse_all(_points: Sequence[Point]) -> None:
        raise SinkRejectedError("400")

    async def scenario() -> None:
        with Bridge(tmp_path) as bridge:
            commit(bridge, *numbered(5))
            bridge.sink.before_write = refuse_all
            with pytest.raises(SinkUnreachableError, match="refuses every row"):
                await bridge.forwarder.forward_once()
            assert bridge.journal.ledger() == Ledger(5, 0, 0, 0, 5)
            assert bridge.journal.refusals(limit=10) == []

    asyncio.run(scenario())


def test_a_database_that_is_too_slow_for_large_batches_gets_small_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its time-out says nothing of why; the same batch again would never end."""
    monkeypatch.setattr(forwarder_module, "BACKOFF_MIN_S", 0.001)
    monkeypatch.setattr(forwarder_module, "BACKOFF_MAX_S", 0.002)

    def slow(points: Sequence[Point]) -> None:
        if len(points) > 3:
            raise SinkUnreachableError("timed out")

    async def scenario() -> None:
        with Bridge(tmp_path) as bridge:
            commit(bridge, *numbered(40))
            bridge.sink.before_write = slow
            async with running(bridge.forwarder.run()):
                await until(lambda: not bridge.journal.pending_rows())
            assert [number_of(point) for point in bridge.sink.taken] == list(range(40))

    asyncio.run(scenario())


def test_a_rejected_row_is_a_refusal_in_the_status_too(tmp_path: Path) -> None:
    async def scenario() -> None:
        with Bridge(tmp_path) as bridge:
            commit(bridge, *numbered(3))
            bridge.sink.before_write = refusing(lambda number: number == 1)
            assert await bridge.forwarder.forward_once()
            (found,) = bridge.health.report({}, steady_ms()).refusals
            assert (found.code, found.times, found.devices) == ("store.rejected", 1, 1)

    asyncio.run(scenario())


def test_a_bad_row_among_many_of_one_message_is_found(tmp_path: Path) -> None:
    async def scenario() -> None:
        with Bridge(tmp_path) as bridge:
            commit(bridge, judged(rows=7, at_ms=NOW_MS), judged(rows=3, at_ms=NOW_MS + 7))
            bridge.sink.before_write = refusing(lambda number: number in {4, 9})
            await bridge.forwarder.forward_once()
            found = sorted((one.position, one.payload) for one in bridge.journal.refusals(limit=9))
            assert found == [(2, b"a message of 3"), (4, b"a message of 7")]
            assert bridge.journal.ledger() == Ledger(10, 8, 0, 2, 0)

    asyncio.run(scenario())


def test_a_row_that_is_too_large_alone_is_refused_by_name(tmp_path: Path) -> None:
    async def scenario() -> None:
        with Bridge(tmp_path) as bridge:
            commit(bridge, *numbered(3))
            bridge.sink.before_write = failing(*[SinkTooLargeError("413")] * 2)
            await bridge.forwarder.forward_once()
            assert bridge.journal.ledger() == Ledger(3, 2, 0, 1, 0)

    asyncio.run(scenario())


def test_a_failure_amid_the_halves_leaves_the_cursor_and_then_nothing_out(tmp_path: Path) -> None:
    async def scenario() -> None:
        with Bridge(tmp_path) as bridge:
            commit(bridge, *numbered(8))
            answers = [SinkTooLargeError("413"), None, SinkUnreachableError("refused")]
            bridge.sink.before_write = failing(*answers)
            with pytest.raises(SinkUnreachableError):
                await bridge.forwarder.forward_once()
            assert len(bridge.sink.stored) == 4
            assert bridge.journal.ledger() == Ledger(8, 0, 0, 0, 8)
            assert await bridge.forwarder.forward_once()
            assert len(bridge.sink.stored) == 8
            assert bridge.journal.ledger() == Ledger(8, 8, 0, 0, 0)

    asyncio.run(scenario())


def test_the_cursor_moves_only_after_the_database_said_yes(tmp_path: Path) -> None:
    async def scenario() -> None:
        with Bridge(tmp_path) as bridge:
            commit(bridge, *numbered(4))

            def before_write(_points: Sequence[Point]) -> None:
                assert bridge.memory.ledger() == Ledger(4, 0, 0, 0, 4)
                assert len(bridge.memory.pending(10)) == 4

            bridge.sink.before_write = before_write
            await bridge.forwarder.forward_once()
            assert bridge.memory.pending(10) == []

    asyncio.run(scenario())


def test_a_journal_that_fails_after_the_write_makes_it_be_written_again_onto_itself(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        with Bridge(tmp_path) as bridge:
            commit(bridge, *numbered(4))
            bridge.journal._db.execute("PRAGMA query_only=ON")
            with pytest.raises(StorageError):
                await bridge.forwarder.forward_once()
            assert (bridge.latest, bridge.health.stored_ms("dev-1")) == ({}, None)
            bridge.journal._db.execute("PRAGMA query_only=OFF")
            await bridge.forwarder.forward_once()
            assert (len(bridge.sink.taken), len(bridge.sink.stored)) == (8, 4)
            assert bridge.journal.ledger() == Ledger(4, 4, 0, 0, 0)

    asyncio.run(scenario())


def test_a_journal_that_fails_for_a_while_does_not_end_the_forwarder(tmp_path: Path) -> None:
    async def scenario() -> None:
        with Bridge(tmp_path) as bridge:
            commit(bridge, *numbered(4))
            bridge.journal._db.execute("PRAGMA query_only=ON")
            async with running(bridge.forwarder.run()):
                await until(lambda: bridge.sink.attempts >= 3)
                bridge.journal._db.execute("PRAGMA query_only=OFF")
                await until(lambda: not bridge.journal.pending_rows())
            assert bridge.journal.ledger() == Ledger(4, 4, 0, 0, 0)

    asyncio.run(scenario())


def test_what_is_committed_later_is_forwarded_when_it_is_said(tmp_path: Path) -> None:
    async def scenario() -> None:
        with Bridge(tmp_path) as bridge:
            async with running(bridge.forwarder.run()):
                for number in range(3):
                    commit(bridge, *numbered(1, first=number))
                    bridge.forwarder.wake()
                    await until(lambda: not bridge.journal.pending_rows())
                await until(lambda: bool(bridge.forwarder._something_new._waiters))
            assert [number_of(point) for point in bridge.sink.taken] == [0, 1, 2]

    asyncio.run(scenario())


def test_a_forwarder_that_is_stopped_just_as_it_is_woken_ends(tmp_path: Path) -> None:
    """A bridge that gets SIGTERM right behind a batch must stop as any other.

    Up to Python 3.11 `asyncio.wait_for` returns instead of raising when it is cancelled in the
    moment in which what it waits for is done (https://github.com/python/cpython/issues/86296).
    """

    async def scenario() -> None:
        with Bridge(tmp_path) as bridge:
            task = asyncio.create_task(bridge.forwarder.run())
            await until(lambda: bool(bridge.forwarder._something_new._waiters))
            bridge.forwarder.wake()
            task.cancel()
            _, still_running = await asyncio.wait([task], timeout=3)
            assert not still_running

    asyncio.run(scenario())


def test_health_and_the_latest_values_hear_of_what_was_stored_and_of_nothing_else(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        with Bridge(tmp_path) as bridge:
            older = judged("dev-1", rows=1, at_ms=NOW_MS)._replace(rows=[row("dev-1", NOW_MS - 9)])
            commit(
                bridge, judged("dev-1", rows=3), older, judged("dev-2", rows=1, at_ms=NOW_MS + 9)
            )
            bridge.sink.before_write = refusing(lambda number: number in {1, 9})
            await bridge.forwarder.forward_once()
            assert {
                device: kept.time_ns // 1_000_000 for device, kept in bridge.latest.items()
            } == {"dev-1": NOW_MS + 2}
            assert bridge.health.stored_ms("dev-1") is not None
            assert bridge.health.stored_ms("dev-2") is None

    asyncio.run(scenario())


def test_a_pause_that_the_database_asks_for_is_kept(tmp_path: Path) -> None:
    async def scenario() -> None:
        with Bridge(tmp_path) as bridge:
            assert bridge.forwarder._failed(SinkBusyError("503", retry_after_s=17.0)) == 17.0

    asyncio.run(scenario())


def test_pauses_grow_to_a_bound_and_are_never_shorter_than_the_least(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forwarder_module, "BACKOFF_MIN_S", BACKOFF_MIN_S)
    monkeypatch.setattr(forwarder_module, "BACKOFF_MAX_S", BACKOFF_MAX_S)

    async def scenario() -> None:
        with Bridge(tmp_path) as bridge:
            pauses_s = [
                bridge.forwarder._failed(SinkUnreachableError("refused")) for _ in range(2_000)
            ]
        assert all(BACKOFF_MIN_S <= pause_s <= BACKOFF_MAX_S for pause_s in pauses_s)
        assert pauses_s[0] <= 2 * BACKOFF_MIN_S
        assert max(pauses_s) > BACKOFF_MAX_S / 2
        assert len(set(pauses_s)) > 1_000

    asyncio.run(scenario())


def test_the_state_says_since_when_and_the_newest_sentence(tmp_path: Path) -> None:
    async def scenario() -> None:
        with Bridge(tmp_path) as bridge:
            bridge.forwarder._failed(SinkUnauthorizedError("first"))
            began = bridge.forwarder.state
            bridge.forwarder._failed(SinkUnauthorizedError("second"))
            assert bridge.forwarder.state == began._replace(problem="second")
            bridge.forwarder._failed(SinkUnreachableError("third"))
            assert bridge.forwarder.state.state == "unreachable"
            assert bridge.forwarder.state.since_ms >= began.since_ms

    asyncio.run(scenario())


OWN = Point("ingest_health", {"bridge": "b"}, {"ratio": 1.0}, 7)


def test_a_point_of_our_own_is_written_beside_the_readings(tmp_path: Path) -> None:
    async def scenario() -> None:
        with Bridge(tmp_path) as bridge:
            await bridge.forwarder.write_point(OWN)
            assert bridge.sink.taken == [OWN]

    asyncio.run(scenario())


def test_a_point_of_our_own_tells_of_a_database_that_is_away_while_no_readings_flow(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        with Bridge(tmp_path) as bridge:
            bridge.sink.before_write = failing(SinkUnreachableError("refused"))
            await bridge.forwarder.write_point(OWN)
            assert bridge.forwarder.state[::2] == ("unreachable", "refused")
            await bridge.forwarder.write_point(OWN)
            assert bridge.forwarder.state[::2] == ("ready", "")

    asyncio.run(scenario())


@pytest.mark.parametrize("answer", [SinkRejectedError("type conflict"), SinkTooLargeError("413")])
def test_a_point_of_our_own_that_is_refused_is_no_database_that_is_away(
    tmp_path: Path, answer: SinkError
) -> None:
    async def scenario() -> None:
        with Bridge(tmp_path) as bridge:
            bridge.sink.before_write = failing(answer)
            await bridge.forwarder.write_point(OWN)
            assert bridge.forwarder.state[::2] == ("ready", "")
            assert bridge.monitor.not_ready() == ""

    asyncio.run(scenario())
