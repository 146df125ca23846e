"""`iotctl bridge`: the bridge alone."""

from __future__ import annotations

import click
import uvloop

from bridge.process import run_bridge
from broker_config.events import configure_logging
from broker_config.home import ensure_home
from broker_config.run_files import address_of, authority
from cli.context import Invocation, pass_invocation


@click.group(epilog="Example: iotctl bridge run --http-port 8081")
def bridge() -> None:
    """The bridge alone."""


@bridge.command(epilog="Example: iotctl bridge run --mqtt-port 1884 --http-port 8081")
@click.option("--mqtt-host", help="Broker to subscribe at.  [default: this home's broker]")
@click.option("--mqtt-port", type=int, help="Its port.")
@click.option("--http-host", help="Address of the status page.")
@click.option("--http-port", type=int, help="Port of the status page; 0 picks a free one.")
@pass_invocation
def run(
    invocation: Invocation,
    mqtt_host: str | None,
    mqtt_port: int | None,
    http_host: str | None,
    http_port: int | None,
) -> None:
    """Run the bridge in the foreground until SIGTERM or Ctrl-C."""
    ensure_home(invocation.folder)
    running = address_of(invocation.folder, "broker")
    if running is not None and mqtt_host is None and mqtt_port is None:
        mqtt_host, mqtt_port = running.host, running.port
    settings = invocation.settings(
        mqtt_host=mqtt_host, mqtt_port=mqtt_port, http_host=http_host, http_port=http_port
    )
    configure_logging(settings.log, process="bridge")
    uvloop.run(
        run_bridge(
            invocation.folder,
            settings,
            lambda address: click.echo(
                f"ready http=http://{authority(address.host, address.port)}"
            ),
        )
    )
