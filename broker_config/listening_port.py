"""Check that a port can be listened on, and name the process that has it when not."""

from __future__ import annotations

import errno
import secrets
import socket
from contextlib import suppress

import psutil

from broker_config.errors import ConfigurationError, PortInUseError
from broker_config.settings import Mqtt, is_loopback

FREE_PORTS = range(20_000, 32_768)
"""Where a free port is looked for: below the ports that Linux gives to outgoing connections
(ip_local_port_range). One of those could be given to a client that reconnects on this machine
while the server restarts, and would then keep the server out."""

_ATTEMPTS = 100

EVERY_ADDRESS = frozenset({"0.0.0.0", "::"})  # noqa: S104 -- compared, not bound
"""A listener there has the port on every address of the machine."""


def free_port(host: str) -> int:
    """A port that can be listened on now, and that outgoing connections do not take.

    Raises:
        ConfigurationError: the address is not one of this machine, or no port was free.
    """
    for _ in range(_ATTEMPTS):
        port = secrets.choice(FREE_PORTS)
        with suppress(PortInUseError):
            check_port(host, port, flag="--mqtt-port or --http-port")
            return port
    raise ConfigurationError(f"no free port on {host}", "name one")


def check_port(host: str, port: int, *, flag: str) -> None:
    """Check that this process may listen on `host:port`.

    Args:
        flag: the flag with which the user can choose another port.

    Raises:
        PortInUseError: taken; the message names the process where the system tells.
        ConfigurationError: the address is not one of this machine, or needs more rights.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except UnicodeError:
        raise ConfigurationError(
            f"{host!r} is no address", f"choose another address or port ({flag})"
        ) from None
    except OSError as exc:
        if exc.errno == errno.EADDRINUSE:
            raise PortInUseError(
                f"port {port} on {host} is in use by {_owner(str(address[0]), port)}",
                f"stop that process, or choose another port with {flag}",
            ) from None
        raise ConfigurationError(
            f"cannot listen on {host}:{port} ({exc.strerror or exc})",
            f"choose another address or port ({flag})",
        ) from None


def check_mqtt_listener(settings: Mqtt) -> None:
    """Check that the broker may listen where the settings say.

    Raises:
        ConfigurationError: plaintext on an address that others can reach, or as `check_port`.
    """
    if not is_loopback(settings.host) and not settings.allow_plaintext:
        raise ConfigurationError(
            f"mqtt.host {settings.host} is not loopback and the listener is plaintext",
            "set mqtt.allow_plaintext = true if the network is trusted",
        )
    check_port(settings.host, settings.port, flag="--mqtt-port")


def _owner(address: str, port: int) -> str:
    try:
        for connection in psutil.net_connections("tcp"):
            if (
                connection.status == psutil.CONN_LISTEN
                and connection.laddr.port == port
                and (address in EVERY_ADDRESS or connection.laddr.ip in {address, *EVERY_ADDRESS})
                and connection.pid
            ):
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    except psutil.Error:
        pass
    return "another process"
