from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING, NamedTuple

import pytest

from broker_config import refusals
from broker_config.broker.gatekeeper import MAX_TOPIC_CHARS, Gatekeeper
from broker_config.errors import StorageError
from broker_config.policy import Act, Principal, Role
from broker_config.registry import Enrolment, Registry
from tests.broker_config.shipped import SHIPPED

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from broker_config.broker.decision_log import DecisionRecord
    from broker_config.refusals import Code

ADDRESS = "192.0.2.7:4711"
DEVICE = Principal("esp-1", Role.DEVICE)


class Door(NamedTuple):
    """A gatekeeper with its registry, and the secret of the one device in it."""

    gatekeeper: Gatekeeper
    registry: Registry
    secret: str

    def admit(
        self, username: str | None, password: str | None, client_id: str | None = None
    ) -> Principal | None:
        return self.gatekeeper.admit(
            client_id=username or "" if client_id is None else client_id,
            username=username,
            password=password,
            address=ADDRESS,
        )

    def refused(self) -> DecisionRecord:
        """The one refusal since the last look."""
        (row,) = self.gatekeeper.pending.take()
        return row


@pytest.fixture(name="door")
def fixture_door(tmp_path: Path) -> Iterator[Door]:
    with closing(Registry(tmp_path / "registry.db")) as registry:
        secret = registry.add(Enrolment("esp-1"), now_ms=1).secret
        yield Door(Gatekeeper(SHIPPED, registry), registry, secret)


def test_the_right_secret_gets_in_and_leaves_no_refusal(door: Door) -> None:
    assert door.admit("esp-1", door.secret) == DEVICE
    assert door.gatekeeper.pending.take() == []


@pytest.mark.parametrize(
    ("username", "password", "client_id", "code", "device"),
    [
        (None, None, "", refusals.NO_CREDENTIALS, ""),
        (None, "x", "esp-1", refusals.NO_CREDENTIALS, ""),
        ("", "x", "", refusals.NO_CREDENTIALS, ""),
        ("esp-1", None, "esp-1", refusals.NO_CREDENTIALS, "esp-1"),
        ("esp-1", "", "esp-1", refusals.BAD_PASSWORD, "esp-1"),
        ("esp-1", "wrong", "esp-1", refusals.BAD_PASSWORD, "esp-1"),
        ("ESP-1", "wrong", "ESP-1", refusals.UNKNOWN_IDENTITY, "ESP-1"),
        ("esp-2", "wrong", "esp-2", refusals.UNKNOWN_IDENTITY, "esp-2"),
        ("esp/1\n", "wrong", "x", refusals.UNKNOWN_IDENTITY, ""),
        ("' OR 1=1 --", "wrong", "x", refusals.UNKNOWN_IDENTITY, ""),
        ("x" * 70_000, "wrong", "x", refusals.UNKNOWN_IDENTITY, ""),
    ],
)
def test_everybody_else_is_refused_by_name(
    door: Door, username: str | None, password: str | None, client_id: str, code: Code, device: str
) -> None:
    before_ms = time.time_ns() // 1_000_000
    assert door.admit(username, password, client_id) is None
    row = door.refused()
    assert row.code == code.name
    assert row.device == device
    assert row.address == ADDRESS
    assert row.topic == ""
    assert row.policy == SHIPPED.revision
    assert row.times == 1
    assert len(row.detail) <= refusals.MAX_DETAIL_CHARS
    assert "\n" not in row.detail
    assert before_ms <= row.at_ms <= time.time_ns() // 1_000_000


def test_the_right_secret_with_another_client_id_is_refused(door: Door) -> None:
    assert door.admit("esp-1", door.secret, "esp-1-b") is None
    row = door.refused()
    assert (row.code, row.rule) == (refusals.CLIENT_ID_MISMATCH.name, "connect.client_id")


def test_revoking_and_rotating_count_from_the_next_connect(door: Door) -> None:
    door.registry.revoke("esp-1", now_ms=2)
    assert door.admit("esp-1", door.secret) is None
    assert door.refused().code == refusals.REVOKED.name
    fresh = door.registry.rotate("esp-1", now_ms=3).secret
    assert door.admit("esp-1", door.secret) is None
    assert door.refused().code == refusals.BAD_PASSWORD.name
    assert door.admit("esp-1", fresh) == DEVICE


def test_a_secret_is_no_part_of_a_refusal(door: Door) -> None:
    door.admit("esp-1", door.secret, "x")
    door.admit("esp-2", door.secret)
    door.admit("esp-1", f"{door.secret}x")
    rows = door.gatekeeper.pending.take()
    assert len(rows) == 3
    assert door.secret not in str(rows)


def test_who_was_enrolled_elsewhere_in_the_meantime_gets_in(door: Door, tmp_path: Path) -> None:
    with closing(Registry(tmp_path / "registry.db")) as other:
        credential = other.add(Enrolment("bridge", role=Role.BRIDGE), now_ms=2)
    assert door.admit("bridge", credential.secret) == Principal("bridge", Role.BRIDGE)


def test_an_allowed_topic_leaves_no_refusal(door: Door) -> None:
    allows = door.gatekeeper.allows
    assert allows(DEVICE, Act.PUBLISH, "v1/esp-1/readings", ADDRESS)
    assert allows(DEVICE, Act.SUBSCRIBE, "v1/esp-1/receipt", ADDRESS)
    assert door.gatekeeper.delivers(DEVICE, "v1/esp-1/receipt")
    assert door.gatekeeper.pending.take() == []


@pytest.mark.parametrize(
    ("act", "topic", "code"),
    [
        (Act.PUBLISH, "v1/esp-2/readings", refusals.TOPIC_DENIED),
        (Act.SUBSCRIBE, "v1/esp-2/receipt", refusals.SUBSCRIPTION_DENIED),
        (Act.SUBSCRIBE, "#", refusals.SUBSCRIPTION_DENIED),
    ],
)
def test_a_denied_topic_is_recorded(door: Door, act: Act, topic: str, code: Code) -> None:
    assert not door.gatekeeper.allows(DEVICE, act, topic, ADDRESS)
    row = door.refused()
    assert (row.code, row.device, row.topic) == (code.name, "esp-1", topic)
    assert (row.address, row.rule, row.policy) == (ADDRESS, "", SHIPPED.revision)


def test_a_denied_topic_is_recorded_up_to_a_length(door: Door) -> None:
    topic = "v1/esp-2/" + "x" * 60_000
    assert not door.gatekeeper.allows(DEVICE, Act.PUBLISH, topic, ADDRESS)
    row = door.refused()
    assert row.topic == topic[:MAX_TOPIC_CHARS]
    assert len(row.detail) <= refusals.MAX_DETAIL_CHARS


def test_what_is_not_delivered_is_no_refusal_of_the_receiver(door: Door) -> None:
    assert not door.gatekeeper.delivers(DEVICE, "v1/esp-2/receipt")
    assert door.gatekeeper.pending.take() == []


def test_a_registry_that_cannot_be_read_lets_nobody_in(door: Door) -> None:
    door.registry.close()
    with pytest.raises(StorageError):
        door.admit("esp-1", door.secret)
