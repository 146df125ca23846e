"""What is remembered of the boots of all devices, in bounded memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from bridge.outcomes import BootState

MAX_CACHED = 100_000
"""Boots kept in memory, about a kilobyte each; others are read again from the journal."""


class BootBook:
    """A cache in front of the journal's boots.

    What changed since the last `take_changed` is never forgotten, so that the book and the
    journal together always know everything that was judged.
    """

    def __init__(
        self, load: Callable[[str, int], BootState], *, max_cached: int = MAX_CACHED
    ) -> None:
        self._load = load
        self._max_cached = max_cached
        self._known: dict[tuple[str, int], BootState] = {}
        self._changed: dict[tuple[str, int], BootState] = {}

    def get(self, device: str, boot: int) -> BootState:
        """The state of one boot, from memory or from the journal.

        Raises:
            StorageError: when the journal cannot be read.
        """
        key = (device, boot)
        state = self._known.get(key) or self._changed.get(key)
        if state is None:
            state = self._load(device, boot)
            self._known[key] = state
            if len(self._known) > self._max_cached:
                del self._known[next(iter(self._known))]
        return state

    def changed(self, device: str, boot: int, state: BootState) -> None:
        """Say that `state` has to be written with the next commit."""
        self._changed[device, boot] = state

    def forget_changed(self) -> None:
        """Undo everything since the last take: what is on disk is read again when needed."""
        for key in self._changed:
            self._known.pop(key, None)
        self._changed = {}

    def take_changed(self) -> dict[tuple[str, int], BootState]:
        """Everything that changed since the last take; the caller commits it."""
        changed = self._changed
        self._changed = {}
        return changed
