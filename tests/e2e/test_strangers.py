"""Who has no right to it cannot take part, and cannot take away."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from tests.e2e.test_refusals import REFUSED_BY_MOSQUITTO_PUB, refusal
from tests.harness.mosquitto_clients import publish
from tests.harness.system import assert_balanced
from tests.harness.waiting import wait_for

if TYPE_CHECKING:
    from tests.harness.system import Credentials, System


def connected(who: Credentials, *, will: str | None = None) -> tuple[paho.Client, list[str]]:
    """A connected client with a network thread, and the reasons of its CONNACKs."""
    reasons: list[str] = []
    client = paho.Client(
        CallbackAPIVersion.VERSION2, client_id=who.device, reconnect_on_failure=False
    )
    client.username_pw_set(who.device, who.password)
    if will is not None:
        client.will_set(will, '{"values":{"temperature_c":66.6}}', qos=1)
    client.on_connect = lambda _c, _u, _f, reason, _p: reasons.append(str(reason))
    client.connect(who.host, who.port)
    client.loop_start()
    wait_for(lambda: reasons, what="CONNACK")
    return client, reasons


def leave(client: paho.Client) -> None:
    """Disconnect, and leave no socket behind."""
    client.disconnect()
    client.loop_stop()
    connection = client.socket()
    if isinstance(connection, socket.socket):
        connection.close()


def test_a_wrong_password_with_the_bridge_s_name_does_not_cut_it_off(embedded: System) -> None:
    kitchen = embedded.enrol("kitchen")
    bridge = kitchen._replace(device="bridge", password="x")
    for _ in range(3):
        assert publish(bridge, "{}") == REFUSED_BY_MOSQUITTO_PUB
    for n in range(10):
        assert publish(kitchen, f'{{"boot":1,"n":{n},"values":{{"temperature_c":1}}}}') == 0
    ledger = embedded.settled(received=10)
    assert ledger["stored"] == 10
    refusal(embedded, "connect.bad_password")


def test_a_wrong_password_with_a_device_s_name_does_not_disconnect_it(embedded: System) -> None:
    kitchen = embedded.enrol("kitchen")
    client, _ = connected(kitchen)
    try:
        for _ in range(3):
            assert publish(kitchen, "{}", password="x") == REFUSED_BY_MOSQUITTO_PUB
        client.publish("v1/kitchen/readings", '{"values":{"temperature_c":1}}', qos=1)
        assert embedded.settled(received=1)["stored"] == 1
        assert client.is_connected()
    finally:
        leave(client)


def test_a_last_will_needs_the_right_to_publish(embedded: System) -> None:
    embedded.enrol("victim")
    evil = embedded.enrol("evil")
    client, reasons = connected(evil, will="v1/victim/readings")
    leave(client)
    assert reasons == ["Not authorized"]
    found = refusal(embedded, "publish.topic_denied")
    assert (found["device"], found["topic"]) == ("evil", "v1/victim/readings")
    assert embedded.iotctl("readings", "victim", "--json").out == ""


def test_a_last_will_on_an_own_topic_is_fine(embedded: System) -> None:
    kitchen = embedded.enrol("kitchen")
    client, reasons = connected(kitchen, will="v1/kitchen/readings")
    assert reasons == ["Success"]
    connection = client.socket()
    assert isinstance(connection, socket.socket)
    connection.shutdown(socket.SHUT_RDWR)
    assert embedded.settled(received=1)["stored"] == 1
    leave(client)


def test_a_revoked_device_with_an_open_connection_is_refused(embedded: System) -> None:
    kitchen = embedded.enrol("kitchen")
    client, _ = connected(kitchen)
    try:
        assert embedded.iotctl("devices", "revoke", "kitchen").code == 0
        client.publish("v1/kitchen/readings", '{"values":{"temperature_c":1}}', qos=1)
        ledger = embedded.settled(received=1)
    finally:
        leave(client)
    assert (ledger["stored"], ledger["refused"]) == (0, 1)
    assert_balanced(ledger)
    assert refusal(embedded, "connect.revoked")["device"] == "kitchen"


def test_garbage_is_cut_off_and_disturbs_nobody(embedded: System) -> None:
    kitchen = embedded.enrol("kitchen")
    for garbage in (b"GET / HTTP/1.1\r\n\r\n", bytes(64), b"\xff" * 64, b"\x10\x02\x00\x09"):
        with socket.create_connection((kitchen.host, kitchen.port), timeout=10) as stranger:
            stranger.sendall(garbage)
            stranger.shutdown(socket.SHUT_WR)
            assert stranger.recv(16)[:1] in (b"", b"\x20")
    assert publish(kitchen, '{"values":{"temperature_c":1}}') == 0
    assert embedded.settled(received=1)["stored"] == 1


def test_the_status_page_answers_to_its_own_name_only(embedded: System) -> None:
    host, port = embedded.url.removeprefix("http://").split(":")
    for name, status in ((f"{host}:{port}", b"200"), ("evil.example", b"400")):
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall(f"GET /api/status HTTP/1.1\r\nHost: {name}\r\n\r\n".encode())
            assert connection.recv(4096).split(b" ")[1] == status
