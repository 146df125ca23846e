"""InfluxDB line protocol, one point a line. Pure.

Source: InfluxDB v2 documentation, "Line protocol", sections on special characters and on data
types. A tag, a key or a measurement cannot hold a line break or a control character, and a
backslash before a separator has no escape; such names are an error of ours, not of a device.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, NamedTuple

from bridge.readings import Row

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

READINGS = "readings"
"""Measurement of what devices measured."""

INGEST_HEALTH = "ingest_health"
"""Measurement of the system's own health."""


class Point(NamedTuple):
    """One point: what a line says.

    Attributes:
        tags: an empty value means that the tag is left out.
        fields: at least one; floats, integers, booleans or strings.
        time_ns: ns since 1970 UTC.
    """

    measurement: str
    tags: Mapping[str, str]
    fields: Mapping[str, float | int | bool | str]
    time_ns: int


def point_of(row: Row) -> Point:
    """The point of a stored reading: a field a quantity, and where its time came from."""
    fields: dict[str, float | int | bool | str] = {
        name: float(value) for name, value in row.values.items()
    }
    fields["ts_source"] = row.ts_source
    if row.faults:
        fields["faults"] = join_faults(row.faults)
    return Point(READINGS, {"device": row.device, "site": row.site}, fields, row.time_ns)


def row_of(device: str, site: str, time_ns: int, fields: dict[str, object]) -> Row:
    """The reading that a point of the measurement `readings` stands for."""
    faults = fields.get("faults")
    return Row(
        device=device,
        site=site,
        time_ns=time_ns,
        ts_source=str(fields.get("ts_source", "")),
        values={
            name: float(value)
            for name, value in fields.items()
            if isinstance(value, int | float) and not isinstance(value, bool)
        },
        faults=split_faults(faults) if isinstance(faults, str) else (),
    )


def join_faults(faults: Sequence[str]) -> str:
    """Fault names as one string field, with commas between; a comma in a name is escaped."""
    return ",".join(fault.replace("\\", "\\\\").replace(",", "\\,") for fault in faults)


def split_faults(joined: str) -> tuple[str, ...]:
    """The fault names that `join_faults` joined."""
    return tuple(re.sub(r"\\(.)", r"\1", name) for name in _FAULT.findall(joined))


_FAULT = re.compile(r"(?:[^,\\]|\\.)+")


def encode_point(point: Point) -> str:
    """The line of a point, without the line break.

    Raises:
        ValueError: a name cannot be written, there is no field, or a number is not finite.
    """
    if not point.fields:
        msg = f"{point.measurement}: a point needs a field"
        raise ValueError(msg)
    if point.measurement.startswith("#"):
        msg = f"{point.measurement!r} cannot be a name: a line that begins with # is a comment"
        raise ValueError(msg)
    head = [_escape(point.measurement, ", ")]
    head += [
        f"{_escape(key, ',= ')}={_escape(value, ',= ')}"
        for key, value in sorted(point.tags.items())
        if value
    ]
    fields = ",".join(
        f"{_escape(key, ',= ')}={_field(value)}" for key, value in point.fields.items()
    )
    return f"{','.join(head)} {fields} {point.time_ns}"


def _escape(name: str, special: str) -> str:
    if name.isalnum() and name.isascii():
        return name
    if not name or "\\" in name or any(c < " " or c == "\x7f" for c in name):
        msg = f"{name!r} cannot be a name in line protocol"
        raise ValueError(msg)
    for character in special:
        name = name.replace(character, f"\\{character}")
    return name


def _field(value: float | bool | str) -> str:
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return f"{value}i"
    if not math.isfinite(value):
        msg = f"{value} cannot be a field"
        raise ValueError(msg)
    return repr(value)
