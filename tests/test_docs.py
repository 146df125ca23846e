"""Documentation is true: references equal the code, links lead somewhere, examples run."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from docs.generate import PAGES
from tests.harness.system import System

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
MARKDOWN = [
    ROOT / "README.md",
    *sorted(ROOT.joinpath("docs").rglob("*.md")),
    ROOT / "deploy/README.md",
]
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")
EXAMPLE = re.compile(r"^\s*Example: (iotctl .*)$", re.MULTILINE)


@pytest.mark.parametrize("name", sorted(PAGES))
def test_references_are_fresh(name: str) -> None:
    assert ROOT.joinpath("docs", name).read_text() == PAGES[name](), "run `make docs`"


@pytest.mark.parametrize("page", MARKDOWN, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    missing = [
        link for link in LINK.findall(page.read_text()) if not page.parent.joinpath(link).exists()
    ]
    assert not missing


def test_every_command_has_an_example() -> None:
    page = PAGES["cli.md"]()
    assert page.count("\nUsage: ") == len(EXAMPLE.findall(page))


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with System(tmp_path_factory.mktemp("docs") / "home") as system:
        yield system


def test_the_examples_of_help_run(running: System, tmp_path: Path) -> None:
    """Every example but those that serve until they are stopped."""
    tmp_path.joinpath("devices.csv").write_text("device_id,site,interval\nboard-1,home,60\n")
    examples = EXAMPLE.findall(PAGES["cli.md"]())
    assert len(examples) > 10
    serving = ("iotctl up", "iotctl broker", "iotctl bridge")
    for example in examples:
        words = shlex.split(re.split(" >>? ", example)[0])[1:]
        if example.startswith(serving) or "--watch" in words:
            continue
        words = ["3s" if word == "30s" else word for word in words]
        words = [str(tmp_path / word) if word.endswith(".csv") else word for word in words]
        if words[:2] == ["devices", "show"]:
            assert running.iotctl("devices", "rotate", "kitchen").code == 0
        done = running.iotctl(*words)
        assert done.code == 0, (example, done)


def test_the_three_commands_of_the_readme(running: System) -> None:
    text = ROOT.joinpath("README.md").read_text()
    block = re.search(r"three commands\n.*?```sh\n(.*?)```", text, re.DOTALL)
    assert block
    add, publish, read = (
        shlex.split(command, comments=True)
        for command in block[1].replace("\\\n", " ").strip().split("\n")
    )
    added = running.iotctl(*(word.replace("kitchen", "readme") for word in add[1:]), "--json")
    assert added.code == 0, added.err
    credentials = added.json
    words = [word.replace("kitchen", "readme") for word in publish]
    words[words.index("1883")] = str(credentials["mqtt"]["port"])
    words[words.index("PASSWORD")] = credentials["password"]
    subprocess.run(words, check=True, timeout=30)
    running.settled(received=1)
    done = running.iotctl(*(word.replace("kitchen", "readme") for word in read[1:]))
    assert done.code == 0
    assert "21.5" in done.out
    assert "48" in done.out
