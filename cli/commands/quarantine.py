"""`iotctl quarantine`: what was refused, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from bridge.journal_reader import JournalReader
from bridge.readings import payload_text
from broker_config.clock import now_ms
from broker_config.home import require_home
from broker_config.refusals import every_code
from cli.context import Invocation, identity, pass_invocation
from cli.durations import Duration
from cli.output import print_json_lines, print_table, when

if TYPE_CHECKING:
    from bridge.journal_reader import StoredRefusal


@click.group(epilog="Example: iotctl quarantine list --last 1d")
def quarantine() -> None:
    """What was refused, and why."""


@quarantine.command(name="list", epilog="Example: iotctl quarantine list --device kitchen --json")
@click.option("--device", callback=identity, help="Only this device.")
@click.option(
    "--code",
    type=click.Choice([code.name for code in every_code()]),
    help="Only this refusal code.",
)
@click.option("--last", type=Duration(), default="7d", show_default=True, help="How far back.")
@click.option(
    "--limit",
    type=click.IntRange(1, 1_000_000),
    default=1_000,
    show_default=True,
    help="At most so many, the newest ones.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a refusal.")
@pass_invocation
def list_(
    invocation: Invocation,
    device: str | None,
    code: str | None,
    last: float,
    limit: int,
    as_json: bool,
) -> None:
    """List refusals, newest first."""
    require_home(invocation.folder)
    refusals: list[StoredRefusal] = []
    if invocation.folder.journal_file.exists():
        journal = JournalReader(invocation.folder.journal_file)
        refusals = journal.refusals(
            limit=limit, device=device, code=code, since_ms=now_ms() - int(last * 1000)
        )
        journal.close()
    if as_json:
        print_json_lines(_answer(refusal) for refusal in refusals)
        return
    print_table(
        ["TIME", "DEVICE", "CODE", "COUNT", "DETAIL"],
        [(when(one.at_ms), one.device or "-", one.code, one.times, one.detail) for one in refusals],
        empty="Nothing was refused in this time.",
    )


def _answer(one: StoredRefusal) -> dict[str, Any]:
    return {
        "id": one.id,
        "at_ms": one.at_ms,
        "device": one.device,
        "code": one.code,
        "detail": one.detail,
        "topic": one.topic,
        "address": one.address,
        "rule": one.rule,
        "policy": one.policy,
        "boot": one.boot,
        "n": one.n,
        "position": one.position,
        "count": one.times,
        "payload": None if one.payload is None else payload_text(one.payload),
    }
