"""docker-compose.yml as Docker Compose itself reads it."""

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .files import COMPOSE_FILE, MAKE_ENV, ROOT, checker

_TIMEOUT_S = 60

Model = dict[str, Any]


class ComposeError(Exception):
    """Docker Compose refused the file."""


def make_env_file(folder: Path) -> Path:
    """Let the generator that users run write a .env file."""
    env_file = folder / "env"
    subprocess.run([MAKE_ENV, env_file], check=True, timeout=_TIMEOUT_S, capture_output=True)
    return env_file


def read_env_file(env_file: Path) -> dict[str, str]:
    """Read the variables of a .env file that has neither quotes nor continued lines."""
    lines = env_file.read_text("utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def load_compose(
    env_file: Path,
    variables: Mapping[str, str] | None = None,
    *,
    compose_file: Path = COMPOSE_FILE,
) -> Model:
    """Return the model that Docker Compose makes of the file.

    It is validated against the schema of the compose specification, merged and interpolated.
    `variables` are added to those of `env_file`, as a user would set them in the shell.

    Raises ComposeError with its message.
    """
    environment = {"PATH": os.environ["PATH"], "HOME": str(env_file.parent), **(variables or {})}
    result = subprocess.run(
        [
            checker("docker-compose"),
            *("--project-directory", ROOT, "--env-file", env_file, "--file", compose_file),
            *("config", "--format", "json"),
        ],
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
        env=environment,
    )
    if result.returncode != 0:
        raise ComposeError(result.stderr.strip())
    model: Model = json.loads(result.stdout)
    return model
