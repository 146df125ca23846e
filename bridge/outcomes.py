"""The values that travel along the line of one reading, between its steps. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

from bridge.seen import SeenRanges

if TYPE_CHECKING:
    from bridge.readings import Row
    from broker_config.refusals import Refusal


class Delivery(NamedTuple):
    """One message as the source handed it over.

    Attributes:
        received_ms: server time of receipt, ms since 1970 UTC.
        retained: it is a retained message, not a live one [MQTT-3.3.1-8].
        token: what the source needs to acknowledge it.
    """

    topic: str
    payload: bytes
    received_ms: int
    retained: bool
    token: int


class BootState(msgspec.Struct):
    """What is remembered of one boot of one device.

    Attributes:
        seen: sequence numbers accepted.
        offset_ms: when the boot began by the server's clock, ms since 1970 UTC; None: unknown.
    """

    seen: SeenRanges
    offset_ms: int | None = None


class RefusedReading(NamedTuple):
    """One refused reading of a message.

    Attributes:
        position: place in the message, from 0.
        boot, n: its key, where it could be read.
        times: how many readings in a row it stands for; more than one only without a key.
    """

    position: int
    refusal: Refusal
    boot: int | None
    n: int | None
    times: int = 1


class Judged(NamedTuple):
    """One message with the outcome of each reading in it.

    Conservation: `received == len(rows) + duplicates + refused_readings`.

    Attributes:
        device: whose message it is; empty when the topic does not say.
        received: readings in the message; 1 for one that cannot be read.
        rows: accepted readings.
        duplicates: readings that were accepted before.
        keys: (boot, n) of every reading that is accepted now or was before.
    """

    delivery: Delivery
    device: str
    received: int
    rows: list[Row]
    duplicates: int
    refused: list[RefusedReading]
    keys: list[tuple[int, int]]

    @property
    def refused_readings(self) -> int:
        """How many readings of the message were refused."""
        return sum(one.times for one in self.refused)


class Ledger(NamedTuple):
    """The conservation of readings, measured: every number is counted by itself.

    Attributes:
        received: readings that arrived, those that the broker refused included.
        stored: readings that the database confirmed.
        pending: accepted readings that it has not confirmed yet.
    """

    received: int
    stored: int
    duplicate: int
    refused: int
    pending: int

    @property
    def difference(self) -> int:
        """Received - (stored + duplicate + refused + pending): 0 when nothing is lost."""
        return self.received - (self.stored + self.duplicate + self.refused + self.pending)
