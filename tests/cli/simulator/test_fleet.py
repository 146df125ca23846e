"""Boards against brokers that are not ours: Mosquitto, and amqtt for a refused subscription."""

from __future__ import annotations

import asyncio
import gc
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from amqtt.broker import Broker

from cli.simulator import device
from cli.simulator.connecting import ConnectProblem, Credentials
from cli.simulator.fleet import FleetCounts, Tuning, run_fleet
from tests.services.mosquitto import HOW_TO_GET, MOSQUITTO, Mosquitto
from tests.services.ports import LOOPBACK, find_free_port
from tests.services.requirements import require

from .receipt_sender import ReceiptSender

DEADLINE_S = 60.0
ONLINE, OFFLINE = {"state": "online"}, {"state": "offline"}
NOTHING_YET = FleetCounts(0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
ROOT = Path(__file__).parents[3]


@pytest.fixture(name="broker")
def fixture_broker() -> Iterator[Mosquitto]:
    with Mosquitto(require(MOSQUITTO, HOW_TO_GET)) as broker:
        yield broker


def boards(count: int, password: str = "") -> list[Credentials]:
    return [Credentials(f"board-{n}", f"board-{n}", password) for n in range(count)]


async def until(condition: Callable[[], object], what: str) -> None:
    deadline_s = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline_s, f"waited {DEADLINE_S:g} s for {what}"
        await asyncio.sleep(0.01)


class Fleet:
    """One call of `run_fleet` under test, with what it reported."""

    def __init__(self, credentials: list[Credentials], port: int, **options: Any) -> None:
        self.credentials = credentials
        self.options: dict[str, Any] = {
            "host": LOOPBACK,
            "port": port,
            "tls_ca": None,
            "rate_hz": None,
            "duration_s": None,
            "drain_s": DEADLINE_S,
            **options,
        }
        self.stop = asyncio.Event()
        self.progress: list[FleetCounts] = []
        self.problems: list[ConnectProblem] = []

    @property
    def latest(self) -> FleetCounts:
        return self.progress[-1] if self.progress else NOTHING_YET

    async def run(self) -> FleetCounts:
        counts = await asyncio.wait_for(
            run_fleet(
                self.credentials,
                on_progress=self.progress.append,
                on_problem=self.problems.append,
                stop=self.stop,
                **self.options,
            ),
            2 * DEADLINE_S,
        )
        assert self.progress[-1] == counts
        for one in self.progress:
            assert one.taken == one.receipted + one.refused + one.overflowed + one.waiting
        return counts


def run(credentials: list[Credentials], port: int, **options: Any) -> tuple[FleetCounts, Fleet]:
    async def one_run() -> tuple[FleetCounts, Fleet]:
        fleet = Fleet(credentials, port, **options)
        return await fleet.run(), fleet

    return asyncio.run(one_run())


def test_every_reading_arrives_once_and_is_receipted(broker: Mosquitto) -> None:
    with ReceiptSender(broker.host, broker.port) as server:
        counts, fleet = run(boards(5), broker.port, count_per_device=200)
        assert counts == FleetCounts(
            devices=5,
            connected=0,
            taken=1_000,
            sent=1_000,
            messages=len(server.batches),
            receipted=1_000,
            refused=0,
            waiting=0,
            overflowed=0,
            connect_refused=0,
        )
        assert not fleet.problems
        assert server.copies == server.unique == 1_000
        assert max(server.batches) == 50
        for readings in server.readings.values():
            (boot,) = {boot for boot, _ in readings}
            assert sorted(n for _, n in readings) == list(range(200))
            times_ms = [readings[boot, n]["ts"] for n in range(200)]
            assert all(before < after for before, after in pairwise(times_ms))
            assert times_ms[-1] <= time.time() * 1_000


def test_a_board_says_when_it_comes_and_when_it_goes(broker: Mosquitto) -> None:
    with ReceiptSender(broker.host, broker.port) as server:
        run(boards(3), broker.port, count_per_device=1)
        asyncio.run(until(lambda: server.statuses["board-2"][-1:] == [OFFLINE], "the goodbye"))
        assert dict(server.statuses) == {f"board-{n}": [ONLINE, OFFLINE] for n in range(3)}
    with ReceiptSender(broker.host, broker.port) as later:
        retained = {f"board-{n}": [OFFLINE] for n in range(3)}
        asyncio.run(until(lambda: later.statuses == retained, "the retained statuses"))


def test_a_killed_board_is_reported_by_its_last_will(broker: Mosquitto) -> None:
    script = (
        "import asyncio; from cli.simulator.connecting import Credentials; "
        "from cli.simulator.fleet import run_fleet; "
        "asyncio.run(run_fleet([Credentials('board-0', 'board-0', '')], host='127.0.0.1', "
        f"port={broker.port}, tls_ca=None, rate_hz=1, duration_s=None, "
        "on_progress=lambda counts: None, stop=asyncio.Event()))"
    )
    with ReceiptSender(broker.host, broker.port) as server:
        simulator = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT)
        try:
            asyncio.run(until(lambda: server.statuses["board-0"] == [ONLINE], "a connection"))
        finally:
            simulator.send_signal(signal.SIGKILL)
            simulator.wait()
        asyncio.run(until(lambda: server.statuses["board-0"] == [ONLINE, OFFLINE], "the will"))


def test_a_run_that_is_left_alone_leaves_no_board_online(broker: Mosquitto) -> None:
    async def leave() -> None:
        fleet = Fleet(boards(2), broker.port, rate_hz=1)
        running = asyncio.create_task(fleet.run())
        await until(lambda: fleet.latest.connected == 2, "the connections")
        assert not running.done()

    with ReceiptSender(broker.host, broker.port) as server:
        asyncio.run(leave())
        gc.collect()
        gone = {"board-0": [ONLINE, OFFLINE], "board-1": [ONLINE, OFFLINE]}
        asyncio.run(until(lambda: server.statuses == gone, "the goodbyes or the wills"))


def test_one_reading_in_a_message_is_an_object_and_a_rate_spaces_them(broker: Mosquitto) -> None:
    with ReceiptSender(broker.host, broker.port) as server:
        counts, _ = run(
            boards(2),
            broker.port,
            rate_hz=50,
            duration_s=1,
            tuning=Tuning(readings_per_message=1),
        )
        assert counts.receipted == counts.taken == server.unique > 0
        assert set(server.batches) == {1}
        for readings in server.readings.values():
            times_ms = [readings[key]["ts"] for key in sorted(readings)]
            assert {after - before for before, after in pairwise(times_ms)} <= {20}


@pytest.mark.parametrize(
    ("end", "resend_ms"),
    [
        # What Mosquitto acknowledged and then lost, only a wait for receipts can find out.
        ("kill", 500),
        # Stopped in order it loses nothing that reaches it, so the new connection is enough.
        ("stop", 10 * 60_000),
    ],
)
def test_a_broker_restarted_under_load_loses_no_reading(
    broker: Mosquitto, end: str, resend_ms: int
) -> None:
    async def scenario(server: ReceiptSender) -> FleetCounts:
        fleet = Fleet(
            boards(10),
            broker.port,
            count_per_device=60,
            tuning=Tuning(window=20, readings_per_message=1, resend_ms=resend_ms),
        )
        running = asyncio.create_task(fleet.run())
        await until(lambda: server.unique == 200, "ten full windows without a receipt")
        await asyncio.to_thread(getattr(broker, end))
        await until(lambda: fleet.problems, "a board to notice")
        server.speak()
        await asyncio.to_thread(broker.start)
        counts = await running
        assert [problem.refused for problem in fleet.problems] == [False]
        return counts

    with ReceiptSender(broker.host, broker.port, silent=True) as server:
        counts = asyncio.run(scenario(server))
        assert (counts.taken, counts.receipted, counts.waiting) == (600, 600, 0)
        assert server.unique == 600
        assert counts.sent >= 800, "the 200 that were in flight had to be sent again"


def test_a_broker_that_froze_and_died_holds_nothing_back(broker: Mosquitto) -> None:
    async def scenario() -> FleetCounts:
        fleet = Fleet(
            boards(2),
            broker.port,
            rate_hz=100,
            count_per_device=300,
            tuning=Tuning(resend_ms=500, readings_per_message=1),
        )
        running = asyncio.create_task(fleet.run())
        await until(lambda: fleet.latest.connected == 2, "the connections")
        assert broker.pid is not None
        os.kill(broker.pid, signal.SIGSTOP)
        # From here nothing is acknowledged: each board stops at 20 messages on their way.
        await until(lambda: fleet.latest.waiting >= 2 * 50, "the outboxes to fill")
        assert fleet.latest.sent - fleet.latest.receipted < 2 * 30
        await asyncio.to_thread(broker.kill)
        await asyncio.to_thread(broker.start)
        return await running

    with ReceiptSender(broker.host, broker.port) as server:
        counts = asyncio.run(scenario())
        assert (counts.taken, counts.receipted, counts.waiting) == (600, 600, 0)
        assert server.unique == 600


def test_a_puback_alone_settles_nothing(broker: Mosquitto) -> None:
    async def scenario() -> FleetCounts:
        fleet = Fleet(boards(1), broker.port, count_per_device=10, tuning=Tuning(resend_ms=200))
        running = asyncio.create_task(fleet.run())
        # Nobody is subscribed: Mosquitto acknowledges the readings and throws them away.
        await until(lambda: fleet.latest.sent >= 20, "a resend")
        assert fleet.latest.waiting == 10
        with ReceiptSender(broker.host, broker.port) as server:
            counts = await running
            assert server.unique == 10
        return counts

    assert asyncio.run(scenario()).receipted == 10


def test_refused_readings_are_dropped_and_counted(broker: Mosquitto) -> None:
    def every_tenth(reading: dict[str, Any]) -> str | None:
        return "drop" if reading["n"] % 10 == 0 else None

    with ReceiptSender(broker.host, broker.port, action_for=every_tenth):
        counts, _ = run(boards(2), broker.port, count_per_device=50)
    assert (counts.receipted, counts.refused, counts.waiting) == (90, 10, 0)


def test_a_wrong_password_is_told_once_and_hurts_nobody_else(tmp_path: Path) -> None:
    program = require(MOSQUITTO, HOW_TO_GET)
    tool = require("mosquitto_passwd", HOW_TO_GET)
    passwords = tmp_path / "passwords"
    passwords.touch(mode=0o600)
    for name in ("board-0", "board-1", "board-2", "server"):
        subprocess.run([tool, "-b", passwords, name, "right"], check=True, capture_output=True)

    async def scenario(port: int) -> tuple[FleetCounts, list[ConnectProblem]]:
        fleet = Fleet([*boards(1, "right"), *boards(3, "wrong")[1:]], port, count_per_device=5)
        running = asyncio.create_task(fleet.run())
        await until(
            lambda: (fleet.latest.receipted, fleet.latest.connect_refused) == (5, 2),
            "one board through and two refused",
        )
        fleet.stop.set()
        return await running, fleet.problems

    with (
        Mosquitto(program, allow_anonymous=False, password_file=passwords) as broker,
        ReceiptSender(broker.host, broker.port, login=("server", "right")),
    ):
        counts, problems = asyncio.run(scenario(broker.port))
    assert counts.waiting == 10
    (problem,) = problems
    assert problem.refused
    assert problem.device_id in {"board-1", "board-2"}
    assert "iotctl devices rotate" in problem.reason


# amqtt 0.12.1 warns about `acl`, but its plugin takes no other name for it.
@pytest.mark.filterwarnings("ignore:The 'acl' option is deprecated:DeprecationWarning")
def test_a_board_that_may_not_hear_its_receipts_says_so() -> None:
    acl = "amqtt.plugins.topic_checking.TopicAccessControlListPlugin"
    port = find_free_port()
    config = {
        "listeners": {"default": {"type": "tcp", "bind": f"{LOOPBACK}:{port}"}},
        "plugins": {
            "amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True},
            acl: {"acl": {"board-0": ["v1/board-0/config"]}},
        },
    }

    async def scenario() -> tuple[FleetCounts, list[ConnectProblem]]:
        broker = Broker(config)
        await broker.start()
        try:
            fleet = Fleet(boards(1), port, count_per_device=1)
            running = asyncio.create_task(fleet.run())
            await until(lambda: fleet.problems, "the refusal")
            fleet.stop.set()
            return await running, fleet.problems
        finally:
            await broker.shutdown()

    counts, (problem,) = asyncio.run(scenario())
    assert problem.refused
    assert "v1/board-0/receipt" in problem.reason
    assert (counts.sent, counts.waiting, counts.connect_refused) == (0, 1, 1)


def test_a_broker_that_is_not_there_is_told_once() -> None:
    async def scenario() -> tuple[FleetCounts, list[ConnectProblem]]:
        fleet = Fleet(boards(5), find_free_port(), count_per_device=2)
        running = asyncio.create_task(fleet.run())
        await until(lambda: fleet.latest.taken == 10, "the readings")
        await until(lambda: fleet.problems, "the problem")
        fleet.stop.set()
        return await running, fleet.problems

    counts, (problem,) = asyncio.run(scenario())
    assert not problem.refused
    assert "nothing listens there" in problem.reason
    assert (counts.sent, counts.waiting, counts.connect_refused) == (0, 10, 0)


def test_a_server_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "SESSION_TIMEOUT_S", 0.1)
    monkeypatch.setattr(device, "GOODBYE_TIMEOUT_S", 0.1)

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1_024):
            pass
        writer.close()

    async def scenario() -> list[ConnectProblem]:
        server = await asyncio.start_server(swallow, LOOPBACK, 0)
        async with server:
            fleet = Fleet(boards(1), server.sockets[0].getsockname()[1], count_per_device=1)
            running = asyncio.create_task(fleet.run())
            await until(lambda: fleet.problems, "the problem")
            fleet.stop.set()
            await running
        return fleet.problems

    (problem,) = asyncio.run(scenario())
    assert "no answer within" in problem.reason


def test_the_wait_for_receipts_ends(broker: Mosquitto) -> None:
    counts, _ = run(boards(2), broker.port, count_per_device=3, drain_s=0.5)
    assert (counts.taken, counts.receipted, counts.waiting) == (6, 0, 6)


@pytest.mark.parametrize(
    ("credentials", "options", "message"),
    [
        (boards(1) * 2, {"rate_hz": 1}, "same device id"),
        (boards(1), {"rate_hz": None}, "count_per_device"),
        (boards(1), {"rate_hz": math.inf}, "count_per_device"),
        (boards(1), {"rate_hz": 0}, "readings a second"),
        ([Credentials("a/b", "a/b", "")], {"rate_hz": 1}, "not a device id"),
    ],
)
def test_what_cannot_be_simulated_is_an_error(
    credentials: list[Credentials], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        run(credentials, find_free_port(), **options)


def test_a_ca_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"ca\.pem: No such file or directory; give a CA"):
        run(boards(1), find_free_port(), rate_hz=1, tls_ca=tmp_path / "ca.pem")
