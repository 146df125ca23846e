"""How answers look: tables and plain lines for people, JSON for programs.

Colour only on a terminal, and not where NO_COLOR is set (rich honours both).
"""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click
import msgspec
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from broker_config.events import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence


def print_error(line: str) -> None:
    """One line on stderr."""
    click.secho(
        f"iotctl: {printable(' '.join(line.split()))}", fg="red" if _colour() else None, err=True
    )


def print_json(answer: object) -> None:
    """One JSON object on one line of stdout."""
    click.echo(msgspec.json.encode(answer).decode())


def print_json_lines(answers: Iterable[object]) -> None:
    """JSON Lines on stdout."""
    for answer in answers:
        print_json(answer)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str) -> None:
    """A table on stdout; the sentence `empty` where there are no rows."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(escape(printable(cell)) for cell in row))
    if not table.row_count:
        click.echo(empty)
        return
    console = Console(soft_wrap=not sys.stdout.isatty())
    if not sys.stdout.isatty():
        console.width = 240
    console.print(table)


def when(at_ms: int | None) -> str:
    """A time for people: UTC to the second, or a dash."""
    if at_ms is None:
        return "-"
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def ago(at_ms: int | None, now_ms: int) -> str:
    """How long ago, in the largest unit that says something."""
    if at_ms is None:
        return "never"
    seconds = max(0, now_ms - at_ms) // 1000
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit} ago"
    return f"{seconds} s ago"


@contextmanager
def progress(
    label: str, total: int | None, *, quiet: bool = False
) -> Iterator[Callable[[int], None]]:
    """A progress bar on stderr, on a terminal only; yields the function that moves it."""
    columns: list[Any] = [
        TextColumn(label),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    ]
    hidden = quiet or not sys.stderr.isatty()
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=hidden) as bar:
        task = bar.add_task(label, total=total)
        yield lambda done: bar.update(task, completed=done)


def _colour() -> bool:
    return sys.stderr.isatty() and not os.environ.get("NO_COLOR")
