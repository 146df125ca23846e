"""Bad input and a bad environment: one clear line, the right exit code, never a traceback."""

from __future__ import annotations

import os
import socket
import stat
from typing import TYPE_CHECKING

import pytest

from tests.harness.mosquitto_clients import publish
from tests.harness.stores import InfluxStore
from tests.harness.system import System, assert_balanced, iotctl
from tests.harness.waiting import wait_for
from tests.services.influxd import InfluxD
from tests.services.ports import find_free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.harness.system import Finished


def assert_one_line(done: Finished, code: int, *words: str) -> None:
    assert done.code == code, done
    lines = [line for line in done.err.splitlines() if line.startswith("iotctl: ")]
    assert len(lines) == 1, done.err
    assert "Traceback" not in done.err
    assert done.out == ""
    for word in words:
        assert word in lines[0]


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield int(listener.getsockname()[1])


@pytest.mark.parametrize("flag", ["--mqtt-port", "--http-port"])
def test_a_port_in_use_names_the_process(home: Path, taken_port: int, flag: str) -> None:
    other = "--http-port" if flag == "--mqtt-port" else "--mqtt-port"
    done = iotctl(home, "up", flag, str(taken_port), other, "0")
    assert_one_line(done, 2, f"port {taken_port}", f"pid {os.getpid()}", flag)


def test_a_home_that_cannot_be_made(home: Path) -> None:
    home.parent.joinpath("file").write_text("not a folder")
    assert_one_line(iotctl(home.parent / "file", "up"), 2, "not a folder", "--home")
    assert_one_line(iotctl(home.parent / "file" / "below", "up"), 2, "cannot write", "--home")


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("iot.toml", "[mqtt]\nprot = 1884\n", ["iot.toml", "mqtt.prot", "did you mean port?"]),
        ("iot.toml", "[mqt]\nport = 1884\n", ["mqt", "did you mean mqtt?"]),
        ("iot.toml", "[mqtt]\nport = 'x'\n", ["mqtt.port", "int"]),
        ("iot.toml", "[mqtt\n", ["iot.toml", "not valid TOML", "line 1"]),
        ("iot.toml", "[mqtt]\nport = 70000\n", ["70000"]),
        ("iot.toml", "[mqtt]\nhost = '0.0.0.0'\n", ["not loopback", "allow_plaintext"]),
        ("iot.toml", "[influx]\nurl = 'http://127.0.0.1:8086'\n", ["token", "IOT_INFLUX_TOKEN"]),
        (
            "policy.toml",
            "version = 1\nquantitys = {}\n",
            ["policy.toml", "did you mean quantities?"],
        ),
        ("policy.toml", "version = 1\n", ["policy.toml", "quantities"]),
    ],
)
def test_a_wrong_file(home: Path, file: str, text: str, words: list[str]) -> None:
    with System(home):
        pass
    home.joinpath(file).write_text(text)
    ports = ["--http-port", "0"] if "port" in text else ["--http-port", "0", "--mqtt-port", "0"]
    assert_one_line(iotctl(home, "up", *ports), 2, *words)


def test_a_wrong_variable(home: Path) -> None:
    done = iotctl(home, "up", environment={"IOT_INFLUX_TOKN": "x"})
    assert_one_line(done, 2, "IOT_INFLUX_TOKN", "did you mean IOT_INFLUX_TOKEN?")


def test_nothing_is_running(home: Path) -> None:
    assert_one_line(iotctl(home, "status"), 3, "nothing is running", "iotctl up")
    assert_one_line(iotctl(home, "status", "--json"), 3, "nothing is running")
    assert_one_line(iotctl(home, "devices", "list"), 2, str(home), "iotctl up")
    assert not home.exists()


def test_usage_errors(home: Path) -> None:
    assert_one_line(iotctl(home, "stauts"), 2, "stauts", "did you mean status?")
    assert_one_line(iotctl(home, "readings"), 2, "DEVICE")
    assert_one_line(iotctl(home, "readings", "x", "--last", "soon"), 2, "soon", "15m")
    assert_one_line(iotctl(home, "up", "--demo", "0"), 2, "--demo")


def test_what_runs_already(embedded: System) -> None:
    done = embedded.iotctl("up", "--mqtt-port", "0", "--http-port", "0")
    assert_one_line(done, 2, "already has a running up", "pid")
    assert embedded.status()["level"] == "ok"


def test_bad_enrolments(embedded: System, tmp_path: Path) -> None:
    embedded.enrol("kitchen")
    assert_one_line(embedded.iotctl("devices", "add", "kitchen"), 2, "already enrolled", "rotate")
    assert_one_line(embedded.iotctl("devices", "add", "a/b"), 2, "a/b")
    assert_one_line(embedded.iotctl("devices", "add", "#"), 2, "'#'")
    assert_one_line(embedded.iotctl("devices", "add", "x", "--interval", "0"), 2, "interval")
    assert_one_line(embedded.iotctl("devices", "show", "nobody"), 2, "nobody", "devices list")
    rows = tmp_path / "devices.csv"
    rows.write_text("device_id,site,interval\ngood-1,a,10\nbad id,a,10\n")
    assert_one_line(embedded.iotctl("devices", "add", "--from", str(rows)), 2, "bad id")
    assert embedded.iotctl("devices", "show", "good-1").code == 2
    rows.write_text("name\nx\n")
    assert_one_line(embedded.iotctl("devices", "add", "--from", str(rows)), 2, "device_id")
    rows.write_text("device_id,interval\nx,often\n")
    assert_one_line(embedded.iotctl("devices", "add", "--from", str(rows)), 2, "line 2", "often")


def test_influxdb_that_is_not_there_yet(home: Path, influx: InfluxD) -> None:
    """Starts anyway, says that it keeps the data, and delivers it once the database is there."""
    gone = find_free_port()
    environment = {"IOT_INFLUX_URL": f"http://127.0.0.1:{gone}", "IOT_INFLUX_TOKEN": "t"}
    with System(home, environment) as system:
        kitchen = system.enrol("kitchen")
        publish(kitchen, '{"boot":1,"n":1,"values":{"temperature_c":21.5}}')
        status = wait_for(
            lambda: (s := system.status())["cause"] and s, what="named cause", deadline_s=40
        )
        assert status["cause"]["code"] == "store.unreachable"
        assert "kept in the journal" in status["cause"]["evidence"][0]
        assert status["ledger"]["pending"] == 1
        assert_balanced(status["ledger"])
        done = system.iotctl("readings", "kitchen")
        assert_one_line(done, 3, str(gone), "cannot be reached")
    store = InfluxStore(influx, "late-database")
    with System(home, store.environment) as system:
        ledger = system.settled(received=1)
    assert ledger["stored"] == 1
    assert store.rows("kitchen")[0]["temperature_c"] == 21.5


def test_a_wrong_token_and_then_the_right_one(home: Path, influx: InfluxD) -> None:
    """The token's file is read again after a 401: no restart is needed."""
    store = InfluxStore(influx, "token-test")
    home.mkdir(mode=0o700)
    token_file = home / "influx.token"
    token_file.write_text("wrong")
    environment = {
        **store.environment,
        "IOT_INFLUX_TOKEN": "",
        "IOT_INFLUX_TOKEN_FILE": "influx.token",
    }
    with System(home, environment) as system:
        kitchen = system.enrol("kitchen")
        publish(kitchen, '{"boot":1,"n":1,"values":{"temperature_c":21.5}}')
        status = wait_for(
            lambda: (s := system.status())["cause"] and s, what="named cause", deadline_s=40
        )
        assert status["cause"]["code"] == "store.unauthorized"
        assert status["ledger"]["pending"] == 1
        token_file.write_text(influx.token)
        assert system.settled(received=1)["stored"] == 1
    assert len(store.rows("kitchen")) == 1
    assert influx.token not in system.log.read_text()


def test_files_are_private(embedded: System) -> None:
    credentials = embedded.enrol("kitchen")
    files = [path for path in embedded.home.rglob("*") if path.is_file()]
    assert {"registry.db", "journal.db", "broker.db", "readings.db", "policy.toml"} <= {
        f.name for f in files
    }
    for path in [embedded.home, *embedded.home.rglob("*")]:
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path
    for path in files:
        assert credentials.password.encode() not in path.read_bytes(), path
