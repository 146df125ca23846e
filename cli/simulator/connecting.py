"""Who a board is, where its broker is, why it has no session, and how long it waits. Pure."""

from __future__ import annotations

import random
import ssl
from dataclasses import dataclass, field

RETRY_BASE_S, RETRY_CAP_S = 1.0, 10.0
"""Back-off after a lost connection or an unreachable broker; well below the time that a run waits
for its last receipts."""

REFUSED_BASE_S, REFUSED_CAP_S = 15.0, 300.0
"""Back-off after a refusal: only a person can change that, and each try costs a hash."""

_VERDICTS = {
    "Client identifier not valid": "it rejects the client id",
    "Bad user name or password": (
        "bad user name or password; enrol the board (`iotctl devices add`) or give it a new "
        "secret (`iotctl devices rotate`)"
    ),
    "Not authorized": (
        "not authorised; enrol the board (`iotctl devices add`), or give it a new secret "
        "(`iotctl devices rotate`), and check the broker's policy"
    ),
}
"""Return codes 2, 4 and 5 of MQTT 3.1.1 table 3.1, by paho's names. Code 3, server unavailable,
is no verdict on the board: it is tried again like a lost connection. Code 1, another protocol
version, paho does not report but closes the connection."""


@dataclass(frozen=True)
class Credentials:
    """Who a board is. The device id is also its MQTT client id.

    Attributes:
        device_id: as in its topics.
        username: MQTT user name; in this system the device id.
        password: its secret; left out of `repr`.
    """

    device_id: str
    username: str
    password: str = field(repr=False)


@dataclass(frozen=True)
class Endpoint:
    """Where the broker is; `tls` is None for plain TCP."""

    host: str
    port: int
    tls: ssl.SSLContext | None = None


@dataclass(frozen=True)
class ConnectProblem:
    """Why a board has no session.

    Attributes:
        device_id: the board.
        refused: whether the broker turned the board away; otherwise it could not be reached.
        reason: what the broker or the network said, and what to do where that is known.
    """

    device_id: str
    refused: bool
    reason: str


def refusal_of(reason_name: str) -> tuple[str, bool]:
    """What a CONNACK with a failure code means, and whether it is a verdict on the board.

    Args:
        reason_name: paho's name of the return code.
    """
    verdict = _VERDICTS.get(reason_name)
    return f"connection refused: {verdict or reason_name.lower()}", verdict is not None


def unreachable(error: OSError) -> str:
    """What kept the TCP or TLS connection from being made, and what to look at."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({error.verify_message}); check the CA certificate"
    if isinstance(error, ConnectionRefusedError):
        return "nothing listens there; start the system (`iotctl up`) or check host and port"
    return f"cannot connect: {error.strerror or error}"


def retry_wait_s(attempt: int, *, refused: bool, rng: random.Random) -> float:
    """The wait after failed try number `attempt` (0, 1, …), in seconds.

    Full jitter: uniform between 0 and the doubled bound, so that boards which lost one broker
    together do not come back together ("Exponential Backoff And Jitter", AWS Architecture Blog,
    2015).
    """
    base_s, cap_s = (REFUSED_BASE_S, REFUSED_CAP_S) if refused else (RETRY_BASE_S, RETRY_CAP_S)
    return rng.uniform(0.0, min(cap_s, base_s * 2.0 ** min(attempt, 32)))
