"""`iotctl simulate`: simulated devices over real MQTT."""

from __future__ import annotations

import asyncio
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from broker_config.clock import now_ms
from broker_config.errors import ConfigurationError
from broker_config.events import configure_logging
from broker_config.registry import Enrolment
from broker_config.run_files import address_of, sole_process
from broker_config.stop_signal import stop_event
from cli.context import Invocation, identity, pass_invocation
from cli.durations import Duration
from cli.output import print_json, progress
from cli.simulator.connecting import Credentials
from cli.simulator.fleet import FleetCounts, run_fleet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SETTLE_S = 1.0
EXIT_INCOMPLETE = 1
EXIT_UNREACHABLE = 3
MAX_DEVICES = 100_000
SITES = ("cape-town", "durban", "johannesburg", "pretoria")


@click.command(epilog="Example: iotctl simulate --devices 50 --rate 2 --duration 30s")
@click.option(
    "--devices",
    type=click.IntRange(1, MAX_DEVICES),
    default=10,
    show_default=True,
    help="How many.",
)
@click.option(
    "--rate",
    type=click.FloatRange(0.001, 1_000),
    default=0.5,
    show_default=True,
    help="Readings a second of each device.",
)
@click.option("--duration", type=Duration(), help="How long to take readings.  [default: no end]")
@click.option("--count", type=click.IntRange(1), help="How many readings each device takes.")
@click.option(
    "--prefix",
    default="sim",
    show_default=True,
    callback=identity,
    help="Device ids are PREFIX-001 and on.",
)
@click.option("--mqtt-host", help="Another broker; needs --credentials.")
@click.option(
    "--mqtt-port", type=click.IntRange(1, 65_535), default=1883, show_default=True, help="Its port."
)
@click.option(
    "--credentials",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="JSON Lines of `iotctl devices add --json`, for another broker.",
)
@click.option("--quiet", is_flag=True, help="No progress bar.")
@click.option("--json", "as_json", is_flag=True, help="The final counts as one JSON object.")
@pass_invocation
@click.pass_context
def simulate(
    ctx: click.Context,
    invocation: Invocation,
    devices: int,
    rate: float,
    duration: float | None,
    count: int | None,
    prefix: str,
    mqtt_host: str | None,
    mqtt_port: int,
    credentials: Path | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Run simulated devices, each with its own credentials and outbox, over real MQTT.

    In the running system of this home they are enrolled first, and revoked when they end, so
    that nobody misses them. With --mqtt-host and --credentials they run against any broker.

    Exits with 1 when a reading was refused or got no receipt, 3 when the broker was not reached.
    """
    configure_logging(invocation.settings().log, process="simulate")
    if (mqtt_host is None) != (credentials is None):
        raise click.UsageError("--mqtt-host and --credentials belong together")
    if mqtt_host is not None and credentials is not None:
        boards = read_credentials(credentials)[:devices]
        counts = _run(boards, mqtt_host, mqtt_port, rate, duration, count, quiet=quiet)
    else:
        _running_broker(invocation)
        # Two with the same names would rotate each other's secrets.
        alone = sole_process(invocation.folder, f"simulate-{prefix}")
        with alone, _enrolled(invocation, devices, prefix, rate) as boards:
            host, port = _running_broker(invocation)
            counts = _run(boards, host, port, rate, duration, count, quiet=quiet)
    _print_counts(counts, as_json=as_json)
    if not counts.sent:
        ctx.exit(EXIT_UNREACHABLE)
    ctx.exit(EXIT_INCOMPLETE if counts.refused or counts.waiting or counts.overflowed else 0)


def _running_broker(invocation: Invocation) -> tuple[str, int]:
    running = address_of(invocation.folder, "broker")
    if running is None:
        raise ConfigurationError(
            f"no broker is running in {invocation.home}", "start the system with `iotctl up`"
        )
    return running.host, running.port


@contextmanager
def _enrolled(
    invocation: Invocation, devices: int, prefix: str, rate_hz: float
) -> Iterator[list[Credentials]]:
    """Boards enrolled in this home for as long as the block lasts."""
    wanted = [
        Enrolment(
            f"{prefix}-{number:03d}",
            SITES[number % len(SITES)],
            _interval_s(rate_hz),
            simulated=True,
        )
        for number in range(1, devices + 1)
    ]
    registry = invocation.registry()
    with progress("enrolling", len(wanted)) as moved:
        issued = registry.ensure_many(wanted, now_ms=now_ms(), on_progress=moved)
    try:
        yield [Credentials(one.name, one.name, one.secret) for one in issued]
    finally:
        # What is on its way shall arrive before its sender is refused.
        time.sleep(SETTLE_S)
        registry.revoke_many([one.name for one in issued], now_ms=now_ms())
        registry.close()


def _interval_s(rate_hz: float) -> float:
    return min(86_400.0, max(0.1, 1 / rate_hz))


def _run(
    boards: list[Credentials],
    host: str,
    port: int,
    rate_hz: float,
    duration_s: float | None,
    count: int | None,
    *,
    quiet: bool,
) -> FleetCounts:
    total = int(rate_hz * duration_s * len(boards)) if duration_s else None
    if count is not None:
        total = count * len(boards)
    with progress("readings receipted", total, quiet=quiet) as moved:
        return asyncio.run(_fleet(boards, host, port, rate_hz, duration_s, count, moved))


async def _fleet(
    boards: list[Credentials],
    host: str,
    port: int,
    rate_hz: float,
    duration_s: float | None,
    count: int | None,
    moved: Callable[[int], None],
) -> FleetCounts:
    return await run_fleet(
        boards,
        host=host,
        port=port,
        tls_ca=None,
        rate_hz=rate_hz,
        duration_s=duration_s,
        count_per_device=count,
        on_progress=lambda counts: moved(counts.receipted),
        stop=stop_event(),
    )


def read_credentials(source: Path) -> list[Credentials]:
    """The credentials that `iotctl devices add --json` printed.

    Raises:
        ConfigurationError: with the line that is none.
    """
    boards = []
    for number, line in enumerate(source.read_bytes().splitlines(), 1):
        try:
            answer: dict[str, Any] = msgspec.json.decode(line)
            boards.append(Credentials(answer["device_id"], answer["username"], answer["password"]))
        except (msgspec.DecodeError, KeyError, TypeError):
            raise ConfigurationError(
                f"{source} line {number} is no credential",
                "give the output of `iotctl devices add --json`",
            ) from None
    return boards


def _print_counts(counts: FleetCounts, *, as_json: bool) -> None:
    if as_json:
        print_json(counts)
        return
    click.echo(
        f"{counts.devices} devices took {counts.taken} readings: {counts.receipted} receipted, "
        f"{counts.refused} refused, {counts.waiting} without a receipt, "
        f"{counts.overflowed} pushed out of a full outbox"
    )
