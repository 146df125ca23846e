"""The sinks that the contract is for: the embedded store, and a real InfluxDB."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import pytest

from bridge.sinks.embedded import EmbeddedSink
from bridge.sinks.influx import InfluxSink
from broker_config.settings import Influx, Secret
from tests.services import influxd
from tests.services.influxd import InfluxD, influxd_program
from tests.services.requirements import require

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bridge.sinks.base import Sink


class Database(Protocol):
    """One database that sinks can be opened on and that can be taken away."""

    exact_to_ns: int
    """What is read back of a time is exact to so many ns."""

    def open(self) -> Sink:
        """A new sink on the same database."""

    def take_away(self) -> None:
        """Make it unusable for the sinks that are open."""


class Embedded:
    """The embedded store in a folder."""

    exact_to_ns = 1

    def __init__(self, folder: Path) -> None:
        self._path = folder / "readings.db"
        self._opened: list[EmbeddedSink] = []

    def open(self) -> Sink:
        self._opened.append(EmbeddedSink(self._path))
        return self._opened[-1]

    def take_away(self) -> None:
        """As a disk that goes read-only under a running process."""
        for sink in self._opened:
            sink._db.execute("PRAGMA query_only=ON")


class RealInflux:
    """A bucket of a real InfluxDB."""

    exact_to_ns = 1_000
    """influxdb-client makes a `datetime` of a time, and that has microseconds."""

    def __init__(self, server: InfluxD, folder: Path) -> None:
        self._server, self._folder = server, folder

    def open(self) -> Sink:
        return InfluxSink(influx_settings(self._server), self._folder)

    def take_away(self) -> None:
        self._server.kill()


def influx_settings(
    server: InfluxD, *, token: str | None = None, bucket: str | None = None
) -> Influx:
    return Influx(
        url=server.url,
        token=Secret(server.token if token is None else token),
        org=server.org,
        bucket=bucket or server.bucket,
    )


@pytest.fixture(name="influx", scope="session")
def fixture_influx() -> Iterator[InfluxD]:
    """One server for everything that does not take it away."""
    with InfluxD(require(influxd_program(), influxd.HOW_TO_GET)) as server:
        yield server


@pytest.fixture(name="mortal_influx")
def fixture_mortal_influx() -> Iterator[InfluxD]:
    """A server for one test, which may kill it."""
    with InfluxD(require(influxd_program(), influxd.HOW_TO_GET)) as server:
        yield server


@pytest.fixture(name="database", params=["embedded", "influxdb"])
def fixture_database(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    """A database whose name for this test's devices nobody else uses: see `device`."""
    if request.param == "embedded":
        return Embedded(tmp_path)
    return RealInflux(request.getfixturevalue("influx"), tmp_path)


@pytest.fixture(name="mortal", params=["embedded", "influxdb"])
def fixture_mortal(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    """A database of this test alone."""
    if request.param == "embedded":
        return Embedded(tmp_path)
    return RealInflux(request.getfixturevalue("mortal_influx"), tmp_path)


@pytest.fixture(name="sink")
def fixture_sink(database: Database) -> Iterator[Sink]:
    sink = database.open()
    yield sink
    sink.close()


@pytest.fixture(name="device")
def fixture_device(request: pytest.FixtureRequest) -> str:
    """A device that only this test writes: the tests share one InfluxDB."""
    return f"dev-{abs(hash(request.node.nodeid)):x}"
