"""From the journal to the database: in order, at least once, and onto the same rows.

The cursor moves only after the database said yes. A row that it does not take is isolated by
halving the batch and recorded as `store.rejected`; nothing else is ever left out.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from bridge.journal import Rejection
from bridge.line_protocol import Point, point_of
from bridge.readings import SUB_MS_NS
from broker_config.clock import now_ms, steady_ms
from broker_config.errors import (
    Disposition,
    SinkBusyError,
    SinkError,
    SinkUnreachableError,
    StorageError,
)
from broker_config.events import Event, record
from broker_config.refusals import REJECTED

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor

    from bridge.journal import Journal
    from bridge.journal_reader import StoredMessage
    from bridge.readings import Row
    from bridge.sinks.base import Sink

BACKOFF_MIN_S = 0.5
BACKOFF_MAX_S = 30.0
PROBE = "iot_probe"
"""Measurement of the point that tells a bad row from a database that takes none."""

IDLE_S = 1.0
"""How often the journal is looked at when nobody says that there is something new, in seconds."""


class SinkState(NamedTuple):
    """What is known about the database.

    Attributes:
        state: `ready`, or the word of the error that lasts.
        since_ms: since when, in the ms of `clock.steady_ms`.
        problem: the error's sentence; empty when ready.
    """

    state: str
    since_ms: int
    problem: str


class _Numbered(NamedTuple):
    message_id: int
    position: int
    row: Row


class Forwarder:
    """Moves accepted rows from the journal to one sink."""

    def __init__(
        self,
        *,
        journal: Journal,
        journal_thread: Executor,
        sink: Sink,
        sink_thread: Executor,
        policy_revision: str,
        batch_messages: int,
        on_stored: Callable[[str, int, int], None],
        on_refused: Callable[[str, str, int, int], None],
        latest: dict[str, Row],
    ) -> None:
        """Wire it up; nothing runs yet.

        Args:
            on_stored: told which device had how many rows stored, and when (`steady_ms`).
            on_refused: told the code, the device, how many rows and when.
            latest: the newest stored row of every device is put here.
        """
        self._journal, self._journal_thread = journal, journal_thread
        self._sink, self._sink_thread = sink, sink_thread
        self._revision = policy_revision
        self._batch_messages = self._limit = batch_messages
        self._on_stored, self._on_refused = on_stored, on_refused
        self._latest = latest
        self._something_new = asyncio.Event()
        self._answers = asyncio.Event()
        self._failures = 0
        self._rows_wait = False
        self.state = SinkState("ready", steady_ms(), "")

    def wake(self) -> None:
        """Say that the journal has something new."""
        self._something_new.set()

    async def run(self) -> None:
        """Forward for ever; ends only by being cancelled."""
        while True:
            try:
                if not await self.forward_once():
                    await self._wait(self._something_new, IDLE_S)
            except SinkError as exc:
                self._rows_wait = True
                # A database that is too slow for the time-out takes smaller batches.
                self._limit = max(1, self._limit // 2)
                await self._wait(self._answers, self._failed(exc))
            except StorageError as exc:
                record(Event.JOURNAL_UNWRITABLE, code=type(exc).__name__, problem=str(exc))
                await asyncio.sleep(BACKOFF_MIN_S)

    async def forward_once(self) -> bool:
        """Forward the next batch; False when there was none.

        Raises:
            SinkError: the cursor has not moved.
            StorageError: the cursor has not moved.
        """
        loop = asyncio.get_running_loop()
        messages = await loop.run_in_executor(
            self._journal_thread, self._journal.pending, self._limit
        )
        if not messages:
            return False
        rejected = await self._write(
            [
                _Numbered(message.id, position, row)
                for message in messages
                for position, row in enumerate(message.rows)
            ]
        )
        if rejected:
            await self._check_that_it_takes_anything()
        await loop.run_in_executor(
            self._journal_thread,
            lambda: self._journal.confirm(
                messages, rejected, policy=self._revision, now_ms=now_ms()
            ),
        )
        self._rows_wait = False
        self._limit = min(self._batch_messages, self._limit * 2)
        self._succeeded()
        for bad in rejected:
            self._on_refused(REJECTED.name, bad.row.device, 1, steady_ms())
            record(Event.REFUSED, code=REJECTED.name, device=bad.row.device, detail=bad.detail)
        self._note_stored(messages, rejected, steady_ms())
        record(Event.FORWARDED, rows=sum(len(message.rows) for message in messages))
        return True

    async def write_point(self, point: Point) -> None:
        """Write one point of our own beside the readings; lost when the database is away.

        That it went or did not is news about the database too, also while no readings flow. That
        it was refused is not: then the database works.
        """
        try:
            await self._write_points([point])
        except SinkError as exc:
            if exc.disposition is Disposition.RETRY:
                self._failed(exc)
            else:
                record(Event.SINK_FAILED, code=type(exc).__name__, problem=str(exc))
        else:
            if self._rows_wait:
                self._answers.set()
            else:
                self._succeeded()

    async def _check_that_it_takes_anything(self) -> None:
        """Before rows are given up: a database that refuses everything is not our devices' fault.

        Raises:
            SinkError: nothing is given up then.
        """
        probe = Point(PROBE, {}, {"written": True}, now_ms() * SUB_MS_NS)
        try:
            await self._write_points([probe])
        except SinkError as exc:
            if exc.disposition is Disposition.RETRY:
                raise
            raise SinkUnreachableError(
                f"the database refuses every row ({exc})", "check influx.url and influx.bucket"
            ) from None

    async def _write_points(self, points: list[Point]) -> None:
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._sink_thread, self._sink.write, points)

    async def _write(self, rows: list[_Numbered]) -> list[Rejection]:
        """Write rows, halving the batch where it is too large or has a bad row."""
        points = [point_of(numbered.row) for numbered in rows]
        try:
            await self._write_points(points)
        except SinkError as exc:
            if exc.disposition is not Disposition.REFUSE:
                raise
            if len(rows) == 1:
                only = rows[0]
                return [Rejection(only.message_id, only.position, only.row, str(exc))]
            middle = len(rows) // 2
            return [*await self._write(rows[:middle]), *await self._write(rows[middle:])]
        return []

    def _note_stored(
        self, messages: list[StoredMessage], rejected: list[Rejection], now_ms: int
    ) -> None:
        lost = {(bad.message_id, bad.position) for bad in rejected}
        counts: dict[str, int] = {}
        for message in messages:
            for position, row in enumerate(message.rows):
                if (message.id, position) in lost:
                    continue
                counts[row.device] = counts.get(row.device, 0) + 1
                newest = self._latest.get(row.device)
                if newest is None or row.time_ns >= newest.time_ns:
                    self._latest[row.device] = row
        for device, count in counts.items():
            self._on_stored(device, count, now_ms)

    def _failed(self, exc: SinkError) -> float:
        """Note a failure; the pause before the next attempt, in seconds, with full jitter."""
        self._failures += 1
        if self.state.state != exc.state or not self.state.problem:
            record(Event.SINK_FAILED, code=type(exc).__name__, problem=str(exc))
            self.state = SinkState(exc.state, steady_ms(), str(exc))
        else:
            self.state = self.state._replace(problem=str(exc))
        if isinstance(exc, SinkBusyError):
            return exc.retry_after_s
        ceiling_s = min(BACKOFF_MAX_S, BACKOFF_MIN_S * 2 ** min(self._failures, 10))
        return random.uniform(BACKOFF_MIN_S, ceiling_s)  # noqa: S311 -- jitter, not a secret

    def _succeeded(self) -> None:
        self._failures = 0
        if self.state.problem:
            record(Event.SINK_RECOVERED, after_ms=steady_ms() - self.state.since_ms)
            self.state = SinkState("ready", steady_ms(), "")

    @staticmethod
    async def _wait(event: asyncio.Event, seconds: float) -> None:
        """Wait for an event, `seconds` at most, and clear it."""
        # Not asyncio.wait_for: up to Python 3.11 it can swallow a cancellation.
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await event.wait()
        event.clear()
