"""One reading, from a client that is not ours to a row read from the database itself."""

from __future__ import annotations

import csv
import io
import time
from typing import TYPE_CHECKING

import pytest

from tests.harness.mosquitto_clients import publish
from tests.harness.stores import InfluxStore
from tests.harness.system import assert_balanced
from tests.harness.waiting import wait_for

if TYPE_CHECKING:
    from tests.harness.stores import Store
    from tests.harness.system import System


def test_a_reading_becomes_a_row(system: System, store: Store) -> None:
    kitchen = system.enrol("kitchen", "--site", "cape town, upper floor")
    ts_ms = time.time_ns() // 1_000_000 - 5_000
    payload = f'{{"boot":17,"n":4211,"ts":{ts_ms},"values":{{"temperature_c":23.4,"humidity_pct":51,"gas_ratio":0.83}}}}'

    assert publish(kitchen, payload) == 0

    row = wait_for(lambda: store.rows("kitchen") or None, what="row in the database")[0]
    assert row["ts_ms"] == ts_ms
    assert row["site"] == "cape town, upper floor"
    assert (row["temperature_c"], row["humidity_pct"], row["gas_ratio"]) == (23.4, 51.0, 0.83)
    assert row["ts_source"] == "device"

    assert_balanced(system.settled(received=1))
    status = system.status()
    assert status["level"] == "ok"
    assert status["ledger"] == {
        "received": 1,
        "stored": 1,
        "duplicate": 0,
        "refused": 0,
        "pending": 0,
    }
    assert status["sink"]["kind"] == store.kind
    assert system.stop() == 0


@pytest.mark.parametrize("store", ["influxdb"], indirect=True)
def test_the_same_row_by_flux(system: System, store: InfluxStore) -> None:
    kitchen = system.enrol("kitchen", "--site", "durban")
    assert publish(kitchen, '{"values":{"temperature_c":21.5}}') == 0
    system.settled(received=1)
    records = store.flux_rows("kitchen")
    assert {(r["_field"], r["_value"]) for r in records} == {
        ("temperature_c", 21.5),
        ("ts_source", "received"),
    }
    assert {r["site"] for r in records} == {"durban"}


def test_iotctl_reads_the_row_back(system: System) -> None:
    kitchen = system.enrol("kitchen")
    ts_ms = time.time_ns() // 1_000_000 - 1_000
    publish(
        kitchen,
        f'{{"boot":1,"n":1,"ts":{ts_ms},"values":{{"temperature_c":-3.5}},"faults":["mq135.warmup"]}}',
    )
    publish(
        kitchen, f'{{"boot":1,"n":2,"ts":{ts_ms + 500},"values":{{}},"faults":["dht11.timeout"]}}'
    )
    system.settled(received=2)

    as_json = system.iotctl("readings", "kitchen", "--last", "1h", "--json")
    assert as_json.code == 0
    assert as_json.json_lines == [
        {
            "device": "kitchen",
            "ts": ts_ms,
            "ts_source": "device",
            "values": {"temperature_c": -3.5},
            "faults": ["mq135.warmup"],
        },
        {
            "device": "kitchen",
            "ts": ts_ms + 500,
            "ts_source": "device",
            "values": {},
            "faults": ["dht11.timeout"],
        },
    ]
    as_csv = list(csv.DictReader(io.StringIO(system.iotctl("readings", "kitchen", "--csv").out)))
    assert [row["temperature_c"] for row in as_csv] == ["-3.5", ""]
    assert "mq135.warmup" in system.iotctl("readings", "kitchen").out
    assert (
        system.iotctl("readings", "kitchen", "--json", "--limit", "1").json_lines[0]["ts"]
        == ts_ms + 500
    )
    assert system.iotctl("readings", "somebody-else", "--json").out == ""


def test_time_comes_from_ts_else_up_else_receipt(system: System, store: Store) -> None:
    kitchen = system.enrol("kitchen")
    before_ms = time.time_ns() // 1_000_000
    publish(kitchen, '{"values":{"temperature_c":1}}')
    publish(
        kitchen,
        '[{"boot":3,"n":1,"up":1000,"values":{"temperature_c":2}},'
        '{"boot":3,"n":2,"up":61000,"values":{"temperature_c":3}}]',
    )
    publish(kitchen, '{"boot":3,"n":3,"ts":1000,"up":62000,"values":{"temperature_c":4}}')
    system.settled(received=4)
    rows = {row["temperature_c"]: row for row in store.rows("kitchen")}
    assert {value: row["ts_source"] for value, row in rows.items()} == {
        1.0: "received", 2.0: "boot", 3.0: "boot", 4.0: "boot",
    }  # fmt: skip
    assert before_ms <= rows[1.0]["ts_ms"] <= time.time_ns() // 1_000_000
    assert rows[3.0]["ts_ms"] - rows[2.0]["ts_ms"] == 60_000


def test_readings_of_one_millisecond_are_rows_of_their_own(system: System, store: Store) -> None:
    kitchen = system.enrol("kitchen")
    ts_ms = time.time_ns() // 1_000_000
    batch = ",".join(
        f'{{"boot":1,"n":{n},"ts":{ts_ms},"values":{{"temperature_c":{n}}}}}' for n in range(20)
    )
    publish(kitchen, f"[{batch}]")
    publish(kitchen, "[" + ",".join(['{"values":{"temperature_c":50}}'] * 20) + "]")
    assert_balanced(system.settled(received=40))
    assert len(store.rows("kitchen")) == 40


def test_a_repeat_is_a_duplicate_across_a_restart(system: System, store: Store) -> None:
    kitchen = system.enrol("kitchen")
    payload = '{"boot":1,"n":7,"values":{"temperature_c":20}}'
    publish(kitchen, payload)
    publish(kitchen, payload)
    assert system.settled(received=2)["duplicate"] == 1
    assert system.stop() == 0
    system.start()
    publish(kitchen._replace(host=system.host, port=system.port), payload)
    ledger = system.settled(received=3)
    assert (ledger["stored"], ledger["duplicate"]) == (1, 2)
    assert_balanced(ledger)
    assert len(store.rows("kitchen")) == 1
