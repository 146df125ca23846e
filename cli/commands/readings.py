"""`iotctl readings`: the rows of one device."""

from __future__ import annotations

import csv
import sys
from typing import TYPE_CHECKING, Any

import click

from bridge.sinks import open_sink
from broker_config.clock import now_ms
from broker_config.errors import ConfigurationError, NotRunningError
from broker_config.home import require_home
from cli.context import Invocation, identity, pass_invocation
from cli.durations import Duration
from cli.output import print_json_lines, print_table, when
from cli.status_client import ask

if TYPE_CHECKING:
    from bridge.readings import Row

MAX_ROWS = 1_000_000


@click.command(epilog="Example: iotctl readings kitchen --last 15m --csv > kitchen.csv")
@click.argument("device", callback=identity)
@click.option("--last", type=Duration(), default="1h", show_default=True, help="How far back.")
@click.option(
    "--limit",
    type=click.IntRange(1, MAX_ROWS),
    default=10_000,
    show_default=True,
    help="At most so many rows, the newest ones.",
)
@click.option("--csv", "as_csv", is_flag=True, help="CSV with a header.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a reading.")
@pass_invocation
def readings(
    invocation: Invocation, device: str, last: float, limit: int, as_csv: bool, as_json: bool
) -> None:
    """Readings of one device, oldest first, from whichever database is configured."""
    if as_csv and as_json:
        raise click.UsageError("give --csv or --json, not both")
    rows = _read(invocation, device, since_ms=now_ms() - int(last * 1000), limit=limit)
    if as_json:
        print_json_lines(_answer(row) for row in rows)
        return
    names = sorted({name for row in rows for name in row.values})
    table = [
        [row.values.get(name, "") for name in names] + [row.ts_source, ",".join(row.faults)]
        for row in rows
    ]
    if as_csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(["device", "ts", *names, "ts_source", "faults"])
        for row, cells in zip(rows, table, strict=True):
            writer.writerow([device, _ts_ms(row), *cells])
        return
    print_table(
        ["TIME", *(name.upper() for name in names), "TIME FROM", "FAULTS"],
        [[when(_ts_ms(row)), *cells] for row, cells in zip(rows, table, strict=True)],
        empty=f"No readings of {device} in this time; `iotctl status` tells whether data arrives.",
    )


def _read(invocation: Invocation, device: str, *, since_ms: int, limit: int) -> list[Row]:
    require_home(invocation.folder)
    settings = invocation.settings()
    _check_same_database(invocation, "influxdb" if settings.influx.url else "embedded")
    if not settings.influx.url and not invocation.folder.readings_file.exists():
        return []
    sink = open_sink(invocation.folder, settings, read_only=True)
    try:
        return list(sink.read(device, since_ms=since_ms, limit=limit))
    finally:
        sink.close()


def _check_same_database(invocation: Invocation, ours: str) -> None:
    """A running bridge may have been given another database than this call, by a variable.

    Raises:
        ConfigurationError: so that nobody takes an empty answer for missing data.
    """
    try:
        theirs = ask(invocation.folder, "/api/status")["sink"]["kind"]
    except NotRunningError:
        return
    if theirs != ours:
        raise ConfigurationError(
            f"the running bridge writes to {theirs}, this call would read {ours}",
            "give both the same settings (iot.toml, or IOT_INFLUX_URL and its token)",
        )


def _ts_ms(row: Row) -> int:
    return row.time_ns // 1_000_000


def _answer(row: Row) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "device": row.device,
        "ts": _ts_ms(row),
        "ts_source": row.ts_source,
        "values": row.values,
    }
    return {**answer, "faults": list(row.faults)} if row.faults else answer
