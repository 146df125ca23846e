"""A real InfluxDB 2.7 server for tests."""

import http.client
import json
import os
import secrets
import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlencode

from .flux_csv import Row, parse_flux_csv
from .ports import LOOPBACK, find_free_port
from .server_process import ServerProcess, ServiceError

HOW_TO_GET = "InfluxDB; tests/services/build_influxd.sh CACHE_DIR builds it"

_VERSION_FOLDER = "influxd-2.7.12"
_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 20.0
_REQUEST_TIMEOUT_S = 30.0


def influxd_program() -> Path:
    """Where build_influxd.sh puts the server: this clone's `.cache` folder, or
    else the user's cache folder. The path is returned also if nothing is there.
    """
    clone = Path(__file__).resolve().parents[2] / ".cache"
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    places = [folder / _VERSION_FOLDER / "influxd" for folder in (clone, cache / "iot-ingest")]
    return next((place for place in places if place.exists()), places[0])


class InfluxD:
    """A server on a free loopback port, with its data in a folder of its own.

    The first `start()` creates the organisation, the bucket and the token;
    `start()` may follow `stop()` or `kill()`: port, folder and token stay.
    """

    def __init__(
        self,
        program: Path,
        folder: Path | None = None,
        *,
        org: str = "iot",
        bucket: str = "iot",
    ) -> None:
        """Prepare a server without starting it.

        `folder`: where its data goes; it must be empty or absent. Without it a
        temporary one is made, which `close()` removes.
        """
        self.org = org
        self.bucket = bucket
        self.token = secrets.token_urlsafe(32)
        self.port = find_free_port()
        self.url = f"http://{LOOPBACK}:{self.port}"
        self._temporary = folder is None
        self.folder = folder or Path(tempfile.mkdtemp(prefix="influxd-"))
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log = self.folder / "influxd.log"
        self._set_up = False
        command = [
            str(program.resolve()),
            f"--http-bind-address={LOOPBACK}:{self.port}",
            f"--bolt-path={self.folder / 'influxd.bolt'}",
            f"--sqlite-path={self.folder / 'influxd.sqlite'}",
            f"--engine-path={self.folder / 'engine'}",
            "--reporting-disabled",
            "--log-level=error",
        ]
        # The server takes every flag from the environment as well.
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("INFLUX")
        }
        self._server = ServerProcess(
            command, folder=self.folder, log=self.log, environment=environment
        )

    @property
    def pid(self) -> int | None:
        """The process id, or None when it is not running."""
        return self._server.pid

    @property
    def running(self) -> bool:
        """Whether the server's process is there."""
        return self._server.running

    def start(self) -> None:
        """Start it and return when it can be written to and queried.

        Raises ServiceError with the end of its log if it does not come up.
        """
        self._server.start(self._is_healthy, _START_TIMEOUT_S)
        if not self._set_up:
            try:
                self._create_organisation()
            except BaseException:
                self.kill()
                raise
            self._set_up = True

    def stop(self) -> None:
        """End it in order (SIGTERM; killed if that takes too long)."""
        self._server.stop(_STOP_TIMEOUT_S)

    def kill(self) -> None:
        """End it at once (SIGKILL)."""
        self._server.kill()

    def close(self) -> None:
        """Stop it, and remove the folder if it was made here."""
        self.stop()
        if self._temporary:
            shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def write(self, lines: str, precision: str = "ns") -> None:
        """Write line protocol; `precision` (ns, us, ms, s) is its timestamps' unit.

        Raises ServiceError if the server refuses any of it.
        """
        parameters = {"org": self.org, "bucket": self.bucket, "precision": precision}
        self._request("POST", "/api/v2/write", parameters, body=lines)

    def query_influxql(
        self, query: str, epoch: str = "ms", *, database: str | None = None
    ) -> list[Row]:
        """All rows of all statements and series, in the order of the answer.

        The database is a bucket, which this version maps by itself; `bucket` if not given.
        Each row holds the columns, the tags of a GROUP BY, and the name of its
        series as `_measurement`. `time` is a number of `epoch` (ns, u, ms, s).

        Raises ServiceError if a statement fails.
        """
        parameters = {"db": database or self.bucket, "q": query, "epoch": epoch}
        answer = json.loads(self._request("GET", "/query", parameters))
        rows: list[Row] = []
        for result in answer["results"]:
            if "error" in result:
                raise ServiceError(f"InfluxQL: {result['error']}: {query}")
            for series in result.get("series", []):
                shared = {"_measurement": series.get("name"), **series.get("tags", {})}
                rows.extend(
                    {**shared, **dict(zip(series["columns"], values, strict=True))}
                    for values in series.get("values", [])
                )
        return rows

    def query_flux(self, query: str) -> list[Row]:
        """All rows of all tables; times are RFC 3339 text, empty cells None.

        Raises ServiceError if the query fails.
        """
        dialect = {"annotations": ["datatype", "group", "default"], "header": True}
        body = json.dumps({"query": query, "type": "flux", "dialect": dialect})
        answer = self._request("POST", "/api/v2/query", {"org": self.org}, body=body)
        try:
            return parse_flux_csv(answer)
        except ValueError as error:
            raise ServiceError(f"{error}: {query}") from error

    def count(self, measurement: str, field: str) -> int:
        """How many points of a measurement have a field, over all time and tags.

        0 if there is no such measurement or field.
        """
        query = f"SELECT COUNT({_quoted(field)}) FROM {_quoted(measurement)}"
        rows = self.query_influxql(query)
        return int(rows[0]["count"]) if rows else 0

    def _is_healthy(self) -> bool:
        try:
            return bool(json.loads(self._request("GET", "/health"))["status"] == "pass")
        except (OSError, http.client.HTTPException, ServiceError):
            return False

    def _create_organisation(self) -> None:
        """Let the new server make its user, organisation, bucket and token."""
        setup = {
            "username": "tests",
            "password": secrets.token_urlsafe(32),
            "org": self.org,
            "bucket": self.bucket,
            "token": self.token,
            "retentionPeriodSeconds": 0,
        }
        self._request("POST", "/api/v2/setup", body=json.dumps(setup))

    def _request(
        self,
        method: str,
        path: str,
        parameters: dict[str, str] | None = None,
        *,
        body: str | None = None,
    ) -> str:
        """One HTTP request; its answer as text.

        Raises ServiceError for a status outside 2xx, OSError or HTTPException
        if there is no answer.
        """
        target = f"{path}?{urlencode(parameters)}" if parameters else path
        headers = {"Authorization": f"Token {self.token}"}
        if body is not None:
            headers["Content-Type"] = _content_type(path)
        connection = http.client.HTTPConnection(LOOPBACK, self.port, timeout=_REQUEST_TIMEOUT_S)
        try:
            connection.request(method, target, None if body is None else body.encode(), headers)
            response = connection.getresponse()
            answer = response.read().decode()
        finally:
            connection.close()
        if not 200 <= response.status < 300:
            raise ServiceError(f"{method} {path}: {response.status} {answer.strip()}")
        return answer


def _content_type(path: str) -> str:
    is_write = path == "/api/v2/write"
    return "text/plain; charset=utf-8" if is_write else "application/json"


def _quoted(identifier: str) -> str:
    """An InfluxQL identifier in its quotes."""
    escaped = identifier.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
