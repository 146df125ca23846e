"""What every sink can do. Calls block; the forwarder makes them off the event loop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bridge.line_protocol import Point
    from bridge.readings import Row


class Sink(Protocol):
    """A database that takes points and gives readings back.

    Writes are idempotent: a point with the same measurement, tags and time is written onto
    itself.
    """

    kind: str
    """`embedded` or `influxdb`."""

    def write(self, points: Sequence[Point]) -> None:
        """Store all points; when this returns they are durable.

        Raises:
            SinkError: a leaf that says by its disposition what to do; some points may have been
                stored all the same.
        """

    def read(self, device: str, *, since_ms: int, limit: int) -> Iterator[Row]:
        """The readings of a device since a time (ms since 1970 UTC), oldest first.

        With more than `limit` of them, the newest ones.

        Raises:
            SinkError: the database does not answer.
        """

    def close(self) -> None:
        """Let go of connections and files."""
