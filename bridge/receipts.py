"""Receipts: what a device is told about its readings, at most once a second. Pure.

DESIGN, "A receipt": ranges that are safely journalled, and each refusal with what to do. A lost
receipt costs nothing: the device sends again, and a duplicate gets a receipt too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from bridge.seen import SeenRanges

if TYPE_CHECKING:
    from bridge.outcomes import Judged

INTERVAL_MS = 1_000
"""Shortest time between two receipts to one device, in ms (DESIGN)."""

MAX_REFUSALS = 100
"""Most refusals in one receipt; the device hears the others when it sends those readings again."""

MAX_DEVICES = 100_000
"""Most devices with a receipt under way; further ones get theirs when they send again."""


class _Draft:
    __slots__ = ("refused", "seen")

    def __init__(self) -> None:
        self.seen: dict[int, SeenRanges] = {}
        self.refused: list[dict[str, Any]] = []


class ReceiptBook:
    """Receipts being gathered, by device."""

    def __init__(self) -> None:
        self._drafts: dict[str, _Draft] = {}
        self._last_ms: dict[str, int] = {}

    def add(self, judged: Judged) -> None:
        """Note the outcome of one message that is on disk."""
        if not judged.device or not (judged.keys or judged.refused):
            return
        draft = self._drafts.get(judged.device)
        if draft is None:
            if len(self._drafts) >= MAX_DEVICES:
                return
            draft = self._drafts[judged.device] = _Draft()
        for boot, n in judged.keys:
            draft.seen.setdefault(boot, SeenRanges()).add(n)
        for one in judged.refused[: MAX_REFUSALS - len(draft.refused)]:
            entry: dict[str, Any] = {
                "code": one.refusal.code.name,
                "detail": one.refusal.detail,
                "action": one.refusal.code.action.value,
            }
            if one.boot is not None and one.n is not None:
                entry = {"boot": one.boot, "n": one.n, **entry}
            draft.refused.append(entry)

    def take_due(self, now_ms: int, *, policy: str) -> list[tuple[str, bytes]]:
        """The receipts that may go out now, as (device, payload)."""
        due = [
            device
            for device in self._drafts
            if not 0 <= now_ms - self._last_ms.get(device, 0) < INTERVAL_MS
        ]
        receipts = []
        for device in due:
            receipts.append((device, _encode(self._drafts.pop(device), policy)))
            self._last_ms[device] = now_ms
        if len(self._last_ms) > MAX_DEVICES:
            self._last_ms = {
                d: t for d, t in self._last_ms.items() if 0 <= now_ms - t < INTERVAL_MS
            }
        return receipts


def _encode(draft: _Draft, policy: str) -> bytes:
    seen = [
        {"boot": boot, "from": low, "to": high}
        for boot, ranges in draft.seen.items()
        for low, high in ranges.ranges()
    ]
    return msgspec.json.encode({"seen": seen, "refused": draft.refused, "policy": policy})
