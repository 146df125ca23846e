"""The wheel installs into an empty environment, and `iotctl` works there."""

from __future__ import annotations

import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from tests.harness.system import clean_environment

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--outdir", str(folder), str(ROOT)],
        check=True, capture_output=True, timeout=170,
    )  # fmt: skip
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("empty-venv")
    venv.create(folder, with_pip=True)
    subprocess.run(
        [folder / "bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
         "--constraint", ROOT / "constraints.txt", wheel],
        check=True, capture_output=True, timeout=170,
    )  # fmt: skip
    return folder / "bin/iotctl"


def test_the_wheel_holds_the_packages_and_their_files(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {
        "bridge",
        "broker_config",
        "cli",
    }
    assert {
        "broker_config/policy_default.toml", "broker_config/iot_default.toml",
        "bridge/web/page/index.html", "bridge/web/page/status.css", "bridge/web/page/status.js",
    } <= names  # fmt: skip


@pytest.mark.timeout(400)
def test_iotctl_works_where_only_the_wheel_is(installed: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [installed, "--help"], cwd=tmp_path, env=clean_environment(), capture_output=True,
        text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "iotctl up --demo 10" in done.stdout
    version = subprocess.run(
        [installed, "--version"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert version.stdout.startswith("iotctl, version 0.")
