"""Databases that readings end in: the embedded store and InfluxDB, behind one small interface."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bridge.sinks.embedded import EmbeddedSink
from bridge.sinks.influx import InfluxSink

if TYPE_CHECKING:
    from bridge.sinks.base import Sink
    from broker_config.home import Home
    from broker_config.settings import Settings

__all__ = ["open_sink"]


def open_sink(home: Home, settings: Settings, *, read_only: bool = False) -> Sink:
    """The sink that the settings choose: InfluxDB where it has a URL, else the embedded store.

    Raises:
        StorageError: when the embedded store cannot be used.
        ConfigurationError: when InfluxDB is configured without a token.
    """
    if settings.influx.url:
        return InfluxSink(settings.influx, home.path)
    return EmbeddedSink(home.readings_file, read_only=read_only)
