"""The one error tree of the product.

Every leaf carries its disposition, so that no caller decides by a status number, and the
exit code with which `iotctl` ends when the error reaches its boundary. A message is one line:
what happened, where, and what to do about it.
"""

from __future__ import annotations

from enum import Enum
from typing import ClassVar


class Disposition(Enum):
    """What the caller shall do with the work at hand when the error is raised."""

    REFUSE = "refuse"
    """The input can never be accepted: record the refusal and go on with the next."""
    RETRY = "retry"
    """The other side may recover: keep the work and try it again later."""
    STOP = "stop"
    """Nothing can be done here without a person: end with one clear line."""


class IotError(Exception):
    """Base of every error the product raises on purpose.

    Attributes:
        what: one sentence without a full stop: what is wrong, and where.
        hint: what the reader can do about it; may be empty.
    """

    disposition: ClassVar[Disposition] = Disposition.STOP
    exit_code: ClassVar[int] = 3

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint

    def __str__(self) -> str:
        """One line for people: what is wrong and what to do about it."""
        line = f"{self.what}: {self.hint}" if self.hint else self.what
        return " ".join(line.split())


class ConfigurationError(IotError):
    """A setting, a flag, a file or an argument is wrong (exit code 2)."""

    exit_code = 2


class PolicyError(ConfigurationError):
    """`policy.toml` cannot be read as a policy."""


class RegistryError(ConfigurationError):
    """The registry was asked for something it does not hold, or already holds."""


class HomeError(ConfigurationError):
    """The home folder is missing, foreign or not writable."""


class PortInUseError(ConfigurationError):
    """A listening port is taken by another process."""


class NotRunningError(IotError):
    """The system of this home does not answer (exit code 3)."""


class BrokerVersionError(IotError):
    """The installed amqtt is not the version this broker was written against."""


class StorageError(IotError):
    """One of our files (journal, registry, log, store) cannot be read or written.

    While it is the journal, nothing is acknowledged.
    """

    disposition = Disposition.RETRY


class SinkError(IotError):
    """Base of what a database answers when it does not take a batch."""

    disposition = Disposition.RETRY
    state: ClassVar[str] = "unreachable"
    """The word that `sink.state` shows while this error lasts."""


class SinkUnreachableError(SinkError):
    """No connection, a time-out, or a 5xx answer: back off with jitter and try again."""


class SinkUnauthorizedError(SinkError):
    """401 or 403: our token is wrong, which is not the device's fault. Keep and retry."""

    state = "unauthorized"


class SinkMissingError(SinkError):
    """404: the bucket or organisation is not there. Keep and retry."""

    state = "bucket_missing"


class SinkBusyError(SinkError):
    """429 or 503: the database asks for a pause.

    Attributes:
        retry_after_s: the pause it asked for, in seconds (`Retry-After`, RFC 9110 10.2.3).
    """

    state = "busy"

    def __init__(self, what: str, hint: str = "", *, retry_after_s: float = 1.0) -> None:
        super().__init__(what, hint)
        self.retry_after_s = retry_after_s


class SinkTooLargeError(SinkError):
    """413: split the batch and try the halves."""

    disposition = Disposition.REFUSE
    state = "ready"


class SinkRejectedError(SinkError):
    """400 or 422: at least one line of the batch is bad; isolate it."""

    disposition = Disposition.REFUSE
    state = "ready"


class InternalError(IotError):
    """A broken invariant of our own (exit code 3)."""
