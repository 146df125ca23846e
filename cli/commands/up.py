"""`iotctl up`: the whole system, supervised."""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import AsyncExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING

import click

from broker_config.errors import IotError
from broker_config.events import configure_logging, printable
from broker_config.home import ensure_home, read_policy
from broker_config.influx_token import read_token
from broker_config.listening_port import check_mqtt_listener, check_port, free_port
from broker_config.run_files import address_of, authority, is_running, sole_process
from broker_config.stop_signal import stop_event
from cli.commands.status import one_line
from cli.context import Invocation, pass_invocation
from cli.status_client import ask
from cli.supervisor import Child

if TYPE_CHECKING:
    from broker_config.home import Home
    from broker_config.run_files import Process
    from broker_config.settings import Settings

SUMMARY_EVERY_S = 5.0
ORPHANS_S = 10.0
"""How long the children of an `up` that was killed may take to end, in seconds."""

LOOK_S = 0.1
LATEST_SHOWN = 3
DEMO_RATE_HZ = 0.5


@click.command(epilog="Example: iotctl up --demo 10 --mqtt-port 1884 --http-port 8081")
@click.option(
    "--demo", type=click.IntRange(1, 10_000), metavar="N", help="Enrol N devices and simulate them."
)
@click.option("--mqtt-port", type=int, help="Where devices connect; 0 picks a free port.")
@click.option("--http-port", type=int, help="Where the status page is; 0 picks a free port.")
@click.option("--quiet", is_flag=True, help="Do not print a summary every few seconds.")
@pass_invocation
def up(
    invocation: Invocation,
    demo: int | None,
    mqtt_port: int | None,
    http_port: int | None,
    quiet: bool,
) -> None:
    """Start the whole system, and make its home folder where it is missing.

    Prints one line `ready mqtt=HOST:PORT http=http://HOST:PORT` when devices can connect and the
    page answers. A part that dies is started again. SIGTERM or Ctrl-C stops everything.
    """
    made = ensure_home(invocation.folder)
    settings = invocation.settings(mqtt_port=mqtt_port, http_port=http_port)
    configure_logging(settings.log, process="up")
    if made:
        click.echo(f"made a new home in {invocation.home}", err=True)
    with sole_process(invocation.folder, "up"):
        _wait_for_orphans(invocation.folder)
        _check_before_start(invocation, settings)
        # A part that is started again must come back where it was.
        settings = invocation.settings(
            mqtt_port=settings.mqtt.port or free_port(settings.mqtt.host),
            http_port=settings.http.port or free_port(settings.http.host),
        )
        asyncio.run(_run(invocation, settings, demo, show_summary=not quiet))


def _wait_for_orphans(home: Home) -> None:
    """Where an earlier `up` was killed, its children are just ending."""
    parts: tuple[Process, ...] = ("broker", "bridge")
    until = time.monotonic() + ORPHANS_S
    while any(is_running(home, part) for part in parts) and time.monotonic() < until:
        time.sleep(LOOK_S)


def _check_before_start(invocation: Invocation, settings: Settings) -> None:
    """What is wrong with the configuration is said once, before anything starts."""
    read_policy(invocation.folder)
    if settings.influx.url:
        read_token(settings.influx, invocation.home)
    check_mqtt_listener(settings.mqtt)
    check_port(settings.http.host, settings.http.port, flag="--http-port")


async def _run(
    invocation: Invocation, settings: Settings, demo: int | None, *, show_summary: bool
) -> None:
    """Serve until a signal comes, also in the middle of the start."""
    stop = stop_event()
    serving = asyncio.create_task(_serve(invocation, settings, demo, show_summary=show_summary))
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait([serving, stopping], return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    serving.cancel()
    with suppress(asyncio.CancelledError):
        await serving


async def _serve(
    invocation: Invocation, settings: Settings, demo: int | None, *, show_summary: bool
) -> None:
    """Broker, then bridge, then the demo fleet; when cancelled, the other way round."""
    mqtt, http = settings.mqtt, settings.http
    async with AsyncExitStack() as children:

        async def start(name: Process, *arguments: str) -> None:
            child = Child(name, [*_iotctl(invocation), name, "run", *arguments])
            children.push_async_callback(child.stop)
            await child.start(partial(_answers, invocation, name))

        await start("broker", "--mqtt-port", str(mqtt.port))
        await start(
            "bridge",
            "--mqtt-host",
            mqtt.host,
            "--mqtt-port",
            str(mqtt.port),
            "--http-port",
            str(http.port),
        )
        mqtt_at, http_at = authority(mqtt.host, mqtt.port), authority(http.host, http.port)
        click.echo(f"ready mqtt={mqtt_at} http=http://{http_at}")
        if demo:
            fleet = Child(
                "simulate",
                [
                    *_iotctl(invocation),
                    "simulate",
                    "--devices",
                    str(demo),
                    "--prefix",
                    "demo",
                    "--rate",
                    str(DEMO_RATE_HZ),
                    "--quiet",
                ],
            )
            children.push_async_callback(fleet.stop)
            await fleet.start(lambda _pid: True)
        if show_summary:
            await _print_summary(invocation)
        await asyncio.Event().wait()


def _iotctl(invocation: Invocation) -> list[str]:
    command = [sys.executable, "-m", "cli.main", "--supervised", "--home", str(invocation.home)]
    return [*command, "--debug"] if invocation.debug else command


def _answers(invocation: Invocation, process: Process, pid: int) -> bool:
    address = address_of(invocation.folder, process)
    return address is not None and address.pid == pid and address.ready


async def _print_summary(invocation: Invocation) -> None:
    """What arrives, every few seconds, on stderr."""
    while True:
        await asyncio.sleep(SUMMARY_EVERY_S)
        try:
            status = await asyncio.to_thread(ask, invocation.folder, "/api/status")
            latest = await asyncio.to_thread(ask, invocation.folder, "/api/devices?limit=1000")
        except IotError as exc:
            click.echo(str(exc), err=True)
            continue
        click.echo(f"{one_line(status)}{_latest(latest['devices'])}", err=True)


def _latest(devices: list[dict[str, object]]) -> str:
    heard = [d for d in devices if isinstance(d["last_ms"], int)]
    heard.sort(key=lambda d: -int(str(d["last_ms"])))
    shown = []
    for device in heard[:LATEST_SHOWN]:
        values = device["values"] if isinstance(device["values"], dict) else {}
        numbers = " ".join(f"{name} {value:g}" for name, value in sorted(values.items()))
        shown.append(f"\n    {printable(device['device'])}  {printable(numbers)}")
    return "".join(shown)
