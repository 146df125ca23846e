"""What a board knows about itself and about a failed try to connect."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from cli.simulator.connecting import (
    REFUSED_BASE_S,
    REFUSED_CAP_S,
    RETRY_BASE_S,
    RETRY_CAP_S,
    Credentials,
    retry_wait_s,
)


def test_a_password_is_never_shown() -> None:
    credentials = Credentials("dev-1", "dev-1", "correct horse")
    assert "correct horse" not in repr(credentials)
    assert "correct horse" not in f"{[credentials]}"


@given(attempt=st.integers(0, 10_000), refused=st.booleans(), seed=st.integers())
def test_a_wait_is_within_the_doubled_bound(attempt: int, refused: bool, seed: int) -> None:
    base_s, cap_s = (REFUSED_BASE_S, REFUSED_CAP_S) if refused else (RETRY_BASE_S, RETRY_CAP_S)
    wait_s = retry_wait_s(attempt, refused=refused, rng=random.Random(seed))
    assert 0 <= wait_s <= cap_s
    if attempt == 0:
        assert wait_s <= base_s


def test_boards_that_lost_one_broker_do_not_come_back_together() -> None:
    waits_s = [retry_wait_s(5, refused=False, rng=random.Random(seed)) for seed in range(1_000)]
    tenths = [sum(low <= wait_s < low + 1 for wait_s in waits_s) for low in range(10)]
    assert min(tenths) > 50
