"""A server as a child process: started, watched until it answers, ended."""

import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

_POLL_S = 0.02
_LOG_TAIL_CHARACTERS = 2_000


class ServiceError(Exception):
    """A real server did not start, did not answer or refused a request."""


class ServerProcess:
    """One server program and its log file; it can be started again and again."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        folder: Path,
        log: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """`folder` is the working folder; `log` takes all output, appended."""
        self.command = tuple(command)
        self.folder = folder
        self.log = log
        self.environment = environment
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The process id, or None when it is not running."""
        return self._process.pid if self._process and self.running else None

    @property
    def running(self) -> bool:
        """Whether the process was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def start(self, answers: Callable[[], bool], timeout_s: float) -> None:
        """Start it and return when `answers()` says that it can be used.

        Raises ServiceError if it runs already, ends by itself, or does not
        answer within `timeout_s` seconds; it is not left running then.
        """
        if self.running:
            raise ServiceError(f"{self.command[0]} runs already as {self.pid}")
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                self.command,
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            self._wait_until(answers, timeout_s)
        except BaseException:
            self.kill()
            raise

    def _wait_until(self, answers: Callable[[], bool], timeout_s: float) -> None:
        assert self._process is not None
        deadline = time.monotonic() + timeout_s
        answered = False
        while not answered:
            answered = answers()
            try:
                # Also after an answer: it may be another server's, because of
                # which this one has just failed to get the port.
                code = self._process.wait(0 if answered else _POLL_S)
            except subprocess.TimeoutExpired:
                if not answered and time.monotonic() > deadline:
                    raise self._error(f"did not answer within {timeout_s} s") from None
            else:
                raise self._error(f"ended at its start with exit code {code}")

    def _error(self, what: str) -> ServiceError:
        log = self.log.read_text(errors="replace")[-_LOG_TAIL_CHARACTERS:].strip()
        return ServiceError(f"{self.command[0]} {what}; its log ends with: {log}")

    def stop(self, timeout_s: float) -> None:
        """Ask it to end (SIGTERM), and kill it after `timeout_s` seconds."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End it at once (SIGKILL), as a crash or a power cut would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
