"""What runs now in a home: one lock and one address file a process, in `run/`.

The lock (flock) is what says that a process lives: it goes with the process however that ends.
The address file beside it says where to reach it.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, NamedTuple

from broker_config.errors import ConfigurationError
from broker_config.home import FILE_MODE, Home, unreadable, write_private

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LOCK_ATTEMPTS = 5
LOCK_PAUSE_S = 0.02
"""Pause before the second attempt, in seconds; each later one is longer by as much."""

Process = Literal["up", "broker", "bridge"]


class Address(NamedTuple):
    """Where a process listens.

    Attributes:
        ready: it can do its work; a bridge answers before it has reached its broker.
    """

    pid: int
    host: str
    port: int
    ready: bool = True


def authority(host: str, port: int) -> str:
    """`host:port` as it stands in a URL; an IPv6 address in brackets (RFC 3986 3.2.2)."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@contextmanager
def sole_process(home: Home, process: str) -> Iterator[None]:
    """Be the only process of that kind in this home, for as long as the block lasts.

    Args:
        process: a `Process`, or the name of a kind of one's own that may stand in a file name.

    Raises:
        ConfigurationError: when there is one already; it names its pid.
    """
    path = _lock_file(home, process)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, FILE_MODE)
    try:
        if not _locked(descriptor):
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
            raise ConfigurationError(
                f"{home.path} already has a running {process} (pid {holder or 'unknown'})",
                "stop that one first, or name another home with --home",
            ) from None
        retract(home, process)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    """Take the lock; a reader of `address_of` may hold it for an instant, so try again."""
    for attempt in range(LOCK_ATTEMPTS):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(LOCK_PAUSE_S * (attempt + 1))
        else:
            return True
    return False


def is_running(home: Home, process: Process) -> bool:
    """Whether a process of that kind lives in this home.

    Raises:
        HomeError: the home may not be read.
    """
    try:
        descriptor = os.open(_lock_file(home, process), os.O_RDONLY)
    except FileNotFoundError:
        return False
    except OSError as exc:
        raise unreadable(home, exc) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def announce(home: Home, process: Process, address: Address) -> None:
    """Write where this process listens."""
    write_private(_address_file(home, process), json.dumps(address._asdict()).encode())


def retract(home: Home, process: str) -> None:
    """Take the address back when the process ends."""
    _address_file(home, process).unlink(missing_ok=True)


def address_of(home: Home, process: Process) -> Address | None:
    """Where a living process listens; None when it does not run or is not ready.

    Raises:
        HomeError: the home may not be read.
    """
    if not is_running(home, process):
        return None
    try:
        return Address(**json.loads(_address_file(home, process).read_bytes()))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def _lock_file(home: Home, process: str) -> Path:
    return home.run_folder / f"{process}.lock"


def _address_file(home: Home, process: str) -> Path:
    return home.run_folder / f"{process}.json"
