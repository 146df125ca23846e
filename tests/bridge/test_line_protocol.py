"""Line protocol: what goes in comes out of a real InfluxDB."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from bridge.line_protocol import INGEST_HEALTH, READINGS, Point, encode_point, point_of
from tests.bridge.examples import LAW, NOW_MS, row
from tests.services import influxd
from tests.services.influxd import InfluxD, influxd_program
from tests.services.requirements import require

if TYPE_CHECKING:
    from collections.abc import Iterator

TIME_NS = NOW_MS * 1_000_000
HOSTILE = ", =\"'#/+|;:()[]{}$%&?!*~^<>@éß漢😀\u00a0\u2028\u200b\ufeff\uffff"
RESERVED = {"time", "_time", "_field", "_measurement"}
"""Keys that InfluxDB keeps for itself: it refuses them with a sentence, or reads them as its own."""

names = st.text(
    st.sampled_from(HOSTILE)
    | st.characters(exclude_categories=["Cs"], exclude_characters="\\\x7f", min_codepoint=32),
    min_size=1,
    max_size=12,
).filter(lambda name: name not in RESERVED)
texts = st.text(
    st.sampled_from(HOSTILE + "\\\n\r\t\x00\x1b\x7f") | st.characters(exclude_categories=["Cs"])
)
numbers = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**63), 2**63 - 1)
keys = st.lists(names, unique=True, min_size=4, max_size=4)


@st.composite
def points(draw: st.DrawFn) -> Point:
    """Points whose every name and value is as hostile as InfluxDB may take it."""
    tag, other_tag, field, other_field = draw(keys)
    tags = {tag: draw(names), other_tag: draw(names)}
    fields = {field: draw(numbers | st.booleans()), other_field: draw(texts)}
    measurement = draw(names.filter(lambda name: not name.startswith("#")))
    return Point(measurement, tags, fields, TIME_NS + draw(st.integers(0, 3_600_000_000_000)))


@pytest.fixture(name="influx", scope="module")
def fixture_influx() -> Iterator[InfluxD]:
    with InfluxD(require(influxd_program(), influxd.HOW_TO_GET)) as server:
        yield server


_run = count()


def written_and_read(influx: InfluxD, wanted: list[Point]) -> tuple[list[Any], list[Any]]:
    """What was written with one request, and what InfluxDB says to it, in the same form.

    Every point gets a measurement of its own, so that no two share a series or a field's type.
    InfluxQL is asked because its JSON keeps line breaks, which Flux' CSV does not.
    """
    run = next(_run)
    own = [
        one._replace(measurement=f"{one.measurement}·{run}·{position}")
        for position, one in enumerate(wanted)
    ]
    influx.write("\n".join(encode_point(one) for one in own))
    statements = [f"SELECT * FROM {quoted(one.measurement)} GROUP BY *" for one in own]
    found = influx.query_influxql(";".join(statements), epoch="ns")
    sent = [
        {"_measurement": one.measurement, "time": one.time_ns, **one.tags, **one.fields}
        for one in own
    ]
    for expected, got in zip(sent, found, strict=True):
        for key, value in expected.items():
            if isinstance(value, float) and isinstance(got.get(key), int):
                got[key] = float(got[key])  # this JSON writes a whole float as an integer
    return sent, found


def quoted(identifier: str) -> str:
    """InfluxQL specification, "Identifiers"."""
    escaped = identifier.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


@settings(max_examples=8, deadline=None, phases=[Phase.generate])  # a server is slow to shrink on
@given(st.lists(points(), min_size=40, max_size=80))
def test_every_point_comes_back_from_the_real_database(
    influx: InfluxD, wanted: list[Point]
) -> None:
    sent, found = written_and_read(influx, wanted)
    assert found == sent


POSITIONS = {
    "measurement": lambda name: Point(name, {"t": "x"}, {"f": 1.0}, TIME_NS),
    "tag key": lambda name: Point("m", {name: "x"}, {"f": 1.0}, TIME_NS),
    "tag value": lambda name: Point("m", {"t": name}, {"f": 1.0}, TIME_NS),
    "field key": lambda name: Point("m", {"t": "x"}, {name: 1.0}, TIME_NS),
}
IN_ANY_POSITION = [
    *("a,b", "a b", 'a"b', "a=b", " a", "a ", ",", "=", '"', "'", "a\u2028b", "漢字", "😀", "a#b"),
    *("e\u0301", "A\uff41", "\u200b", "1", "1i", "true", "-", "a\u0085b"),
]


@pytest.mark.parametrize("position", sorted(POSITIONS))
def test_every_special_character_survives_in_every_position(influx: InfluxD, position: str) -> None:
    sent, found = written_and_read(influx, [POSITIONS[position](name) for name in IN_ANY_POSITION])
    assert found == sent


@pytest.mark.parametrize("position", sorted(POSITIONS))
@pytest.mark.parametrize(
    "name", ["a\nb", "a\rb", "\t", "\x00", "\x7f", "a\\", "\\,", "a\\ b", "\\"]
)
def test_a_name_that_cannot_be_written_is_an_error(position: str, name: str) -> None:
    with pytest.raises(ValueError, match="cannot be a name"):
        encode_point(POSITIONS[position](name))


@pytest.mark.parametrize("position", ["measurement", "tag key", "field key"])
def test_an_empty_name_is_an_error(position: str) -> None:
    with pytest.raises(ValueError, match="cannot be a name"):
        encode_point(POSITIONS[position](""))


@pytest.mark.parametrize("name", ["#", "#readings", "# a"])
def test_a_measurement_that_influxdb_would_take_for_a_comment_is_an_error(name: str) -> None:
    """InfluxDB answers 204 to a line that begins with # and stores nothing."""
    with pytest.raises(ValueError, match="cannot be a name"):
        encode_point(POSITIONS["measurement"](name))


def test_string_values_survive_line_breaks_quotes_and_backslashes(influx: InfluxD) -> None:
    strings = [
        "",
        "\n",
        "a\nb",
        "a\r\nb",
        "\r",
        '"',
        '\\"',
        "\\",
        "a\\",
        "\\\\",
        "\\n",
        "\t\x00\x1b",
    ]
    strings += ['"m f=1', "x" * 10_000, 'a",f2="b', "f=1 1\nm2 f=2"]
    sent, found = written_and_read(
        influx, [Point("m", {}, {"f": text}, TIME_NS) for text in strings]
    )
    assert found == sent


def test_every_type_of_field_is_kept(influx: InfluxD) -> None:
    values: list[float | int | bool] = [0.0, -0.0, 1.0, 0.1, 1 / 3, 1e16, 1e22, 1e300, 5e-324]
    values += [1.7976931348623157e308, 0, 1, -1, 2**63 - 1, -(2**63), True, False]
    influx.write(
        "\n".join(
            encode_point(Point(f"types{position}", {}, {"f": value}, TIME_NS))
            for position, value in enumerate(values)
        )
    )
    rows = influx.query_flux(
        'from(bucket: "iot") |> range(start: 2026-01-01T00:00:00Z, stop: 2027-01-01T00:00:00Z)'
        " |> filter(fn: (r) => r._measurement =~ /^types[0-9]+$/)"
    )
    found = {row["_measurement"]: row["_value"] for row in rows}
    assert [repr(found[f"types{position}"]) for position in range(len(values))] == [
        repr(value) for value in values
    ]


def test_flux_sees_the_same_names_as_influxql(influx: InfluxD) -> None:
    wanted = Point('f,l u=x"', {"ta g=,": "v a,l=é"}, {'fi e"l,d=': 1.5}, TIME_NS)
    influx.write(encode_point(wanted))
    rows = influx.query_flux(
        'from(bucket: "iot") |> range(start: 2026-01-01T00:00:00Z, stop: 2027-01-01T00:00:00Z)'
        ' |> filter(fn: (r) => r._measurement == "f,l u=x\\"")'
    )
    assert [(r["ta g=,"], r["_field"], r["_value"]) for r in rows] == [
        ("v a,l=é", 'fi e"l,d=', 1.5)
    ]


@LAW
@given(points())
def test_a_line_has_as_many_bare_line_breaks_as_its_strings(point: Point) -> None:
    line = encode_point(point)
    strings = [value for value in point.fields.values() if isinstance(value, str)]
    assert line.count("\n") == sum(text.count("\n") for text in strings)
    assert line.endswith(f" {point.time_ns}")


@LAW
@given(points(), st.randoms())
def test_the_order_of_tags_does_not_matter(point: Point, random: Any) -> None:
    shuffled = list(point.tags.items())
    random.shuffle(shuffled)
    assert encode_point(point._replace(tags=dict(shuffled))) == encode_point(point)


def test_the_example_of_the_influxdb_documentation() -> None:
    """InfluxDB v2 documentation, "Line protocol", the example under its heading."""
    point = Point(
        "myMeasurement",
        {"tag1": "value1", "tag2": "value2"},
        {"fieldKey": "fieldValue"},
        1556813561098000000,
    )
    line = 'myMeasurement,tag1=value1,tag2=value2 fieldKey="fieldValue" 1556813561098000000'
    assert encode_point(point) == line


def test_a_tag_without_a_value_is_left_out() -> None:
    point = Point("m", {"site": "", "device": "d"}, {"f": 1.5}, 7)
    assert encode_point(point) == "m,device=d f=1.5 7"
    assert encode_point(point._replace(tags={"site": ""})) == "m f=1.5 7"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_is_not_finite_is_an_error(value: float) -> None:
    with pytest.raises(ValueError, match="cannot be a field"):
        encode_point(Point("m", {}, {"f": value}, 0))


def test_a_point_without_fields_is_an_error() -> None:
    with pytest.raises(ValueError, match="needs a field"):
        encode_point(Point("m", {"t": "x"}, {}, 0))


def test_the_point_of_a_reading() -> None:
    made = point_of(row("dev-1", values={"gas_ratio": 1}, faults=("dht11.timeout", "mq135.cold")))
    assert made == Point(
        READINGS,
        {"device": "dev-1", "site": "hall"},
        {"gas_ratio": 1.0, "ts_source": "device", "faults": "dht11.timeout,mq135.cold"},
        TIME_NS,
    )
    assert isinstance(made.fields["gas_ratio"], float)


def test_a_reading_without_values_still_is_a_point() -> None:
    assert encode_point(point_of(row(values={}, site="")))


def test_the_measurements_that_dashboards_ask_for() -> None:
    assert (READINGS, INGEST_HEALTH) == ("readings", "ingest_health")
