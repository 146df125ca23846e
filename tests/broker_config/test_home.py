from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from broker_config.errors import HomeError
from broker_config.home import Home, ensure_home, require_home, write_private
from broker_config.policy import parse_policy
from broker_config.settings import Settings, load_settings

from . import children

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(name="open_umask")
def fixture_open_umask() -> Iterator[None]:
    """The widest umask: what is private then was made private."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.fixture(name="public_folder")
def fixture_public_folder() -> Iterator[Path]:
    """A folder that every user can reach; pytest's own is for its user only."""
    folder = Path(tempfile.mkdtemp(prefix="home-"))
    folder.chmod(0o755)
    yield folder
    for path in (folder, *folder.rglob("*")):
        if path.is_dir():
            path.chmod(0o700)
    shutil.rmtree(folder)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.usefixtures("open_umask")
def test_a_home_is_made_for_its_owner_only(tmp_path: Path) -> None:
    home = Home(tmp_path / "deep" / "home")
    assert ensure_home(home)
    folders = [home.path, home.certs_folder, home.run_folder]
    assert [mode(folder) for folder in folders] == [0o700] * 3
    made = [path for path in home.path.rglob("*") if path.is_file()]
    assert sorted(made) == [home.settings_file, home.policy_file]
    assert [mode(file) for file in made] == [0o600] * 2


def test_a_new_home_holds_the_shipped_policy_and_the_default_settings(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    ensure_home(home)
    shipped = files("broker_config").joinpath("policy_default.toml").read_bytes()
    assert home.policy_file.read_bytes() == shipped
    assert parse_policy(home.policy_file.read_text("utf-8")).rules
    assert load_settings(home, {}, {}) == Settings()
    require_home(home)


@pytest.mark.parametrize("kept", [["iot.toml"], ["policy.toml"], ["iot.toml", "policy.toml"]])
def test_what_is_there_is_never_overwritten(tmp_path: Path, kept: list[str]) -> None:
    home = Home(tmp_path)
    for name in kept:
        (tmp_path / name).write_text("# mine\n")
    assert not ensure_home(home)
    for file in (home.settings_file, home.policy_file):
        assert (file.read_text("utf-8") == "# mine\n") is (file.name in kept)


def test_making_a_home_again_changes_nothing(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    assert ensure_home(home)
    before = {path: path.stat().st_mtime_ns for path in home.path.rglob("*")}
    assert not ensure_home(home)
    assert {path: path.stat().st_mtime_ns for path in home.path.rglob("*")} == before


def test_a_file_is_no_home(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(HomeError, match=f"{file} is not a folder: name another one with --home"):
        ensure_home(Home(file))
    with pytest.raises(HomeError, match="Not a directory"):
        ensure_home(Home(file / "home"))
    with pytest.raises(HomeError, match="is no home folder"):
        require_home(Home(file))


def test_a_home_that_is_required_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(HomeError, match="start one there with `iotctl up`"):
        require_home(Home(tmp_path / "home"))
    assert list(tmp_path.iterdir()) == []


def as_nobody(verb: str, path: Path) -> str:
    """What a user without rights is told."""
    result = children.run("home-as-nobody", verb, path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("\n") == 1
    return result.stdout.strip()


def cannot_write(path: Path) -> str:
    return (
        f"HomeError cannot write the home folder {path} (Permission denied): make it writable "
        "for this user, or name another one with --home or IOT_HOME"
    )


def test_a_folder_that_is_not_writable_is_said(public_folder: Path) -> None:
    public_folder.chmod(0o555)
    assert as_nobody("ensure", public_folder / "home") == cannot_write(public_folder / "home")
    assert as_nobody("ensure", public_folder) == cannot_write(public_folder)
    assert list(public_folder.iterdir()) == []


def test_a_whole_home_that_is_not_writable_is_said(public_folder: Path) -> None:
    ensure_home(Home(public_folder))
    public_folder.chmod(0o555)
    assert as_nobody("ensure", public_folder) == cannot_write(public_folder)


@pytest.mark.parametrize("verb", ["ensure", "require"])
def test_a_home_below_a_folder_of_somebody_else_is_said(public_folder: Path, verb: str) -> None:
    closed = public_folder / "closed"
    ensure_home(Home(closed / "home"))
    closed.chmod(0o000)
    assert as_nobody(verb, closed / "home").startswith("HomeError ")


def test_a_home_can_be_made_by_any_user(public_folder: Path) -> None:
    """The other answers of `as_nobody` would mean nothing if it could never succeed."""
    ensure_home(Home(public_folder))
    for path in (public_folder, *public_folder.rglob("*")):
        if os.geteuid() == 0:
            os.chown(path, children.NOBODY, children.NOBODY)
    assert as_nobody("ensure", public_folder) == "ok"
    assert as_nobody("require", public_folder) == "ok"


@pytest.mark.usefixtures("open_umask")
def test_a_private_file_is_replaced_whole(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_bytes(b"old")
    write_private(target, b"new")
    assert target.read_bytes() == b"new"
    assert mode(target) == 0o600
    assert list(tmp_path.iterdir()) == [target]


def test_a_private_file_that_cannot_be_written_stays_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    target = tmp_path / "file"
    target.write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_private(target, b"new")
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]
    with pytest.raises(HomeError, match="No space left on device"):
        ensure_home(Home(tmp_path / "home"))
