"""Free TCP ports on the loopback interface."""

import contextlib
import random
import socket
from pathlib import Path

LOOPBACK = "127.0.0.1"

_LOWEST_PORT = 10_000
_EPHEMERAL_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_EPHEMERAL_DEFAULT = 32_768
_ATTEMPTS = 200


def first_ephemeral_port() -> int:
    """The lowest port that the kernel gives to outgoing connections."""
    try:
        lowest = int(_EPHEMERAL_RANGE.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return _EPHEMERAL_DEFAULT
    return lowest if lowest > _LOWEST_PORT else _EPHEMERAL_DEFAULT


def find_free_port() -> int:
    """A loopback TCP port that nothing listens on at this moment.

    It lies below the ports of outgoing connections. A server that is killed and
    started again on its port would otherwise find it taken now and then: on
    loopback a client that keeps trying to reconnect can be given that very port
    as its own, and is then connected to itself.

    Raises OSError if no free port was found.
    """
    for _ in range(_ATTEMPTS):
        port = random.randrange(_LOWEST_PORT, first_ephemeral_port())
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((LOOPBACK, port))
            return port
    raise OSError(f"no free port on {LOOPBACK} in {_ATTEMPTS} attempts")
