"""Parts die or go away while readings flow: nothing acknowledged is lost, nothing is doubled.

"Acknowledged" is what a device acts on: a receipt. The oracle is the database, read by its own
query language, against what the devices counted.
"""

from __future__ import annotations

import json
import signal
import subprocess
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from tests.harness.stores import InfluxStore
from tests.harness.system import assert_balanced, clean_environment, iotctl_command
from tests.harness.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.harness.stores import Store
    from tests.harness.system import System

KILLS = 10


class Load:
    """`iotctl simulate` in the background."""

    def __init__(self, system: System, *arguments: str) -> None:
        self._process = subprocess.Popen(
            iotctl_command(system.home, "simulate", "--json", *arguments),
            env=clean_environment(system.environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def counts(self) -> dict[str, Any]:
        """Wait for its end; what the devices counted."""
        out, _ = self._process.communicate(timeout=150)
        counts: dict[str, Any] = json.loads(out)
        return counts

    def stop(self) -> None:
        if self.running:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(30)


def _more_rows(store: Store, before: int) -> bool:
    return store.count() > before


@pytest.fixture
def load(system: System, request: pytest.FixtureRequest) -> Iterator[Load]:
    """Twenty devices with ten readings a second each, for as many seconds as the test says."""
    running = Load(system, "--devices", "20", "--rate", "10", "--duration", str(request.param))
    yield running
    running.stop()


@pytest.mark.parametrize("load", [55], indirect=True)
@pytest.mark.parametrize("store", ["influxdb"], indirect=True)
def test_the_bridge_is_killed_ten_times_under_load(
    system: System, store: Store, load: Load
) -> None:
    for kill in range(KILLS):
        assert load.running
        wait_for(partial(_more_rows, store, store.count()), what=f"rows before kill {kill + 1}")
        killed = system.kill("bridge")
        system.wait_restarted("bridge", killed)
    assert load.running
    counts = load.counts()
    assert counts["receipted"] == counts["taken"] > 0
    assert (counts["waiting"], counts["overflowed"], counts["refused"]) == (0, 0, 0)
    ledger = system.settled(received=counts["taken"])
    assert_balanced(ledger)
    assert ledger["stored"] == counts["taken"]
    assert store.count() == counts["taken"]


def test_the_broker_is_killed_under_load(embedded: System, home: Path) -> None:
    load = Load(embedded, "--devices", "10", "--rate", "10", "--duration", "15")
    try:
        for _ in range(3):
            wait_for(lambda: embedded.status()["ledger"]["stored"] > 50, what="flow")
            killed = embedded.kill("broker")
            embedded.wait_restarted("broker", killed)
        counts = load.counts()
    finally:
        load.stop()
    assert counts["receipted"] == counts["taken"] > 0
    ledger = embedded.settled(received=counts["taken"])
    assert_balanced(ledger)
    assert ledger["stored"] == counts["taken"]
    assert home.joinpath("readings.db").exists()


@pytest.mark.parametrize("load", [25], indirect=True)
@pytest.mark.parametrize("store", ["influxdb"], indirect=True)
def test_influxdb_is_killed_for_a_while(system: System, store: InfluxStore, load: Load) -> None:
    wait_for(lambda: store.count() > 100, what="flow into InfluxDB")
    store.influx.kill()
    try:
        cause = wait_for(
            lambda: (
                (system.status()["cause"] or {}).get("code") == "store.unreachable"
                and system.status()
            ),
            what="named cause",
            deadline_s=60,
        )
        assert cause["sink"]["state"] == "unreachable"
        wait_for(lambda: system.status()["sink"]["backlog"] > 200, what="backlog in the journal")
    finally:
        store.influx.start()
    counts = load.counts()
    assert counts["receipted"] == counts["taken"] > 0
    ledger = system.settled(received=counts["taken"])
    assert_balanced(ledger)
    assert ledger["stored"] == counts["taken"]
    assert store.count() == counts["taken"]
    wait_for(lambda: system.status()["sink"]["state"] == "ready", what="sink ready again")


def test_up_is_killed_and_started_again(system: System, store: Store) -> None:
    """SIGKILL of the supervisor: its children end too, and a new one starts in the same home."""
    load = Load(system, "--devices", "5", "--rate", "10", "--count", "100")
    wait_for(lambda: store.count() > 20, what="flow")
    old = {system.pid_of("broker"), system.pid_of("bridge")}
    assert system._process is not None
    system._process.kill()
    system._process.wait()
    if system._process.stdout is not None:
        system._process.stdout.close()
    wait_for(
        lambda: system.iotctl("status").code == 3,
        what="end of the orphaned children",
        deadline_s=40,
    )
    system.start()
    assert old.isdisjoint({system.pid_of("broker"), system.pid_of("bridge")})
    counts = load.counts()
    assert counts["receipted"] == counts["taken"] == 500
    assert_balanced(system.settled(received=500))
    assert store.count() == 500


def test_a_stopped_system_loses_nothing_that_was_pending(system: System, store: Store) -> None:
    load = Load(system, "--devices", "10", "--count", "50", "--rate", "100")
    counts = load.counts()
    assert system.stop() == 0
    system.start()
    system.settled(received=counts["taken"])
    assert store.count() == counts["taken"] == 500
