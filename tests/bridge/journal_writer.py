"""A process that writes a journal until it is killed, and says what it has written.

Each line on stdout is one committed batch: the ids of its messages.
"""

from __future__ import annotations

import sys
from pathlib import Path

from bridge.journal import Journal
from bridge.outcomes import BootState
from bridge.seen import SeenRanges
from tests.bridge.examples import NOW_MS, judged

MESSAGES = 5


def write_for_ever(path: Path) -> None:
    journal = Journal(path)
    seen = SeenRanges()
    batch = 0
    while True:
        ids = [batch * MESSAGES + number for number in range(1, MESSAGES + 1)]
        for n in ids:
            seen.add(n)
        journal.append(
            [judged(rows=2, duplicates=1, refused=1) for _ in ids],
            {("dev-1", 1): BootState(seen)},
            heard={"dev-1": NOW_MS},
            policy="a revision",
            now_ms=NOW_MS,
        )
        sys.stdout.write(" ".join(map(str, ids)) + "\n")
        sys.stdout.flush()
        if batch % 3 == 2:
            journal.confirm(journal.pending(4), [], policy="a revision", now_ms=NOW_MS)
        batch += 1


if __name__ == "__main__":
    write_for_ever(Path(sys.argv[1]))
