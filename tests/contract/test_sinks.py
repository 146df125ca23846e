"""What every sink promises, asked of the embedded store and of a real InfluxDB alike."""

from __future__ import annotations

import time
from itertools import count
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bridge.line_protocol import INGEST_HEALTH, READINGS, Point, point_of
from bridge.readings import check_values, row_time_ns
from broker_config.errors import SinkUnreachableError
from tests.bridge.examples import NOW_MS, POLICY, reading, row

if TYPE_CHECKING:
    from bridge.readings import Row
    from bridge.sinks.base import Sink
    from tests.contract.conftest import Database

MINUTE_MS = 60_000
TODAY_MS = time.time_ns() // 1_000_000 - 10 * MINUTE_MS
"""A moment that every database has behind it."""


def write(sink: Sink, *rows: Row) -> None:
    sink.write([point_of(one) for one in rows])


def read(sink: Sink, device: str, *, since_ms: int = 0, limit: int = 1_000) -> list[Row]:
    return list(sink.read(device, since_ms=since_ms, limit=limit))


def minutes(device: str, numbers: range) -> list[Row]:
    return [
        row(device, TODAY_MS - (1_000 - number) * MINUTE_MS, values={"gas_ratio": float(number)})
        for number in numbers
    ]


def numbers_of(rows: list[Row]) -> list[float]:
    return [one.values["gas_ratio"] for one in rows]


def test_a_reading_comes_back_as_it_was_written(sink: Sink, device: str) -> None:
    written = row(
        device,
        time_ns=row_time_ns(TODAY_MS, 4_211_000),
        values={"temperature_c": 23.4, "humidity_pct": 51.0, "gas_ratio": 0.1},
        faults=("dht11.timeout", "mq135.cold"),
        ts_source="boot",
    )
    write(sink, written)
    assert read(sink, device) == [written]


def test_what_was_written_is_there_for_another_process(
    sink: Sink, device: str, database: Database
) -> None:
    write(sink, *minutes(device, range(3)))
    other = database.open()
    assert numbers_of(read(other, device)) == [0.0, 1.0, 2.0]
    other.close()


def test_writing_again_changes_nothing(sink: Sink, device: str) -> None:
    rows = minutes(device, range(5))
    for _ in range(3):
        write(sink, *rows)
    write(sink, *rows[2:], *rows[2:])
    assert read(sink, device) == rows


def test_fields_of_one_time_are_merged_and_the_last_value_of_each_wins(
    sink: Sink, device: str
) -> None:
    write(sink, row(device, TODAY_MS, values={"temperature_c": 1.0, "gas_ratio": 5.0}))
    write(sink, row(device, TODAY_MS, values={"temperature_c": 2.0}, faults=("dht11.timeout",)))
    write(sink, row(device, TODAY_MS, values={"humidity_pct": 3.0}, ts_source="received"))
    assert read(sink, device) == [
        row(
            device,
            TODAY_MS,
            values={"temperature_c": 2.0, "gas_ratio": 5.0, "humidity_pct": 3.0},
            faults=("dht11.timeout",),
            ts_source="received",
        )
    ]


def test_the_order_of_writing_does_not_matter(sink: Sink, device: str) -> None:
    rows = minutes(device, range(6))
    write(sink, *rows[3:])
    write(sink, *reversed(rows[:3]))
    assert read(sink, device) == rows


@pytest.mark.parametrize("limit", [1, 2, 9, 10, 11])
def test_of_more_than_the_limit_the_newest_are_kept_oldest_first(
    sink: Sink, device: str, limit: int
) -> None:
    write(sink, *minutes(device, range(10)))
    assert numbers_of(read(sink, device, limit=limit)) == [float(n) for n in range(10)][-limit:]


def test_since_is_a_time_that_is_still_included(sink: Sink, device: str) -> None:
    rows = minutes(device, range(4))
    write(sink, *rows)
    since_ms = rows[2].time_ns // 1_000_000
    assert numbers_of(read(sink, device, since_ms=since_ms)) == [2.0, 3.0]
    assert numbers_of(read(sink, device, since_ms=since_ms + 1)) == [3.0]
    assert numbers_of(read(sink, device, since_ms=since_ms, limit=1)) == [3.0]


def test_a_reading_that_is_a_little_ahead_of_the_server_is_read_too(
    sink: Sink, device: str
) -> None:
    """The policy takes a device's clock that is up to `clock.ahead_s` ahead."""
    ahead_ms = time.time_ns() // 1_000_000 + (POLICY.clock.ahead_s - 10) * 1_000
    written = row(device, ahead_ms)
    write(sink, written)
    assert read(sink, device, since_ms=TODAY_MS) == [written]


def test_a_device_that_was_never_written_has_nothing(sink: Sink) -> None:
    assert read(sink, "dev-that-is-nowhere") == []


def test_one_device_is_not_another(sink: Sink, device: str) -> None:
    names = [device, f"{device}0", f"{device}.", device.upper(), f"{device}-x", device[:-1]]
    write(sink, *(row(name, TODAY_MS + number) for number, name in enumerate(names)))
    for number, name in enumerate(names):
        assert read(sink, name) == [row(name, TODAY_MS + number)]


@pytest.mark.parametrize(
    "name",
    ["", '"', "' or '1'='1", '" or true or "', "${device}", "\\", "x\ny", '") |> drop()', "%", "*"],
    ids=repr,
)
def test_a_name_that_looks_like_a_query_finds_nothing(sink: Sink, device: str, name: str) -> None:
    write(sink, row(device, TODAY_MS))
    assert read(sink, name) == []


@pytest.mark.parametrize(
    "site",
    [
        "",
        "Halle 7, Köln",
        "naïve = yes",
        '"quoted"',
        "工場 🏭",
        "a,b c=d",
        " padded ",
        "#1",
        "${x}",
        "e\u0301",
    ],
    ids=repr,
)
def test_a_site_is_any_printable_text(sink: Sink, device: str, site: str) -> None:
    written = row(device, TODAY_MS, site=site)
    write(sink, written)
    assert read(sink, device) == [written]


def test_a_device_that_moved_keeps_what_it_measured_before(sink: Sink, device: str) -> None:
    before, after = row(device, TODAY_MS, site="hall"), row(device, TODAY_MS + 1, site="yard")
    write(sink, before, after)
    assert read(sink, device) == [before, after]
    assert read(sink, device, limit=1) == [after]


@pytest.mark.parametrize(
    "faults",
    [
        (),
        ("dht11.timeout",),
        ("a", "b", "c"),
        ("Fühler kaputt", "'", "="),
        ('quote " here', "slash \\ here", "trailing\\"),
        ("x" * 64,) * 16,
    ],
    ids=lambda faults: repr(faults)[:40],
)
def test_faults_that_a_device_may_send_come_back(
    sink: Sink, device: str, faults: tuple[str, ...]
) -> None:
    assert check_values(reading(faults=list(faults)), POLICY) is None
    write(sink, row(device, TODAY_MS, faults=faults))
    assert [one.faults for one in read(sink, device)] == [faults]


@pytest.mark.parametrize("faults", [("dht11.timeout, twice",), ("a,b", "c"), (",",)], ids=repr)
def test_faults_with_a_comma_are_either_refused_or_come_back(
    sink: Sink, device: str, faults: tuple[str, ...]
) -> None:
    if check_values(reading(faults=list(faults)), POLICY) is None:
        write(sink, row(device, TODAY_MS, faults=faults))
        assert [one.faults for one in read(sink, device)] == [faults]


def test_a_reading_that_has_faults_and_no_values_is_one(sink: Sink, device: str) -> None:
    written = row(device, TODAY_MS, values={}, faults=("dht11.timeout",))
    write(sink, written)
    assert read(sink, device) == [written]


def test_readings_without_the_same_quantities_do_not_lend_each_other_any(
    sink: Sink, device: str
) -> None:
    rows = [
        row(device, TODAY_MS, values={"temperature_c": 1.0}),
        row(device, TODAY_MS + 1, values={"humidity_pct": 2.0}, faults=("x",)),
        row(device, TODAY_MS + 2, values={}),
    ]
    write(sink, *rows)
    assert read(sink, device) == rows


def test_the_millisecond_is_exact_and_below_it_what_the_sink_promises(
    sink: Sink, device: str, database: Database
) -> None:
    written = [row_time_ns(TODAY_MS + ms, order) for ms in (0, 1, 999) for order in (0, 1, 999_999)]
    write(sink, *(row(device, time_ns=time_ns) for time_ns in written))
    found = [one.time_ns for one in read(sink, device)]
    assert found == [time_ns // database.exact_to_ns * database.exact_to_ns for time_ns in written]
    assert [time_ns // 1_000_000 for time_ns in found] == [ns // 1_000_000 for ns in written]


def test_readings_of_one_millisecond_are_as_many_as_were_written(sink: Sink, device: str) -> None:
    rows = [
        row(device, time_ns=row_time_ns(TODAY_MS, n), values={"gas_ratio": float(n)})
        for n in range(100)
    ]
    write(sink, *rows)
    assert numbers_of(read(sink, device)) == [float(n) for n in range(100)]


_examples = count(1)


@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(sorted(POLICY.quantities)),
            st.floats(allow_nan=False, allow_infinity=False),
            min_size=1,
        ),
        min_size=1,
        max_size=20,
    )
)
def test_every_number_comes_back_exactly(
    sink: Sink, device: str, values: list[dict[str, float]]
) -> None:
    own = f"{device}-{next(_examples)}"
    rows = [row(own, TODAY_MS + number, values=one) for number, one in enumerate(values)]
    write(sink, *rows)
    write(sink, *rows)
    assert read(sink, own) == rows


def test_points_of_another_measurement_are_no_readings(sink: Sink, device: str) -> None:
    tags = {"device": device, "site": ""}
    health = Point(INGEST_HEALTH, tags, {"ratio": 1.0, "stored": 5}, TODAY_MS * 1_000_000)
    sink.write([health, health._replace(tags={"bridge": device})])
    assert read(sink, device) == []
    assert read(sink, "") == []
    assert INGEST_HEALTH != READINGS


def test_a_database_that_went_away_is_said_for_writing_and_kept_for_later(mortal: Database) -> None:
    sink = mortal.open()
    write(sink, row("dev-1", TODAY_MS))
    mortal.take_away()
    with pytest.raises(SinkUnreachableError):
        write(sink, row("dev-1", TODAY_MS + 1))
    sink.close()


def test_nothing_to_write_is_no_error(sink: Sink) -> None:
    sink.write([])


def test_a_moment_long_ago_is_as_good_as_any(sink: Sink, device: str) -> None:
    old_ms = NOW_MS - POLICY.clock.behind_s * 1_000
    written = row(device, old_ms)
    write(sink, written)
    assert read(sink, device, since_ms=old_ms) == [written]
