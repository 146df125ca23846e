from __future__ import annotations

import signal

import pytest

from .children import running


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_process_that_is_told_to_stop_ends_in_order(number: signal.Signals) -> None:
    with running("wait-for-stop") as child:
        assert child.ready == "waiting"
        assert child.signal(number) == 0
        assert child.stdout.read() == "stopped\n"
