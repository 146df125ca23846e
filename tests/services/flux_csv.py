"""Rows from the annotated CSV in which InfluxDB answers a Flux query.

An answer is a sequence of tables. Each begins with annotation lines, whose first
cell starts with #, then one line of column names; empty lines stand between.
"""

import csv
import io
from collections.abc import Callable, Iterator
from typing import Any

Row = dict[str, Any]

_CONVERT: dict[str, Callable[[str], Any]] = {
    "boolean": lambda text: text == "true",
    "double": float,
    "long": int,
    "unsignedLong": int,
}


def parse_flux_csv(text: str) -> list[Row]:
    """All rows of all tables, in order.

    Numbers and booleans have their Python type, everything else (times too, as
    RFC 3339) is text; an empty cell without a default is None.

    Raises ValueError if the answer carries an error instead of rows, as it does
    when a query fails after its first bytes were sent.
    """
    return list(_rows(text))


def _rows(text: str) -> Iterator[Row]:
    types: list[str] = []
    defaults: list[str] = []
    names: list[str] | None = None
    for cells in csv.reader(io.StringIO(text, newline="")):
        if not cells:
            names = None
        elif cells[0] == "#datatype":
            types, names = cells[1:], None
        elif cells[0] == "#default":
            defaults = cells[1:]
        elif cells[0].startswith("#"):
            continue
        elif names is None:
            names = cells[1:]
        elif names[:1] == ["error"]:
            raise ValueError(f"the Flux query failed: {cells[1]}")
        else:
            values = (
                _value(kind, cell or default)
                for kind, cell, default in zip(types, cells[1:], defaults, strict=True)
            )
            yield dict(zip(names, values, strict=True))


def _value(kind: str, cell: str) -> Any:
    if cell == "":
        return None
    return _CONVERT.get(kind, str)(cell)
