"""Wait for a condition with a deadline."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
LOOK_S = 0.05


def wait_for(look: Callable[[], T | None], *, what: str, deadline_s: float = 30.0) -> T:
    """The first answer of `look` that is true.

    Raises:
        AssertionError: there was none before the deadline; it says what was waited for, and the
            last answer.
    """
    until = time.monotonic() + deadline_s
    while True:
        answer = look()
        if answer:
            return answer
        if time.monotonic() > until:
            msg = f"no {what} within {deadline_s:g} s"
            raise AssertionError(msg)
        time.sleep(LOOK_S)
