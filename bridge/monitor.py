"""What the bridge knows about itself at this moment: asked by HTTP, metrics and the database.

A measurement is made every `EVERY_S` and kept, so that a thousand people who look at the page
cost as much as one.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from prometheus_client import Counter, Gauge

from bridge.health import Expectation
from bridge.line_protocol import INGEST_HEALTH, Point
from bridge.readings import SUB_MS_NS
from bridge.verdict import Facts, judge_health
from bridge.web.status import devices_answer, stale_answer, status_answer
from broker_config.clock import now_ms, steady_ms
from broker_config.errors import NotRunningError, StorageError
from broker_config.events import Event, record

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor

    from bridge.forwarder import Forwarder
    from bridge.health import HealthBook
    from bridge.journal import Journal
    from bridge.outcomes import Ledger
    from bridge.pipeline import Pipeline
    from bridge.readings import Row
    from bridge.roster import Roster
    from bridge.source import Source
    from broker_config.settings import Settings

EVERY_S = 1.0
SHARE = 0.05
"""Largest share of the event loop that measuring may take; with very many devices it is done less
often."""

STALE_MS = 15_000
"""A measurement older than this is said to be old, in ms."""

WRITE_EVERY_S = 10.0
"""How often `ingest_health` goes into the database, in seconds."""

_ratio = Gauge("iot_ingest_health_ratio", "Readings stored / readings expected in the window.")
_readings = Gauge(
    "iot_readings", "Ledger: readings by disposition, since the journal began.", ["disposition"]
)
_devices = Gauge("iot_devices", "Enrolled devices by state.", ["state"])
_backlog = Gauge("iot_sink_backlog_readings", "Accepted readings not yet in the database.")
_refusals = Counter(
    "iot_refusals_total",
    "Refused readings and connections, those by the broker included.",
    ["code"],
)
_up = Gauge("iot_up", "1 where the part works.", ["part"])


def refusal_note(health: HealthBook) -> Callable[[str, str, int, int], None]:
    """What every refusal is told to, wherever it happened: health and metrics.

    Returns:
        a function of code, device, how many, and when (`steady_ms`).
    """

    def note(code: str, device: str, times: int, at_ms: int) -> None:
        health.refused(code, device, times, at_ms)
        _refusals.labels(code).inc(times)

    return note


class Monitor:
    """Measures one bridge."""

    def __init__(
        self,
        *,
        settings: Settings,
        sink_kind: str,
        policy_revision: str,
        roster: Roster,
        health: HealthBook,
        source: Source,
        pipeline: Pipeline,
        forwarder: Forwarder,
        journal: Journal,
        journal_thread: Executor,
        latest: dict[str, Row],
    ) -> None:
        self._settings = settings
        self._sink_kind = sink_kind
        self._policy_revision = policy_revision
        self._activated_ms = now_ms()
        self._roster, self._health = roster, health
        self._source, self._pipeline, self._forwarder = source, pipeline, forwarder
        self._journal, self._journal_thread = journal, journal_thread
        self._latest = latest
        self._status: dict[str, Any] | None = None
        self._measured_ms = 0
        self._point: Point | None = None
        self._unbalanced = False

    def status(self) -> dict[str, Any]:
        """The latest measurement, as `/api/status` answers it.

        Raises:
            NotRunningError: none was made yet.
        """
        if self._status is None:
            raise NotRunningError("the first measurement is under way", "ask again in a second")
        age_ms = steady_ms() - self._measured_ms
        if age_ms > STALE_MS:
            return stale_answer(self._status, age_ms=age_ms, now_ms=now_ms())
        return self._status

    def devices(self, *, limit: int) -> dict[str, Any]:
        """Enrolled devices with state and latest values, the worst first."""
        return devices_answer(
            self._roster.devices().values(),
            self._expectations(),
            self._health,
            self._latest,
            now_ms=steady_ms(),
            shift_ms=now_ms() - steady_ms(),
            limit=limit,
        )

    def not_ready(self) -> str:
        """Why this bridge cannot do its work now; empty when it can."""
        if self._status is not None and steady_ms() - self._measured_ms > STALE_MS:
            return "the journal does not answer"
        if self._pipeline.journal_problem:
            return self._pipeline.journal_problem
        if not self._source.state.connected:
            return self._source.state.problem
        return self._forwarder.state.problem

    async def run(self) -> None:
        """Measure for ever."""
        while True:
            began_ms = steady_ms()
            try:
                await self._measure()
            except StorageError as exc:
                record(Event.JOURNAL_UNWRITABLE, code=type(exc).__name__, problem=str(exc))
            took_s = (steady_ms() - began_ms) / 1000
            await asyncio.sleep(min(STALE_MS / 2000, max(EVERY_S, took_s / SHARE)))

    async def write_health(self) -> None:
        """Put ingest health into the database for ever; a gap there is a gap of the database."""
        while True:
            await asyncio.sleep(WRITE_EVERY_S)
            if self._point is not None:
                await self._forwarder.write_point(self._point)

    async def _measure(self) -> None:
        loop = asyncio.get_running_loop()
        ledger = await loop.run_in_executor(self._journal_thread, self._journal.ledger)
        at_ms = steady_ms()
        settings = self._settings.health
        facts = Facts(
            health=self._health.report(self._expectations(), at_ms),
            source=self._source.state,
            sink=self._forwarder.state,
            backlog=ledger.pending,
            journal_problem=self._pipeline.journal_problem,
            journal_since_ms=self._pipeline.journal_problem_since_ms,
            ledger_difference=ledger.difference,
            ok_ratio=settings.ok_ratio,
            down_ratio=settings.down_ratio,
            now_ms=at_ms,
        )
        verdict = judge_health(facts)
        self._status = status_answer(
            facts,
            verdict,
            ledger,
            window_s=settings.window_s,
            sink_kind=self._sink_kind,
            policy_revision=self._policy_revision,
            policy_activated_ms=self._activated_ms,
            shift_ms=now_ms() - at_ms,
        )
        self._measured_ms = at_ms
        self._point = health_point(
            facts, ledger, bridge=self._settings.bridge.id, time_ns=now_ms() * SUB_MS_NS
        )
        self._note_balance(ledger)
        _set_gauges(facts, ledger)

    def _note_balance(self, ledger: Ledger) -> None:
        unbalanced = ledger.difference != 0
        if unbalanced and not self._unbalanced:
            record(Event.LEDGER_UNBALANCED, difference=ledger.difference, **ledger._asdict())
        self._unbalanced = unbalanced

    def _expectations(self) -> dict[str, Expectation]:
        return {
            entry.name: Expectation(entry.interval_s, entry.revoked_ms is not None)
            for entry in self._roster.devices().values()
        }


def health_point(facts: Facts, ledger: Ledger, *, bridge: str, time_ns: int) -> Point:
    """The point of measurement `ingest_health` for one measurement."""
    return Point(
        INGEST_HEALTH,
        {"bridge": bridge},
        {
            "ratio": float(facts.health.ratio),
            "expected": round(facts.health.expected),
            "stored": round(facts.health.stored),
            "pending": ledger.pending,
            "received_total": ledger.received,
            "stored_total": ledger.stored,
            "duplicate_total": ledger.duplicate,
            "refused_total": ledger.refused,
        },
        time_ns,
    )


def _set_gauges(facts: Facts, ledger: Ledger) -> None:
    _ratio.set(facts.health.ratio)
    for disposition, count in ledger._asdict().items():
        _readings.labels(disposition).set(count)
    for state, count in facts.health.devices._asdict().items():
        _devices.labels(state).set(count)
    _backlog.set(facts.backlog)
    _up.labels("source").set(facts.source.connected)
    _up.labels("sink").set(not facts.sink.problem)
    _up.labels("journal").set(not facts.journal_problem)
