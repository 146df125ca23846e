"""The broker's durable log of what it refused (`broker.db`).

The broker appends; the bridge reads what is new and puts it into the ledger. Equal refusals that
happen within one flush are one row with a count, so that a storm of them stays small.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, NamedTuple

from broker_config.errors import StorageError
from broker_config.sqlite_file import open_sqlite, transaction

if TYPE_CHECKING:
    from pathlib import Path

    from broker_config.refusals import Refusal

MAX_PENDING = 1_000
"""Most distinct refusals kept between two flushes; further ones lose their particulars."""

MAX_ROWS = 100_000
"""The log keeps the newest rows only."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS decisions (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at_ms INTEGER NOT NULL,
    code TEXT NOT NULL,
    device TEXT NOT NULL,
    address TEXT NOT NULL,
    topic TEXT NOT NULL,
    rule TEXT NOT NULL,
    detail TEXT NOT NULL,
    policy TEXT NOT NULL,
    times INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS log (id INTEGER NOT NULL);
INSERT INTO log SELECT abs(random()) WHERE NOT EXISTS (SELECT 1 FROM log)
"""
_VERSION = 1
_COLUMNS = "at_ms, code, device, address, topic, rule, detail, policy, times"


class DecisionRecord(NamedTuple):
    """One refusal by the broker, or `times` equal ones.

    Attributes:
        id: position in the log.
        at_ms: when the last of them happened, ms since 1970 UTC.
        device: the identity that the client claimed; empty when it claimed none.
        policy: the revision that judged.
    """

    id: int
    at_ms: int
    code: str
    device: str
    address: str
    topic: str
    rule: str
    detail: str
    policy: str
    times: int


class PendingDecisions:
    """Refusals since the last flush, equal ones added up. Pure bookkeeping in memory."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str, str, str, str], DecisionRecord] = {}

    def add(
        self, refusal: Refusal, *, at_ms: int, device: str, address: str, topic: str, policy: str
    ) -> None:
        """Add one refusal."""
        self._put(
            DecisionRecord(
                0,
                at_ms,
                refusal.code.name,
                device,
                address,
                topic,
                refusal.rule,
                refusal.detail,
                policy,
                1,
            )
        )

    def take(self) -> list[DecisionRecord]:
        """Everything since the last take."""
        rows = list(self._rows.values())
        self._rows.clear()
        return rows

    def give_back(self, rows: list[DecisionRecord]) -> None:
        """Put rows back that could not be written; what came since is added to them."""
        newer = self.take()
        for row in [*rows, *newer]:
            self._put(row)

    def _put(self, row: DecisionRecord) -> None:
        key = (row.code, row.device, row.address, row.topic, row.rule)
        if key not in self._rows and len(self._rows) >= MAX_PENDING:
            row = row._replace(device="", address="", topic="", rule="")
            key = (row.code, "", "", "", "")
        known = self._rows.get(key)
        self._rows[key] = row._replace(times=row.times + known.times) if known else row


class DecisionLog:
    """The file itself."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        """Open the log.

        Raises:
            StorageError: when the file cannot be used, or is to be read and not there.
        """
        self._path = path
        self._db = open_sqlite(path, _SCHEMA, version=_VERSION, read_only=read_only)
        self.log_id: int = self._db.execute("SELECT id FROM log").fetchone()[0]
        """A random number that tells this log from one that was set aside."""

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def append(self, rows: list[DecisionRecord]) -> None:
        """Write rows and forget the oldest beyond `MAX_ROWS`.

        Raises:
            StorageError: nothing was written.
        """
        if not rows:
            return
        with transaction(
            self._db,
            lambda exc: StorageError(f"cannot write {self._path} ({exc})", "check the disk"),
        ) as db:
            db.executemany(
                f"INSERT INTO decisions ({_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?)",
                [row[1:] for row in rows],
            )
            db.execute(
                "DELETE FROM decisions WHERE id <= (SELECT max(id) FROM decisions) - ?",
                (MAX_ROWS,),
            )

    def read_after(self, last_id: int, limit: int) -> list[DecisionRecord]:
        """The next rows after `last_id`, oldest first.

        Raises:
            StorageError: when the file cannot be read.
        """
        try:
            rows = self._db.execute(
                f"SELECT id, {_COLUMNS} FROM decisions WHERE id > ? ORDER BY id LIMIT ?",
                (last_id, limit),
            ).fetchall()
        except sqlite3.Error as exc:
            raise StorageError(f"cannot read {self._path} ({exc})", "check the disk") from None
        return [DecisionRecord(*row) for row in rows]
