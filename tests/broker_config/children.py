"""Programs that tests run as processes of their own, and how they are started.

`python -m tests.broker_config.children NAME ARGUMENT...`. A program that stays writes one line
when it is ready and ends when its standard input ends.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal, get_args

from broker_config.errors import IotError
from broker_config.events import Event, configure_logging, record
from broker_config.home import Home, ensure_home, require_home
from broker_config.registry import Enrolment, Registry
from broker_config.run_files import Address, Process, announce, sole_process
from broker_config.settings import Log
from broker_config.stop_signal import stop_event

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

REPOSITORY = Path(__file__).parents[2]
NOBODY = 65_534
"""The user id that owns nothing, on every Linux."""
TIMEOUT_S = 60


def command(name: str, *arguments: object) -> list[str]:
    """The command line of one program of this file."""
    return [sys.executable, "-m", __name__, name, *map(str, arguments)]


def run(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a program to its end."""
    return subprocess.run(
        command(name, *arguments),
        cwd=REPOSITORY,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


class Child:
    """A running program: what it said when it was ready, and its two pipes."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.pid = process.pid
        self.stdin = _pipe(process.stdin)
        self.stdout = _pipe(process.stdout)
        self.ready = self.stdout.readline().strip()

    def ask(self, line: str) -> None:
        """Write one line to its standard input."""
        self.stdin.write(f"{line}\n")
        self.stdin.flush()

    def kill(self) -> None:
        """SIGKILL, and return when it is gone."""
        self._process.kill()
        self._process.wait()

    def end(self) -> None:
        """Let it end by itself, in order."""
        self.stdin.close()
        self._process.wait(TIMEOUT_S)

    def signal(self, number: int) -> int:
        """Send a signal; the exit code with which it ends."""
        self._process.send_signal(number)
        return self._process.wait(TIMEOUT_S)


@contextmanager
def running(name: str, *arguments: object) -> Iterator[Child]:
    """A program that stays for as long as the block lasts."""
    with subprocess.Popen(
        command(name, *arguments),
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield Child(process)
        finally:
            process.kill()


def _pipe(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None
    return pipe


def _stay(ready: object) -> None:
    print(ready, flush=True)
    sys.stdin.read()


def _hold(home: str, process: str, port: str) -> None:
    """Be the sole process of a kind; announce a port unless it is 0."""
    kind: Process = next(known for known in get_args(Process) if known == process)
    with sole_process(Home(Path(home)), kind):
        if int(port):
            announce(Home(Path(home)), kind, Address(os.getpid(), "127.0.0.1", int(port)))
        _stay("holding")


def _listen(host: str, port: str) -> None:
    """Listen on a TCP port; the line says which."""
    with socket.create_server((host, int(port))) as server:
        _stay(server.getsockname()[1])


def _open_registries() -> None:
    """Open, and make, the registry at each path that comes in; say how that went."""
    print("open", flush=True)
    for line in sys.stdin:
        try:
            Registry(Path(line.strip())).close()
        except IotError as exc:
            print(exc, flush=True)
        else:
            print("ok", flush=True)


def _enrol(path: str, name: str) -> None:
    """Enrol one device, and stay without closing the file."""
    registry = Registry(Path(path))
    registry.add(Enrolment(name), now_ms=1)
    _stay("enrolled")


def _names(path: str) -> None:
    """Say who is enrolled."""
    registry = Registry(Path(path))
    print(*(entry.name for entry in registry.entries()))


def _log(form: Literal["console", "json"], level: Literal["info", "warning"]) -> None:
    """Record events as the product does."""
    configure_logging(Log(format=form, level=level), process="bridge")
    record(Event.PROCESS_READY, host="127.0.0.1", port=1883)
    record(
        Event.REFUSED,
        code="publish.topic_denied",
        count=3,
        topic='v1/a\n{"event": "forged"}',
        device="esp\x1b[2J\x9b2J\u2028é",
    )
    record(Event.CLIENT_CONNECTED, client="a")
    logging.getLogger("some.library").warning("a library's %s", "warning")
    logging.getLogger("some.library").info("chatter")


def _wait_for_stop() -> None:
    """Wait as the product's processes do, and end in order."""

    async def wait() -> None:
        stop = stop_event()
        print("waiting", flush=True)
        await stop.wait()
        print("stopped", flush=True)

    asyncio.run(wait())


def _home_as_nobody(verb: str, path: str) -> None:
    """Make or require a home as a user without rights; say how that went."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    home = Home(Path(path))
    try:
        if verb == "ensure":
            ensure_home(home)
        else:
            require_home(home)
    except IotError as exc:
        print(type(exc).__name__, exc)
    else:
        print("ok")


if __name__ == "__main__":
    programs: dict[str, Callable[..., None]] = {
        "hold": _hold,
        "listen": _listen,
        "open-registries": _open_registries,
        "enrol": _enrol,
        "names": _names,
        "log": _log,
        "wait-for-stop": _wait_for_stop,
        "home-as-nobody": _home_as_nobody,
    }
    programs[sys.argv[1]](*sys.argv[2:])
