"""What operators look at: status, metrics, probes, and the system's own measurement."""

from __future__ import annotations

import subprocess
import urllib.error
import urllib.request
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.harness.mosquitto_clients import publish
from tests.harness.stores import InfluxStore
from tests.harness.system import System, assert_balanced, clean_environment, iotctl, iotctl_command
from tests.harness.waiting import wait_for

if TYPE_CHECKING:
    from pathlib import Path


def get(system: System, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(system.url + path, timeout=10) as answer:  # noqa: S310 -- our own http URL
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as exc:
        return exc.code, exc.read().decode()


def _has_metric(system: System, line: str) -> bool:
    return line in get(system, "/metrics")[1].splitlines()


@pytest.mark.parametrize("store", ["influxdb"], indirect=True)
def test_ingest_health_is_in_the_database(system: System, store: InfluxStore) -> None:
    kitchen = system.enrol("kitchen")
    publish(kitchen, '{"values":{"temperature_c":1}}')
    system.settled(received=1)
    row = wait_for(
        lambda: store.query("SELECT * FROM ingest_health WHERE received_total = 1"),
        what="point of ingest_health",
    )[0]
    assert (row["ratio"], row["stored_total"], row["pending"]) == (1.0, 1, 0)
    assert row["bridge"] == "bridge"


def test_metrics_and_probes(embedded: System) -> None:
    kitchen = embedded.enrol("kitchen")
    publish(kitchen, '{"values":{"temperature_c":1}}')
    publish(kitchen, '{"values":{"humidity_pct":183}}')
    publish(kitchen, "{}", password="wrong")
    embedded.settled(received=2)
    for line in (
        "iot_ingest_health_ratio 1.0",
        'iot_readings{disposition="stored"} 1.0',
        'iot_readings{disposition="refused"} 1.0',
        'iot_refusals_total{code="payload.out_of_range"} 1.0',
        'iot_refusals_total{code="connect.bad_password"} 1.0',
        'iot_up{part="source"} 1.0',
    ):
        wait_for(partial(_has_metric, embedded, line), what=line)
    assert get(embedded, "/livez") == (200, "ok\n")
    assert get(embedded, "/readyz") == (200, "ok\n")
    assert get(embedded, "/nothing")[0] == 404


def test_a_locked_out_device_is_the_cause_and_then_it_is_well_again(embedded: System) -> None:
    """The outage in small: a credential no longer fits, and the status says which and what to do."""
    kitchen = embedded.enrol("kitchen", "--interval", "0.5")
    publish(kitchen, '{"values":{"temperature_c":1}}')
    embedded.settled(received=1)
    fresh = embedded.iotctl("devices", "rotate", "kitchen", "--json").json["password"]

    def named() -> bool:
        publish(kitchen, '{"values":{"temperature_c":1}}')
        cause = embedded.status()["cause"]
        return bool(cause) and cause["code"] == "connect.bad_password"

    wait_for(named, what="cause connect.bad_password", deadline_s=60)
    status = embedded.status()
    assert status["level"] in ("degraded", "down")
    assert "rotate" in status["cause"]["action"]
    assert "store.unreachable" in {one["code"] for one in status["cause"]["ruled_out"]}
    assert embedded.iotctl("status").code == 1

    def well() -> bool:
        batch = ",".join(['{"values":{"temperature_c":1}}'] * 200)
        publish(kitchen, f"[{batch}]", password=fresh)
        return embedded.iotctl("status").code == 0

    wait_for(well, what="status ok", deadline_s=60)


def test_the_page_and_status_answer_while_the_broker_is_away(home: Path) -> None:
    """A bridge alone, without a broker: `status` says what is missing, not that nothing runs."""
    bridge = subprocess.Popen(
        iotctl_command(home, "bridge", "run", "--mqtt-port", "1", "--http-port", "0"),
        env=clean_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:

        def named() -> bool:
            done = iotctl(home, "status", "--json")
            return done.code == 1 and done.json["cause"]["code"] == "broker.unreachable"

        wait_for(named, what="cause broker.unreachable", deadline_s=40)
    finally:
        bridge.terminate()
        assert bridge.wait(20) == 0


def test_watching_prints_a_line_a_second_until_it_is_stopped(embedded: System) -> None:
    command = iotctl_command(embedded.home, "status", "--watch")
    with subprocess.Popen(
        command, env=clean_environment(), stdout=subprocess.PIPE, text=True
    ) as watch:
        assert watch.stdout is not None
        lines = [watch.stdout.readline() for _ in range(2)]
        watch.terminate()
    assert all(line.startswith("ok health 1.000") for line in lines)


def test_ten_thousand_devices_are_enrolled_in_one_go(embedded: System, tmp_path: Path) -> None:
    rows = tmp_path / "devices.csv"
    rows.write_text(
        "device_id,site,interval\n"
        + "".join(f"board-{n:05d},hall {n % 7},10\n" for n in range(10_000))
    )
    done = embedded.iotctl("devices", "add", "--from", str(rows), "--json", deadline_s=120)
    assert done.code == 0, done.err
    issued = done.json_lines
    assert len(issued) == len({one["password"] for one in issued}) == 10_000
    assert (
        len(embedded.iotctl("devices", "list", "--json", "--role", "device").json_lines) == 10_000
    )
    last = issued[-1]
    who = embedded.enrol("other")._replace(device=last["device_id"], password=last["password"])
    assert publish(who, '{"values":{"temperature_c":1}}') == 0
    assert embedded.settled(received=1)["stored"] == 1
    wait_for(
        lambda: embedded.status()["devices"]["enrolled"] == 10_001, what="all of them enrolled"
    )
    status = embedded.status()
    assert (status["level"], status["devices"]["never_seen"]) == ("ok", 10_000)


def test_a_policy_that_became_too_strict_is_named_within_a_minute(home: Path) -> None:
    """The outage that this system exists for: a setting refuses the devices' data."""
    system = System(home)
    system.start("--demo", "5")
    system.settled(received=10)
    assert system.stop() == 0
    policy = home / "policy.toml"
    policy.write_text(policy.read_text().replace("max = 100.0", "max = 1.0"))
    system.start("--demo", "5")
    try:
        status = wait_for(
            lambda: (s := system.status())["cause"] and s, what="named cause", deadline_s=60
        )
        assert status["level"] in ("degraded", "down")
        assert status["cause"]["code"] == "payload.out_of_range"
        assert status["refusals"][0]["devices"] == 5
        innocent = {one["code"] for one in status["cause"]["ruled_out"]}
        assert {"broker.unreachable", "store.unreachable", "journal.unwritable"} <= innocent
        assert_balanced(status["ledger"])
    finally:
        system.stop()
    policy.write_text(policy.read_text().replace("max = 1.0", "max = 100.0"))
    system.start("--demo", "5")
    try:
        wait_for(lambda: system.status()["expected"] > 10, what="expected readings")
        assert system.status()["level"] == "ok"
    finally:
        system.stop()
