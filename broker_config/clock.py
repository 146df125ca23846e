"""The server's clock, read in one way everywhere.

`now_ms` is for what is shown and stored. Everything that measures how long something took or
takes uses `steady_ms`, which a correction of the clock does not move.
"""

from __future__ import annotations

import time


def now_ms() -> int:
    """The time now, ms since 1970 UTC."""
    return time.time_ns() // 1_000_000


def steady_ms() -> int:
    """What `now_ms` would say if nobody had set the clock since this process began."""
    return _BEGAN_MS + time.monotonic_ns() // 1_000_000


_BEGAN_MS = now_ms() - time.monotonic_ns() // 1_000_000
