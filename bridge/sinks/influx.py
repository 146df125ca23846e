"""InfluxDB 2 (and what speaks its API) through influxdb-client.

`disposition_of` is the one place where a status of the database becomes an error of ours
(DESIGN, "Errors").
"""

from __future__ import annotations

import datetime
import http.client
import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import urllib3
from influxdb_client.client.exceptions import InfluxDBError
from influxdb_client.client.influxdb_client import InfluxDBClient
from influxdb_client.rest import ApiException
from influxdb_client.service.write_service import WriteService

from bridge.line_protocol import READINGS, encode_point, row_of
from broker_config.errors import (
    ConfigurationError,
    Disposition,
    SinkBusyError,
    SinkError,
    SinkMissingError,
    SinkRejectedError,
    SinkTooLargeError,
    SinkUnauthorizedError,
    SinkUnreachableError,
)
from broker_config.influx_token import read_token

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from bridge.line_protocol import Point
    from bridge.readings import Row
    from broker_config.settings import Influx

_MAX_WORDS = 300
"""How much of the database's own sentence is kept, in characters."""


class InfluxSink:
    """A `Sink` in a bucket of InfluxDB."""

    kind = "influxdb"

    def __init__(self, settings: Influx, home: Path) -> None:
        """Read the token; nothing is sent yet.

        Args:
            home: the folder that `token_file` is relative to.

        Raises:
            ConfigurationError: no token, or its file cannot be read.
        """
        self._settings = settings
        self._home = home
        self._bucket_checked = False
        self._client = self._connect()

    def _connect(self) -> InfluxDBClient:
        return InfluxDBClient(
            url=self._settings.url,
            token=read_token(self._settings, self._home),
            org=self._settings.org,
            timeout=int(self._settings.timeout_s * 1000),
        )

    def write(self, points: Sequence[Point]) -> None:
        """Write all points with one request.

        Raises:
            SinkError: the leaf that `disposition_of` chose.
        """
        self._ensure_bucket()
        try:
            lines = "\n".join(encode_point(point) for point in points)
        except ValueError as exc:
            raise SinkRejectedError(str(exc)) from None
        try:
            _, status, _ = WriteService(self._client.api_client).post_write_with_http_info(
                org=self._settings.org,
                bucket=self._settings.bucket,
                body=lines.encode(),
                precision="ns",
            )
            if status != _STORED:
                raise ApiException(status=status, reason="not InfluxDB's answer to a write")
        except _FAILURES as exc:
            error = self._translate(exc)
            if isinstance(error, SinkUnauthorizedError):
                self._read_token_again()
            if isinstance(error, SinkMissingError):
                self._bucket_checked = False
            raise error from None

    def read(self, device: str, *, since_ms: int, limit: int) -> Iterator[Row]:
        """The readings of a device, oldest first.

        Raises:
            SinkError: the leaf that `disposition_of` chose.
        """
        query = (
            "from(bucket: _bucket) |> range(start: time(v: _since), stop: 2200-01-01T00:00:00Z)"
            " |> filter(fn: (r) => r._measurement == _measurement and r.device == _device)"
            ' |> pivot(rowKey: ["_time"], columnKey: ["_field"], valueColumn: "_value")'
            ' |> group() |> sort(columns: ["_time"], desc: true) |> limit(n: _limit)'
        )
        parameters: dict[str, str | int] = {
            "_bucket": self._settings.bucket,
            "_since": since_ms * 1_000_000,
            "_measurement": READINGS,
            "_device": device,
            "_limit": limit,
        }
        try:
            tables = self._client.query_api().query(_with_parameters(query, parameters))
        except _FAILURES as exc:
            raise self._translate(exc) from None
        records = [record for table in tables for record in table.records]
        for record in reversed(records):
            values: dict[str, Any] = record.values
            fields = {k: v for k, v in values.items() if k[0] != "_" and k not in _COLUMNS}
            time_ns = (record.get_time() - _EPOCH) // _MICROSECOND * 1_000
            yield row_of(device, str(values.get("site") or ""), time_ns, fields)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _ensure_bucket(self) -> None:
        """Make the bucket where it is missing and the token may.

        A token that may only write cannot list buckets either; then the write itself will tell.
        """
        if self._bucket_checked:
            return
        name, api = self._settings.bucket, self._client.buckets_api()
        try:
            if api.find_bucket_by_name(name) is None:
                api.create_bucket(bucket_name=name, org=self._settings.org)
        except InfluxDBError:
            return  # the client was not shown the organisation; the write will tell
        except _FAILURES as exc:
            if not isinstance(exc, ApiException) or exc.status not in _NOT_ALLOWED:
                raise self._about_bucket(exc) from None
        self._bucket_checked = True

    def _about_bucket(self, exc: Exception) -> SinkError:
        """What the database said about its bucket is never a verdict on a reading."""
        error = self._translate(exc)
        if error.disposition is not Disposition.REFUSE:
            return error
        return SinkUnreachableError(
            f"{self._settings.url} does not answer like InfluxDB 2 ({error})",
            "check influx.url (http or https?) and influx.bucket; readings are kept in the journal",
        )

    def _read_token_again(self) -> None:
        """Take a new token without a restart; while its file is unreadable, keep the old one."""
        with suppress(ConfigurationError):
            fresh = self._connect()
            self._client.close()
            self._client = fresh

    def _translate(self, exc: Exception) -> SinkError:
        where = f"InfluxDB at {self._settings.url}"
        if isinstance(exc, ApiException):
            return disposition_of(
                exc.status, _words(exc), exc.headers or {}, where=where, settings=self._settings
            )
        return SinkUnreachableError(
            f"{where} cannot be reached ({_short(exc)})",
            "check influx.url and that it runs; readings are kept in the journal",
        )


_FAILURES = (
    ApiException,
    InfluxDBError,
    http.client.HTTPException,
    urllib3.exceptions.HTTPError,
    OSError,
    ValueError,
)
"""Everything that the client raises for what the network or the database did; ValueError is an
answer that it cannot decode."""

_STORED = 204
"""The one answer that says a write is stored (InfluxDB API, POST /api/v2/write). A proxy or a
portal in between may say 200 to anything."""

MIN_PAUSE_S, MAX_PAUSE_S = 0.5, 300.0
"""Shortest and longest pause that a database is granted, in seconds."""

_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_MICROSECOND = datetime.timedelta(microseconds=1)
_NOT_ALLOWED = (401, 403, 404)
_COLUMNS = frozenset({"result", "table", "device", "site"})


def disposition_of(
    status: int | None, words: str, headers: Mapping[str, str], *, where: str, settings: Influx
) -> SinkError:
    """The error of ours for an answer of the database that is not 2xx. Pure.

    Args:
        words: the database's own sentence.
        headers: of the answer; `Retry-After` is honoured.
    """
    kept = "readings are kept in the journal"
    said = f"{where} answered {status}: {words}"
    match status:
        case 400 | 422:
            return SinkRejectedError(words)
        case 401 | 403:
            return SinkUnauthorizedError(
                said, f"give a token that may write bucket {settings.bucket!r}; {kept}"
            )
        case 404:
            return SinkMissingError(
                said,
                f"make bucket {settings.bucket!r} in organisation {settings.org!r}, "
                f"or give a token that may; {kept}",
            )
        case 413:
            return SinkTooLargeError(said)
        case 429 | 503:
            pause = {k.lower(): v for k, v in headers.items()}.get("retry-after", "")
            return SinkBusyError(said, kept, retry_after_s=_pause_s(pause))
        case _:
            return SinkUnreachableError(said, kept)


def _pause_s(text: str) -> float:
    """The pause of a `Retry-After`; its form as a date would need a clock, so counts as 1 s."""
    if not (text.isascii() and text.isdigit()):
        return 1.0
    return max(MIN_PAUSE_S, min(float(text[:9]), MAX_PAUSE_S))


def _words(exc: ApiException) -> str:
    try:
        words = json.loads(exc.body)["message"]
    except (TypeError, ValueError, KeyError):
        words = exc.body if isinstance(exc.body, str) and exc.body else exc.reason
    return " ".join(str(words).split())[:_MAX_WORDS]


def _short(exc: Exception) -> str:
    reason = getattr(exc, "reason", None)
    return " ".join(str(reason if reason is not None else exc).split())[:_MAX_WORDS]


def _with_parameters(query: str, parameters: Mapping[str, str | int]) -> str:
    """The query with its values as Flux literals in front, quoted as Flux strings are.

    InfluxDB OSS does not take the API's own `params`, so the quoting is done here (Flux
    specification, "String literals": backslash, quote and `${` are special).
    """
    lines = []
    for name, value in parameters.items():
        if isinstance(value, int):
            lines.append(f"{name} = {value}")
        else:
            quoted = value.replace("\\", "\\\\").replace('"', '\\"').replace("${", "\\${")
            lines.append(f'{name} = "{quoted}"')
    return "\n".join([*lines, query])
