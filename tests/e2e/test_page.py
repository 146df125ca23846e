"""The status page in a real Chromium shows what `iotctl status` says."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

from tests.harness.system import System
from tests.harness.waiting import wait_for
from tests.services.requirements import require

if TYPE_CHECKING:
    from pathlib import Path


def page_text(url: str, profile: Path) -> str:
    """The text of the page after its scripts ran, tags removed."""
    chromium = require("chromium", "chromium (Debian package chromium)")
    done = subprocess.run(
        [
            str(chromium), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
            "--no-first-run", "--disable-background-networking", "--disable-component-update",
            "--disable-sync", f"--user-data-dir={profile}", "--virtual-time-budget=6000",
            "--dump-dom", url,
        ],
        capture_output=True, text=True, timeout=90, check=True,
    )  # fmt: skip
    body = re.sub(r"<(script|style|template)\b.*?</\1>", " ", done.stdout, flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", body))


def test_the_page_shows_the_same_as_the_command(home: Path, tmp_path: Path) -> None:

    system = System(home)
    system.start("--demo", "5")
    try:
        status = wait_for(
            lambda: (s := system.status())["expected"] >= 20 and s, what="expected readings"
        )
        assert status["level"] == "ok"
        assert status["ingest_health"] >= 0.95
        text = page_text(system.url, tmp_path / "profile")
    finally:
        system.stop()
    assert re.search(r"\bok\b", text, re.IGNORECASE)
    shown = re.search(r"(\d+(?:\.\d+)?) ?%", text)
    assert shown
    assert float(shown[1]) >= 95
    for device in ("demo-001", "demo-005", "cape-town"):
        assert device in text
    assert status["policy"]["revision"][:12] in text


def test_the_empty_page_says_how_to_begin(embedded: System, tmp_path: Path) -> None:
    assert "iotctl devices add" in page_text(embedded.url, tmp_path / "profile")
