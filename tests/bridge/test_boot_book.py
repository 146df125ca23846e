"""The memory of boots forgets nothing that is not on disk."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.boot_book import BootBook
from bridge.outcomes import BootState
from bridge.seen import SeenRanges
from broker_config.errors import StorageError
from tests.bridge.examples import LAW

Key = tuple[str, int]


class Disk:
    """What a journal does with boots: it keeps copies, and hands out copies."""

    def __init__(self) -> None:
        self.kept: dict[Key, tuple[list[tuple[int, int]], int | None]] = {}
        self.reads = 0

    def load(self, device: str, boot: int) -> BootState:
        self.reads += 1
        ranges, offset_ms = self.kept.get((device, boot), ([], None))
        return BootState(SeenRanges(ranges), offset_ms)

    def commit(self, changed: dict[Key, BootState]) -> None:
        for key, state in changed.items():
            self.kept[key] = (state.seen.ranges(), state.offset_ms)


class Add(NamedTuple):
    """A reading was accepted."""

    boot: int
    n: int


class Learn(NamedTuple):
    """A clock offset was learned."""

    boot: int
    offset_ms: int


steps = st.lists(
    st.builds(Add, st.integers(0, 6), st.integers(0, 9))
    | st.builds(Learn, st.integers(0, 6), st.integers(0, 9))
    | st.sampled_from(["look", "commit", "forget"]),
    max_size=60,
)


@LAW
@given(steps, st.integers(0, 4))
def test_the_book_and_the_disk_know_everything_whatever_is_evicted(
    sequence: list[Add | Learn | str], max_cached: int
) -> None:
    disk = Disk()
    book = BootBook(disk.load, max_cached=max_cached)
    judged: dict[int, tuple[set[int], int | None]] = {}
    on_disk: dict[int, tuple[set[int], int | None]] = {}
    for step in sequence:
        if isinstance(step, Add | Learn):
            state = book.get("dev-1", step.boot)
            numbers, offset_ms = judged.get(step.boot, (set(), None))
            if isinstance(step, Add):
                assert state.seen.add(step.n) == (step.n not in numbers)
                judged[step.boot] = (numbers | {step.n}, offset_ms)
            else:
                state.offset_ms = step.offset_ms
                judged[step.boot] = (numbers, step.offset_ms)
            book.changed("dev-1", step.boot, state)
        elif step == "commit":
            disk.commit(book.take_changed())
            on_disk = dict(judged)
        elif step == "forget":
            book.forget_changed()
            judged = dict(on_disk)
        else:
            for boot in range(7):
                numbers, offset_ms = judged.get(boot, (set(), None))
                state = book.get("dev-1", boot)
                assert {n for n in range(10) if n in state.seen} == numbers
                assert state.offset_ms == offset_ms


def test_what_is_known_is_not_read_again() -> None:
    disk = Disk()
    book = BootBook(disk.load)
    assert book.get("dev-1", 1) is book.get("dev-1", 1)
    assert disk.reads == 1


def test_boots_of_two_devices_are_two() -> None:
    book = BootBook(Disk().load)
    book.get("dev-1", 1).seen.add(5)
    assert 5 not in book.get("dev-2", 1).seen
    assert 5 not in book.get("dev-1", 2).seen


def test_memory_is_bounded_by_what_was_asked_for() -> None:
    book = BootBook(Disk().load, max_cached=10)
    for boot in range(1_000):
        book.get("dev-1", boot)
    assert len(book._known) == 10


def test_what_was_taken_is_not_taken_again() -> None:
    book = BootBook(Disk().load)
    state = book.get("dev-1", 1)
    book.changed("dev-1", 1, state)
    assert book.take_changed() == {("dev-1", 1): state}
    assert book.take_changed() == {}


def test_a_journal_that_cannot_be_read_is_said_and_tried_again() -> None:
    disk = Disk()
    answers = iter([StorageError("no"), None])

    def load(device: str, boot: int) -> BootState:
        problem = next(answers)
        if problem:
            raise problem
        return disk.load(device, boot)

    book = BootBook(load)
    with pytest.raises(StorageError):
        book.get("dev-1", 1)
    assert book.get("dev-1", 1).seen.ranges() == []
