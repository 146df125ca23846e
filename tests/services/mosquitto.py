"""A real Mosquitto broker for tests."""

import os
import shutil
import socket
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from .ports import LOOPBACK, find_free_port
from .server_process import ServerProcess

MOSQUITTO = "mosquitto"
HOW_TO_GET = "the Mosquitto broker; tests/services/debian_packages.sh installs it"

_START_TIMEOUT_S = 10.0
_STOP_TIMEOUT_S = 10.0


class Mosquitto:
    """A broker on a free loopback port, with its data in a folder of its own.

    `start()` may follow `stop()` or `kill()`: port and folder stay. Retained
    messages and sessions are saved by `stop()`; what came after the last save is
    lost by `kill()`, as Mosquitto does it.
    """

    def __init__(
        self,
        program: Path,
        folder: Path | None = None,
        *,
        allow_anonymous: bool = True,
        password_file: Path | None = None,
        extra_config: Sequence[str] = (),
    ) -> None:
        """Prepare a broker without starting it.

        `folder`: where its files go; without it a temporary one, which `close()`
        removes. `password_file`: made by mosquitto_passwd. `extra_config`: more
        lines of mosquitto.conf.
        """
        self.host = LOOPBACK
        self.port = find_free_port()
        self._temporary = folder is None
        self.folder = folder or Path(tempfile.mkdtemp(prefix="mosquitto-"))
        data = self.folder / "data"
        data.mkdir(parents=True, exist_ok=True)
        config = [
            f"listener {self.port} {self.host}",
            f"allow_anonymous {str(allow_anonymous).lower()}",
            "persistence true",
            f"persistence_location {data}/",
            "log_dest stderr",
        ]
        if password_file is not None:
            config.append(f"password_file {password_file.resolve()}")
        if os.geteuid() == 0:
            # Otherwise it becomes the user mosquitto, who cannot write here.
            config.append("user root")
        config_file = self.folder / "mosquitto.conf"
        config_file.write_text("\n".join([*config, *extra_config, ""]))
        self.log = self.folder / "mosquitto.log"
        self._server = ServerProcess(
            [str(program), "-c", str(config_file)], folder=self.folder, log=self.log
        )

    @property
    def pid(self) -> int | None:
        """The process id, or None when it is not running."""
        return self._server.pid

    @property
    def running(self) -> bool:
        """Whether the broker's process is there."""
        return self._server.running

    def start(self) -> None:
        """Start it and return when it takes connections.

        Raises ServiceError with the end of its log if it does not.
        """
        self._server.start(self._takes_connections, _START_TIMEOUT_S)

    def stop(self) -> None:
        """End it in order (SIGTERM): it saves retained messages and sessions."""
        self._server.stop(_STOP_TIMEOUT_S)

    def kill(self) -> None:
        """End it at once (SIGKILL)."""
        self._server.kill()

    def close(self) -> None:
        """Stop it, and remove the folder if it was made here."""
        self.stop()
        if self._temporary:
            shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _takes_connections(self) -> bool:
        try:
            socket.create_connection((self.host, self.port), timeout=1).close()
        except OSError:
            return False
        return True
