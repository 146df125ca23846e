"""`decide_connect`: which CONNECT is let in, and the code of each that is not."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_config import refusals
from broker_config.policy import Policy, Principal, Role, decide_connect, parse_policy

from .shipped import SHIPPED, changed
from .strategies import UNTIMED

if TYPE_CHECKING:
    from broker_config.refusals import Code

DEVICE = Principal("esp-1", Role.DEVICE)
BRIDGE = Principal("bridge", Role.BRIDGE)
OPS = Principal("ann", Role.OPS)


def connect(
    *,
    client_id: str = "esp-1",
    username: str | None = "esp-1",
    has_password: bool = True,
    principal: Principal | None = DEVICE,
    revoked: bool = False,
    password_matches: bool = True,
    policy: Policy = SHIPPED,
) -> Code | None:
    refusal = decide_connect(
        policy,
        client_id=client_id,
        username=username,
        has_password=has_password,
        principal=principal,
        revoked=revoked,
        password_matches=password_matches,
    )
    return refusal.code if refusal else None


CONNECTS: list[tuple[dict[str, Any], Code | None]] = [
    ({}, None),
    ({"username": None}, refusals.NO_CREDENTIALS),
    ({"username": ""}, refusals.NO_CREDENTIALS),
    ({"has_password": False}, refusals.NO_CREDENTIALS),
    ({"username": None, "has_password": False, "principal": None}, refusals.NO_CREDENTIALS),
    ({"principal": None, "password_matches": False}, refusals.UNKNOWN_IDENTITY),
    ({"password_matches": False}, refusals.BAD_PASSWORD),
    # Whether a name was revoked is told to its owner only.
    ({"password_matches": False, "revoked": True}, refusals.BAD_PASSWORD),
    ({"revoked": True}, refusals.REVOKED),
    ({"revoked": True, "client_id": "x"}, refusals.REVOKED),
    ({"client_id": "x"}, refusals.CLIENT_ID_MISMATCH),
    ({"client_id": ""}, refusals.CLIENT_ID_MISMATCH),
    ({"client_id": "esp-1-a"}, refusals.CLIENT_ID_MISMATCH),
    ({"client_id": "ESP-1"}, refusals.CLIENT_ID_MISMATCH),
    ({"client_id": "bridge-2", "username": "bridge", "principal": BRIDGE}, None),
    ({"client_id": "ann-phone", "username": "ann", "principal": OPS}, None),
    ({"client_id": "annphone", "username": "ann", "principal": OPS}, refusals.CLIENT_ID_MISMATCH),
    ({"client_id": "x-ann", "username": "ann", "principal": OPS}, refusals.CLIENT_ID_MISMATCH),
]


@pytest.mark.parametrize(("given_", "code"), CONNECTS)
def test_connect_by_table(given_: dict[str, Any], code: Code | None) -> None:
    assert connect(**given_) is code


def test_the_table_has_every_code_of_connecting() -> None:
    of_stage = {code for code in refusals.every_code() if code.stage is refusals.Stage.CONNECT}
    # A filter is refused at SUBSCRIBE, by decide_topic.
    assert {code for _, code in CONNECTS if code} == of_stage - {refusals.SUBSCRIPTION_DENIED}


def test_only_the_right_password_of_a_valid_principal_gets_in() -> None:
    for username, has_password, principal, revoked, matches in product(
        ("esp-1", "", None), (True, False), (DEVICE, None), (True, False), (True, False)
    ):
        code = connect(
            username=username,
            has_password=has_password,
            principal=principal,
            revoked=revoked,
            password_matches=matches,
        )
        good = bool(username and has_password and principal and not revoked and matches)
        assert (code is None) is good


@UNTIMED
@given(st.text(max_size=300))
def test_a_free_client_id_is_free(client_id: str) -> None:
    free = parse_policy(changed('client_id = "username"', 'client_id = "any"'))
    assert connect(client_id=client_id, policy=free) is None
    assert connect(client_id=client_id, policy=free, password_matches=False) is not None
