from __future__ import annotations

import os
import re
import stat
from typing import TYPE_CHECKING

import pytest

from broker_config.errors import ConfigurationError
from broker_config.home import Home, ensure_home
from broker_config.run_files import Address, address_of, announce, retract, sole_process

from .children import running

if TYPE_CHECKING:
    from pathlib import Path

PORT = 18_831


@pytest.fixture(name="home")
def fixture_home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    ensure_home(home)
    return home


def test_a_second_process_is_told_the_pid_of_the_first(home: Home) -> None:
    with running("hold", home.path, "bridge", 0) as holder:
        assert holder.ready == "holding"
        said = f"{home.path} already has a running bridge (pid {holder.pid})"
        with (
            pytest.raises(ConfigurationError, match=re.escape(said)) as caught,
            sole_process(home, "bridge"),
        ):
            pytest.fail("two processes hold one lock")
        assert "\n" not in str(caught.value)


def test_the_same_process_cannot_be_it_twice(home: Home) -> None:
    with (
        sole_process(home, "up"),
        pytest.raises(ConfigurationError, match=rf"pid {os.getpid()}\)"),
        sole_process(home, "up"),
    ):
        pytest.fail("two holders of one lock")


def test_other_kinds_and_other_homes_do_not_exclude_each_other(home: Home, tmp_path: Path) -> None:
    other = Home(tmp_path / "other")
    ensure_home(other)
    with (
        running("hold", home.path, "bridge", 0),
        sole_process(home, "broker"),
        sole_process(home, "up"),
        sole_process(other, "bridge"),
    ):
        assert {path.name for path in home.run_folder.iterdir()} == {
            "bridge.lock",
            "broker.lock",
            "up.lock",
        }


def test_a_killed_process_frees_its_place(home: Home) -> None:
    with running("hold", home.path, "bridge", PORT) as holder:
        holder.kill()
        with sole_process(home, "bridge"):
            pass


def test_a_process_that_ended_frees_its_place(home: Home) -> None:
    with running("hold", home.path, "bridge", PORT) as holder:
        holder.end()
        with sole_process(home, "bridge"):
            pass


def test_an_error_inside_frees_the_place(home: Home) -> None:
    with pytest.raises(ZeroDivisionError), sole_process(home, "up"):
        raise ZeroDivisionError
    with sole_process(home, "up"):
        pass


def test_the_lock_is_for_its_owner_only(home: Home) -> None:
    before = os.umask(0)
    try:
        with sole_process(home, "up"):
            announce(home, "up", Address(1, "127.0.0.1", PORT))
            modes = [stat.S_IMODE(path.stat().st_mode) for path in home.run_folder.iterdir()]
            assert modes == [0o600] * 2
    finally:
        os.umask(before)


def test_the_address_of_a_living_process(home: Home) -> None:
    with running("hold", home.path, "bridge", PORT) as holder:
        assert address_of(home, "bridge") == Address(holder.pid, "127.0.0.1", PORT)
        assert address_of(home, "broker") is None


def test_a_dead_process_has_no_address(home: Home) -> None:
    with running("hold", home.path, "bridge", PORT) as holder:
        assert address_of(home, "bridge") is not None
        holder.kill()
        assert address_of(home, "bridge") is None


def test_a_process_that_is_not_ready_has_no_address(home: Home) -> None:
    with running("hold", home.path, "bridge", 0):
        assert address_of(home, "bridge") is None


def test_a_process_that_is_not_ready_does_not_have_the_address_of_a_killed_one(home: Home) -> None:
    with running("hold", home.path, "bridge", PORT) as first:
        first.kill()
    with running("hold", home.path, "bridge", 0):
        assert address_of(home, "bridge") is None


def test_an_address_that_was_taken_back_is_gone(home: Home) -> None:
    with sole_process(home, "bridge"):
        announce(home, "bridge", Address(os.getpid(), "127.0.0.1", PORT))
        assert address_of(home, "bridge") == Address(os.getpid(), "127.0.0.1", PORT)
        retract(home, "bridge")
        assert address_of(home, "bridge") is None
        retract(home, "bridge")


def test_what_never_ran_has_no_address(home: Home, tmp_path: Path) -> None:
    assert address_of(home, "bridge") is None
    assert address_of(Home(tmp_path / "nowhere"), "bridge") is None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"pid": 1}', b"\xff"])
def test_an_address_file_that_says_nothing_is_no_address(home: Home, content: bytes) -> None:
    with sole_process(home, "bridge"):
        (home.run_folder / "bridge.json").write_bytes(content)
        assert address_of(home, "bridge") is None


def test_asking_for_the_address_does_not_keep_a_process_out(home: Home) -> None:
    for _ in range(3):
        address_of(home, "bridge")
        with sole_process(home, "bridge"):
            pass
