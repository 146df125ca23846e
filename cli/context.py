"""What every verb gets: the home, the environment, and how to load the settings."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from broker_config.home import Home, require_home
from broker_config.registry import Registry
from broker_config.run_files import address_of
from broker_config.settings import Settings, load_settings
from broker_config.topics import is_identity

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


EVERY_ADDRESS = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 -- compared, not bound


class Invocation(NamedTuple):
    """One call of `iotctl`."""

    home: Path
    debug: bool
    environment: Mapping[str, str]

    @property
    def folder(self) -> Home:
        """The home's paths."""
        return Home(self.home)

    def settings(self, **flags: Any) -> Settings:
        """The settings with this call's flags, given as `mqtt_port=1884`.

        Raises:
            ConfigurationError: as `broker_config.settings.load_settings`.
        """
        dotted = {name.replace("_", ".", 1): value for name, value in flags.items()}
        return load_settings(self.folder, self.environment, dotted)

    def registry(self) -> Registry:
        """The registry of an existing home.

        Raises:
            HomeError: there is no home.
            StorageError: its registry cannot be used.
        """
        require_home(self.folder)
        return Registry(self.folder.registry_file)

    def mqtt_address(self) -> tuple[str, int]:
        """Where devices connect: the running broker, else what the settings say.

        A broker that listens on every address has none of its own to show: then it is
        `mqtt.public_host`, or else the name of this machine.
        """
        running = address_of(self.folder, "broker")
        mqtt = self.settings().mqtt
        host, port = (running.host, running.port) if running else (mqtt.host, mqtt.port)
        if mqtt.public_host:
            return mqtt.public_host, port
        return (socket.gethostname() if host in EVERY_ADDRESS else host), port


def identity(_ctx: click.Context, _param: click.Parameter, value: str | None) -> str | None:
    """Check that an argument can be a device id, before anything is asked about it."""
    if value is not None and not is_identity(value):
        raise click.UsageError(f"{value!r} is no device id")
    return value


pass_invocation = click.make_pass_decorator(Invocation)
