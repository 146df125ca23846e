from __future__ import annotations

import os
import sqlite3
import stat
import tempfile
import threading
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from broker_config.errors import Disposition, StorageError
from broker_config.registry import Enrolment, Registry
from broker_config.sqlite_file import APPLICATION_ID, BUSY_TIMEOUT_MS, open_sqlite, transaction

from .children import run, running
from .strategies import UNTIMED

SCHEMA = "CREATE TABLE IF NOT EXISTS things (name TEXT PRIMARY KEY)"
OPENERS = 4
ROUNDS = 60


def make(path: Path, *names: str) -> None:
    with closing(open_sqlite(path, SCHEMA, version=1)) as db:
        db.executemany("INSERT INTO things VALUES (?)", [(name,) for name in names])


def names_in(path: Path, *, read_only: bool = False) -> list[str]:
    with closing(open_sqlite(path, SCHEMA, version=1, read_only=read_only)) as db:
        return [row[0] for row in db.execute("SELECT name FROM things ORDER BY name")]


def refusal(path: Path, *, version: int = 1, read_only: bool = False) -> str:
    """The one line with which opening fails."""
    with pytest.raises(StorageError) as caught:
        open_sqlite(path, SCHEMA, version=version, read_only=read_only)
    assert caught.value.disposition is Disposition.RETRY
    line = str(caught.value)
    assert "\n" not in line
    assert str(path) in line
    return line


def test_what_was_written_is_there_when_it_is_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    make(path, "one", "two")
    assert names_in(path) == ["one", "two"]


def test_a_commit_is_durable_and_writers_wait_for_each_other(tmp_path: Path) -> None:
    with closing(open_sqlite(tmp_path / "a.db", SCHEMA, version=1)) as db:
        pragmas = {
            name: db.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("journal_mode", "synchronous", "busy_timeout", "application_id")
        }
    full = 2  # https://www.sqlite.org/pragma.html#pragma_synchronous
    assert pragmas == {
        "journal_mode": "wal",
        "synchronous": full,
        "busy_timeout": BUSY_TIMEOUT_MS,
        "application_id": APPLICATION_ID,
    }
    assert APPLICATION_ID.to_bytes(4, "big") == b"ioti"


def test_what_a_killed_process_committed_stays(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    with running("enrol", path, "esp-1") as child:
        assert child.ready == "enrolled"
        child.kill()
    with closing(Registry(path)) as registry:
        assert [entry.name for entry in registry.entries()] == ["esp-1"]


def test_every_file_of_a_database_is_for_its_owner_only(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with closing(open_sqlite(tmp_path / "a.db", SCHEMA, version=1)) as db:
            db.execute("INSERT INTO things VALUES ('one')")
            modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    finally:
        os.umask(before)
    assert modes == {"a.db": 0o600, "a.db-wal": 0o600, "a.db-shm": 0o600}


def test_a_database_of_another_program_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE bookmarks (url TEXT)")
    before = path.read_bytes()
    assert "is a database of another program: set it aside" in refusal(path)
    assert "is a database of another program" in refusal(path, read_only=True)
    assert path.read_bytes() == before


def test_an_empty_database_with_another_programs_mark_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA application_id=252006673")  # Fossil's, from SQLite's own list
    before = path.read_bytes()
    assert "is a database of another program" in refusal(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("version", [1, 3])
def test_another_version_is_left_alone(tmp_path: Path, version: int) -> None:
    path = tmp_path / "a.db"
    open_sqlite(path, SCHEMA, version=2).close()
    before = path.read_bytes()
    assert f"has schema version 2, this program reads {version}" in refusal(path, version=version)
    assert path.read_bytes() == before


@UNTIMED
@given(st.binary(min_size=2, max_size=2_000), st.booleans())
@example(b"\n\n", False)
@example(b"SQLite format 3\x00", True)
@example(b"SQLite format 3\x00" + bytes(600), False)
def test_what_is_no_database_is_left_alone(content: bytes, read_only: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.db"
        path.write_bytes(content)
        assert "set the file aside" in refusal(path, read_only=read_only)
        assert path.read_bytes() == content
        assert list(path.parent.iterdir()) == [path]


def test_a_damaged_database_is_said(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    make(path, "one")
    content = path.read_bytes()
    path.write_bytes(content[:200] + bytes(len(content) - 200))
    assert "cannot use" in refusal(path)


def test_a_file_that_is_not_there_is_not_made_by_reading(tmp_path: Path) -> None:
    assert "cannot open" in refusal(tmp_path / "a.db", read_only=True)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_missing_or_in_its_place_is_said(tmp_path: Path) -> None:
    assert "cannot open" in refusal(tmp_path / "none" / "a.db")
    assert "cannot open" in refusal(tmp_path)


@pytest.mark.parametrize("name", ["a?mode=ro.db", "a#b.db", "100%25.db", "a b.db", "ä.db"])
def test_any_file_name_is_a_file_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    make(path, "one")
    assert names_in(path, read_only=True) == ["one"]
    parts = {f"{name}{suffix}" for suffix in ("", "-wal", "-shm")}
    assert {found.name for found in tmp_path.iterdir()} <= parts


def test_a_reader_sees_commits_and_cannot_write(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    make(path, "one")
    with (
        closing(open_sqlite(path, SCHEMA, version=1, read_only=True)) as reader,
        closing(open_sqlite(path, SCHEMA, version=1)) as writer,
    ):
        writer.execute("INSERT INTO things VALUES ('two')")
        assert reader.execute("SELECT count(*) FROM things").fetchone() == (2,)
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            reader.execute("INSERT INTO things VALUES ('three')")


def test_a_connection_may_go_to_another_thread(tmp_path: Path) -> None:
    with closing(open_sqlite(tmp_path / "a.db", SCHEMA, version=1)) as db:
        thread = threading.Thread(target=db.execute, args=("INSERT INTO things VALUES ('x')",))
        thread.start()
        thread.join()
        assert db.execute("SELECT name FROM things").fetchall() == [("x",)]


def failed(exc: sqlite3.Error) -> StorageError:
    return StorageError(f"cannot write ({exc})")


def interrupted(db: sqlite3.Connection) -> None:
    with transaction(db, failed) as writing:
        writing.execute("INSERT INTO things VALUES ('c')")
        raise ZeroDivisionError


def test_a_transaction_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with closing(open_sqlite(path, SCHEMA, version=1)) as db:
        with transaction(db, failed) as writing:
            writing.executemany("INSERT INTO things VALUES (?)", [("a",), ("b",)])
        with pytest.raises(ZeroDivisionError):
            interrupted(db)
        with (
            pytest.raises(StorageError, match=r"cannot write .*UNIQUE"),
            transaction(db, failed) as writing,
        ):
            writing.executemany("INSERT INTO things VALUES (?)", [("d",), ("a",)])
        with transaction(db, failed) as writing:
            writing.execute("INSERT INTO things VALUES ('e')")
        assert names_in(path) == ["a", "b", "e"]


def test_a_transaction_on_a_closed_file_is_the_callers_error(tmp_path: Path) -> None:
    db = open_sqlite(tmp_path / "a.db", SCHEMA, version=1)
    db.close()
    with pytest.raises(StorageError, match="cannot write"), transaction(db, failed):
        pytest.fail("a closed file was written")


def test_a_file_that_is_open_twice_in_one_process_keeps_its_commits(tmp_path: Path) -> None:
    """POSIX locks go when the process closes any descriptor of the file.

    https://www.sqlite.org/howtocorrupt.html section 2.2: without them the next process that
    closes the file removes the log that this one still writes to.
    """
    path = tmp_path / "registry.db"
    with closing(Registry(path)) as first, closing(Registry(path)):
        assert run("names", path).returncode == 0
        first.add(Enrolment("esp-1"), now_ms=1)
        seen = run("names", path)
    assert (seen.stdout, seen.stderr) == ("esp-1\n", "")


def test_several_processes_may_make_the_same_file_at_once(tmp_path: Path) -> None:
    """`iotctl up` starts broker and bridge together, and both open a new registry."""
    answers: list[str] = []
    with ExitStack() as stack:
        openers = [stack.enter_context(running("open-registries")) for _ in range(OPENERS)]
        for number in range(ROUNDS):
            for opener in openers:
                opener.ask(str(tmp_path / f"{number}.db"))
            answers += [opener.stdout.readline().strip() for opener in openers]
    assert [answer for answer in answers if answer != "ok"] == []
    assert len(answers) == OPENERS * ROUNDS
