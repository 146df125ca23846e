"""What the journal has said to be written is there after SIGKILL."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bridge.journal import Journal

REPOSITORY = Path(__file__).parents[2]


def killed_after(path: Path, batches: int) -> list[int]:
    """The ids that a writing process had said when it was killed."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.bridge.journal_writer", str(path)],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
    ) as writer:
        assert writer.stdout is not None
        said = [writer.stdout.readline() for _ in range(batches)]
        writer.kill()
        said += writer.stdout.readlines()
    return [int(number) for line in said if line.endswith("\n") for number in line.split()]


@pytest.mark.parametrize("batches", [1, 7, 40])
def test_everything_that_was_committed_survives_a_kill(tmp_path: Path, batches: int) -> None:
    path = tmp_path / "journal.db"
    committed = killed_after(path, batches)
    assert len(committed) >= batches

    journal = Journal(path)
    on_disk = [row[0] for row in journal._db.execute("SELECT id FROM messages ORDER BY id")]
    assert set(committed) <= set(on_disk)
    assert on_disk == list(range(1, len(on_disk) + 1))
    ledger = journal.ledger()
    assert ledger.difference == 0
    assert ledger.received == 4 * len(on_disk)
    assert (ledger.duplicate, ledger.refused) == (len(on_disk), len(on_disk))
    assert journal.boot("dev-1", 1).seen.ranges() == [(1, len(on_disk))]
    assert sum(len(message.rows) for message in journal.pending(10_000)) == ledger.pending
    journal.close()


def test_a_journal_that_was_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    first = killed_after(path, 3)
    journal = Journal(path)
    before = journal.ledger()
    journal.close()
    killed_after(path, 3)
    journal = Journal(path)
    after = journal.ledger()
    journal.close()
    assert after.received >= before.received + 4 * 15
    assert after.difference == 0
    assert len(first) >= 15
