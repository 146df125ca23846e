from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import pytest

from tests.harness.stores import EmbeddedStore, InfluxStore
from tests.harness.system import Credentials, System
from tests.services import influxd
from tests.services.requirements import require

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.harness.stores import Store


@pytest.fixture(scope="session")
def influx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[influxd.InfluxD]:
    """One real InfluxDB for all tests; each takes a bucket of its own."""
    program = require(influxd.influxd_program(), influxd.HOW_TO_GET)
    with influxd.InfluxD(program, tmp_path_factory.mktemp("influxd")) as server:
        yield server


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture(params=["embedded", "influxdb"])
def store(request: pytest.FixtureRequest, home: Path) -> Store:
    """Each database in turn; the bucket does not exist yet, the product has to make it."""
    if request.param == "embedded":
        return EmbeddedStore(home)
    return InfluxStore(request.getfixturevalue("influx"), f"e2e-{secrets.token_hex(4)}")


@pytest.fixture
def system(home: Path, store: Store) -> Iterator[System]:
    """A running system on that database."""
    with System(home, store.environment) as running:
        yield running


@pytest.fixture
def embedded(home: Path) -> Iterator[System]:
    """A running system on the embedded store, for what does not depend on the database."""
    with System(home) as running:
        yield running


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[System, Credentials]]:
    """One running system with one device, for many small questions."""
    with System(tmp_path_factory.mktemp("shared") / "home") as running:
        yield running, running.enrol("kitchen")
