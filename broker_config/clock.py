"""The server's clock, read in one way everywhere."""

from __future__ import annotations

import time


def now_ms() -> int:
    """The time now, ms since 1970 UTC."""
    return time.time_ns() // 1_000_000
