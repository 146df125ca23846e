"""The embedded store: SQLite, for who has no InfluxDB (`readings.db`).

One table of points with the key that InfluxDB has (measurement, tags, time); fields of one point
are merged. The view `readings` shows the quantities as JSON beside device and time.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

import msgspec

from bridge.line_protocol import READINGS, Point, row_of
from broker_config.errors import SinkUnreachableError
from broker_config.sqlite_file import open_sqlite, transaction

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from bridge.readings import Row

_VERSION = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS points (
    measurement TEXT NOT NULL,
    device TEXT NOT NULL,
    time_ns INTEGER NOT NULL,
    tags TEXT NOT NULL,
    fields TEXT NOT NULL,
    PRIMARY KEY (measurement, device, time_ns, tags)
) WITHOUT ROWID;
CREATE VIEW IF NOT EXISTS readings AS
    SELECT device, json_extract(tags, '$.site') AS site, time_ns / 1000000 AS ts_ms,
           json_extract(fields, '$.ts_source') AS ts_source, fields
    FROM points WHERE measurement = 'readings'
"""

_encoder = msgspec.json.Encoder(order="sorted")


class EmbeddedSink:
    """A `Sink` in one SQLite file."""

    kind = "embedded"

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        """Open the file, making it where it is missing.

        Raises:
            StorageError: when the file cannot be used.
        """
        self._path = path
        self._db = open_sqlite(path, _SCHEMA, version=_VERSION, read_only=read_only)

    def write(self, points: Sequence[Point]) -> None:
        """Store all points in one transaction.

        Raises:
            SinkUnreachableError: nothing was stored (disk full, read-only, locked).
        """
        rows = [
            (
                point.measurement,
                point.tags.get("device", ""),
                point.time_ns,
                _encoder.encode({k: v for k, v in point.tags.items() if v}).decode(),
                _encoder.encode(point.fields).decode(),
            )
            for point in points
        ]
        with transaction(
            self._db,
            lambda exc: SinkUnreachableError(
                f"cannot write {self._path} ({exc})", "make room on the disk or make it writable"
            ),
        ) as db:
            db.executemany(
                "INSERT INTO points VALUES (?,?,?,?,?) ON CONFLICT DO UPDATE"
                " SET fields=json_patch(fields, excluded.fields)",
                rows,
            )

    def read(self, device: str, *, since_ms: int, limit: int) -> Iterator[Row]:
        """The readings of a device, oldest first.

        Raises:
            SinkUnreachableError: when the file cannot be read.
        """
        try:
            rows = self._db.execute(
                "SELECT time_ns, tags, fields FROM points WHERE measurement=? AND device=?"
                " AND time_ns >= ? ORDER BY time_ns DESC LIMIT ?",
                (READINGS, device, since_ms * 1_000_000, limit),
            ).fetchall()
        except sqlite3.Error as exc:
            raise SinkUnreachableError(f"cannot read {self._path} ({exc})") from None
        for time_ns, tags, fields in reversed(rows):
            site = msgspec.json.decode(tags).get("site", "")
            yield row_of(device, site, time_ns, msgspec.json.decode(fields))

    def close(self) -> None:
        """Close the file."""
        self._db.close()
