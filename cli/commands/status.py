"""`iotctl status`: is data arriving, and if not, why?"""

from __future__ import annotations

import sys
import time
from typing import Any

import click
from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from broker_config.clock import now_ms
from broker_config.errors import NotRunningError
from broker_config.events import printable
from cli.context import Invocation, pass_invocation
from cli.output import ago, print_json, when
from cli.status_client import ask

EXIT_BAD = 1
WATCH_EVERY_S = 1.0
_STYLE = {"ok": "bold green", "degraded": "bold yellow", "down": "bold red"}
_MARK = {"ok": "●", "degraded": "▲", "down": "■"}


@click.command(epilog="Example: iotctl status --watch")
@click.option("--watch", is_flag=True, help="Keep showing it until Ctrl-C.")
@click.option(
    "--json", "as_json", is_flag=True, help="One JSON object (with --watch one a second)."
)
@pass_invocation
@click.pass_context
def status(ctx: click.Context, invocation: Invocation, watch: bool, as_json: bool) -> None:
    """Is data arriving, and if not, why?

    Exits with 0 when ok, 1 when degraded or down, 3 when nothing is running.
    """
    if watch:
        _watch(invocation, as_json=as_json)
        return
    answer = ask(invocation.folder, "/api/status")
    if as_json:
        print_json(answer)
    else:
        Console(soft_wrap=True).print(render(answer, now_ms()))
    ctx.exit(0 if answer["level"] == "ok" else EXIT_BAD)


def _watch(invocation: Invocation, *, as_json: bool) -> None:
    if as_json or not sys.stdout.isatty():
        while True:
            answer = ask(invocation.folder, "/api/status")
            if as_json:
                print_json(answer)
            else:
                click.echo(one_line(answer))
            time.sleep(WATCH_EVERY_S)
    with Live(console=Console(), refresh_per_second=4, screen=False) as live:
        while True:
            try:
                live.update(render(ask(invocation.folder, "/api/status"), now_ms()))
            except NotRunningError as exc:
                live.update(Text(str(exc), style="bold red"))
            time.sleep(WATCH_EVERY_S)


def one_line(answer: dict[str, Any]) -> str:
    """The answer in one line."""
    counts = answer["devices"]
    line = (
        f"{answer['level']} health {answer['ingest_health']:.3f} "
        f"({answer['stored']} of {answer['expected']} in {answer['window_s']} s) · "
        f"{counts['reporting']} of {counts['enrolled']} devices reporting"
    )
    return f"{line} · {answer['cause']['code']}" if answer["cause"] else line


def render(answer: dict[str, Any], at_ms: int) -> Group:
    """The answer for a terminal."""
    level = answer["level"]
    head = Text.assemble(
        (f"{_MARK[level]} {level}", _STYLE[level]),
        f"   ingest health {answer['ingest_health'] * 100:.1f} %"
        f"   {answer['stored']} stored of {answer['expected']} expected in {answer['window_s']} s",
    )
    parts: list[Any] = [head]
    if answer["cause"]:
        parts.append(_cause(answer["cause"], at_ms))
    parts.append(_facts(answer))
    if answer["refusals"]:
        parts.append(_refusals(answer["refusals"], at_ms))
    return Group(*parts)


def _cause(cause: dict[str, Any], at_ms: int) -> Text:
    text = Text(f"\n{printable(cause['summary'])}", style="bold")
    text.append(
        f"\n  cause    {cause['code']}, since {ago(cause['since_ms'], at_ms)}", style="not bold"
    )
    for line in cause["evidence"]:
        text.append(f"\n  seen     {printable(line)}", style="not bold")
    for suspect in cause["ruled_out"]:
        text.append(
            f"\n  not      {suspect['code']}: {printable(suspect['because'])}", style="dim not bold"
        )
    text.append(f"\n  do       {printable(cause['action'])}\n", style="not bold")
    return text


def _facts(answer: dict[str, Any]) -> Table:
    ledger, devices, sink = answer["ledger"], answer["devices"], answer["sink"]
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim")
    table.add_column()
    table.add_row(
        "ledger",
        f"{ledger['received']} received = {ledger['stored']} stored"
        f" + {ledger['duplicate']} duplicate + {ledger['refused']} refused"
        f" + {ledger['pending']} pending",
    )
    table.add_row(
        "devices",
        f"{devices['enrolled']} enrolled: {devices['reporting']} reporting,"
        f" {devices['late']} late, {devices['silent']} silent,"
        f" {devices['never_seen']} never seen",
    )
    table.add_row("database", f"{sink['kind']}, {sink['state']}, backlog {sink['backlog']}")
    policy = answer["policy"]
    table.add_row(
        "policy", f"{policy['revision'][:12]}, active since {when(policy['activated_ms'])}"
    )
    return table


def _refusals(refusals: list[dict[str, Any]], at_ms: int) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("REFUSED AS", "COUNT", "DEVICES", "LAST"):
        table.add_column(column)
    for one in refusals:
        table.add_row(
            escape(one["code"]), str(one["count"]), str(one["devices"]), ago(one["last_ms"], at_ms)
        )
    return table
