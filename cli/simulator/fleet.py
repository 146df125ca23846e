"""Many boards in one asyncio loop, and the sum of what they did.

`run_fleet` is all that a command needs. The arithmetic holds at every moment:
`taken = receipted + refused + overflowed + waiting`.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import math
import random
import resource
import ssl
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from broker_config.clock import now_ms
from cli.simulator.climate import seed_of
from cli.simulator.connecting import ConnectProblem, Credentials, Endpoint
from cli.simulator.device import READINGS_PER_MESSAGE, Board
from cli.simulator.outbox import DEFAULT_CAPACITY, DEFAULT_WINDOW, RESEND_MS, Outbox
from cli.simulator.schedule import FullSpeed, Paced, Schedule

DEFAULT_DRAIN_S = 30.0
PROGRESS_S = 1.0
"""Time between two calls of `on_progress`."""

_TICK_S = 1.0
_LOOK_S = 0.05
"""How often boards are ticked, and how often the end of the run is looked for."""

_CONNECTING_AT_ONCE = 32
"""Boards between TCP connect and SUBACK: a slow broker slows the ramp instead of timing out."""

_HANDSHAKE_THREADS = 8
_SPARE_FILES = 64
"""File descriptors for everything that is not a board's socket."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FleetCounts:
    """What the boards did so far, and how they are now.

    Attributes:
        devices: boards in the fleet.
        connected: boards that are connected and subscribed to their receipts now.
        taken: readings taken from the sensors.
        sent: readings published, resends included.
        messages: PUBLISH packets that carried them.
        receipted: readings that a receipt reported as safely stored.
        refused: readings that a receipt told the board to drop.
        waiting: readings in the outboxes now.
        overflowed: readings pushed out of a full outbox.
        connect_refused: boards that the broker turns away now.
    """

    devices: int
    connected: int
    taken: int
    sent: int
    messages: int
    receipted: int
    refused: int
    waiting: int
    overflowed: int
    connect_refused: int


@dataclass(frozen=True)
class Tuning:
    """How the boards behave; the defaults are those of a real board.

    Attributes:
        ramp_hz: boards switched on a second.
        window: readings of one board that are sent and unanswered at a time.
        readings_per_message: most readings in one PUBLISH.
        outbox_capacity: readings that one board keeps.
        resend_ms: first wait for a receipt before sending again.
    """

    ramp_hz: float = 100.0
    window: int = DEFAULT_WINDOW
    readings_per_message: int = READINGS_PER_MESSAGE
    outbox_capacity: int = DEFAULT_CAPACITY
    resend_ms: int = RESEND_MS


def log_problem(problem: ConnectProblem) -> None:
    """Logs one line for a board that cannot connect."""
    _log.warning("%s: %s", problem.device_id, problem.reason)


async def run_fleet(
    boards: Sequence[Credentials],
    *,
    host: str,
    port: int,
    tls_ca: Path | None,
    rate_hz: float | None,
    duration_s: float | None,
    on_progress: Callable[[FleetCounts], None],
    stop: asyncio.Event,
    count_per_device: int | None = None,
    drain_s: float = DEFAULT_DRAIN_S,
    on_problem: Callable[[ConnectProblem], None] = log_problem,
    tuning: Tuning = Tuning(),
) -> FleetCounts:
    """Runs the boards against a broker and returns the final counts.

    The boards stop taking readings after `duration_s`, or when each has taken
    `count_per_device`. Then the fleet goes on until every outbox is empty, for `drain_s` at most,
    and disconnects. `stop` ends it at once, without waiting for the outboxes.

    Args:
        boards: who they are; device ids must differ.
        host: the broker.
        port: its MQTT port.
        tls_ca: CA certificate (PEM) that the broker's certificate is checked against; None for
            plain TCP.
        rate_hz: readings a second and board; None or infinity for the next one as soon as the
            in-flight window allows, which needs `count_per_device`.
        duration_s: how long to take readings; None for no limit.
        on_progress: called about once a second and once at the end.
        stop: set it to end the run.
        count_per_device: how many readings each board takes; None for no limit.
        drain_s: how long to wait for the last receipts.
        on_problem: told once of each different reason why boards cannot connect, with the first
            board that met it.
        tuning: how the boards behave.

    Raises:
        ValueError: device ids repeat or are malformed, or the rate is out of range.
        OSError: the CA file cannot be used, or this process may not open enough sockets.
    """
    if len({board.device_id for board in boards}) != len(boards):
        msg = "two boards have the same device id; a broker would disconnect each for the other"
        raise ValueError(msg)
    tls = None if tls_ca is None else _tls_context(tls_ca)
    _allow_open_files(len(boards) + _SPARE_FILES)
    fleet = _Fleet(Endpoint(host, port, tls), tuning, on_problem)
    for credentials in boards:
        fleet.add(credentials, rate_hz, count_per_device)
    with ThreadPoolExecutor(_HANDSHAKE_THREADS, "board-handshake") as executor:
        fleet.switch_on(executor)
        try:
            await _watch(fleet, duration_s, drain_s, on_progress, stop)
        finally:
            await fleet.switch_off()
    fleet.raise_crash()
    counts = fleet.counts()
    on_progress(counts)
    return counts


async def _watch(
    fleet: _Fleet,
    duration_s: float | None,
    drain_s: float,
    on_progress: Callable[[FleetCounts], None],
    stop: asyncio.Event,
) -> None:
    """Returns when the run is over; stops the schedules when `duration_s` has passed."""
    clock_s = asyncio.get_running_loop().time
    taking_until_s = math.inf if duration_s is None else clock_s() + duration_s
    draining_until_s = math.inf
    progress_s = clock_s()
    while not stop.is_set():
        fleet.raise_crash()
        now_s = clock_s()
        if now_s >= progress_s:
            on_progress(fleet.counts())
            progress_s = now_s + PROGRESS_S
        if now_s >= taking_until_s:
            fleet.stop_taking()
        if fleet.has_taken_all():
            draining_until_s = min(draining_until_s, now_s + drain_s)
            if fleet.waiting() == 0 or now_s >= draining_until_s:
                return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LOOK_S):
                await stop.wait()


class _Fleet:
    """The boards of one run."""

    def __init__(
        self, endpoint: Endpoint, tuning: Tuning, on_problem: Callable[[ConnectProblem], None]
    ) -> None:
        self._endpoint = endpoint
        self._tuning = tuning
        self._on_problem = on_problem
        self._reported: set[str] = set()
        self._boards: list[Board] = []
        self._background: list[asyncio.Task[None]] = []
        self._running: list[asyncio.Task[None]] = []
        # Larger at every start, as a boot counter is: nobody restarts within a millisecond.
        self._boot = now_ms()

    def add(self, credentials: Credentials, rate_hz: float | None, count: int | None) -> None:
        """Adds a board; its schedule begins when the ramp reaches it."""
        tuning = self._tuning
        seed = seed_of(credentials.device_id)
        starts_ms = self._boot + math.ceil(1_000 * len(self._boards) / tuning.ramp_hz)
        outbox = Outbox(
            capacity=tuning.outbox_capacity, window=tuning.window, resend_ms=tuning.resend_ms
        )
        board = Board(
            credentials,
            self._endpoint,
            schedule=_schedule(rate_hz, count, starts_ms, phase=seed % 1_000 / 1_000),
            outbox=outbox,
            boot=self._boot,
            clock_ms=now_ms,
            rng=random.Random(seed),  # noqa: S311 - spreads reconnections, keeps no secret
            readings_per_message=tuning.readings_per_message,
            on_problem=self._report,
        )
        self._boards.append(board)

    def switch_on(self, executor: Executor) -> None:
        """Starts the boards one after another, `ramp_hz` a second."""
        self._background = [
            asyncio.create_task(self._ramp(executor)),
            asyncio.create_task(self._tick()),
        ]

    async def _ramp(self, executor: Executor) -> None:
        gate = asyncio.Semaphore(_CONNECTING_AT_ONCE)
        for board in self._boards:
            board.start()
            self._running.append(asyncio.create_task(board.run(gate, executor)))
            await asyncio.sleep(1 / self._tuning.ramp_hz)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            for board in self._boards[: len(self._running)]:
                board.tick()

    async def switch_off(self) -> None:
        """Lets every board say goodbye."""
        for task in self._background:
            task.cancel()
        for board in self._boards:
            board.stop()
        await asyncio.gather(*self._background, *self._running, return_exceptions=True)

    def raise_crash(self) -> None:
        """Raises what a task of the fleet died of, if one did."""
        for task in (*self._background, *self._running):
            if task.done() and not task.cancelled():
                task.result()

    def stop_taking(self) -> None:
        """Lets no board take a further reading."""
        for board in self._boards:
            board.schedule.stop()

    def has_taken_all(self) -> bool:
        """Whether no board will take a further reading."""
        return all(board.schedule.finished for board in self._boards)

    def waiting(self) -> int:
        """Readings in the outboxes now."""
        return sum(board.outbox.waiting for board in self._boards)

    def counts(self) -> FleetCounts:
        """The sum over the boards."""
        boards = self._boards
        return FleetCounts(
            devices=len(boards),
            connected=sum(board.connected for board in boards),
            taken=sum(board.outbox.appended for board in boards),
            sent=sum(board.sent for board in boards),
            messages=sum(board.messages for board in boards),
            receipted=sum(board.outbox.seen for board in boards),
            refused=sum(board.outbox.dropped for board in boards),
            waiting=self.waiting(),
            overflowed=sum(board.outbox.overflowed for board in boards),
            connect_refused=sum(board.refused for board in boards),
        )

    def _report(self, problem: ConnectProblem) -> None:
        if problem.reason not in self._reported:
            self._reported.add(problem.reason)
            self._on_problem(problem)


def _schedule(
    rate_hz: float | None, count: int | None, starts_ms: int, *, phase: float
) -> Schedule:
    """The schedule of one board; `phase` is its place in the interval, from 0 to 1."""
    if rate_hz is not None and not math.isinf(rate_hz):
        return Paced(rate_hz, starts_ms=starts_ms, phase=phase, count=count)
    if count is None:
        msg = "full speed needs count_per_device, the number of readings each board shall take"
        raise ValueError(msg)
    return FullSpeed(count)


def _tls_context(tls_ca: Path) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=str(tls_ca))
    except OSError as error:
        msg = f"{tls_ca}: {error.strerror or error}; give a CA certificate in PEM form"
        raise OSError(msg) from error


def _allow_open_files(wanted: int) -> None:
    """Raises the process's soft limit of open files where that is needed.

    Raises:
        OSError: the hard limit is lower.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    if hard != resource.RLIM_INFINITY and hard < wanted:
        msg = (
            f"{wanted - _SPARE_FILES} boards need {wanted} open files, but the limit is {hard}: "
            "raise it (`ulimit -Hn`) or simulate fewer"
        )
        raise OSError(errno.EMFILE, msg)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
