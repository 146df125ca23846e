from __future__ import annotations

import json
import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_config import refusals
from broker_config.policy import Policy
from broker_config.refusals import (
    MAX_DETAIL_CHARS,
    Action,
    Code,
    Stage,
    code_named,
    every_code,
    refuse,
)

from .strategies import UNTIMED

every = pytest.mark.parametrize("code", every_code(), ids=lambda code: code.name)


def constants() -> list[Code]:
    return [value for value in vars(refusals).values() if isinstance(value, Code)]


def test_the_list_is_closed_and_no_name_stands_twice() -> None:
    names = [code.name for code in constants()]
    assert len(set(names)) == len(names)
    assert sorted(names) == sorted(code.name for code in every_code())


def test_the_list_is_in_the_order_of_the_line() -> None:
    stages = [code.stage for code in every_code()]
    assert stages == sorted(stages, key=list(Stage).index)
    assert set(stages) == set(Stage)


@every
def test_a_code_is_found_by_its_name(code: Code) -> None:
    assert code_named(code.name) is code


@pytest.mark.parametrize("name", ["", "publish", "publish.", "publish.nonsense", "Store.Rejected"])
def test_no_other_name_is_a_code(name: str) -> None:
    assert code_named(name) is None


@every
def test_a_name_is_its_stage_and_a_reason(code: Code) -> None:
    assert re.fullmatch(rf"{code.stage}\.[a-z]+(_[a-z]+)*", code.name)
    assert code.action in Action


@every
def test_a_meaning_is_one_sentence(code: Code) -> None:
    assert re.fullmatch(r"[A-Z`].{20,200}[^.]\.", code.meaning)


@every
def test_a_remedy_says_do_this_and_not_that(code: Code) -> None:
    assert re.fullmatch(r"[A-Z`].{10,}[^.]\.", code.remedy)
    assert re.search(r"(^|[.:;] )(Do not|do not) ", code.remedy)
    assert not code.remedy.startswith("Do not"), "first what to do"


@every
def test_json_in_a_remedy_can_be_copied(code: Code) -> None:
    for found in re.finditer(r'\{"', code.remedy):
        text = code.remedy[found.start() :]
        if not code.remedy[: found.start()].endswith(":"):
            assert "values" in json.JSONDecoder().raw_decode(text)[0]


@every
def test_a_policy_key_in_a_sentence_is_one(code: Code) -> None:
    for section, key in re.findall(r"\b(limits|clock|connect)\.([a-z_]+)", code.meaning):
        shape = msgspec.structs.fields(Policy)
        inner = next(field.type for field in shape if field.name == section)
        assert key in {field.name for field in msgspec.structs.fields(inner)}


@UNTIMED
@given(st.integers(0, 3 * MAX_DETAIL_CHARS).map(lambda n: "aé\n🌡" * n), st.text(max_size=10))
def test_a_detail_is_cut(detail: str, rule: str) -> None:
    refusal = refuse(refusals.NOT_JSON, detail, rule=rule)
    assert refusal.code is refusals.NOT_JSON
    assert len(refusal.detail) == min(len(detail), MAX_DETAIL_CHARS)
    assert detail.startswith(refusal.detail)
    assert refusal.rule == rule
