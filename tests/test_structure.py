"""What holds for the tree as a whole: who imports whom, how large a file is, what names say."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("broker_config", "bridge", "cli")
MAY_IMPORT = {
    "broker_config": set(),
    "bridge": {"broker_config"},
    "cli": {"bridge", "broker_config"},
}
MAX_LINES = 400
PURE = (
    "broker_config/topics.py", "broker_config/refusals.py", "broker_config/policy.py",
    "broker_config/passwords.py", "broker_config/toml_tree.py", "bridge/readings.py",
    "bridge/line_protocol.py", "bridge/seen.py", "bridge/judge.py", "bridge/receipts.py",
    "bridge/health.py", "bridge/verdict.py", "bridge/outcomes.py", "bridge/web/status.py",
    "cli/durations.py", "cli/simulator/climate.py", "cli/simulator/outbox.py",
    "cli/simulator/schedule.py",
)  # fmt: skip
IMPURE_MODULES = {
    "asyncio", "glob", "http", "io", "logging", "os", "pathlib", "random", "secrets", "shutil",
    "socket", "sqlite3", "subprocess", "sys", "tempfile", "threading", "time", "urllib",
}  # fmt: skip
VAGUE = {"util", "utils", "manager", "helper", "helpers", "data", "misc", "common"}

SOURCES = [path for package in PACKAGES for path in sorted(ROOT.joinpath(package).rglob("*.py"))]


def imported(path: Path, *, at_run_time_only: bool = False) -> set[str]:
    """The modules that a file imports, without those for the type checker where asked."""
    tree = ast.parse(path.read_text())
    if at_run_time_only:
        tree.body = [
            node for node in tree.body
            if not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test))
        ]  # fmt: skip
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_one_way(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    foreign = {name.partition(".")[0] for name in imported(path)} & {
        *PACKAGES,
        "firmware_mpy",
        "tests",
    }
    assert foreign - {package} <= MAY_IMPORT[package]


@pytest.mark.parametrize("name", PURE)
def test_pure_modules_import_no_shell(name: str) -> None:
    found = {module.partition(".")[0] for module in imported(ROOT / name, at_run_time_only=True)}
    assert not found & IMPURE_MODULES


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_are_small_and_named_for_what_they_do(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MAX_LINES
    assert path.stem not in VAGUE
    assert not set(path.relative_to(ROOT).parts) & VAGUE


def test_every_module_says_what_it_is() -> None:
    silent = [str(path) for path in SOURCES if not ast.get_docstring(ast.parse(path.read_text()))]
    assert not silent
