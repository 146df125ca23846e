"""Ways in which it was broken once."""

from __future__ import annotations

import http.server
import subprocess
import threading
from typing import TYPE_CHECKING

import pytest

from tests.e2e.test_bad_input import assert_one_line
from tests.e2e.test_refusals import REFUSED_BY_MOSQUITTO_PUB, refusal
from tests.harness.mosquitto_clients import publish
from tests.harness.system import (
    System,
    assert_balanced,
    clean_environment,
    iotctl,
    iotctl_command,
)
from tests.harness.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

READING = '{"boot":1,"n":1,"values":{"temperature_c":1}}'


class Portal(http.server.BaseHTTPRequestHandler):
    """A captive portal: it answers 200 and a page to whatever it is asked."""

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b'{"buckets":[{"id":"1","name":"iot","retentionRules":[]}]}'
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = answer  # noqa: N815 -- names that http.server asks for

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@pytest.fixture
def portal() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Portal) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_what_is_no_influxdb_has_not_stored_anything(home: Path, portal: str) -> None:
    with System(home, {"IOT_INFLUX_URL": portal, "IOT_INFLUX_TOKEN": "t"}) as system:
        kitchen = system.enrol("kitchen")
        publish(kitchen, READING)
        status = wait_for(
            lambda: (s := system.status())["cause"] and s, what="named cause", deadline_s=40
        )
        assert status["cause"]["code"] == "store.unreachable"
        ledger = status["ledger"]
        assert (ledger["stored"], ledger["refused"], ledger["pending"]) == (0, 0, 1)


@pytest.mark.parametrize("topic", ["$SYS/x", "$share/g/v1/kitchen/readings"])
def test_a_dollar_topic_is_refused_by_name(embedded: System, topic: str) -> None:
    kitchen = embedded.enrol("kitchen")
    publish(kitchen, READING, topic=topic)
    assert refusal(embedded, "publish.topic_denied")["topic"] == topic
    assert_balanced(embedded.status()["ledger"])


def test_a_log_of_refusals_that_was_set_aside_is_followed_anew(home: Path) -> None:
    with System(home) as system:
        kitchen = system.enrol("kitchen")
        for _ in range(3):
            publish(kitchen, "{}", password="x")
        refusal(system, "connect.bad_password")
    for file in home.glob("broker.db*"):
        file.rename(home / f"aside-{file.name}")
    with System(home) as system:
        who = kitchen._replace(host=system.host, port=system.port)
        publish(who, READING, topic="v1/other/readings")
        refusal(system, "publish.topic_denied")


def test_the_simulator_takes_no_real_device_over(embedded: System) -> None:
    plant = embedded.enrol("plant-001", "--site", "hall")
    done = embedded.iotctl("simulate", "--devices", "1", "--prefix", "plant", "--count", "1")
    assert_one_line(done, 2, "plant-001 is a real device")
    assert publish(plant, READING) == 0
    assert embedded.settled(received=1)["stored"] == 1
    again = ("simulate", "--devices", "2", "--count", "3", "--rate", "100")
    assert embedded.iotctl(*again).code == 0
    assert embedded.iotctl(*again).code == 0


def test_two_simulators_do_not_take_each_other_s_names(embedded: System) -> None:
    first = subprocess.Popen(
        iotctl_command(embedded.home, "simulate", "--devices", "1", "--rate", "5"),
        env=clean_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(lambda: embedded.status()["ledger"]["stored"] > 2, what="flow")
        assert_one_line(embedded.iotctl("simulate", "--devices", "1"), 2, "already has a running")
        other = embedded.iotctl("simulate", "--devices", "1", "--prefix", "other", "--count", "1")
        assert other.code == 0
    finally:
        first.terminate()
        first.wait(20)
    assert_one_line(embedded.iotctl("simulate", "--prefix", "a/b"), 2, "a/b")


def test_a_rotated_credential_of_the_bridge_heals_by_itself(embedded: System) -> None:
    kitchen = embedded.enrol("kitchen")
    assert embedded.iotctl("devices", "rotate", "bridge").code == 0
    killed = embedded.kill("broker")
    embedded.wait_restarted("broker", killed)
    wait_for(
        lambda: (
            embedded.iotctl("status", "--json").json["cause"] is None
            and publish(kitchen, READING) == 0
            and embedded.status()["ledger"]["stored"] == 1
        ),
        what="the bridge back at its broker",
        deadline_s=60,
    )


def test_a_refused_reading_keeps_its_key(embedded: System) -> None:
    kitchen = embedded.enrol("kitchen")
    publish(kitchen, '{"boot":1,"n":2,"values":{"temperature_c":"21"}}')
    found = refusal(embedded, "payload.wrong_shape")
    assert (found["boot"], found["n"]) == (1, 2)


def test_a_message_of_thousands_of_wrong_readings_is_one_line(embedded: System) -> None:
    kitchen = embedded.enrol("kitchen")
    publish(kitchen, "[" + ",".join(["0"] * 1_000) + "]")
    ledger = embedded.settled(received=1_000)
    assert ledger["refused"] == 1_000
    assert_balanced(ledger)
    (found,) = embedded.iotctl("quarantine", "list", "--json").json_lines
    assert (found["code"], found["count"]) == ("payload.wrong_shape", 1_000)


def test_ipv6_loopback(home: Path) -> None:
    environment = {"IOT_MQTT_HOST": "::1", "IOT_HTTP_HOST": "::1"}
    with System(home, environment) as system:
        kitchen = system.enrol("kitchen")
        assert kitchen.host == "::1"
        assert publish(kitchen, READING) == 0
        assert system.settled(received=1)["stored"] == 1


def test_nothing_is_enrolled_when_the_answer_cannot_be_given(embedded: System) -> None:
    settings = embedded.home / "iot.toml"
    good = settings.read_text()
    settings.write_text("[mqt]\n")
    assert_one_line(embedded.iotctl("devices", "add", "lost"), 2, "mqt")
    settings.write_text(good)
    assert embedded.iotctl("devices", "show", "lost").code == 2
    assert publish(embedded.enrol("lost"), READING) == 0


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"IOT_INFLUX_TOKEN": "SECRET\n"}, ["influx.token is no token"]),
        ({"IOT_INFLUX_TOKEN": "SECRETé"}, ["influx.token is no token"]),
        ({"IOT_INFLUX_URL": "http://user:SECRET@host"}, ["influx.url holds a password"]),
        ({"IOT_INFLUX_URL": "http://"}, ["influx.url is no URL"]),
        ({"IOT_INFLUX_ORG": ""}, ["influx.org"]),
        ({"IOT_INFLUX_TIMEOUT_S": "nan"}, ["influx.timeout_s"]),
    ],
)
def test_a_setting_that_is_a_secret_is_never_shown(
    home: Path, environment: dict[str, str], words: list[str]
) -> None:
    base = {"IOT_INFLUX_URL": "http://127.0.0.1:8086", "IOT_INFLUX_TOKEN": "t"}
    done = iotctl(home, "up", environment={**base, **environment})
    assert_one_line(done, 2, *words)
    assert "SECRET" not in done.err


def test_more_bad_input(embedded: System, tmp_path: Path) -> None:
    rows = tmp_path / "devices.csv"
    rows.write_text("device_id, sites, interval\na,b,10\n")
    assert_one_line(embedded.iotctl("devices", "add", "--from", str(rows)), 2, "did you mean site?")
    rows.write_text("device_id, site, interval\na,b,10\na,b,10\n")
    assert_one_line(embedded.iotctl("devices", "add", "--from", str(rows)), 2, "line 3", "twice")
    assert_one_line(embedded.iotctl("devices", "show", b"\xff".decode(errors="surrogateescape")), 2)
    assert_one_line(embedded.iotctl("readings", "x", "--last", "200000d"), 2, "hundred years")
    embedded.home.joinpath("policy.toml").write_bytes(b"\xff")
    assert_one_line(iotctl(embedded.home, "bridge", "run"), 2)
    empty = iotctl(embedded.home, "devices")
    assert (empty.code, "Usage:" in empty.err, empty.err.count("\n") > 5) == (2, True, True)
    assert publish(embedded.enrol("x"), "{}", password="x") == REFUSED_BY_MOSQUITTO_PUB
