"""What a test does when a real part that it needs is not on the machine."""

import os
import shutil
from pathlib import Path

import pytest

# Debian puts servers here, and only root has these in its search path.
_SERVER_FOLDERS = ("/usr/local/sbin", "/usr/sbin", "/sbin")


def find_program(path_or_program: str | Path) -> Path | None:
    """The executable behind a path or a program's name, or None.

    A name without a slash is looked up in the search path and then in the
    folders of servers; everything else is taken as a path.
    """
    name = os.fspath(path_or_program)
    folders = [os.environ.get("PATH", os.defpath), *_SERVER_FOLDERS]
    found = shutil.which(name, path=os.pathsep.join(folders))
    return Path(found) if found else None


def require(path_or_program: str | Path, what: str) -> Path:
    """The executable that a test needs.

    `what` names the part and says how to get it. Where it is missing the test
    is skipped with that reason, and where the environment has CI=true it fails:
    there a skipped test would look like a passed one.
    """
    found = find_program(path_or_program)
    if found is not None:
        return found
    reason = f"{path_or_program} is missing: {what}"
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)
