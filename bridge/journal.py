"""The journal: every message with its outcome, on disk before it is acknowledged (`journal.db`).

It is the queue to the database, the quarantine of what was refused, and the memory that
deduplication and clock offsets need. One transaction holds all of that for a batch of messages,
so that a crash anywhere leaves them agreeing. One thread at a time uses a `Journal`.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from bridge.journal_reader import JournalReader
from broker_config.errors import StorageError
from broker_config.sqlite_file import transaction

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from bridge.journal_reader import StoredMessage
    from bridge.outcomes import BootState, Judged
    from bridge.readings import Row
    from broker_config.broker.decision_log import DecisionRecord

MAX_BOOTS = 64
"""Boots remembered a device. One with more has its oldest forgotten, so that a device with a
random boot number cannot fill the disk."""

MAX_PAYLOAD_BYTES = 1_048_576
"""What is kept of a payload that is refused for its size, in bytes."""

_encoder = msgspec.json.Encoder()


class Rejection(NamedTuple):
    """One row that the database does not take, in the database's own words."""

    message_id: int
    position: int
    row: Row
    detail: str


class Journal(JournalReader):
    """The journal file of one bridge, for the one process that writes it."""

    def __init__(self, path: Path) -> None:
        """Open the file, making it where it is missing.

        Raises:
            StorageError: when it cannot be used.
        """
        super().__init__(path, read_only=False)
        self._pending_rows = super().pending_rows()

    def pending_rows(self) -> int:
        """Accepted rows that the database has not confirmed, kept up with every commit."""
        return self._pending_rows

    def _transaction(self) -> AbstractContextManager[sqlite3.Connection]:
        return transaction(
            self._db,
            lambda exc: StorageError(
                f"cannot write {self._path} ({exc})",
                "make room on the disk or make it writable; devices keep what has no receipt",
            ),
        )

    def append(
        self,
        judged: Sequence[Judged],
        boots: Mapping[tuple[str, int], BootState],
        *,
        heard: Mapping[str, int],
        policy: str,
        now_ms: int,
    ) -> None:
        """Write a batch with its outcomes and the memory it changed, in one transaction.

        When this returns the batch survives a power cut.

        Args:
            boots: every (device, boot) that the batch changed.
            heard: enrolled devices that made contact, and when, in ms since 1970 UTC.

        Raises:
            StorageError: nothing was written.
        """
        with self._transaction() as db:
            for message in judged:
                self._append_message(db, message, policy)
            db.executemany(
                "INSERT OR REPLACE INTO boots VALUES (?,?,?,?,?)",
                [
                    (device, boot, _encoder.encode(state.seen.ranges()), state.offset_ms, now_ms)
                    for (device, boot), state in boots.items()
                ],
            )
            for device in {device for device, _ in boots}:
                db.execute(
                    "DELETE FROM boots WHERE device=?1 AND boot IN (SELECT boot FROM boots"
                    " WHERE device=?1 ORDER BY last_ms DESC, boot DESC LIMIT -1 OFFSET ?2)",
                    (device, MAX_BOOTS),
                )
            _heard(db, heard)
            _add(db, "received", sum(m.received for m in judged))
            _add(db, "duplicate", sum(m.duplicates for m in judged))
            _add(db, "refused", sum(m.refused_readings for m in judged))
        self._pending_rows += sum(len(m.rows) for m in judged)

    def _append_message(self, db: sqlite3.Connection, message: Judged, policy: str) -> None:
        delivery = message.delivery
        message_id = db.execute(
            "INSERT INTO messages (received_ms, device, topic, payload, policy, received,"
            " duplicate, refused, accepted, rows) VALUES (?,?,?,?,?,?,?,?,?,?)",
            (
                delivery.received_ms,
                message.device,
                delivery.topic,
                delivery.payload[:MAX_PAYLOAD_BYTES],
                policy,
                message.received,
                message.duplicates,
                message.refused_readings,
                len(message.rows),
                _encoder.encode(message.rows) if message.rows else None,
            ),
        ).lastrowid
        if message.refused:
            db.executemany(
                _INSERT_REFUSAL,
                [
                    (
                        message_id,
                        one.position,
                        delivery.received_ms,
                        message.device,
                        delivery.topic,
                        "",
                        one.refusal.code.name,
                        one.refusal.detail,
                        one.refusal.rule,
                        policy,
                        one.boot,
                        one.n,
                        one.times,
                    )
                    for one in message.refused
                ],
            )

    def append_decisions(
        self, decisions: Sequence[DecisionRecord], *, log_id: int, heard: Mapping[str, int]
    ) -> None:
        """Take over what the broker refused; a refused PUBLISH counts as one reading received.

        Args:
            log_id: which log they are from.
            heard: as for `append`.

        Raises:
            StorageError: nothing was written.
        """
        publishes = sum(d.times for d in decisions if d.code.startswith("publish."))
        with self._transaction() as db:
            db.executemany(
                _INSERT_REFUSAL,
                [
                    (
                        None,
                        0,
                        d.at_ms,
                        d.device,
                        d.topic,
                        d.address,
                        d.code,
                        d.detail,
                        d.rule,
                        d.policy,
                        None,
                        None,
                        d.times,
                    )
                    for d in decisions
                ],
            )
            _heard(db, heard)
            _add(db, "received", publishes)
            _add(db, "refused", publishes)
            db.execute("UPDATE counters SET value=? WHERE name='decision_id'", (decisions[-1].id,))
            db.execute("UPDATE counters SET value=? WHERE name='decision_log'", (log_id,))

    def confirm(
        self,
        messages: Sequence[StoredMessage],
        rejected: Sequence[Rejection],
        *,
        policy: str,
        now_ms: int,
    ) -> None:
        """Move the cursor past `messages`: the database has all of their rows but `rejected`.

        Raises:
            StorageError: nothing was written; the same rows will be forwarded again, onto
                themselves.
        """
        total = sum(len(message.rows) for message in messages)
        lost = {(bad.message_id, bad.position) for bad in rejected}
        devices = {
            row.device
            for message in messages
            for position, row in enumerate(message.rows)
            if (message.id, position) not in lost
        }
        with self._transaction() as db:
            db.executemany(
                _INSERT_REFUSAL,
                [
                    (
                        bad.message_id,
                        bad.position,
                        now_ms,
                        bad.row.device,
                        "",
                        "",
                        "store.rejected",
                        bad.detail,
                        "",
                        policy,
                        None,
                        None,
                        1,
                    )
                    for bad in rejected
                ],
            )
            db.executemany(
                "UPDATE devices SET stored_ms=? WHERE device=?", [(now_ms, d) for d in devices]
            )
            _add(db, "stored", total - len(rejected))
            _add(db, "refused", len(rejected))
            db.execute("UPDATE counters SET value=? WHERE name='forwarded_id'", (messages[-1].id,))
        self._pending_rows -= total


_INSERT_REFUSAL = (
    "INSERT INTO refusals (message_id, position, at_ms, device, topic, address, code, detail,"
    " rule, policy, boot, n, times) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)"
)


def _add(db: sqlite3.Connection, counter: str, amount: int) -> None:
    if amount:
        db.execute("UPDATE counters SET value=value+? WHERE name=?", (amount, counter))


def _heard(db: sqlite3.Connection, last_ms_of: Mapping[str, int]) -> None:
    db.executemany(
        "INSERT INTO devices (device, first_ms, last_ms) VALUES (?1, ?2, ?2)"
        " ON CONFLICT (device) DO UPDATE SET last_ms=max(last_ms, excluded.last_ms)",
        list(last_ms_of.items()),
    )
