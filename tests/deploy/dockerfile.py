"""A Dockerfile as a list of stages; hadolint checks that it is a correct one."""

import json
import shlex
from pathlib import Path
from typing import NamedTuple


class Instruction(NamedTuple):
    """`word` is the keyword in capitals, `rest` what follows it, on one line."""

    word: str
    rest: str


class Stage(NamedTuple):
    """One FROM and what follows it, up to the next."""

    image: str
    instructions: list[Instruction]

    def all(self, word: str) -> list[str]:
        """The arguments of every instruction of that name."""
        return [each.rest for each in self.instructions if each.word == word]

    def last(self, word: str) -> str:
        """The arguments of the one that counts: of several, Docker uses the last.

        Raises IndexError if there is none.
        """
        return self.all(word)[-1]

    def environment(self) -> dict[str, str]:
        """What ENV sets, before expansion."""
        words = [word for rest in self.all("ENV") for word in shlex.split(rest)]
        return dict(word.split("=", 1) for word in words)

    def healthcheck(self) -> list[str]:
        """The command of HEALTHCHECK in its exec form."""
        command: list[str] = json.loads(self.last("HEALTHCHECK").partition(" CMD ")[2])
        return command


def read_stages(path: Path) -> list[Stage]:
    """The stages of a Dockerfile, in order."""
    text = "\n".join(
        line for line in path.read_text("utf-8").splitlines() if not line.lstrip().startswith("#")
    )
    stages: list[Stage] = []
    for line in text.replace("\\\n", " ").splitlines():
        word, _, rest = line.strip().partition(" ")
        if word.upper() == "FROM":
            stages.append(Stage(rest.split()[0], []))
        elif word:
            stages[-1].instructions.append(Instruction(word.upper(), " ".join(rest.split())))
    return stages
