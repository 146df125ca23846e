"""Read this first: the whole way of one message, from the broker to the database.

    source ─▶ judge ─▶ journal (fsync) ─▶ acknowledge + receipt ─▶ forwarder ─▶ sink

1. The source hands over what has arrived (`source.py`, `subscriber.py`).
2. Every reading in it gets exactly one outcome: accepted, duplicate, refused (`judge.py`).
3. The batch goes to disk in one transaction, with the memory it changed (`journal.py`). While
   that fails the batch is kept here, nothing is acknowledged, and the source waits.
4. Only then are the messages acknowledged, and the devices told (`receipts.py`).
5. The forwarder writes accepted rows to the database and moves its cursor (`forwarder.py`).

Refusals that the broker made itself come by its log (`take_decisions`) into the same ledger.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, TypeVar

from bridge.judge import Judgement, judge
from broker_config.clock import now_ms, steady_ms
from broker_config.errors import StorageError
from broker_config.events import Event, record
from broker_config.topics import Kind, is_identity, topic_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from concurrent.futures import Executor

    from bridge.boot_book import BootBook
    from bridge.forwarder import Forwarder
    from bridge.health import HealthBook
    from bridge.journal import Journal
    from bridge.outcomes import Delivery, Judged
    from bridge.receipts import ReceiptBook
    from bridge.roster import Roster
    from bridge.source import Source
    from broker_config.broker.decision_log import DecisionLog
    from broker_config.policy import Policy

RETRY_S = 1.0
"""Pause before a failed commit is tried again, in seconds."""

DECISIONS_EVERY_S = 0.5
DECISIONS_LIMIT = 1_000
RECEIPTS_EVERY_S = 0.2
FINISH_S = 5.0
"""How long the end of the process waits for the batch that is under way, in seconds."""

T = TypeVar("T")


class Pipeline:
    """One bridge's line, from its source to its journal."""

    def __init__(
        self,
        *,
        source: Source,
        policy: Policy,
        roster: Roster,
        boots: BootBook,
        journal: Journal,
        journal_thread: Executor,
        forwarder: Forwarder,
        receipts: ReceiptBook,
        health: HealthBook,
        on_refused: Callable[[str, str, int, int], None],
    ) -> None:
        self._source = source
        self._policy, self._revision = policy, policy.revision
        self._roster = roster
        self._boots = boots
        self._journal, self._journal_thread = journal, journal_thread
        self._forwarder = forwarder
        self._receipts = receipts
        self._health = health
        self._on_refused = on_refused
        self._arrivals = time.time_ns() // 1_000
        self._decision_id: int | None = None
        self.journal_problem = ""
        self.journal_problem_since_ms = 0

    async def run(self) -> None:
        """Take messages for ever; ends only by being cancelled, between two batches."""
        while True:
            batch = await self._source.next_batch()
            taking = asyncio.create_task(self._take(batch))
            try:
                await asyncio.shield(taking)
            except asyncio.CancelledError:
                # What is nearly on disk is acknowledged, or it would come a second time.
                await asyncio.wait([taking], timeout=FINISH_S)
                taking.cancel()
                raise

    async def _take(self, batch: list[Delivery]) -> None:
        """The way of one batch, in order."""
        judged, heard = await self._judge(batch)
        await self._commit(judged, heard)
        self._source.acknowledge(batch)
        self._tell(judged)
        self._forwarder.wake()

    async def _judge(self, batch: list[Delivery]) -> tuple[list[Judged], dict[str, int]]:
        """Step 2; registry and journal are read for it, and may have to be read again.

        Returns:
            the outcomes, and which enrolled devices were heard, and when.
        """
        while True:
            try:
                by = Judgement(
                    self._policy,
                    self._revision,
                    self._roster.sites(),
                    self._boots,
                    self._roster.revoked(),
                )
                judged = [judge(delivery, by, arrival=self._next_arrival()) for delivery in batch]
                return judged, self._heard((m.device, m.delivery.received_ms) for m in judged)
            except StorageError as exc:
                self._boots.forget_changed()
                await self._journal_failed(exc)

    async def _commit(self, judged: list[Judged], heard: dict[str, int]) -> None:
        """Step 3: do not return before the batch is on disk."""
        boots = self._boots.take_changed()
        while True:
            try:
                await self._on_journal_thread(
                    lambda: self._journal.append(
                        judged, boots, heard=heard, policy=self._revision, now_ms=now_ms()
                    )
                )
            except StorageError as exc:
                await self._journal_failed(exc)
            else:
                break
        if self.journal_problem:
            self.journal_problem = ""
            record(Event.JOURNAL_RECOVERED)

    def _tell(self, judged: list[Judged]) -> None:
        """Step 4: receipts, health and events for what is now on disk."""
        for one in judged:
            self._receipts.add(one)
            for code, (times, detail) in _refusals_by_code(one).items():
                self._on_refused(code, one.device, times, steady_ms())
                topic = one.delivery.topic
                record(
                    Event.REFUSED,
                    code=code,
                    count=times,
                    device=one.device,
                    topic=topic,
                    detail=detail,
                )

    async def send_receipts(self) -> None:
        """Send due receipts and the own heartbeat for ever."""
        while True:
            await asyncio.sleep(RECEIPTS_EVERY_S)
            self._source.beat()
            if self._source.state.connected:
                due = self._receipts.take_due(steady_ms(), policy=self._revision)
                for device, payload in due:
                    if is_identity(device):
                        self._source.publish(topic_for(device, Kind.RECEIPT), payload)

    async def take_decisions(self, log: DecisionLog) -> None:
        """Take the broker's refusals into the ledger for ever."""
        while True:
            try:
                if await self._take_some_decisions(log):
                    continue
            except StorageError as exc:
                record(Event.DECISIONS_UNREADABLE, code=type(exc).__name__, problem=str(exc))
            await asyncio.sleep(DECISIONS_EVERY_S)

    async def _take_some_decisions(self, log: DecisionLog) -> bool:
        """Take the next of the broker's refusals; True when there may be more."""
        if self._decision_id is None:
            self._decision_id = await self._on_journal_thread(
                lambda: self._journal.decision_id(log.log_id)
            )
        rows = log.read_after(self._decision_id, DECISIONS_LIMIT)
        if not rows:
            return False
        heard = self._heard((row.device, row.at_ms) for row in rows)
        await self._on_journal_thread(
            lambda: self._journal.append_decisions(rows, log_id=log.log_id, heard=heard)
        )
        self._decision_id = rows[-1].id
        for row in rows:
            self._on_refused(row.code, row.device, row.times, steady_ms())
        return len(rows) == DECISIONS_LIMIT

    def _heard(self, contacts: Iterable[tuple[str, int]]) -> dict[str, int]:
        """Note which enrolled devices made contact; names that nobody enrolled are not kept."""
        enrolled = self._roster.sites()
        heard = {device: at_ms for device, at_ms in contacts if device in enrolled}
        for device in heard:
            self._health.heard(device, steady_ms())
        return heard

    async def _on_journal_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._journal_thread, work)

    async def _journal_failed(self, exc: StorageError) -> None:
        if not self.journal_problem:
            record(Event.JOURNAL_UNWRITABLE, code=type(exc).__name__, problem=str(exc))
            self.journal_problem_since_ms = steady_ms()
        self.journal_problem = str(exc)
        await asyncio.sleep(RETRY_S)

    def _next_arrival(self) -> int:
        self._arrivals += self._policy.limits.readings_per_message
        return self._arrivals


def _refusals_by_code(judged: Judged) -> dict[str, tuple[int, str]]:
    """How many readings of a message were refused by which code, and the first detail of each."""
    found: dict[str, tuple[int, str]] = {}
    for one in judged.refused:
        times, detail = found.get(one.refusal.code.name, (0, one.refusal.detail))
        found[one.refusal.code.name] = (times + one.times, detail)
    return found
