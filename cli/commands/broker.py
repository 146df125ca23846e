"""`iotctl broker`: the broker alone."""

from __future__ import annotations

import asyncio

import click

from broker_config.broker.process import run_broker
from broker_config.events import configure_logging
from broker_config.home import ensure_home
from broker_config.run_files import authority
from cli.context import Invocation, pass_invocation


@click.group(epilog="Example: iotctl broker run --mqtt-port 1884")
def broker() -> None:
    """The broker alone."""


@broker.command(epilog="Example: iotctl broker run --mqtt-port 1884")
@click.option("--mqtt-host", help="Address to listen on.  [default: from iot.toml]")
@click.option("--mqtt-port", type=int, help="Port to listen on; 0 picks a free one.")
@pass_invocation
def run(invocation: Invocation, mqtt_host: str | None, mqtt_port: int | None) -> None:
    """Run the broker in the foreground until SIGTERM or Ctrl-C."""
    ensure_home(invocation.folder)
    settings = invocation.settings(mqtt_host=mqtt_host, mqtt_port=mqtt_port)
    configure_logging(settings.log, process="broker")
    asyncio.run(
        run_broker(
            invocation.folder,
            settings,
            lambda address: click.echo(f"ready mqtt={authority(address.host, address.port)}"),
        )
    )
