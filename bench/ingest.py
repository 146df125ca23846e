"""What one reading costs on the whole line: simulated devices, our broker, bridge, database.

The simulated devices run on the same machine and share its cores, so the rate is that of all of
it together; the CPU time of a process is its own (user + system, from the operating system).
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import psutil

from tests.harness.stores import EmbeddedStore, InfluxStore, Store
from tests.harness.system import System
from tests.services import influxd

DEVICES = 50
EACH = 200
ROUNDS = 5
READINGS = DEVICES * EACH


class Round(NamedTuple):
    """One run of `READINGS` readings.

    Attributes:
        readings_a_message: how many readings the devices put into a message on average.
        readings_per_s: from the first publish until the last row can be queried.
        broker_us, bridge_us: CPU time a reading, in µs.
        broker_mib, bridge_mib: resident memory at the end, in MiB.
    """

    readings_a_message: float
    readings_per_s: float
    broker_us: float
    bridge_us: float
    broker_mib: float
    bridge_mib: float


def measure() -> dict[str, list[Round]]:
    """`ROUNDS` rounds a database, in turn.

    Raises:
        RuntimeError: a reading was lost, so the figures would mean nothing.
    """
    rounds: dict[str, list[Round]] = {"embedded": [], "influxdb": []}
    with influxd.InfluxD(influxd.influxd_program()) as server:
        for number in range(ROUNDS):
            for kind, results in rounds.items():
                with tempfile.TemporaryDirectory() as folder:
                    home = Path(folder) / "home"
                    store: Store = (
                        EmbeddedStore(home)
                        if kind == "embedded"
                        else InfluxStore(server, f"bench-{number}")
                    )
                    results.append(_round(home, store))
                print(f"{kind} {number + 1}/{ROUNDS}: {results[-1].readings_per_s:.0f} readings/s")
    return rounds


def _round(home: Path, store: Store) -> Round:
    with System(home, store.environment) as system:
        processes = {name: psutil.Process(system.pid_of(name)) for name in ("broker", "bridge")}
        before = {name: _cpu_s(process) for name, process in processes.items()}
        began = time.perf_counter()
        done = system.iotctl(
            "simulate", "--devices", str(DEVICES), "--count", str(EACH), "--rate", "1000",
            "--json", deadline_s=300,
        )  # fmt: skip
        system.settled(received=READINGS)
        seconds = time.perf_counter() - began
        if done.code != 0 or store.count() != READINGS:
            raise RuntimeError(f"{store.count()} of {READINGS} readings arrived: {done.err}")
        cpu_us = {n: (_cpu_s(p) - before[n]) * 1e6 / READINGS for n, p in processes.items()}
        mib = {name: process.memory_info().rss / 2**20 for name, process in processes.items()}
    return Round(
        READINGS / done.json["messages"],
        READINGS / seconds,
        cpu_us["broker"],
        cpu_us["bridge"],
        mib["broker"],
        mib["bridge"],
    )


def median_of(rounds: list[Round]) -> Round:
    """The median of every figure by itself."""
    return Round(*(statistics.median(figures) for figures in zip(*rounds, strict=True)))


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
