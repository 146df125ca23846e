"""What the embedded store is beyond the contract of all sinks: a file that people can look into."""

from __future__ import annotations

import json
import sqlite3
from typing import TYPE_CHECKING

import pytest

from bridge.line_protocol import point_of
from bridge.sinks import open_sink
from bridge.sinks.embedded import EmbeddedSink
from broker_config.errors import ConfigurationError, SinkUnreachableError, StorageError
from broker_config.home import Home
from broker_config.settings import Influx, Secret, Settings
from tests.bridge.examples import NOW_MS, row

if TYPE_CHECKING:
    from pathlib import Path


def test_the_view_shows_readings_to_anything_that_reads_sqlite(tmp_path: Path) -> None:
    sink = EmbeddedSink(tmp_path / "readings.db")
    sink.write([point_of(row("dev-1", values={"gas_ratio": 0.5}, faults=("x",)))])
    sink.close()
    database = sqlite3.connect(tmp_path / "readings.db")
    ((device, site, ts_ms, ts_source, fields),) = database.execute(
        "SELECT device, site, ts_ms, ts_source, fields FROM readings"
    )
    database.close()
    assert (device, site, ts_ms, ts_source) == ("dev-1", "hall", NOW_MS, "device")
    assert json.loads(fields) == {"gas_ratio": 0.5, "faults": "x", "ts_source": "device"}


def test_a_store_that_is_read_only_can_be_read_and_not_written(tmp_path: Path) -> None:
    path = tmp_path / "readings.db"
    with pytest.raises(StorageError):
        EmbeddedSink(path, read_only=True)
    writer = EmbeddedSink(path)
    writer.write([point_of(row("dev-1"))])
    reader = EmbeddedSink(path, read_only=True)
    assert list(reader.read("dev-1", since_ms=0, limit=9)) == [row("dev-1")]
    with pytest.raises(SinkUnreachableError):
        reader.write([point_of(row("dev-1"))])
    reader.close()
    writer.close()


def test_what_cannot_be_stored_whole_is_not_stored_at_all(tmp_path: Path) -> None:
    sink = EmbeddedSink(tmp_path / "readings.db")
    sink._db.execute(
        "CREATE TRIGGER full BEFORE INSERT ON points WHEN NEW.device='dev-2'"
        " BEGIN SELECT RAISE(ABORT, 'disk full'); END"
    )
    with pytest.raises(SinkUnreachableError, match="disk full"):
        sink.write([point_of(row("dev-1")), point_of(row("dev-2"))])
    assert list(sink.read("dev-1", since_ms=0, limit=9)) == []
    sink.write([point_of(row("dev-1"))])
    assert list(sink.read("dev-1", since_ms=0, limit=9)) == [row("dev-1")]
    sink.close()


def test_the_settings_choose_the_sink(tmp_path: Path) -> None:
    home = Home(tmp_path)
    embedded = open_sink(home, Settings())
    influx = open_sink(home, Settings(influx=Influx(url="http://db:8086", token=Secret("x"))))
    assert (embedded.kind, influx.kind) == ("embedded", "influxdb")
    embedded.close()
    influx.close()
    with pytest.raises(ConfigurationError):
        open_sink(home, Settings(influx=Influx(url="http://db:8086")))
