"""Reading the journal: what waits, what was refused, what is remembered, and the ledger.

`journal.py` writes; a reader may be opened beside it, in the same process or in another.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from bridge.outcomes import BootState, Ledger
from bridge.readings import Row
from bridge.seen import SeenRanges
from broker_config.errors import StorageError
from broker_config.refusals import code_named
from broker_config.sqlite_file import open_sqlite

if TYPE_CHECKING:
    from pathlib import Path

_VERSION = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS messages (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    received_ms INTEGER NOT NULL,
    device TEXT NOT NULL,
    topic TEXT NOT NULL,
    payload BLOB NOT NULL,
    policy TEXT NOT NULL,
    received INTEGER NOT NULL,
    duplicate INTEGER NOT NULL,
    refused INTEGER NOT NULL,
    accepted INTEGER NOT NULL,
    rows BLOB
);
CREATE TABLE IF NOT EXISTS refusals (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    message_id INTEGER,
    position INTEGER NOT NULL,
    at_ms INTEGER NOT NULL,
    device TEXT NOT NULL,
    topic TEXT NOT NULL,
    address TEXT NOT NULL,
    code TEXT NOT NULL,
    detail TEXT NOT NULL,
    rule TEXT NOT NULL,
    policy TEXT NOT NULL,
    boot INTEGER,
    n INTEGER,
    times INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS refusals_at ON refusals(at_ms);
CREATE INDEX IF NOT EXISTS refusals_device ON refusals(device, id);
CREATE TABLE IF NOT EXISTS boots (
    device TEXT NOT NULL,
    boot INTEGER NOT NULL,
    ranges BLOB NOT NULL,
    offset_ms INTEGER,
    last_ms INTEGER NOT NULL,
    PRIMARY KEY (device, boot)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS devices (
    device TEXT PRIMARY KEY,
    first_ms INTEGER NOT NULL,
    last_ms INTEGER NOT NULL,
    stored_ms INTEGER
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS counters (
    name TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) WITHOUT ROWID;
INSERT OR IGNORE INTO counters VALUES
    ('received', 0), ('stored', 0), ('duplicate', 0), ('refused', 0),
    ('forwarded_id', 0), ('decision_log', 0), ('decision_id', 0)
"""

MAX_FORWARD_ROWS = 20_000
"""Most rows forwarded at once, unless a single message has more; about 25 MiB in memory."""

_rows_decoder = msgspec.json.Decoder(list[Row])
_ranges_decoder = msgspec.json.Decoder(list[tuple[int, int]])


class StoredMessage(NamedTuple):
    """A journalled message whose rows have not reached the database."""

    id: int
    rows: list[Row]


class DeviceSeen(NamedTuple):
    """When a device was heard; ms since 1970 UTC, `stored_ms` None when never stored."""

    device: str
    first_ms: int
    last_ms: int
    stored_ms: int | None


class StoredRefusal(NamedTuple):
    """One refusal on record; `payload` is None where the message never reached the bridge."""

    id: int
    at_ms: int
    device: str
    topic: str
    address: str
    code: str
    detail: str
    rule: str
    policy: str
    boot: int | None
    n: int | None
    position: int
    times: int
    payload: bytes | None


class JournalReader:
    """Read access to the journal of one bridge."""

    def __init__(self, path: Path, *, read_only: bool = True) -> None:
        """Open the file.

        Raises:
            StorageError: when it cannot be used, or is to be read and not there.
        """
        self._path = path
        self._db = open_sqlite(path, _SCHEMA, version=_VERSION, read_only=read_only)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def boot(self, device: str, boot: int) -> BootState:
        """What is remembered of one boot; empty when nothing is.

        Raises:
            StorageError: when the file cannot be read.
        """
        rows = self._read(
            "SELECT ranges, offset_ms FROM boots WHERE device=? AND boot=?", device, boot
        )
        if not rows:
            return BootState(SeenRanges())
        return BootState(SeenRanges(_ranges_decoder.decode(rows[0][0])), rows[0][1])

    def pending(self, limit: int) -> list[StoredMessage]:
        """The next messages whose rows are to be forwarded, oldest first.

        Raises:
            StorageError: when the file cannot be read.
        """
        rows = self._read(
            "SELECT id, accepted FROM messages WHERE id > ? AND accepted > 0 ORDER BY id LIMIT ?",
            self._counter("forwarded_id"),
            limit,
        )
        last, total = 0, 0
        for message_id, accepted in rows:
            if total and total + accepted > MAX_FORWARD_ROWS:
                break
            last, total = message_id, total + accepted
        found = self._read(
            "SELECT id, rows FROM messages WHERE id > ? AND id <= ? AND accepted > 0 ORDER BY id",
            self._counter("forwarded_id"),
            last,
        )
        return [StoredMessage(row[0], _rows_decoder.decode(row[1])) for row in found]

    def ledger(self) -> Ledger:
        """The conservation of readings, each number counted by itself, at one instant.

        Raises:
            StorageError: when the file cannot be read.
        """
        self._read("BEGIN")
        try:
            counted = dict(self._read("SELECT name, value FROM counters"))
            return Ledger(
                received=counted["received"],
                stored=counted["stored"],
                duplicate=counted["duplicate"],
                refused=counted["refused"],
                pending=self.pending_rows(),
            )
        finally:
            self._read("COMMIT")

    def decision_id(self, log_id: int) -> int:
        """The last entry of the broker's log that was taken over; 0 of a log that is new."""
        return self._counter("decision_id") if self._counter("decision_log") == log_id else 0

    def devices(self) -> list[DeviceSeen]:
        """Every device that was ever heard."""
        return [
            DeviceSeen(*row)
            for row in self._read("SELECT device, first_ms, last_ms, stored_ms FROM devices")
        ]

    def refusals(
        self, *, limit: int, device: str | None = None, code: str | None = None, since_ms: int = 0
    ) -> list[StoredRefusal]:
        """Refusals on record with their payload, newest first.

        Raises:
            StorageError: when the file cannot be read.
        """
        rows = self._read(
            "SELECT r.id, r.at_ms, r.device, r.topic, r.address, r.code, r.detail, r.rule,"
            " r.policy, r.boot, r.n, r.position, r.times, m.payload FROM refusals r"
            " LEFT JOIN messages m ON m.id = r.message_id"
            " WHERE (?1 IS NULL OR r.device = ?1) AND (?2 IS NULL OR r.code = ?2)"
            " AND r.at_ms >= ?3 ORDER BY r.id DESC LIMIT ?4",
            device,
            code,
            since_ms,
            limit,
        )
        return [StoredRefusal(*row) for row in rows if code_named(row[5]) is not None]

    def pending_rows(self) -> int:
        """Accepted rows that the database has not confirmed; a scan of what waits."""
        return int(
            self._read(
                "SELECT coalesce(sum(accepted), 0) FROM messages WHERE id >"
                " (SELECT value FROM counters WHERE name='forwarded_id')"
            )[0][0]
        )

    def _counter(self, name: str) -> int:
        return int(self._read("SELECT value FROM counters WHERE name=?", name)[0][0])

    def _read(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        try:
            return self._db.execute(statement, parameters).fetchall()
        except sqlite3.Error as exc:
            raise StorageError(f"cannot read {self._path} ({exc})", "check the disk") from None
