"""`SeenRanges` is a set of integers, written as ranges."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge import seen
from bridge.seen import SeenRanges
from tests.bridge.examples import LAW

few = st.lists(st.integers(0, 40))
any_order = few | st.lists(st.integers(0, 2**53))


@LAW
@given(any_order, few)
def test_it_is_the_set_of_what_was_added(added: list[int], asked: list[int]) -> None:
    ranges, expected = SeenRanges(), set[int]()
    for n in added:
        assert ranges.add(n) == (n not in expected)
        expected.add(n)
        assert n in ranges
    assert {n for n in [*asked, *added] if n in ranges} == expected & {*asked, *added}
    assert {n - 1 for n in added if n - 1 in ranges} == expected & {n - 1 for n in added}


@LAW
@given(few)
def test_its_ranges_are_sorted_disjoint_and_not_adjacent(added: list[int]) -> None:
    ranges = SeenRanges()
    for n in added:
        ranges.add(n)
        assert all(low <= high for low, high in ranges.ranges())
        assert all(high + 1 < low for (_, high), (low, _) in pairwise(ranges.ranges()))
    covered = [n for low, high in ranges.ranges() for n in range(low, high + 1)]
    assert covered == sorted(set(added))


@LAW
@given(few, few)
def test_it_goes_on_from_its_ranges_as_if_never_written_down(
    before: list[int], after: list[int]
) -> None:
    kept = SeenRanges()
    for n in before:
        kept.add(n)
    restored = SeenRanges(kept.ranges())
    assert [kept.add(n) for n in after] == [restored.add(n) for n in after]
    assert kept.ranges() == restored.ranges()


def test_counting_up_is_one_range() -> None:
    ranges = SeenRanges()
    for n in range(10_000):
        ranges.add(n)
    assert ranges.ranges() == [(0, 9_999)]


@pytest.mark.parametrize("bound", [1, 2, 5])
def test_the_lowest_ranges_are_forgotten_first(bound: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seen, "MAX_RANGES", bound)
    ranges = SeenRanges()
    for n in range(0, 40, 2):
        assert ranges.add(n)
    assert ranges.ranges() == [(n, n) for n in range(0, 40, 2)][-bound:]


@LAW
@given(st.lists(st.integers(0, 100)), st.integers(1, 6))
def test_the_bound_holds_and_invents_nothing(added: list[int], bound: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(seen, "MAX_RANGES", bound)
        ranges = SeenRanges()
        for n in added:
            ranges.add(n)
            assert len(ranges.ranges()) <= bound
    covered = {n for low, high in ranges.ranges() for n in range(low, high + 1)}
    assert covered <= set(added)
    assert not added or max(added) in covered


def test_a_device_in_wild_order_stays_within_the_bound() -> None:
    ranges = SeenRanges()
    for n in range(0, 4 * seen.MAX_RANGES, 2):
        ranges.add(n)
    assert len(ranges.ranges()) == seen.MAX_RANGES
