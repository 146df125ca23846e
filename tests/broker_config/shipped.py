"""The policy that is shipped, and small variations of its text."""

from __future__ import annotations

import tomllib
from importlib.resources import files

from broker_config.policy import parse_policy
from broker_config.topics import Kind

SHIPPED_TEXT = files("broker_config").joinpath("policy_default.toml").read_text("utf-8")
SHIPPED_TREE = tomllib.loads(SHIPPED_TEXT)
SHIPPED = parse_policy(SHIPPED_TEXT)

FROM_DEVICE = frozenset({Kind.READINGS, Kind.HEARTBEAT, Kind.STATUS, Kind.CONFIG_STATE})
TO_DEVICE = frozenset({Kind.RECEIPT, Kind.CONFIG, Kind.CMD})


def changed(old: str, new: str) -> str:
    """The shipped policy's text with one place written differently."""
    assert old in SHIPPED_TEXT
    return SHIPPED_TEXT.replace(old, new, 1)
