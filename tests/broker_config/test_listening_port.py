from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import psutil
import pytest

from broker_config import listening_port
from broker_config.errors import ConfigurationError, PortInUseError
from broker_config.listening_port import check_mqtt_listener, check_port, free_port
from broker_config.settings import Mqtt
from tests.services.ports import LOOPBACK, find_free_port, first_ephemeral_port

from .children import running

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .children import Child


@pytest.fixture(name="listener")
def fixture_listener() -> Iterator[Child]:
    with running("listen", LOOPBACK, 0) as child:
        yield child


def test_a_free_port_is_fine() -> None:
    check_port(LOOPBACK, find_free_port(), flag="--mqtt-port")
    check_port(LOOPBACK, 0, flag="--mqtt-port")
    check_port("localhost", 0, flag="--mqtt-port")


def test_a_taken_port_names_the_process_and_the_flag(listener: Child) -> None:
    port = int(listener.ready)
    with pytest.raises(PortInUseError) as caught:
        check_port(LOOPBACK, port, flag="--mqtt-port")
    name = psutil.Process(listener.pid).name()
    assert str(caught.value) == (
        f"port {port} on {LOOPBACK} is in use by {name} (pid {listener.pid}): "
        "stop that process, or choose another port with --mqtt-port"
    )
    assert caught.value.exit_code == 2


def test_a_port_of_one_address_is_taken_for_all_addresses(listener: Child) -> None:
    with pytest.raises(PortInUseError, match=f"pid {listener.pid}"):
        check_port("0.0.0.0", int(listener.ready), flag="--http-port")


def test_the_process_of_the_same_port_on_another_address_is_not_blamed(listener: Child) -> None:
    port = int(listener.ready)
    with running("listen", "127.0.0.2", port) as other:
        assert other.ready == listener.ready
        for host, culprit in ((LOOPBACK, listener), ("127.0.0.2", other)):
            with pytest.raises(PortInUseError, match=rf"\(pid {culprit.pid}\)"):
                check_port(host, port, flag="--mqtt-port")


def test_a_port_is_free_again_when_its_process_was_killed(listener: Child) -> None:
    with socket.create_connection((LOOPBACK, int(listener.ready))):
        listener.kill()
    check_port(LOOPBACK, int(listener.ready), flag="--mqtt-port")


def test_connections_that_linger_do_not_keep_a_port_taken() -> None:
    with socket.create_server((LOOPBACK, 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection((LOOPBACK, port)) as client:
            served, _ = server.accept()
            served.close()  # the side that closes first keeps the port in TIME_WAIT
            assert client.recv(1) == b""
    check_port(LOOPBACK, port, flag="--mqtt-port")


def test_a_process_that_may_not_be_seen_is_another_process(
    listener: Child, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(_kind: str) -> None:
        raise psutil.AccessDenied

    monkeypatch.setattr(psutil, "net_connections", denied)
    with pytest.raises(PortInUseError, match="is in use by another process: stop that process"):
        check_port(LOOPBACK, int(listener.ready), flag="--mqtt-port")


@pytest.mark.parametrize("host", ["192.0.2.1", "", "127.0..1", "h" * 64])
def test_an_address_that_is_not_of_this_machine_is_a_configuration_error(host: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        check_port(host, 0, flag="--mqtt-port")
    assert host in str(caught.value)
    assert "(--mqtt-port)" in str(caught.value)
    assert "\n" not in str(caught.value)


# A port of our own choice


def test_a_chosen_port_is_free_and_not_one_of_outgoing_connections() -> None:
    port = free_port(LOOPBACK)
    assert 1_024 <= port < first_ephemeral_port()
    with socket.create_server((LOOPBACK, port)):
        pass


def test_a_taken_port_is_not_chosen(listener: Child, monkeypatch: pytest.MonkeyPatch) -> None:
    taken, free = int(listener.ready), find_free_port()
    monkeypatch.setattr(listening_port, "FREE_PORTS", [taken, free])
    assert {free_port(LOOPBACK) for _ in range(10)} == {free}
    monkeypatch.setattr(listening_port, "FREE_PORTS", [taken])
    monkeypatch.setattr(listening_port, "_ATTEMPTS", 3)
    with pytest.raises(ConfigurationError, match=f"no free port on {LOOPBACK}"):
        free_port(LOOPBACK)


def test_no_port_is_chosen_on_an_address_of_another_machine() -> None:
    with pytest.raises(ConfigurationError, match=r"cannot listen on 192\.0\.2\.1"):
        free_port("192.0.2.1")


# Where the broker may listen


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "broker.example"])
def test_plaintext_stays_on_this_machine(host: str) -> None:
    with pytest.raises(ConfigurationError, match=r"mqtt\.allow_plaintext = true") as caught:
        check_mqtt_listener(Mqtt(host=host, port=0))
    assert host in str(caught.value)


def test_plaintext_elsewhere_has_to_be_allowed(listener: Child) -> None:
    check_mqtt_listener(Mqtt(host=LOOPBACK, port=0))
    check_mqtt_listener(Mqtt(host="0.0.0.0", port=0, allow_plaintext=True))
    with pytest.raises(PortInUseError, match="--mqtt-port"):
        check_mqtt_listener(Mqtt(host="0.0.0.0", port=int(listener.ready), allow_plaintext=True))
