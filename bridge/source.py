"""The seam in front of the bridge: where messages come from.

An MQTT subscription now (`subscriber.py`); everything behind it stays when another comes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bridge.outcomes import Delivery


class SourceState(NamedTuple):
    """What is known about the way to the broker.

    Attributes:
        connected: the subscription stands.
        since_ms: since when that is so, in the ms of `clock.steady_ms`.
        problem: why it is not connected; empty when it is.
        echo_ms: when the bridge's own heartbeat last came back through the broker, likewise.
    """

    connected: bool
    since_ms: int
    problem: str
    echo_ms: int | None


class Source(Protocol):
    """Hands over messages; those that are not acknowledged are still the broker's."""

    async def start(self) -> None:
        """Begin to connect; returns at once."""

    async def next_batch(self) -> list[Delivery]:
        """Wait for messages, then return those that are there, oldest first."""

    def acknowledge(self, batch: Sequence[Delivery]) -> None:
        """Say that a batch is on disk."""

    def publish(self, topic: str, payload: bytes) -> None:
        """Send a message with QoS 1 at the next opportunity; it may be lost."""

    def beat(self) -> None:
        """Send the own heartbeat, and connect anew where none came back for too long."""

    @property
    def state(self) -> SourceState:
        """What is known about the way to the broker."""

    async def stop(self) -> None:
        """Acknowledge what was said to be on disk, and disconnect."""
