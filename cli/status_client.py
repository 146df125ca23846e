"""Ask the running bridge of a home over HTTP."""

from __future__ import annotations

import http.client
from typing import TYPE_CHECKING, Any

import msgspec

from broker_config.errors import NotRunningError
from broker_config.run_files import address_of

if TYPE_CHECKING:
    from broker_config.home import Home

TIMEOUT_S = 5.0
MAX_ANSWER_BYTES = 16 * 1024 * 1024
_OK = 200


def ask(home: Home, path: str) -> dict[str, Any]:
    """GET a JSON answer of the bridge.

    Raises:
        NotRunningError: nothing runs in this home, or it does not answer.
    """
    address = address_of(home, "bridge")
    if address is None:
        raise NotRunningError(
            f"nothing is running in {home.path}",
            "start it with `iotctl up`, or name another --home",
        )
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address.host, address.host)  # noqa: S104 -- compared, not bound
    connection = http.client.HTTPConnection(host, address.port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read(MAX_ANSWER_BYTES)
    except (OSError, http.client.HTTPException) as exc:
        raise NotRunningError(
            f"the bridge (pid {address.pid}) does not answer at {host}:{address.port} ({exc})",
            "look at its log",
        ) from None
    finally:
        connection.close()
    if answer.status != _OK:
        raise NotRunningError(
            f"the bridge answered {answer.status}", body.decode("utf-8", "replace")
        )
    decoded: dict[str, Any] = msgspec.json.decode(body)
    return decoded
