"""One HTTP request and its answer."""

import http.client
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlencode

_TIMEOUT_S = 30


class Answer(NamedTuple):
    """Status code and body."""

    status: int
    text: str


def exchange(
    host: str,
    port: int,
    path: str,
    parameters: Mapping[str, str],
    *,
    headers: Mapping[str, str],
    body: bytes | None = None,
) -> Answer:
    """GET, or POST where there is a body. No proxy is asked.

    Raises OSError or http.client.HTTPException if there is no answer.
    """
    connection = http.client.HTTPConnection(host, port, timeout=_TIMEOUT_S)
    try:
        method = "GET" if body is None else "POST"
        target = f"{path}?{urlencode(parameters)}"
        connection.request(method, target, body, dict(headers))
        response = connection.getresponse()
        return Answer(response.status, response.read().decode())
    finally:
        connection.close()
