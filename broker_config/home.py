"""The home folder: where every file of one system lives, and how it is made.

`iot.toml policy.toml registry.db broker.db journal.db readings.db certs/ run/`. All of it is
readable by its owner only.
"""

from __future__ import annotations

import os
from importlib.resources import files
from typing import TYPE_CHECKING, NamedTuple

from broker_config.errors import HomeError, PolicyError
from broker_config.policy import Policy, parse_policy

if TYPE_CHECKING:
    from pathlib import Path

FOLDER_MODE = 0o700
FILE_MODE = 0o600


class Home(NamedTuple):
    """The paths of one home folder."""

    path: Path

    @property
    def settings_file(self) -> Path:
        """Ports, paths, the database: `iot.toml`."""
        return self.path / "iot.toml"

    @property
    def policy_file(self) -> Path:
        """Everything that can turn a device away: `policy.toml`."""
        return self.path / "policy.toml"

    @property
    def registry_file(self) -> Path:
        """Devices and credentials."""
        return self.path / "registry.db"

    @property
    def broker_file(self) -> Path:
        """The broker's own durable state: its log of refusals."""
        return self.path / "broker.db"

    @property
    def journal_file(self) -> Path:
        """Every message with its outcome."""
        return self.path / "journal.db"

    @property
    def readings_file(self) -> Path:
        """The embedded store."""
        return self.path / "readings.db"

    @property
    def certs_folder(self) -> Path:
        """Certificates of the TLS listener."""
        return self.path / "certs"

    @property
    def run_folder(self) -> Path:
        """Locks and addresses of the processes that run now."""
        return self.path / "run"


def ensure_home(home: Home) -> bool:
    """Make what is missing of a home folder; True when the folder itself was made.

    Raises:
        HomeError: when it cannot be made or written.
    """
    try:
        existed = home.path.exists()
        if existed and not home.path.is_dir():
            raise HomeError(f"{home.path} is not a folder", "name another one with --home")
        for folder in (home.path, home.certs_folder, home.run_folder):
            folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        for target, sample in (
            (home.settings_file, "iot_default.toml"),
            (home.policy_file, "policy_default.toml"),
        ):
            if not target.exists():
                write_private(target, files("broker_config").joinpath(sample).read_bytes())
        if not os.access(home.path, os.W_OK | os.X_OK):
            raise PermissionError(13, "Permission denied")
    except OSError as exc:
        raise HomeError(
            f"cannot write the home folder {home.path} ({exc.strerror})",
            "make it writable for this user, or name another one with --home or IOT_HOME",
        ) from None
    return not existed


def require_home(home: Home) -> None:
    """Check that a home folder is there, without making it.

    Raises:
        HomeError: when it is not.
    """
    try:
        found = home.policy_file.is_file()
    except OSError as exc:
        raise unreadable(home, exc) from None
    if not found:
        raise HomeError(
            f"{home.path} is no home folder of this system",
            "start one there with `iotctl up`, or name yours with --home or IOT_HOME",
        )


def unreadable(home: Home, exc: OSError) -> HomeError:
    """The error for a home that this user may not read."""
    return HomeError(
        f"cannot read the home folder {home.path} ({exc.strerror})",
        "run as the user it belongs to, or name yours with --home or IOT_HOME",
    )


def read_policy(home: Home) -> Policy:
    """The policy of a home.

    Raises:
        PolicyError: the file cannot be read, or is no policy.
    """
    where = str(home.policy_file)
    try:
        text = home.policy_file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise PolicyError(f"cannot read {where} ({exc})") from None
    return parse_policy(text, where=where)


def write_private(target: Path, content: bytes) -> None:
    """Write a file that only its owner can read, whole or not at all.

    Raises:
        OSError: as the operating system says.
    """
    draft = target.with_name(f".{target.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, FILE_MODE)
    try:
        with os.fdopen(descriptor, "wb") as handle:
            handle.write(content)
            handle.flush()
            os.fsync(handle.fileno())
        draft.replace(target)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
