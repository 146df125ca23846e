"""Keep processes running: start them in order, restart one that dies, stop them in reverse.

A child lives in a session of its own, so that Ctrl-C reaches the supervisor only. It is started
with `--supervised`, so that it ends should the supervisor itself be killed (`cli.main`).
"""

from __future__ import annotations

import asyncio
import signal
from contextlib import suppress
from typing import TYPE_CHECKING

from broker_config.errors import ConfigurationError, InternalError
from broker_config.events import Event, record

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

BACKOFF_MIN_S = 0.25
BACKOFF_MAX_S = 2.0
"""Devices wait while a part is down: one that dies at every start is tried again every 2 s, which
costs one start of the interpreter each time."""

STABLE_S = 30.0
"""A child that ran for so long starts its back-off anew when it dies, in seconds."""

STOP_S = 15.0
"""How long a child may take to stop before it is killed, in seconds."""

READY_S = 30.0
"""How long a child may take until it is ready the first time, in seconds."""

LOOK_S = 0.05
EXIT_CONFIGURATION = 2


class Child:
    """One supervised process."""

    def __init__(self, name: str, command: Sequence[str]) -> None:
        self.name = name
        self.command = list(command)
        self._process: asyncio.subprocess.Process | None = None
        self._watch: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The process id, or None when it does not run now."""
        if self._process is None or self._process.returncode is not None:
            return None
        return self._process.pid

    async def start(self, is_ready: Callable[[int], bool]) -> None:
        """Start it, wait until it is ready, and from then on restart it when it dies.

        Args:
            is_ready: asked with the process id, again and again.

        Raises:
            ConfigurationError: it ended with a configuration error, which it has printed.
            InternalError: it ended otherwise, or was not ready in time.
        """
        process = await self._spawn()
        try:
            async with asyncio.timeout(READY_S):
                while not is_ready(process.pid):
                    if process.returncode is not None:
                        raise _ended_early(self.name, process.returncode)
                    await asyncio.sleep(LOOK_S)
        except TimeoutError:
            await self.stop()
            raise InternalError(
                f"the {self.name} was not ready within {READY_S:g} s", "look at its log above"
            ) from None
        self._watch = asyncio.create_task(self._keep_running())

    async def stop(self) -> None:
        """SIGTERM, and SIGKILL when that does not help in time."""
        if self._watch is not None:
            self._watch.cancel()
            with suppress(asyncio.CancelledError):
                await self._watch
        process = self._process
        if process is None or process.returncode is not None:
            return
        with suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(STOP_S):
                await process.wait()
        except TimeoutError:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def _spawn(self) -> asyncio.subprocess.Process:
        self._process = await asyncio.create_subprocess_exec(
            *self.command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        record(Event.PROCESS_STARTED, child=self.name, pid=self._process.pid)
        return self._process

    async def _keep_running(self) -> None:
        loop = asyncio.get_running_loop()
        pause_s = BACKOFF_MIN_S
        while self._process is not None:
            began = loop.time()
            code = await self._process.wait()
            if loop.time() - began >= STABLE_S:
                pause_s = BACKOFF_MIN_S
            record(Event.PROCESS_DIED, child=self.name, exit=code, restart_in_s=pause_s)
            await self._restart(pause_s)
            pause_s = min(BACKOFF_MAX_S, pause_s * 2)

    async def _restart(self, pause_s: float) -> None:
        while True:
            await asyncio.sleep(pause_s)
            try:
                await self._spawn()
            except OSError as exc:
                record(Event.PROCESS_FAILED, child=self.name, problem=str(exc))
                pause_s = BACKOFF_MAX_S
            else:
                return


def _ended_early(name: str, code: int) -> ConfigurationError | InternalError:
    if code == EXIT_CONFIGURATION:
        return ConfigurationError(f"the {name} did not start", "its own message says why")
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
    return InternalError(f"the {name} {how} before it was ready", "look at its log above")
