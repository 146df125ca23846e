"""The HTTP surface of the bridge: it asks the monitor and answers; it decides nothing."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from broker_config.errors import IotError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.requests import Request
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from bridge.monitor import Monitor

DEVICES_LISTED = 200
MAX_DEVICES_LISTED = 1_000

_HEADERS = [
    (b"content-security-policy", b"default-src 'self'; frame-ancestors 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
]
_PAGE_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}


def make_app(monitor: Monitor, *, allowed_hosts: Sequence[str] = ("*",)) -> Starlette:
    """The ASGI application of one bridge.

    Args:
        allowed_hosts: values of the Host header that are answered: a page of a stranger must not
            reach a listener on loopback by a name of its own (DNS rebinding).
    """

    async def status(_request: Request) -> Response:
        return _json(monitor.status())

    async def devices(request: Request) -> Response:
        wanted = request.query_params.get("limit", "")
        limit = int(wanted[:9]) if wanted.isdecimal() else DEVICES_LISTED
        return _json(monitor.devices(limit=min(limit, MAX_DEVICES_LISTED)))

    async def metrics(_request: Request) -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    async def no_icon(_request: Request) -> Response:
        return Response(status_code=204)

    async def livez(_request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(_request: Request) -> Response:
        problem = monitor.not_ready()
        return PlainTextResponse(f"{problem or 'ok'}\n", status_code=503 if problem else 200)

    pages = {"/": "index.html"}
    pages |= {f"/static/{name}": name for name in ("status.css", "status.js")}
    return Starlette(
        routes=[
            *(Route(path, _page(name)) for path, name in pages.items()),
            Route("/favicon.ico", no_icon),
            Route("/api/status", status),
            Route("/api/devices", devices),
            Route("/metrics", metrics),
            Route("/livez", livez),
            Route("/readyz", readyz),
        ],
        middleware=[
            Middleware(_SecurityHeaders),
            Middleware(TrustedHostMiddleware, allowed_hosts=list(allowed_hosts)),
        ],
        exception_handlers={IotError: _failed},
    )


def _page(name: str) -> ASGIApp:
    content = files("bridge.web").joinpath("page", name).read_bytes()
    kind = _PAGE_TYPES[name[name.rindex(".") :]]

    async def page(_request: Request) -> Response:
        return Response(content, media_type=kind)

    return page  # type: ignore[return-value]  # Route takes an endpoint as well as an ASGI app


async def _failed(_request: Request, exc: Exception) -> Response:
    return PlainTextResponse(f"{exc}\n", status_code=503)


def _json(answer: object) -> Response:
    return Response(msgspec.json.encode(answer), media_type="application/json")


class _SecurityHeaders:
    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *_HEADERS]
            await send(message)

        await self._app(scope, receive, send_with_headers)
