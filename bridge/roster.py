"""Who is enrolled, as the bridge sees it: a snapshot that follows the registry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker_config.policy import Role

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker_config.registry import Entry, Registry


class Roster:
    """The enrolled devices; read again whenever the registry's file has changed."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._version: int | None = None
        self._devices: dict[str, Entry] = {}
        self._sites: dict[str, str] = {}
        self._revoked: frozenset[str] = frozenset()

    def devices(self) -> Mapping[str, Entry]:
        """Every enrolled device, revoked ones included, by name.

        Raises:
            StorageError: when the registry cannot be read.
        """
        self._follow()
        return self._devices

    def sites(self) -> Mapping[str, str]:
        """The site of every enrolled device.

        Raises:
            StorageError: when the registry cannot be read.
        """
        self._follow()
        return self._sites

    def revoked(self) -> frozenset[str]:
        """The enrolled devices whose credential was revoked.

        Raises:
            StorageError: when the registry cannot be read.
        """
        self._follow()
        return self._revoked

    def _follow(self) -> None:
        version = self._registry.data_version()
        if version != self._version:
            self._devices = {entry.name: entry for entry in self._registry.entries(Role.DEVICE)}
            self._sites = {entry.name: entry.site for entry in self._devices.values()}
            self._revoked = frozenset(
                entry.name for entry in self._devices.values() if entry.revoked_ms is not None
            )
            self._version = version
