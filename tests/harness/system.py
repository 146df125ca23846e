"""`iotctl` and a running system, each seen from outside only."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from tests.harness.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

READY = re.compile(r"^ready mqtt=(\S+):(\d+) http=(http://\S+)$")
START_S = 40.0
STOP_S = 30.0


class Finished(NamedTuple):
    """What a call of `iotctl` left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON object on stdout."""
        return json.loads(self.out)

    @property
    def json_lines(self) -> list[Any]:
        """The JSON Lines on stdout."""
        return [json.loads(line) for line in self.out.splitlines()]


def clean_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This environment without settings of the product, and `extra`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("IOT_")}
    return {**kept, "NO_COLOR": "1", **(extra or {})}


def iotctl_command(home: Path, *arguments: str) -> list[str]:
    """The command line of a call in a home."""
    return [sys.executable, "-m", "cli.main", "--home", str(home), *arguments]


def iotctl(
    home: Path,
    *arguments: str,
    environment: Mapping[str, str] | None = None,
    deadline_s: float = 60.0,
) -> Finished:
    """Call `iotctl` and wait for its end."""
    done = subprocess.run(
        iotctl_command(home, *arguments),
        env=clean_environment(environment),
        capture_output=True,
        text=True,
        timeout=deadline_s,
        check=False,
    )
    return Finished(done.returncode, done.stdout, done.stderr)


class Credentials(NamedTuple):
    """What `devices add --json` printed."""

    device: str
    password: str
    host: str
    port: int


class System:
    """`iotctl up` in a home of its own; a context manager."""

    def __init__(self, home: Path, environment: Mapping[str, str] | None = None) -> None:
        self.home = home
        self.environment = dict(environment or {})
        self.log = home.with_name(f"{home.name}.log")
        self.host, self.port, self.url = "", 0, ""
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, *arguments: str) -> None:
        """Start it and wait for its `ready` line."""
        with self.log.open("a") as log:
            self._process = subprocess.Popen(
                iotctl_command(
                    self.home,
                    "up",
                    "--quiet",
                    "--mqtt-port",
                    str(self.port),
                    "--http-port",
                    "0",
                    *arguments,
                ),
                env=clean_environment(self.environment),
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        found = READY.match(line.rstrip("\n"))
        assert found, f"not a ready line: {line!r}\n{self.log.read_text()[-2000:]}"
        self.host, self.port, self.url = found[1].strip("[]"), int(found[2]), found[3]

    def stop(self) -> int:
        """SIGTERM; its exit code."""
        if self._process is None:
            return 0
        process, self._process = self._process, None
        process.send_signal(signal.SIGTERM)
        try:
            code = process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        finally:
            if process.stdout is not None:
                process.stdout.close()
        return code

    def iotctl(self, *arguments: str, deadline_s: float = 60.0) -> Finished:
        """Call `iotctl` in the same home and environment."""
        return iotctl(self.home, *arguments, environment=self.environment, deadline_s=deadline_s)

    def enrol(self, device: str, *flags: str) -> Credentials:
        """Enrol a device through the command line."""
        done = self.iotctl("devices", "add", device, "--json", *flags)
        assert done.code == 0, done.err
        answer = done.json
        mqtt = answer["mqtt"]
        return Credentials(answer["device_id"], answer["password"], mqtt["host"], mqtt["port"])

    def status(self) -> dict[str, Any]:
        """`iotctl status --json`."""
        done = self.iotctl("status", "--json")
        assert done.code in (0, 1), done.err
        answer: dict[str, Any] = done.json
        return answer

    def pid_of(self, process: str) -> int | None:
        """The process id that a part has announced."""
        with suppress(FileNotFoundError, ValueError):
            pid: int = json.loads((self.home / "run" / f"{process}.json").read_bytes())["pid"]
            return pid
        return None

    def kill(self, process: str) -> int:
        """SIGKILL one part; the process id that it had."""
        pid = wait_for(lambda: self.pid_of(process), what=f"running {process}")
        os.kill(pid, signal.SIGKILL)
        return pid

    def wait_restarted(self, process: str, killed: int) -> None:
        """Wait until a killed part is back and ready."""
        wait_for(
            lambda: (pid := self.pid_of(process)) is not None and pid != killed,
            what=f"restarted {process}",
            deadline_s=60,
        )

    def settled(self, *, received: int) -> dict[str, int]:
        """Wait until so many readings were received and none is pending; the ledger."""

        def look() -> dict[str, int] | None:
            done = self.iotctl("status", "--json")
            if done.code not in (0, 1):
                return None
            ledger: dict[str, int] = done.json["ledger"]
            return ledger if ledger["received"] >= received and not ledger["pending"] else None

        return wait_for(
            look, what=f"ledger with {received} received and none pending", deadline_s=90
        )


def assert_balanced(ledger: Mapping[str, int]) -> None:
    """The conservation of readings (DESIGN, "Conservation")."""
    parts = ("stored", "duplicate", "refused", "pending")
    assert ledger["received"] == sum(ledger[part] for part in parts), ledger
