"""A bridge without a broker and without a process: real files, a scripted source and sink."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from bridge.boot_book import BootBook
from bridge.forwarder import Forwarder
from bridge.health import HealthBook
from bridge.journal import Journal
from bridge.journal_reader import JournalReader
from bridge.monitor import Monitor, refusal_note
from bridge.pipeline import Pipeline
from bridge.receipts import ReceiptBook
from bridge.roster import Roster
from bridge.source import SourceState
from broker_config.home import Home
from broker_config.registry import Enrolment, Registry
from broker_config.settings import Settings
from tests.bridge.examples import POLICY

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Sequence
    from pathlib import Path
    from typing import Any, Self

    from bridge.line_protocol import Point
    from bridge.outcomes import Delivery
    from bridge.readings import Row

DEADLINE_S = 20.0
STARTED_MS = 1_000


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition; it is an error when it does not come true."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        await asyncio.sleep(0.002)


@contextlib.asynccontextmanager
async def running(*work: Coroutine[Any, Any, None]) -> Any:
    """Run parts of the bridge beside a test; their errors are the test's errors."""
    tasks = [asyncio.create_task(part) for part in work]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        done, still_running = await asyncio.wait(tasks, timeout=DEADLINE_S)
        assert not still_running, "a part of the bridge does not end when it is cancelled"
        for task in done:
            if not task.cancelled():
                task.result()


class ScriptedSource:
    """A `Source` that hands over what a test gives it and notes what is acknowledged."""

    def __init__(self) -> None:
        self._waiting: deque[list[Delivery]] = deque()
        self._arrived = asyncio.Event()
        self.acknowledged: list[Delivery] = []
        self.published: list[tuple[str, bytes]] = []
        self.on_acknowledge: Callable[[Sequence[Delivery]], None] = lambda _batch: None
        self.state = SourceState(True, STARTED_MS, "", None)

    def give(self, *batch: Delivery) -> None:
        self._waiting.append(list(batch))
        self._arrived.set()

    async def start(self) -> None:
        """There is nothing to connect to."""

    async def next_batch(self) -> list[Delivery]:
        while not self._waiting:
            self._arrived.clear()
            await self._arrived.wait()
        return self._waiting.popleft()

    def acknowledge(self, batch: Sequence[Delivery]) -> None:
        self.on_acknowledge(batch)
        self.acknowledged.extend(batch)

    def publish(self, topic: str, payload: bytes) -> None:
        self.published.append((topic, payload))

    def beat(self) -> None:
        """There is no broker that a heartbeat could come back from."""

    async def stop(self) -> None:
        """There is nothing to disconnect from."""


class ScriptedSink:
    """A `Sink` in memory: idempotent, and it fails as a test's script says.

    `before_write` sees the points of every attempt and raises what the database would answer.
    """

    kind = "embedded"

    def __init__(self) -> None:
        self.before_write: Callable[[Sequence[Point]], None] = lambda _points: None
        self.attempts = 0
        self.taken: list[Point] = []
        self.stored: dict[tuple[str, int], Point] = {}

    def write(self, points: Sequence[Point]) -> None:
        self.attempts += 1
        self.before_write(points)
        self.taken.extend(points)
        for point in points:
            self.stored[point.tags.get("device", ""), point.time_ns] = point

    def read(self, device: str, *, since_ms: int, limit: int) -> Iterator[Row]:
        raise NotImplementedError

    def close(self) -> None:
        """There is nothing to close."""


class Bridge:
    """Everything that `bridge.process` wires, on a home folder of its own."""

    def __init__(self, folder: Path, *devices: str) -> None:
        """Wire it up inside a running event loop; nothing runs yet."""
        home = Home(folder)
        self.registry = Registry(home.registry_file)
        self.registry.add_many(
            [Enrolment(name, "hall", 10.0) for name in devices or ("dev-1", "dev-2")], now_ms=1
        )
        self.journal = Journal(home.journal_file)
        self.memory = JournalReader(home.journal_file)
        self.source, self.sink = ScriptedSource(), ScriptedSink()
        self.roster = Roster(self.registry)
        self.boots = BootBook(self.memory.boot)
        self.health = HealthBook(window_s=60, started_ms=STARTED_MS)
        self.latest: dict[str, Row] = {}
        self._threads = ThreadPoolExecutor(1, "journal"), ThreadPoolExecutor(1, "sink")
        self.forwarder = Forwarder(
            journal=self.journal,
            journal_thread=self._threads[0],
            sink=self.sink,
            sink_thread=self._threads[1],
            policy_revision=POLICY.revision,
            batch_messages=100,
            on_stored=self.health.stored,
            on_refused=refusal_note(self.health),
            latest=self.latest,
        )
        self.pipeline = Pipeline(
            source=self.source,
            policy=POLICY,
            roster=self.roster,
            boots=self.boots,
            journal=self.journal,
            journal_thread=self._threads[0],
            forwarder=self.forwarder,
            receipts=ReceiptBook(),
            health=self.health,
            on_refused=refusal_note(self.health),
        )
        self.monitor = Monitor(
            settings=Settings(),
            sink_kind=self.sink.kind,
            policy_revision=POLICY.revision,
            roster=self.roster,
            health=self.health,
            source=self.source,
            pipeline=self.pipeline,
            forwarder=self.forwarder,
            journal=self.journal,
            journal_thread=self._threads[0],
            latest=self.latest,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        for thread in self._threads:
            thread.shutdown()
        for opened in (self.journal, self.memory, self.registry):
            opened.close()
