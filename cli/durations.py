"""Durations as people type them: `90s`, `15m`, `1h`, `7d`. Pure."""

from __future__ import annotations

import re
from typing import Any

import click

_UNITS_S = {"s": 1, "m": 60, "min": 60, "h": 3_600, "d": 86_400, "w": 604_800}
MAX_S = 100 * 365 * 86_400.0
_FORM = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)")


def parse_duration_s(text: str) -> float:
    """Seconds.

    Raises:
        ValueError: when `text` is no duration.
    """
    found = _FORM.fullmatch(text.strip().lower())
    if found is None or (found[2] or "s") not in _UNITS_S:
        msg = f"{text!r} is no duration; use for example 90s, 15m, 1h or 7d"
        raise ValueError(msg)
    seconds = float(found[1]) * _UNITS_S[found[2] or "s"]
    if seconds > MAX_S:
        msg = f"{text!r} is more than a hundred years"
        raise ValueError(msg)
    return seconds


class Duration(click.ParamType[float]):
    """A click parameter that takes a duration and gives seconds."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Seconds, or a usage error."""
        if isinstance(value, int | float):
            return float(value)
        try:
            return parse_duration_s(str(value))
        except ValueError as exc:
            self.fail(str(exc), param, ctx)
