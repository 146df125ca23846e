from __future__ import annotations

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_config.errors import ConfigurationError, PolicyError
from broker_config.toml_tree import convert_tree, nearest, parse_toml, unknown_key

from .strategies import UNTIMED


class Leaf(msgspec.Struct, frozen=True):
    number: int = 0
    text: str = ""


class Tree(msgspec.Struct, frozen=True):
    leaf: Leaf = Leaf()
    named: dict[str, Leaf] = {}
    several: tuple[Leaf, ...] = ()
    listed: list[Leaf] = []
    plain: dict[str, int] = {}
    words: tuple[str, ...] = ()


def convert(text: str) -> Tree:
    tree = parse_toml(text, where="f.toml", error=PolicyError)
    return convert_tree(tree, Tree, where="f.toml", error=PolicyError)


def test_a_text_becomes_a_tree() -> None:
    assert convert(
        'words = ["a"]\n[leaf]\nnumber = 1\n[named.x]\ntext = "y"\n[[several]]\nnumber = 2\n'
        "[[listed]]\n[plain]\nanything = 3\n"
    ) == Tree(
        leaf=Leaf(1),
        named={"x": Leaf(text="y")},
        several=(Leaf(2),),
        listed=[Leaf()],
        plain={"anything": 3},
        words=("a",),
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("leef = 1", "unknown key leef, did you mean leaf?"),
        ("leaf.nummer = 1", "unknown key leaf.nummer, did you mean number?"),
        ("named.x.nummer = 1", "unknown key named.x.nummer, did you mean number?"),
        ("[[several]]\n[[several]]\ntxt=1", "unknown key several[1].txt, did you mean text?"),
        ("[[listed]]\ntxt = 1", "unknown key listed[0].txt, did you mean text?"),
        ("zzzz = 1", "unknown key zzzz (known: leaf, listed, named, plain, several, words)"),
        ("leaf = 3", "Expected `object`, got `int` in `leaf`"),
        ("[[leaf]]", "Expected `object`, got `array` in `leaf`"),
        ('leaf.number = "3"', "Expected `int`, got `str` in `leaf.number`"),
        ("[[several]]\nnumber = 1.5", "Expected `int`, got `float` in `several[0].number`"),
        ("named = 3", "Expected `object`, got `int` in `named`"),
        ('[named.y]\nnumber = "3"', "named.y.number"),
        ('plain.y = "3"', "plain.y"),
        ("words = [1]", "Expected `str`, got `int` in `words[0]`"),
        ("[leaf\nnumber = 1", "at line 1, column 6"),
        ("words = []\nwords = []", "Cannot overwrite a value"),
    ],
)
def test_an_error_names_the_file_the_key_and_the_nearest(text: str, told: str) -> None:
    with pytest.raises(PolicyError) as caught:
        convert(text)
    line = str(caught.value)
    assert line.startswith("f.toml")
    assert told in line
    assert "\n" not in line


def test_the_error_is_of_the_kind_that_was_asked_for() -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_toml("=", where="f.toml", error=ConfigurationError)
    assert type(caught.value) is ConfigurationError


def test_a_tree_without_unknown_keys_has_none() -> None:
    assert unknown_key({"leaf": {"number": "of the wrong type"}, "named": 3}, Tree) is None


@UNTIMED
@given(st.text("ab_=.[]{}'\"#\n0-19 :TZ\\u,ex+\t\r\x00é", max_size=40) | st.text())
def test_any_text_is_a_tree_or_one_line(text: str) -> None:
    answer: object
    try:
        answer = parse_toml(text, where="f.toml", error=PolicyError)
    except PolicyError as exc:
        answer = str(exc)
    assert isinstance(answer, dict) or "\n" not in str(answer)


@pytest.mark.parametrize(
    "text",
    [
        # TOML 1.0, "Integer": what cannot be represented losslessly is an error
        f"number = {'1' * 5_000}",
        f"nested = {'[' * 100_000}",
    ],
    ids=["integer", "nested"],
)
def test_what_python_cannot_hold_is_an_error_like_any_other(text: str) -> None:
    with pytest.raises(PolicyError):
        parse_toml(text, where="f.toml", error=PolicyError)


KNOWN = ["password", "username", "host", "port", "allow_plaintext"]


@UNTIMED
@given(st.sampled_from(KNOWN), st.integers(0, 14), st.sampled_from("xyz_"))
def test_one_wrong_letter_is_recognised(name: str, position: int, letter: str) -> None:
    at = position % len(name)
    assert nearest(name[:at] + letter + name[at + 1 :], KNOWN) == f", did you mean {name}?"


@UNTIMED
@given(st.text(max_size=10))
def test_nearest_always_offers_known_names_only(name: str) -> None:
    answer = nearest(name, KNOWN)
    listed = answer.removeprefix(" (known: ").removesuffix(")").split(", ")
    assert answer in {f", did you mean {known}?" for known in KNOWN} or listed == sorted(KNOWN)


@UNTIMED
@given(st.floats())
def test_numbers_arrive_as_they_were_written(number: float) -> None:
    tree = parse_toml(f"x = {number!r}", where="f.toml", error=PolicyError)
    assert tree["x"] == number or math.isnan(number)
