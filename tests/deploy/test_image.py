"""The Dockerfile, as far as it can be checked without a Docker engine."""

import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from configparser import ConfigParser
from pathlib import Path

import pytest

from tests.services.ports import LOOPBACK, find_free_port

from .dockerfile import Stage, read_stages
from .files import DOCKERFILE, ROOT, checker

PACKAGES = ("bridge", "broker_config", "cli")
TIMEOUT_S = 30
BUILD_TIMEOUT_S = 300


@pytest.fixture(name="stages")
def fixture_stages() -> list[Stage]:
    return read_stages(DOCKERFILE)


def hadolint(path: Path) -> subprocess.CompletedProcess[str]:
    """Lint a Dockerfile: its grammar and, through ShellCheck, that of its commands."""
    return subprocess.run(
        [checker("hadolint"), "--no-color", path],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def copied_sources(stage: Stage) -> list[str]:
    """What a stage copies from the build context."""
    words = [rest.split() for rest in stage.all("COPY") if not rest.startswith("--from=")]
    return [source.removeprefix("./") for sources in words for source in sources[:-1]]


def test_hadolint_finds_nothing() -> None:
    result = hadolint(DOCKERFILE)
    assert result.stdout == ""
    assert result.returncode == 0


def test_hadolint_would_find_an_instruction_that_is_none(tmp_path: Path) -> None:
    wrong = tmp_path / "Dockerfile"
    wrong.write_text(DOCKERFILE.read_text("utf-8").replace("STOPSIGNAL", "STOPSIGN"), "utf-8")
    assert hadolint(wrong).returncode != 0


def test_the_image_is_built_in_one_stage_and_runs_in_another(stages: list[Stage]) -> None:
    build, final = stages
    assert build.image == final.image
    assert copied_sources(final) == []
    assert "constraints.txt" in " ".join(build.all("RUN"))


def test_it_runs_as_a_fixed_user_who_is_not_root(stages: list[Stage]) -> None:
    user = stages[-1].last("USER")
    uid, gid = map(int, user.split(":"))
    assert uid == gid == 10001
    assert f"--uid {uid} " in " ".join(stages[-1].all("RUN"))


def test_it_says_how_it_is_started_stopped_and_kept(stages: list[Stage]) -> None:
    final = stages[-1]
    home = final.environment()["IOT_HOME"]
    assert json.loads(final.last("CMD"))[:2] == ["iotctl", "up"]
    assert final.last("STOPSIGNAL") == "SIGTERM"
    assert final.last("VOLUME") == home
    assert final.last("WORKDIR") == home
    assert final.last("EXPOSE").split() == ["1883", "8080"]


def test_iotctl_knows_the_command_and_its_flags(stages: list[Stage]) -> None:
    program, *arguments = json.loads(stages[-1].last("CMD"))
    assert program == "iotctl"
    for words, code in ((arguments, 0), ([*arguments, "--no-such-flag"], 2)):
        result = subprocess.run(
            [sys.executable, "-m", "cli.main", *words, "--help"],
            capture_output=True,
            cwd=ROOT,
            timeout=TIMEOUT_S,
            check=False,
        )
        assert result.returncode == code


def test_the_context_lets_in_what_is_copied_and_nothing_else(stages: list[Stage]) -> None:
    lines = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    assert patterns[0] == "*"
    let_in = {pattern.removeprefix("!") for pattern in patterns if pattern.startswith("!")}
    assert let_in == set(copied_sources(stages[0]))


def test_a_whole_wheel_comes_out_of_the_context(stages: list[Stage], tmp_path: Path) -> None:
    """Nothing that the wheel needs is missing from what the Dockerfile copies."""
    context = tmp_path / "context"
    context.mkdir()
    for name in copied_sources(stages[0]):
        if (ROOT / name).is_dir():
            skip = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, context / name, ignore=skip)
        else:
            shutil.copy(ROOT / name, context / name)
    pip_wheel = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    subprocess.run(
        [*pip_wheel, "--wheel-dir", tmp_path, context],
        check=True,
        timeout=BUILD_TIMEOUT_S,
    )

    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (entry_points,) = [name for name in names if name.endswith("/entry_points.txt")]
        parser = ConfigParser()
        parser.read_string(archive.read(entry_points).decode())
    assert parser["console_scripts"]["iotctl"] == "cli.main:main"
    sources = {
        path.relative_to(context).as_posix()
        for package in PACKAGES
        for path in (context / package).rglob("*")
        if path.is_file()
    }
    assert sources - names == set()


class _Readyz(http.server.BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status if self.path == "/readyz" else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(name="port")
def fixture_port() -> Iterator[int]:
    _Readyz.status = 200
    server = http.server.ThreadingHTTPServer((LOOPBACK, find_free_port()), _Readyz)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


def health_check(stage: Stage, port: int) -> int:
    """The exit code of the image's health check, asked at another port; 0 means healthy.

    The environment has a proxy, as Docker gives it to containers where one is configured.
    """
    program, *arguments = stage.healthcheck()
    assert program == "python"
    assert stage.environment()["IOT_HTTP_PORT"] == "8080"
    command = [argument.replace("8080", str(port)) for argument in arguments]
    environment = {**os.environ, "http_proxy": "http://127.0.0.1:9", "no_proxy": ""}
    return subprocess.run(
        [sys.executable, *command],
        env=environment,
        stderr=subprocess.DEVNULL,
        timeout=TIMEOUT_S,
        check=False,
    ).returncode


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (503, False), (404, False)])
def test_the_health_check_asks_readyz(
    stages: list[Stage], port: int, status: int, *, healthy: bool
) -> None:
    _Readyz.status = status
    assert (health_check(stages[-1], port) == 0) == healthy


def test_the_health_check_fails_where_nothing_listens(stages: list[Stage]) -> None:
    assert health_check(stages[-1], find_free_port()) != 0
