"""The topic grammar `v1/<device>/<kind>` and MQTT filter matching. Pure.

Sources: MQTT 3.1.1 sections 4.7.1 to 4.7.3 for topic names and filters.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import NamedTuple

ROOT = "v1"
"""First level of every topic; the version of the grammar."""

MAX_TOPIC_BYTES = 65_535
"""A topic is an MQTT UTF-8 string with a two-byte length [MQTT-4.7.3-3]."""

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


class Kind(StrEnum):
    """The last part of a topic: what the message is."""

    READINGS = "readings"
    HEARTBEAT = "heartbeat"
    STATUS = "status"
    CONFIG_STATE = "config/state"
    RECEIPT = "receipt"
    CONFIG = "config"
    CMD = "cmd"


class DeviceTopic(NamedTuple):
    """A parsed `v1/<device>/<kind>`."""

    device: str
    kind: Kind


def is_identity(name: str) -> bool:
    """Whether `name` may be a device id, MQTT username and client id.

    The alphabet has no `/`, `+`, `#` and no space, so an identity can stand in a topic and in
    a filter without escaping.
    """
    return _ID.fullmatch(name) is not None


def topic_for(device: str, kind: Kind) -> str:
    """The topic of one kind of message of one device.

    Raises:
        ValueError: if `device` is no identity.
    """
    if not is_identity(device):
        msg = f"{device!r} is not a device id"
        raise ValueError(msg)
    return f"{ROOT}/{device}/{kind.value}"


def parse_topic(topic: str) -> DeviceTopic | None:
    """The device and kind of a topic of ours, or None for any other topic."""
    root, _, rest = topic.partition("/")
    device, _, kind = rest.partition("/")
    if root != ROOT or not is_identity(device):
        return None
    try:
        return DeviceTopic(device, Kind(kind))
    except ValueError:
        return None


def is_valid_topic_name(topic: str) -> bool:
    """Whether a PUBLISH may name this topic [MQTT-3.3.2-2] [MQTT-4.7.3-1] [MQTT-4.7.3-2]."""
    return (
        len(topic) > 0
        and "\x00" not in topic
        and "+" not in topic
        and "#" not in topic
        and len(topic.encode("utf-8", "surrogatepass")) <= MAX_TOPIC_BYTES
    )


def is_valid_filter(topic_filter: str) -> bool:
    """Whether a SUBSCRIBE may name this filter [MQTT-4.7.1-2] [MQTT-4.7.1-3] [MQTT-4.7.3-1]."""
    if not topic_filter or "\x00" in topic_filter:
        return False
    if len(topic_filter.encode("utf-8", "surrogatepass")) > MAX_TOPIC_BYTES:
        return False
    levels = topic_filter.split("/")
    for position, level in enumerate(levels):
        if "#" in level and (level != "#" or position != len(levels) - 1):
            return False
        if "+" in level and level != "+":
            return False
    return True


def matches(topic_filter: str, topic: str) -> bool:
    """Whether a valid filter matches a topic name (MQTT 3.1.1 section 4.7).

    A filter that starts with a wildcard does not match a topic that starts with `$`
    [MQTT-4.7.2-1].
    """
    if topic[:1] == "$" and topic_filter[:1] in ("+", "#"):
        return False
    wanted = topic_filter.split("/")
    given = topic.split("/")
    for position, level in enumerate(wanted):
        if level == "#":
            return True
        if position >= len(given):
            return False
        if level not in ("+", given[position]):
            return False
    return len(wanted) == len(given)


def covers(allowed: str, wanted: str) -> bool:
    """Whether every topic that filter `wanted` matches is also matched by filter `allowed`."""
    if wanted == "#":
        return allowed in ("#", "+/#")
    if wanted[:1] == "$" and allowed[:1] in ("+", "#"):
        return False
    have = allowed.split("/")
    want = wanted.split("/")
    for position, level in enumerate(have):
        if level == "#":
            return True
        if position >= len(want) or want[position] == "#" or level not in ("+", want[position]):
            return False
    return len(have) == len(want)
