"""The one function that records an event: a structured log line and a counter.

An event is a member of the closed list `Event`; its counter is `iot_events_total{event, code}`.
Only `code`, a name from the closed list of refusals or of errors, becomes a label, so that no
device can invent series.
"""

from __future__ import annotations

import logging
import sys
from enum import Enum
from functools import cache
from typing import TYPE_CHECKING, Any

import structlog
from prometheus_client import Counter

from broker_config.errors import IotError
from broker_config.refusals import code_named

if TYPE_CHECKING:
    from broker_config.settings import Log

_COUNTER = Counter("iot_events_total", "Events by name and code.", ["event", "code"])


class Event(Enum):
    """Everything the product logs: name and level."""

    PROCESS_STARTED = ("process.started", logging.INFO)
    PROCESS_READY = ("process.ready", logging.INFO)
    PROCESS_DIED = ("process.died", logging.ERROR)
    PROCESS_STOPPED = ("process.stopped", logging.INFO)
    PROCESS_FAILED = ("process.failed", logging.ERROR)
    CLIENT_CONNECTED = ("client.connected", logging.DEBUG)
    REFUSED = ("refused", logging.WARNING)
    POLICY_ACTIVE = ("policy.active", logging.INFO)
    SOURCE_CONNECTED = ("source.connected", logging.INFO)
    SOURCE_LOST = ("source.lost", logging.WARNING)
    SOURCE_DEAF = ("source.deaf", logging.ERROR)
    SOURCE_UNASKED = ("source.unasked_topic", logging.WARNING)
    JOURNAL_UNWRITABLE = ("journal.unwritable", logging.ERROR)
    JOURNAL_RECOVERED = ("journal.recovered", logging.INFO)
    SINK_FAILED = ("sink.failed", logging.WARNING)
    SINK_RECOVERED = ("sink.recovered", logging.INFO)
    LEDGER_UNBALANCED = ("ledger.unbalanced", logging.ERROR)
    DECISIONS_UNREADABLE = ("decisions.unreadable", logging.WARNING)
    FORWARDED = ("forwarded", logging.DEBUG)

    def __init__(self, label: str, level: int) -> None:
        self.label = label
        self.level = level


def record(event: Event, *, code: str = "", count: int = 1, **fields: Any) -> None:
    """Record that `event` happened `count` times.

    Args:
        code: a refusal code or an error's class name; the counter's second label.
        fields: what else to log; secrets do not belong here.

    Raises:
        ValueError: `code` is in neither closed list.
    """
    if code and code_named(code) is None and code not in _error_names():
        msg = f"{code!r} is neither a refusal code nor an error"
        raise ValueError(msg)
    _COUNTER.labels(event.label, code).inc(count)
    if code:
        fields = {"code": code, **fields}
    if count != 1:
        fields["count"] = count
    structlog.get_logger().log(event.level, event.label, **fields)


@cache
def _error_names() -> frozenset[str]:
    """The names of the whole error tree."""
    names, kinds = {IotError.__name__}, [IotError]
    while kinds:
        children = kinds.pop().__subclasses__()
        names |= {child.__name__ for child in children}
        kinds += children
    return frozenset(names)


def printable(value: object) -> str:
    """Text without control characters: what a device sent must not steer a terminal."""
    return "".join(c if c.isprintable() else "\ufffd" for c in str(value))


def _make_printable(_logger: Any, _method: str, line: dict[str, Any]) -> dict[str, Any]:
    return {
        key: printable(value) if isinstance(value, str) else value for key, value in line.items()
    }


def configure_logging(settings: Log, *, process: str) -> None:
    """Send the log to stderr: readable on a terminal, one JSON object a line elsewhere.

    Args:
        process: the name of this process, on every line.
    """
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    console = settings.format == "console" or (settings.format == "auto" and sys.stderr.isatty())

    def name_process(_logger: Any, _method: str, line: dict[str, Any]) -> dict[str, Any]:
        return {"process": process, **line}

    shared: list[Any] = [
        name_process,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if console:
        shared.append(_make_printable)
    renderer: Any = (
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
        if console
        else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    _quieten_libraries(shared, renderer)


def _quieten_libraries(shared: list[Any], renderer: Any) -> None:
    """Libraries log through the same lines, and only what is a warning or worse."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for chatty in ("transitions.core", "amqtt"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
