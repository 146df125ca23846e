"""`Policy.revision`: the same for what means the same, another one for anything else."""

from __future__ import annotations

import copy
import datetime
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_config.errors import PolicyError
from broker_config.policy import parse_policy

from .shipped import SHIPPED, SHIPPED_TREE, changed
from .strategies import UNTIMED
from .toml_text import toml_text

if TYPE_CHECKING:
    from random import Random


@UNTIMED
@given(st.randoms(use_true_random=False))
def test_the_revision_does_not_depend_on_how_it_is_written(variation: Random) -> None:
    other = parse_policy(toml_text(SHIPPED_TREE, variation))
    assert other == SHIPPED
    assert other.revision == SHIPPED.revision


def test_the_revision_is_a_sha_256_in_hex() -> None:
    assert len(bytes.fromhex(SHIPPED.revision)) == 32


def leaves(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(tree, dict):
        return [leaf for key, value in tree.items() for leaf in leaves(value, (*path, key))]
    if isinstance(tree, list):
        return [leaf for n, value in enumerate(tree) for leaf in leaves(value, (*path, n))]
    return [path]


OTHER_WORDS = {
    "username": "any",
    "device": "ops",
    "bridge": "device",
    "ops": "bridge",
    "publish": "subscribe",
    "subscribe": "publish",
}


def another(value: Any) -> Any:
    """A different value of the same type that may stand in the same place."""
    if isinstance(value, str):
        return OTHER_WORDS.get(value, f"x{value}")
    if isinstance(value, datetime.datetime):
        return value + datetime.timedelta(milliseconds=1)
    return value + 1


@pytest.mark.parametrize(
    "path",
    [path for path in leaves(SHIPPED_TREE) if path != ("version",)],
    ids=lambda path: ".".join(map(str, path)),
)
def test_the_revision_changes_with_every_value(path: tuple[Any, ...]) -> None:
    tree = copy.deepcopy(SHIPPED_TREE)
    *above, last = path
    place: Any = tree
    for step in above:
        place = place[step]
    place[last] = another(place[last])
    assert parse_policy(toml_text(tree)).revision != SHIPPED.revision


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('topics = ["v1/#"]', 'topics = ["v1/#"]\neffect = "deny"'),
        ('topics = ["v1/#"]', "topics = []"),
        ("[quantities.gas_ratio]", "[quantities.gas_ratio_2]"),
        ('topics = ["v1/+/cmd", "v1/+/config"]', 'topics = ["v1/+/cmd"]'),
    ],
)
def test_the_revision_changes_with_what_is_added_or_left_out(old: str, new: str) -> None:
    assert parse_policy(changed(old, new)).revision != SHIPPED.revision


def test_the_revision_changes_with_the_order_of_the_rules() -> None:
    tree = {**SHIPPED_TREE, "rules": SHIPPED_TREE["rules"][::-1]}
    assert parse_policy(toml_text(tree)).revision != SHIPPED.revision


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('client_id = "username"', ""),
        ("ahead_s = 300", ""),
        ('topics = ["v1/#"]', 'topics = ["v1/#"]\neffect = "allow"'),
        ("min = -40.0", "min = -40"),
        ("payload_bytes = 65536", "payload_bytes = 65_536"),
        ("2024-01-01T00:00:00Z", "2024-01-01T00:00:00.000+00:00"),
        ("2024-01-01T00:00:00Z", "2024-01-01T02:00:00+02:00"),
    ],
)
def test_two_files_that_mean_the_same_share_a_revision(old: str, new: str) -> None:
    assert parse_policy(changed(old, new)).revision == SHIPPED.revision


def test_ranges_without_an_end_are_refused_or_told_apart() -> None:
    revisions = []
    for low, high in (("-inf", "inf"), ("inf", "inf"), ("-inf", "-inf")):
        try:
            policy = parse_policy(changed("min = -40.0\nmax = 85.0", f"min = {low}\nmax = {high}"))
        except PolicyError:
            continue
        revisions.append(policy.revision)
    assert len(set(revisions)) == len(revisions)
