"""What the HTTP surface answers, asked as a browser, a probe and a scraper would."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any, cast

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from bridge.web.app import MAX_DEVICES_LISTED, make_app
from broker_config.errors import NotRunningError, StorageError

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from bridge.monitor import Monitor

STATUS = {"level": "ok", "ingest_health": 1.0, "site": "Köln <b>"}
PAGES = ["/", "/static/status.css", "/static/status.js"]
ROUTES = [*PAGES, "/api/status", "/api/devices", "/metrics", "/livez", "/readyz"]


class ScriptedMonitor:
    """A monitor that answers what a test says, and notes what it is asked."""

    def __init__(self) -> None:
        self.problem = ""
        self.error: Exception | None = None
        self.limits: list[int] = []

    def status(self) -> dict[str, Any]:
        if self.error:
            raise self.error
        return STATUS

    def devices(self, *, limit: int) -> dict[str, Any]:
        if self.error:
            raise self.error
        self.limits.append(limit)
        return {"devices": [], "total": 0}

    def not_ready(self) -> str:
        return self.problem


class Client:
    """Requests to an application in this process."""

    def __init__(self, app: Starlette) -> None:
        self._transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)

    def request(self, method: str, path: str, **parameters: str) -> httpx.Response:
        async def exchange() -> httpx.Response:
            async with httpx.AsyncClient(
                transport=self._transport, base_url="http://status"
            ) as client:
                return await client.request(method, path, params=parameters or None)

        return asyncio.run(exchange())

    def get(self, path: str, **parameters: str) -> httpx.Response:
        return self.request("GET", path, **parameters)


@pytest.fixture(name="monitor")
def fixture_monitor() -> ScriptedMonitor:
    return ScriptedMonitor()


@pytest.fixture(name="client")
def fixture_client(monitor: ScriptedMonitor) -> Client:
    return Client(make_app(cast("Monitor", monitor)))


@pytest.mark.parametrize("path", ROUTES)
def test_every_route_answers_a_get(client: Client, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 200
    assert answer.content


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/static/status.css", "text/css; charset=utf-8"),
        ("/static/status.js", "text/javascript; charset=utf-8"),
        ("/api/status", "application/json"),
        ("/api/devices", "application/json"),
        ("/livez", "text/plain; charset=utf-8"),
        ("/readyz", "text/plain; charset=utf-8"),
    ],
)
def test_every_answer_says_what_it_is(client: Client, path: str, kind: str) -> None:
    assert client.get(path).headers["content-type"] == kind


@pytest.mark.parametrize("path", [*ROUTES, "/nothing", "/static/", "/static/../app.py"])
def test_every_answer_has_the_headers_that_protect_a_browser(client: Client, path: str) -> None:
    headers = client.get(path).headers
    policy = dict(
        part.strip().partition(" ")[::2] for part in headers["content-security-policy"].split(";")
    )
    assert policy == {"default-src": "'self'", "frame-ancestors": "'none'"}
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"


@pytest.mark.parametrize("path", ["/nothing", "/api", "/static/app.py", "/static/%2e%2e/app.py"])
def test_what_is_not_there_is_404(client: Client, path: str) -> None:
    assert client.get(path).status_code == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
@pytest.mark.parametrize("path", ["/", "/api/status", "/livez"])
def test_nothing_here_is_changed_by_a_request(client: Client, method: str, path: str) -> None:
    assert client.request(method, path).status_code == 405


def test_the_status_is_the_monitor_s_own_as_json(client: Client) -> None:
    assert client.get("/api/status").json() == STATUS


@pytest.mark.parametrize("path", ["/api/status", "/api/devices"])
@pytest.mark.parametrize(
    "error", [NotRunningError("under way", "ask again"), StorageError("cannot read registry.db")]
)
def test_what_cannot_be_answered_now_is_said_in_one_line(
    client: Client, monitor: ScriptedMonitor, path: str, error: Exception
) -> None:
    monitor.error = error
    answer = client.get(path)
    assert answer.status_code == 503
    assert answer.text == f"{error}\n"
    assert "content-security-policy" in answer.headers


@pytest.mark.parametrize(
    ("wanted", "limit"),
    [
        ("7", 7),
        ("0", 0),
        ("1000", 1_000),
        ("1001", MAX_DEVICES_LISTED),
        ("99999999999999999999", MAX_DEVICES_LISTED),
        ("9" * 5_000, MAX_DEVICES_LISTED),
        ("", 200),
        ("-1", 200),
        ("1.5", 200),
        ("1e3", 200),
        ("all", 200),
        (" 7", 200),
        ("²", 200),
        ("½", 200),
        ("\x00", 200),
        ("' OR 1=1 --", 200),
    ],
    ids=lambda value: repr(value)[:24],
)
def test_a_limit_is_a_number_and_bounded(
    client: Client, monitor: ScriptedMonitor, wanted: str, limit: int
) -> None:
    answer = client.get("/api/devices", limit=wanted)
    assert answer.status_code == 200
    assert monitor.limits == [limit]


def test_without_a_limit_there_is_one(client: Client, monitor: ScriptedMonitor) -> None:
    client.get("/api/devices")
    assert monitor.limits == [200]


def test_ready_is_said_with_its_reason(client: Client, monitor: ScriptedMonitor) -> None:
    assert (client.get("/readyz").status_code, client.get("/readyz").text) == (200, "ok\n")
    monitor.problem = "cannot reach 127.0.0.1:1883"
    answer = client.get("/readyz")
    assert (answer.status_code, answer.text) == (503, "cannot reach 127.0.0.1:1883\n")
    assert client.get("/livez").status_code == 200


def test_the_metrics_are_what_a_prometheus_parser_reads(client: Client) -> None:
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    names = {family.name for family in text_string_to_metric_families(answer.text)}
    assert "iot_events" in names


def test_the_page_loads_nothing_that_its_policy_forbids(client: Client) -> None:
    page = client.get("/").text
    assert "<script>" not in page
    assert not re.search(r"<style[ >]|\sstyle=|\son\w+=|javascript:", page)
    loaded = re.findall(r'(?:src|href)="([^"#]+)"', page)
    assert {path for path in loaded if path.startswith("/static/")} == set(PAGES[1:])
    for path in loaded:
        assert path.startswith("/")
        assert client.get(path).status_code == 200
