"""The real servers that other tests rely on do what those tests assume."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from . import influxd, mosquitto
from .flux_csv import parse_flux_csv
from .influxd import InfluxD, influxd_program
from .mosquitto import MOSQUITTO, Mosquitto
from .ports import LOOPBACK, find_free_port, first_ephemeral_port
from .requirements import require
from .server_process import ServerProcess, ServiceError

CLIENTS = "the Mosquitto clients; tests/services/debian_packages.sh installs them"
CLIENT_TIMEOUT_S = 20
TIME_MS = 1_795_425_779_860


@pytest.fixture(name="influx", scope="module")
def fixture_influx() -> Iterator[InfluxD]:
    with InfluxD(require(influxd_program(), influxd.HOW_TO_GET)) as server:
        yield server


@pytest.fixture(name="broker_program")
def fixture_broker_program() -> Path:
    return require(MOSQUITTO, mosquitto.HOW_TO_GET)


def client(broker: Mosquitto, command: str) -> subprocess.CompletedProcess[str]:
    """Run mosquitto_pub or mosquitto_sub against a broker until it ends."""
    program, *arguments = command.split()
    return subprocess.run(
        [
            require(program, CLIENTS),
            *("-h", broker.host, "-p", str(broker.port)),
            *arguments,
        ],
        capture_output=True,
        text=True,
        timeout=CLIENT_TIMEOUT_S,
        check=False,
    )


def test_influxd_gives_back_what_was_written(influx: InfluxD) -> None:
    influx.write(f"air,device=a t=21.5,n=7i,ok=true {TIME_MS}", precision="ms")

    assert influx.query_influxql("SELECT t, n, ok FROM air GROUP BY device") == [
        {
            "_measurement": "air",
            "device": "a",
            "time": TIME_MS,
            "t": 21.5,
            "n": 7,
            "ok": True,
        }
    ]
    rows = influx.query_flux(
        'from(bucket: "iot") |> range(start: 0, stop: 2100-01-01T00:00:00Z)'
        ' |> filter(fn: (r) => r._measurement == "air")'
    )
    assert {row["_field"]: row["_value"] for row in rows} == {
        "t": 21.5,
        "n": 7,
        "ok": True,
    }
    assert {row["device"] for row in rows} == {"a"}
    assert {row["_time"] for row in rows} == {"2026-11-23T09:22:59.86Z"}


def test_influxd_keeps_rows_when_killed(influx: InfluxD) -> None:
    influx.write("killed,device=a v=1 1\nkilled,device=b v=2 1\nkilled,device=b v=3 2")
    port, pid = influx.port, influx.pid

    influx.kill()
    assert not influx.running
    influx.start()

    assert influx.pid != pid
    assert influx.port == port
    assert influx.count("killed", "v") == 3


def test_influxd_stops_and_starts_again(influx: InfluxD) -> None:
    influx.write("stopped v=1 1")
    influx.stop()
    assert not influx.running
    influx.start()
    assert influx.count("stopped", "v") == 1


def test_influxd_counts_nothing_where_nothing_is(influx: InfluxD) -> None:
    assert influx.count("no such measurement", 'no "such" field') == 0
    assert influx.query_flux('from(bucket: "iot") |> range(start: -1h)') == []


def test_influxd_refusals_are_errors(influx: InfluxD) -> None:
    with pytest.raises(ServiceError, match="400"):
        influx.write("not line protocol")
    with pytest.raises(ServiceError, match="InfluxQL"):
        influx.query_influxql("SELECT nonsense(v) FROM stopped")
    with pytest.raises(ServiceError, match="nowhere"):
        influx.query_flux('from(bucket: "nowhere") |> range(start: 0)')


def test_mosquitto_round_trip(broker_program: Path) -> None:
    with Mosquitto(broker_program) as broker:
        sent = client(broker, "mosquitto_pub -q 1 -r -t v1/a/status -m online")
        assert sent.returncode == 0, sent.stderr
        got = client(broker, "mosquitto_sub -q 1 -C 1 -v -t v1/+/status")
        assert got.stdout == "v1/a/status online\n", got.stderr


def test_mosquitto_keeps_a_session_when_stopped(broker_program: Path) -> None:
    subscribe = "mosquitto_sub -c -i bridge -q 1 -t v1/+/readings"
    with Mosquitto(broker_program) as broker:
        assert client(broker, f"{subscribe} -E").returncode == 0
        client(broker, "mosquitto_pub -q 1 -t v1/a/readings -m {}")
        broker.stop()
        assert not broker.running
        broker.start()
        assert client(broker, f"{subscribe} -C 1").stdout == "{}\n"


def test_mosquitto_starts_again_when_killed(broker_program: Path) -> None:
    with Mosquitto(broker_program) as broker:
        pid = broker.pid
        broker.kill()
        assert not broker.running
        broker.start()
        assert broker.pid != pid


def test_mosquitto_asks_for_the_password(broker_program: Path, tmp_path: Path) -> None:
    passwords = tmp_path / "passwords"
    make = require("mosquitto_passwd", mosquitto.HOW_TO_GET)
    subprocess.run([make, "-b", "-c", passwords, "a", "secret"], check=True)
    publish = "mosquitto_pub -t x -m x"
    with Mosquitto(broker_program, allow_anonymous=False, password_file=passwords) as broker:
        assert client(broker, publish).returncode != 0
        assert client(broker, f"{publish} -u a -P secret").returncode == 0


def test_a_server_that_does_not_come_up_is_an_error(broker_program: Path) -> None:
    with (
        pytest.raises(ServiceError, match=r"exit code .*nonsense"),
        Mosquitto(broker_program, extra_config=["nonsense true"]),
    ):
        pytest.fail("it started with a wrong configuration")


def test_a_server_that_does_not_answer_is_ended(tmp_path: Path) -> None:
    server = ServerProcess(
        [sys.executable, "-c", "import signal; signal.pause()"],
        folder=tmp_path,
        log=tmp_path / "log",
    )
    with pytest.raises(ServiceError, match=r"did not answer within 0\.1 s"):
        server.start(lambda: False, timeout_s=0.1)
    assert not server.running


def test_free_ports_can_be_bound_and_are_not_ephemeral() -> None:
    port = find_free_port()
    assert port < first_ephemeral_port()
    with socket.socket() as server:
        server.bind((LOOPBACK, port))


def test_flux_errors_in_the_middle_are_errors() -> None:
    answer = "#datatype,string,string\n#group,true,true\n#default,,\n,error,reference\n"
    with pytest.raises(ValueError, match="out of memory"):
        parse_flux_csv(answer + ",out of memory,897\n")


def test_flux_cells_have_the_type_of_their_column() -> None:
    answer = (
        "#datatype,string,long,double,string,boolean\n"
        "#group,false,false,false,false,false\n"
        "#default,_result,,,,\n"
        ",result,table,_value,text,ok\n"
        ',,0,1.5,"two\nlines, quoted",true\n'
        ",,1,,,false\n\n"
    )
    assert parse_flux_csv(answer) == [
        {
            "result": "_result",
            "table": 0,
            "_value": 1.5,
            "text": "two\nlines, quoted",
            "ok": True,
        },
        {"result": "_result", "table": 1, "_value": None, "text": None, "ok": False},
    ]


@pytest.mark.parametrize(
    ("ci", "outcome"),
    [
        ("", pytest.skip.Exception),
        ("false", pytest.skip.Exception),
        ("true", pytest.fail.Exception),
    ],
)
def test_a_missing_part_skips_here_and_fails_in_ci(
    monkeypatch: pytest.MonkeyPatch, ci: str, outcome: type[BaseException]
) -> None:
    monkeypatch.setenv("CI", ci)
    with pytest.raises(outcome, match="no-such-program is missing: see x"):
        require("no-such-program", "see x")


def test_a_part_is_found_by_name_and_by_path(tmp_path: Path) -> None:
    assert require("sh", "the shell").name == "sh"
    program = tmp_path / "program"
    program.touch(mode=0o755)
    assert require(program, "a file") == program


BUILD = Path(__file__).with_name("build_influxd.sh")


def build(cache: Path, path: str) -> subprocess.CompletedProcess[str]:
    """Run build_influxd.sh with a user's cache folder of its own."""
    return subprocess.run(
        ["bash", BUILD, cache],
        env={"PATH": path, "HOME": str(cache), "XDG_CACHE_HOME": str(cache / "user")},
        capture_output=True,
        text=True,
        timeout=CLIENT_TIMEOUT_S,
        check=False,
    )


def fake_influxd(path: Path, version: str) -> Path:
    """A program that only says the version."""
    path.parent.mkdir(parents=True)
    path.write_text(f"#!/bin/sh\necho 'InfluxDB v{version} (git: x) build_date: x'\n")
    path.chmod(0o755)
    return path


def test_the_build_leaves_a_finished_binary_alone(tmp_path: Path) -> None:
    binary = fake_influxd(tmp_path / "influxd-2.7.12" / "influxd", "2.7.12")
    before = binary.stat()
    assert build(tmp_path, os.environ["PATH"]).returncode == 0
    assert binary.stat().st_mtime_ns == before.st_mtime_ns


def test_the_build_takes_the_binary_of_another_clone(tmp_path: Path) -> None:
    kept = tmp_path / "user" / "iot-ingest" / "influxd-2.7.12" / "influxd"
    fake_influxd(kept, "2.7.12")
    assert build(tmp_path, os.environ["PATH"]).returncode == 0
    assert (tmp_path / "influxd-2.7.12" / "influxd").samefile(kept)


def test_the_build_names_what_it_lacks(tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("bash", "cat", "dirname", "flock", "mkdir"):
        (tools / name).symlink_to(require(name, "a tool of every Linux"))
    kept = tmp_path / "user" / "iot-ingest" / "influxd-2.7.12" / "influxd"
    fake_influxd(kept, "2.7.11")
    result = build(tmp_path, str(tools))
    assert result.returncode == 3
    assert "'go' is not installed" in result.stderr
