"""10,000 readings from 50 devices: as many rows as readings; the figures are only printed."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import psutil

from tests.harness.system import assert_balanced

if TYPE_CHECKING:
    from tests.harness.stores import Store
    from tests.harness.system import System

DEVICES = 50
EACH = 200


def test_ten_thousand_readings(system: System, store: Store) -> None:
    pids = {name: system.pid_of(name) for name in ("broker", "bridge")}
    before = {name: _cpu_s(pid) for name, pid in pids.items()}
    began = time.monotonic()
    done = system.iotctl(
        "simulate", "--devices", str(DEVICES), "--count", str(EACH), "--rate", "1000", "--json",
        deadline_s=150,
    )  # fmt: skip
    assert done.code == 0, done.err
    counts = done.json
    assert counts["taken"] == counts["receipted"] == DEVICES * EACH
    ledger = system.settled(received=DEVICES * EACH)
    seconds = time.monotonic() - began
    assert_balanced(ledger)
    assert store.count() == DEVICES * EACH
    for name, pid in pids.items():
        cpu_us = (_cpu_s(pid) - before[name]) * 1e6 / (DEVICES * EACH)
        print(f"{store.kind}: {name} {cpu_us:.1f} µs CPU a reading")
    print(f"{store.kind}: {DEVICES * EACH / seconds:.0f} readings/s, publish to last row")


def _cpu_s(pid: int | None) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)
