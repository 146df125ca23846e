"""Every query of the dashboard, asked of a real InfluxDB as Grafana would ask it."""

import http
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from bridge.forwarder import SinkState
from bridge.health import DeviceCounts, HealthReport
from bridge.line_protocol import Point, encode_point, point_of
from bridge.monitor import health_point
from bridge.outcomes import Ledger
from bridge.readings import Row as Reading
from bridge.source import SourceState
from bridge.verdict import Facts
from tests.services import influxd
from tests.services.influxd import InfluxD, influxd_program
from tests.services.ports import LOOPBACK
from tests.services.requirements import require

from .files import DASHBOARD, DATASOURCES
from .grafana import (
    Choice,
    DataSource,
    QueryError,
    Row,
    TimeRange,
    format_regex,
    interpolate,
    load_dashboard,
    provisioned,
    targets_of,
)
from .http_exchange import exchange

DASHBOARD_JSON = load_dashboard(DASHBOARD)
TARGETS = {name: target["query"] for name, target in targets_of(DASHBOARD_JSON)}
VARIABLES = {variable["name"]: variable for variable in DASHBOARD_JSON["templating"]["list"]}
ALL: dict[str, Choice] = {"site": None, "device": None}

QUANTITIES = {"temperature_c", "humidity_pct", "gas_ratio", "co2eq_ppm"}
OUTCOMES = {"received", "stored", "duplicate", "refused"}
EXPECTED_COLUMNS = {
    "Ingest health now A": {"time", "bridge", "ratio"},
    "Ingest health A": {"time", "bridge", "ratio"},
    "Readings expected and stored per window A": {"time", "expected", "stored"},
    "Ledger A": {"time", *OUTCOMES, "pending", "unaccounted"},
    "Readings by outcome A": {"time", *OUTCOMES},
    "Pending A": {"time", "bridge", "pending"},
    "Temperature A": {"time", "device", "temperature_c"},
    "Humidity A": {"time", "device", "humidity_pct"},
    "Gas ratio A": {"time", "device", "gas_ratio"},
    "CO2 equivalent A": {"time", "device", "co2eq_ppm"},
    "Last values A": {"time", "device", "site", *QUANTITIES},
    "Devices with a reading in the last 5 min A": {"time", "devices"},
    "Devices without a reading for 5 min A": {"time", "devices"},
    "Devices without a reading for 5 min, longest first A": {
        "time",
        "device",
        "site",
        "ts_source",
    },
    "Devices without a reading for 5 min, longest first B": {"time", "device", "recent"},
    "Readings with a fault A": {"time", "device", "faults"},
    "Last faults A": {"time", "device", "site", "faults"},
}

STEP_MS = 10_000
STEPS = 60
DIP = 0.4
SILENT_STEPS = 40
"""The third device stopped sending 400 s ago."""

RANGE_MS = 3_600_000
LONG_AGO_MS = 1_678_889_700_000
"""2023-03-15 14:15 UTC; no sample is near."""

NOT_OF_THE_RANGE = {
    "Ingest health now A",
    "Devices with a reading in the last 5 min A",
    "Devices without a reading for 5 min, longest first B",
}
"""They show the present, whatever range is chosen."""

PASSWORD = "only for this test"


@pytest.fixture(name="influx", scope="module")
def fixture_influx() -> Iterator[InfluxD]:
    with InfluxD(require(influxd_program(), influxd.HOW_TO_GET)) as server:
        yield server


def api(server: InfluxD, path: str, body: dict[str, Any] | None = None) -> Any:
    """Ask the server's own API as its administrator; None if the answer is empty."""
    headers = {"Authorization": f"Token {server.token}", "Content-Type": "application/json"}
    sent = json.dumps(body).encode() if body is not None else None
    status, text = exchange(LOOPBACK, server.port, path, {}, headers=headers, body=sent)
    assert status < http.HTTPStatus.BAD_REQUEST, text
    return json.loads(text) if text else None


def make_reader(server: InfluxD, username: str) -> None:
    """Do what `influx v1 auth create --read-bucket` does, which deploy/influxdb/init runs."""
    buckets = api(server, "/api/v2/buckets")["buckets"]
    (bucket,) = [each for each in buckets if each["name"] == server.bucket]
    resource = {"type": "buckets", "id": bucket["id"], "orgID": bucket["orgID"]}
    permissions = [{"action": "read", "resource": resource}]
    authorization = api(
        server,
        "/private/legacy/authorizations",
        {"token": username, "orgID": bucket["orgID"], "permissions": permissions},
    )
    path = f"/private/legacy/authorizations/{authorization['id']}/password"
    api(server, path, {"password": PASSWORD})


@pytest.fixture(name="source", scope="module")
def fixture_source(influx: InfluxD) -> DataSource:
    variables = {"INFLUXDB_BUCKET": influx.bucket, "GRAFANA_INFLUXDB_PASSWORD": PASSWORD}
    (settings,) = provisioned(DATASOURCES, variables)["datasources"]
    make_reader(influx, settings["basicAuthUser"])
    return DataSource(settings, LOOPBACK, influx.port)


def sample_readings(now_ms: int) -> Iterator[Reading]:
    """Three devices; the names are chosen for what they mean in a regular expression."""
    for step in range(STEPS):
        time_ns = (now_ms - step * STEP_MS) * 1_000_000
        warm = {"temperature_c": 20.0 + step / 10, "humidity_pct": 51.0, "gas_ratio": 0.83}
        faults = ("dht11.timeout",) if step % 20 == 0 else ()
        yield Reading("greenhouse-1", "north", time_ns, "device", warm, faults)
        attic = {"temperature_c": 25.0, "humidity_pct": 40.0, "co2eq_ppm": 420.0}
        yield Reading("lab.2", "south/2 (attic)", time_ns, "boot", attic, ())
        if step >= SILENT_STEPS:
            yield Reading("labx2", "", time_ns, "received", {}, ("dht11.timeout", "mq135.cold"))


def steps_until(now_ms: int) -> int:
    """How often the bridges have reported up to this time."""
    return (now_ms - LONG_AGO_MS) // STEP_MS


def sample_health(now_ms: int) -> Iterator[Point]:
    """Two bridges; each has received 100 readings more at every step, and stored 90 of them."""
    for step in range(STEPS):
        steps = steps_until(now_ms) - step
        ledger = Ledger(
            received=100 * steps + 3,
            stored=90 * steps,
            duplicate=6 * steps,
            refused=4 * steps,
            pending=3,
        )
        at_ms = now_ms - step * STEP_MS
        facts = facts_at(at_ms, DIP if step == SILENT_STEPS else 0.99)
        for bridge in ("a", "b"):
            yield health_point(facts, ledger, bridge=bridge, time_ns=at_ms * 1_000_000)


def facts_at(at_ms: int, ratio: float) -> Facts:
    """What a bridge knows when nothing is wrong but its health."""
    devices = DeviceCounts(enrolled=3, reporting=2, late=0, silent=1, never_seen=0)
    return Facts(
        health=HealthReport(ratio, 60.0, 59.0, devices, refusals=(), silent_since_ms=None),
        source=SourceState(connected=True, since_ms=0, problem="", echo_ms=None),
        sink=SinkState("ready", since_ms=0, problem=""),
        backlog=3,
        journal_problem="",
        journal_since_ms=0,
        ledger_difference=0,
        ok_ratio=0.95,
        down_ratio=0.5,
        now_ms=at_ms,
    )


@pytest.fixture(name="time_range")
def fixture_time_range(influx: InfluxD) -> TimeRange:
    """Ten minutes of samples that end now, and the last hour.

    Written for every test, so that no test can be too late for them. The times are multiples
    of a step: what a later test writes again is the same point.
    """
    now_ms = time.time_ns() // 1_000_000 // STEP_MS * STEP_MS
    points = [*map(point_of, sample_readings(now_ms)), *sample_health(now_ms)]
    influx.write("\n".join(map(encode_point, points)))
    return TimeRange(now_ms - RANGE_MS, now_ms, 30)


def ask(
    source: DataSource, query: str, time_range: TimeRange, chosen: dict[str, Choice] | None = None
) -> list[Row]:
    """The answer to a query with these values chosen at the top of the page."""
    variables = {
        name: format_regex(choice, VARIABLES[name]["allValue"])
        for name, choice in (ALL | (chosen or {})).items()
    }
    return source.query(interpolate(query, variables, time_range))


def test_the_list_of_queries_is_complete() -> None:
    assert set(EXPECTED_COLUMNS) == set(TARGETS)


@pytest.mark.parametrize("name", TARGETS)
def test_a_query_returns_rows_with_its_columns(
    source: DataSource, time_range: TimeRange, name: str
) -> None:
    rows = ask(source, TARGETS[name], time_range)

    assert rows
    assert {frozenset(row) for row in rows} == {frozenset(EXPECTED_COLUMNS[name])}
    for column in EXPECTED_COLUMNS[name] - {"time"}:
        assert any(row[column] is not None for row in rows), column


@pytest.mark.parametrize("name", sorted(TARGETS.keys() - NOT_OF_THE_RANGE))
def test_a_query_keeps_to_the_time_range(
    source: DataSource, time_range: TimeRange, name: str
) -> None:
    earlier = TimeRange(time_range.from_ms - RANGE_MS, time_range.from_ms, 30)
    assert ask(source, TARGETS[name], earlier) == []


def test_the_health_figure_is_the_latest_of_each_bridge(
    source: DataSource, time_range: TimeRange
) -> None:
    rows = ask(source, TARGETS["Ingest health now A"], time_range)
    assert {row["bridge"]: row["ratio"] for row in rows} == {"a": 0.99, "b": 0.99}


def test_a_short_dip_of_the_health_shows(source: DataSource, time_range: TimeRange) -> None:
    rows = ask(source, TARGETS["Ingest health A"], time_range)
    assert min(row["ratio"] for row in rows) == DIP


def test_bridges_are_added_up(source: DataSource, time_range: TimeRange) -> None:
    rows = ask(source, TARGETS["Readings expected and stored per window A"], time_range)
    assert {(row["expected"], row["stored"]) for row in rows} == {(120, 118)}


def test_the_ledger_balances(source: DataSource, time_range: TimeRange) -> None:
    (row,) = ask(source, TARGETS["Ledger A"], time_range)
    del row["time"]
    steps = steps_until(time_range.to_ms)
    assert row == {
        "received": 2 * (100 * steps + 3),
        "stored": 2 * 90 * steps,
        "duplicate": 2 * 6 * steps,
        "refused": 2 * 4 * steps,
        "pending": 2 * 3,
        "unaccounted": 0,
    }


def test_the_ledger_shows_what_is_unaccounted_for(influx: InfluxD, source: DataSource) -> None:
    """A third bridge, which has lost two readings."""
    ledger = Ledger(received=12, stored=7, duplicate=1, refused=1, pending=1)
    time_ns = LONG_AGO_MS * 1_000_000
    point = health_point(facts_at(LONG_AGO_MS, 1.0), ledger, bridge="lossy", time_ns=time_ns)
    influx.write(encode_point(point))

    long_ago = TimeRange(LONG_AGO_MS - RANGE_MS, LONG_AGO_MS, 30)
    (row,) = ask(source, TARGETS["Ledger A"], long_ago)
    assert row["unaccounted"] == 2


def test_rates_are_per_second(source: DataSource, time_range: TimeRange) -> None:
    rows = ask(source, TARGETS["Readings by outcome A"], time_range)
    whole = rows[len(rows) // 2]
    assert whole["received"] == pytest.approx(2 * 100 * 1000 / STEP_MS)
    assert whole["stored"] == pytest.approx(2 * 90 * 1000 / STEP_MS)


def test_last_values_are_the_last_ones(source: DataSource, time_range: TimeRange) -> None:
    rows = ask(source, TARGETS["Last values A"], time_range)
    values = {row["device"]: [row[name] for name in sorted(QUANTITIES)] for row in rows}
    assert values == {
        "greenhouse-1": [None, 0.83, 51.0, 20.0],
        "lab.2": [420.0, None, 40.0, 25.0],
    }


def test_the_silent_device_is_found(source: DataSource, time_range: TimeRange) -> None:
    def devices(name: str) -> list[Row]:
        return ask(source, TARGETS[name], time_range)

    (reporting,) = devices("Devices with a reading in the last 5 min A")
    assert reporting["devices"] == 2
    (silent,) = devices("Devices without a reading for 5 min A")
    assert silent["devices"] == 1
    recent = devices("Devices without a reading for 5 min, longest first B")
    assert [row["device"] for row in recent if row["recent"] == 0] == ["labx2"]
    last = devices("Devices without a reading for 5 min, longest first A")
    (row,) = [row for row in last if row["device"] == "labx2"]
    assert row["time"] == time_range.to_ms - SILENT_STEPS * STEP_MS


def test_faults_are_listed_newest_first(source: DataSource, time_range: TimeRange) -> None:
    rows = ask(source, TARGETS["Last faults A"], time_range)
    assert {row["faults"] for row in rows} == {"dht11.timeout", "dht11.timeout,mq135.cold"}
    times = [row["time"] for row in rows]
    assert times == sorted(times, reverse=True)


@pytest.mark.parametrize("name", [name for name in TARGETS if "${device" in TARGETS[name]])
def test_a_chosen_device_is_the_only_one(
    source: DataSource, time_range: TimeRange, name: str
) -> None:
    """The dot in lab.2 must not match the x of labx2, nor one name a part of another."""
    rows = ask(source, TARGETS[name], time_range, {"device": ["lab.2"], "site": None})
    assert {row.get("device", "lab.2") for row in rows} <= {"lab.2"}
    if name in {"Temperature A", "Last values A"}:
        assert rows


@pytest.mark.parametrize(
    ("sites", "devices"),
    [
        (None, {"greenhouse-1", "lab.2", "labx2"}),
        (["north"], {"greenhouse-1"}),
        (["south/2 (attic)"], {"lab.2"}),
        (["north", "south/2 (attic)"], {"greenhouse-1", "lab.2"}),
    ],
)
def test_the_variables_offer_sites_and_their_devices(
    source: DataSource, time_range: TimeRange, sites: Choice, devices: set[str]
) -> None:
    """A device without a site is offered when no site is chosen."""
    rows = ask(source, VARIABLES["site"]["query"]["query"], time_range)
    assert {row["value"] for row in rows} == {"north", "south/2 (attic)"}

    rows = ask(source, VARIABLES["device"]["query"]["query"], time_range, {"site": sites})
    assert {row["value"] for row in rows} == devices

    rows = ask(source, TARGETS["Last values A"], time_range, {"site": sites})
    assert {row["device"] for row in rows} == devices - {"labx2"}


@pytest.mark.parametrize(
    "query", ['SHOW RETENTION POLICIES on "iot"', "SHOW MEASUREMENTS", "SHOW DATABASES"]
)
def test_what_grafana_itself_asks_is_answered(
    source: DataSource, time_range: TimeRange, query: str
) -> None:
    """Its query editor, and the test of a data source."""
    assert ask(source, query, time_range)


def test_a_wrong_query_is_an_error(source: DataSource, time_range: TimeRange) -> None:
    with pytest.raises(QueryError, match="undefined function"):
        ask(source, 'SELECT latest("ratio") FROM "ingest_health"', time_range)
    with pytest.raises(QueryError, match="failed to parse query"):
        ask(source, 'SELECT last("ratio") FORM "ingest_health"', time_range)


def test_a_query_for_a_field_that_is_not_written_returns_nothing(
    source: DataSource, time_range: TimeRange
) -> None:
    """So a field that is misspelt in the dashboard cannot pass the tests above."""
    query = TARGETS["Temperature A"].replace("temperature_c", "temperature")
    assert ask(source, query, time_range) == []


def test_a_variable_that_is_not_there_is_an_error(time_range: TimeRange) -> None:
    with pytest.raises(KeyError):
        interpolate("SELECT x FROM y WHERE z =~ /^${zone:regex}$/", {}, time_range)


@pytest.mark.parametrize("path", ["/write", "/api/v2/write", "/api/v2/delete"])
def test_through_the_data_source_nothing_can_be_changed(
    influx: InfluxD, source: DataSource, path: str
) -> None:
    parameters = {"db": influx.bucket, "bucket": influx.bucket, "org": influx.org}
    line = b"readings,device=forged temperature_c=0"
    assert source.send(path, parameters, line, "text/plain").status in {401, 403}
    assert influx.query_influxql("SELECT * FROM readings WHERE device = 'forged'") == []


@pytest.mark.usefixtures("source")
def test_a_wrong_password_is_refused(influx: InfluxD) -> None:
    variables = {"INFLUXDB_BUCKET": influx.bucket, "GRAFANA_INFLUXDB_PASSWORD": "another"}
    (settings,) = provisioned(DATASOURCES, variables)["datasources"]
    with pytest.raises(QueryError, match="Unauthorized"):
        DataSource(settings, LOOPBACK, influx.port).query("SHOW MEASUREMENTS")
