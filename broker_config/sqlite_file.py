"""Open one of our SQLite files: the same durability, the same permissions, the same checks.

WAL with `synchronous=FULL`: a commit that returned survives a power cut
(https://www.sqlite.org/pragma.html#pragma_synchronous).
"""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from broker_config.errors import IotError, StorageError
from broker_config.home import FILE_MODE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

APPLICATION_ID = 0x696F7469
""""ioti" in ASCII: marks a file as ours (https://www.sqlite.org/pragma.html#pragma_application_id)."""

BUSY_TIMEOUT_MS = 10_000
"""How long a writer waits for another process' transaction, in ms."""


BUSY_PAUSE_S = 0.01
"""Pause between two attempts where SQLite itself does not wait, in seconds."""


def open_sqlite(
    path: Path, schema: str, *, version: int, read_only: bool = False
) -> sqlite3.Connection:
    """Open, and where needed make, a database file of ours.

    The connection is in autocommit mode: transactions are begun explicitly. It may be used from
    any thread, by one thread at a time.

    Args:
        schema: `CREATE ... IF NOT EXISTS` statements.
        version: the schema's number, kept in `user_version`.

    Raises:
        StorageError: when the file is not ours, of another version, damaged or not accessible.
    """
    try:
        if read_only:
            connection = sqlite3.connect(
                f"{path.resolve().as_uri()}?mode=ro",
                uri=True,
                isolation_level=None,
                check_same_thread=False,
            )
        else:
            _make_private(path)
            connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    except (OSError, sqlite3.Error) as exc:
        raise StorageError(
            f"cannot open {path} ({exc})", "check that it exists and is yours"
        ) from None
    try:
        connection.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
        _check_ownership(connection, path, version)
        if not read_only:
            _use_wal(connection)
            connection.execute("PRAGMA synchronous=FULL")
            connection.executescript(
                f"BEGIN IMMEDIATE; {schema};"
                f"PRAGMA application_id={APPLICATION_ID}; PRAGMA user_version={version}; COMMIT;"
            )
    except sqlite3.Error as exc:
        connection.close()
        raise StorageError(
            f"cannot use {path} ({exc})", "set the file aside and start again"
        ) from None
    except IotError:
        connection.close()
        raise
    return connection


def _use_wal(connection: sqlite3.Connection) -> None:
    """Switch to WAL; SQLite does not wait for another process that does the same just now."""
    until = time.monotonic() + BUSY_TIMEOUT_MS / 1000
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as exc:
            if exc.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
            time.sleep(BUSY_PAUSE_S)
        else:
            return


@contextmanager
def transaction(
    connection: sqlite3.Connection, failed: Callable[[sqlite3.Error], IotError]
) -> Iterator[sqlite3.Connection]:
    """One write transaction: all of the block is on disk when it ends, or nothing.

    Args:
        failed: makes the error to raise from SQLite's.

    Raises:
        IotError: what `failed` made; nothing was written.
    """
    try:
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
    except sqlite3.Error as exc:
        raise failed(exc) from None


def _make_private(path: Path) -> None:
    """Make an empty file that only its owner can read.

    A file that is there is not touched: closing any descriptor of it would drop the locks that
    other connections of this process hold (https://www.sqlite.org/howtocorrupt.html 2.2).
    """
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, FILE_MODE))


def _check_ownership(connection: sqlite3.Connection, path: Path, version: int) -> None:
    connection.execute("BEGIN")  # one instant: another process may be making the file
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    found = connection.execute("PRAGMA user_version").fetchone()[0]
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    connection.execute("COMMIT")
    if not application and not found and not tables:
        return
    if application != APPLICATION_ID:
        raise StorageError(f"{path} is a database of another program", "set it aside")
    if found != version:
        raise StorageError(
            f"{path} has schema version {found}, this program reads {version}",
            "run the version of the program that wrote it",
        )
