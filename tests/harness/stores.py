"""The databases that the end-to-end tests run against, each read by its own query language."""

from __future__ import annotations

import json
import sqlite3
from typing import TYPE_CHECKING, Any, Protocol

from tests.services.server_process import ServiceError

if TYPE_CHECKING:
    from pathlib import Path

    from tests.services.influxd import InfluxD


class Store(Protocol):
    """A database as the oracle of a test."""

    environment: dict[str, str]
    kind: str

    def rows(self, device: str) -> list[dict[str, Any]]:
        """Rows of measurement `readings`, with `ts_ms`, oldest first."""

    def count(self) -> int:
        """Rows of measurement `readings` in all."""


class EmbeddedStore:
    """`readings.db`, read with SQL."""

    kind = "embedded"

    def __init__(self, home: Path) -> None:
        self.environment: dict[str, str] = {}
        self._file = home / "readings.db"

    def rows(self, device: str) -> list[dict[str, Any]]:
        found = self._query(
            "SELECT ts_ms, site, fields FROM readings WHERE device=? ORDER BY ts_ms", device
        )
        return [{"ts_ms": ts, "site": site, **json.loads(fields)} for ts, site, fields in found]

    def count(self) -> int:
        return int(self._query("SELECT count(*) FROM readings")[0][0])

    def _query(self, statement: str, *parameters: str) -> list[tuple[Any, ...]]:
        if not self._file.exists():
            return []
        db = sqlite3.connect(f"file:{self._file}?mode=ro", uri=True)
        try:
            return db.execute(statement, parameters).fetchall()
        finally:
            db.close()


class InfluxStore:
    """A bucket of the real InfluxDB, read with InfluxQL."""

    kind = "influxdb"

    def __init__(self, influx: InfluxD, bucket: str) -> None:
        self.influx = influx
        self.bucket = bucket
        self.environment = {
            "IOT_INFLUX_URL": influx.url,
            "IOT_INFLUX_TOKEN": influx.token,
            "IOT_INFLUX_ORG": influx.org,
            "IOT_INFLUX_BUCKET": bucket,
        }

    def rows(self, device: str) -> list[dict[str, Any]]:
        found = self.query(f"SELECT * FROM readings WHERE device = '{device}'")
        return [{"ts_ms": row["time"], **row} for row in found]

    def count(self) -> int:
        found = self.query("SELECT count(ts_source) FROM readings")
        return int(found[0]["count"]) if found else 0

    def flux_rows(self, device: str) -> list[dict[str, Any]]:
        """Rows as Flux gives them, a record a field."""
        return self.influx.query_flux(
            f'from(bucket: "{self.bucket}") |> range(start: -30d)'
            f' |> filter(fn: (r) => r._measurement == "readings" and r.device == "{device}")'
        )

    def query(self, query: str) -> list[dict[str, Any]]:
        """Rows of an InfluxQL query; none while the product has not made the bucket."""
        try:
            return self.influx.query_influxql(query, database=self.bucket)
        except ServiceError as exc:
            if "database not found" in str(exc):
                return []
            raise
