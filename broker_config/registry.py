"""Who is enrolled: devices, bridges and people, with their hashed credentials (`registry.db`).

A secret is generated here, returned once, and kept only as a hash (`passwords.py`).
"""

from __future__ import annotations

import secrets
import sqlite3
from typing import TYPE_CHECKING, Any, NamedTuple

from broker_config import passwords
from broker_config.errors import RegistryError, StorageError
from broker_config.policy import Role
from broker_config.sqlite_file import open_sqlite, transaction
from broker_config.topics import is_identity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from contextlib import AbstractContextManager
    from pathlib import Path

DEFAULT_INTERVAL_S = 60.0
"""How often a device is expected to report when nothing else was said, in seconds."""

MAX_SITE_CHARS = 64

_SCHEMA = """
CREATE TABLE IF NOT EXISTS principals (
    name TEXT PRIMARY KEY,
    role TEXT NOT NULL,
    site TEXT NOT NULL,
    interval_s REAL NOT NULL,
    password_hash TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    rotated_ms INTEGER NOT NULL,
    revoked_ms INTEGER,
    simulated INTEGER NOT NULL
) WITHOUT ROWID
"""
_VERSION = 1
_COLUMNS = (
    "name, role, site, interval_s, password_hash, created_ms, rotated_ms, revoked_ms, simulated"
)


class Entry(NamedTuple):
    """One enrolled principal.

    Attributes:
        name: device id, MQTT user name and client id.
        interval_s: how often it is expected to send a reading, in seconds.
        password_hash: `$7$` PBKDF2 form.
        created_ms, rotated_ms, revoked_ms: ms since 1970 UTC; `revoked_ms` None while valid.
        simulated: it was enrolled by `iotctl simulate`, which may take its name again.
    """

    name: str
    role: Role
    site: str
    interval_s: float
    password_hash: str
    created_ms: int
    rotated_ms: int
    revoked_ms: int | None
    simulated: bool = False


class Enrolment(NamedTuple):
    """What is asked for when somebody is enrolled."""

    name: str
    site: str = ""
    interval_s: float = DEFAULT_INTERVAL_S
    role: Role = Role.DEVICE
    simulated: bool = False


class Credential(NamedTuple):
    """A name with its secret, as it is shown once."""

    name: str
    secret: str


def new_secret() -> str:
    """256 random bits, as 43 characters that need no quoting in a shell or URL."""
    return secrets.token_urlsafe(passwords.SECRET_BYTES)


def check_enrolment(wanted: Enrolment) -> None:
    """Check an enrolment without writing anything.

    Raises:
        RegistryError: with the field and what is wrong with it.
    """
    if not is_identity(wanted.name):
        raise RegistryError(
            f"{wanted.name!r} cannot be a device id",
            "use 1 to 64 letters, digits, '_', '.', '-', beginning with a letter or digit",
        )
    if not 0.1 <= wanted.interval_s <= 86_400:  # noqa: PLR2004 -- 10 Hz to once a day
        raise RegistryError(
            f"{wanted.name}: interval {wanted.interval_s:g} s", "use 0.1 s to 86400 s (a day)"
        )
    site = wanted.site
    if len(site) > MAX_SITE_CHARS or not site.isprintable() or "\\" in site:
        raise RegistryError(
            f"{wanted.name}: site {site!r}",
            f"use at most {MAX_SITE_CHARS} printable characters and no backslash",
        )


class Registry:
    """The registry file of one home; safe to open in several processes at once."""

    def __init__(self, path: Path) -> None:
        """Open the file, making it where it is missing.

        Raises:
            StorageError: when the file cannot be used.
        """
        self._db = open_sqlite(path, _SCHEMA, version=_VERSION)
        self._path = path

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def _transaction(self) -> AbstractContextManager[sqlite3.Connection]:
        return transaction(
            self._db,
            lambda exc: StorageError(f"cannot write {self._path} ({exc})", "check disk and rights"),
        )

    def add(self, wanted: Enrolment, *, now_ms: int) -> Credential:
        """Enrol one principal and return its secret, which is shown only here.

        Raises:
            RegistryError: bad name, interval or site, or already enrolled.
        """
        return next(iter(self.add_many([wanted], now_ms=now_ms)))

    def add_many(
        self,
        wanted: Iterable[Enrolment],
        *,
        now_ms: int,
        on_progress: Callable[[int], None] | None = None,
    ) -> list[Credential]:
        """Enrol many principals in one transaction: all of them, or none.

        Args:
            on_progress: called with the number enrolled so far.

        Raises:
            RegistryError: as `add`; nothing has been enrolled then.
        """
        issued: list[Credential] = []
        with self._transaction() as db:
            for entry in wanted:
                check_enrolment(entry)
                credential, encoded = _issue(entry.name)
                try:
                    _insert(db, entry, encoded, now_ms)
                except sqlite3.IntegrityError:
                    raise RegistryError(
                        f"{entry.name} is already enrolled",
                        f"issue a new secret with `iotctl devices rotate {entry.name}`",
                    ) from None
                issued.append(credential)
                if on_progress is not None:
                    on_progress(len(issued))
        return issued

    def rotate(self, name: str, *, now_ms: int) -> Credential:
        """Give a principal a new secret; the old one is refused from now on. Ends a revocation.

        Raises:
            RegistryError: when nobody of that name is enrolled.
        """
        credential, encoded = _issue(name)
        with self._transaction() as db:
            changed = _update_secret(db, name, encoded, now_ms)
        if not changed:
            raise _unknown(name)
        return credential

    def ensure(self, wanted: Enrolment, *, now_ms: int) -> Credential:
        """Enrol, or rotate where already enrolled: a fresh secret either way.

        Raises:
            RegistryError: when the name is enrolled in another role.
        """
        return self.ensure_many([wanted], now_ms=now_ms)[0]

    def ensure_many(
        self,
        wanted: Iterable[Enrolment],
        *,
        now_ms: int,
        on_progress: Callable[[int], None] | None = None,
    ) -> list[Credential]:
        """`ensure` for many principals in one transaction: all of them, or none.

        Raises:
            RegistryError: a name is malformed or enrolled in another role.
        """
        issued: list[Credential] = []
        with self._transaction() as db:
            for entry in wanted:
                check_enrolment(entry)
                known = db.execute(
                    "SELECT role, simulated FROM principals WHERE name=?", (entry.name,)
                ).fetchone()
                if known is not None and entry.simulated and not known[1]:
                    raise RegistryError(
                        f"{entry.name} is a real device", "choose another name for simulated ones"
                    )
                if known is not None and known[0] != entry.role.value:
                    raise RegistryError(
                        f"{entry.name} is enrolled as {known[0]}, not as {entry.role}",
                        "choose another name",
                    )
                credential, encoded = _issue(entry.name)
                if known is None:
                    _insert(db, entry, encoded, now_ms)
                else:
                    _update_secret(db, entry.name, encoded, now_ms)
                    db.execute(
                        "UPDATE principals SET site=?, interval_s=? WHERE name=?",
                        (entry.site, entry.interval_s, entry.name),
                    )
                issued.append(credential)
                if on_progress is not None:
                    on_progress(len(issued))
        return issued

    def revoke(self, name: str, *, now_ms: int) -> None:
        """Refuse a principal from now on; its history stays.

        Raises:
            RegistryError: when nobody of that name is enrolled.
        """
        self.revoke_many([name], now_ms=now_ms)

    def revoke_many(self, names: Iterable[str], *, now_ms: int) -> None:
        """`revoke` for many principals in one transaction: all of them, or none.

        Raises:
            RegistryError: when one of them is not enrolled.
        """
        with self._transaction() as db:
            for name in names:
                changed = db.execute(
                    "UPDATE principals SET revoked_ms=coalesce(revoked_ms, ?) WHERE name=?",
                    (now_ms, name),
                ).rowcount
                if not changed:
                    raise _unknown(name)

    def get(self, name: str) -> Entry | None:
        """The entry of one principal, or None."""
        row = self._read(f"SELECT {_COLUMNS} FROM principals WHERE name=?", (name,))
        return _entry(row[0]) if row else None

    def entries(self, role: Role | None = None) -> list[Entry]:
        """Everyone enrolled, by name; of one role where given."""
        if role is None:
            rows = self._read(f"SELECT {_COLUMNS} FROM principals ORDER BY name", ())
        else:
            rows = self._read(
                f"SELECT {_COLUMNS} FROM principals WHERE role=? ORDER BY name", (role.value,)
            )
        return [_entry(row) for row in rows]

    def data_version(self) -> int:
        """A number that changes when another process has changed the file."""
        return int(self._read("PRAGMA data_version", ())[0][0])

    def _read(self, statement: str, parameters: tuple[str, ...]) -> list[tuple[Any, ...]]:
        try:
            return self._db.execute(statement, parameters).fetchall()
        except sqlite3.Error as exc:
            raise StorageError(f"cannot read {self._path} ({exc})", "check the disk") from None


def _issue(name: str) -> tuple[Credential, str]:
    secret = new_secret()
    return (
        Credential(name, secret),
        passwords.hash_password(secret, secrets.token_bytes(passwords.SALT_BYTES)),
    )


def _insert(db: sqlite3.Connection, entry: Enrolment, encoded: str, now_ms: int) -> None:
    db.execute(
        f"INSERT INTO principals ({_COLUMNS}) VALUES (?,?,?,?,?,?,?,NULL,?)",
        (
            entry.name,
            entry.role.value,
            entry.site,
            entry.interval_s,
            encoded,
            now_ms,
            now_ms,
            entry.simulated,
        ),
    )


def _update_secret(db: sqlite3.Connection, name: str, encoded: str, now_ms: int) -> int:
    """Rows changed: 0 when nobody of that name is enrolled."""
    return db.execute(
        "UPDATE principals SET password_hash=?, rotated_ms=?, revoked_ms=NULL WHERE name=?",
        (encoded, now_ms, name),
    ).rowcount


def _unknown(name: str) -> RegistryError:
    return RegistryError(f"{name} is not enrolled", "see `iotctl devices list`")


def _entry(row: tuple[Any, ...]) -> Entry:
    return Entry(*row)._replace(role=Role(row[1]), simulated=bool(row[8]))
