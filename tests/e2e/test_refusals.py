"""Each refusal has its code, wherever one looks, and the ledger balances."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from tests.harness.mosquitto_clients import publish
from tests.harness.system import assert_balanced
from tests.harness.waiting import wait_for

if TYPE_CHECKING:
    from tests.harness.stores import Store
    from tests.harness.system import Credentials, System

REFUSED_BY_MOSQUITTO_PUB = 5
"""Exit code of mosquitto_pub for CONNACK 5, not authorised."""


def refusal(system: System, code: str) -> dict[str, Any]:
    """Wait until a refusal of that code is on record, and in the status."""

    def look() -> dict[str, Any] | None:
        status = system.iotctl("status", "--json").json
        if code not in {one["code"] for one in status["refusals"]}:
            return None
        found = system.iotctl("quarantine", "list", "--json", "--code", code).json_lines
        return found[0] if found else None

    return wait_for(look, what=f"refusal {code}")


def test_each_refusal_has_its_code_whatever_the_database(system: System, store: Store) -> None:
    kitchen = system.enrol("kitchen")
    assert publish(kitchen, "{}", password="wrong") == REFUSED_BY_MOSQUITTO_PUB
    assert publish(kitchen, "{}", topic="v1/cellar/readings") == 0
    assert publish(kitchen, '{"values":{"temperature_c":21.5}') == 0
    assert publish(kitchen, '{"values":{"humidity_pct":183}}') == 0
    assert publish(kitchen, '{"values":{"humidity_pct":83}}') == 0
    for code in (
        "connect.bad_password",
        "publish.topic_denied",
        "payload.not_json",
        "payload.out_of_range",
    ):
        assert refusal(system, code)["device"] == "kitchen"
    ledger = system.settled(received=4)
    assert (ledger["received"], ledger["stored"], ledger["refused"]) == (4, 1, 3)
    assert_balanced(ledger)
    assert store.count() == 1


def test_a_wrong_password(embedded: System) -> None:
    kitchen = embedded.enrol("kitchen")
    assert publish(kitchen, "{}", password="wrong") == REFUSED_BY_MOSQUITTO_PUB
    found = refusal(embedded, "connect.bad_password")
    assert (found["device"], found["address"]) == ("kitchen", "127.0.0.1")
    status = embedded.status()
    assert status["refusals"][0]["stage"] == "connect"
    assert_balanced(status["ledger"])
    assert status["ledger"]["received"] == 0


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"device": "nobody"}, "connect.unknown_identity"),
        ({"client_id": "another"}, "connect.client_id_mismatch"),
    ],
)
def test_a_wrong_identity(embedded: System, change: dict[str, str], code: str) -> None:
    kitchen = embedded.enrol("kitchen")
    who = kitchen._replace(device=change.get("device", "kitchen"))
    assert publish(who, "{}", client_id=change.get("client_id")) == REFUSED_BY_MOSQUITTO_PUB
    assert refusal(embedded, code)["code"] == code


def test_a_revoked_device_and_a_rotated_secret(embedded: System) -> None:
    kitchen = embedded.enrol("kitchen")
    assert embedded.iotctl("devices", "revoke", "kitchen").code == 0
    assert publish(kitchen, "{}") == REFUSED_BY_MOSQUITTO_PUB
    refusal(embedded, "connect.revoked")
    fresh = embedded.iotctl("devices", "rotate", "kitchen", "--json").json["password"]
    assert publish(kitchen, "{}") == REFUSED_BY_MOSQUITTO_PUB
    refusal(embedded, "connect.bad_password")
    assert publish(kitchen, '{"values":{"temperature_c":1}}', password=fresh) == 0
    assert embedded.settled(received=1)["stored"] == 1


def test_a_foreign_topic(embedded: System) -> None:
    kitchen, _ = embedded.enrol("kitchen"), embedded.enrol("cellar")
    assert publish(kitchen, '{"values":{"temperature_c":1}}', topic="v1/cellar/readings") == 0
    found = refusal(embedded, "publish.topic_denied")
    assert (found["device"], found["topic"]) == ("kitchen", "v1/cellar/readings")
    ledger = embedded.status()["ledger"]
    assert (ledger["received"], ledger["refused"]) == (1, 1)
    assert_balanced(ledger)


@pytest.mark.parametrize(
    ("payload", "code", "detail"),
    [
        ('{"values":{"temperature_c":21.5}', "payload.not_json", ""),
        (b'{"values":{"temperature_c":21.5},"faults":["\xff"]}', "payload.not_json", ""),
        ("", "payload.not_json", ""),
        ('{"temperature_c":21.5}', "payload.wrong_shape", "values"),
        ('{"values":{"temperature_c":"21.5"}}', "payload.wrong_shape", "values"),
        ('{"values":{"temperature_c":NaN}}', "payload.not_json", ""),
        ('{"values":{"temperature_c":1e400}}', "payload.", ""),
        ('{"values":{}}', "payload.empty", ""),
        ("[]", "payload.empty", ""),
        ('{"values":{"temp":21.5}}', "payload.unknown_quantity", "temp"),
        ('{"values":{"humidity_pct":183}}', "payload.out_of_range", "humidity_pct 183 > 100"),
        ('{"ts":12345,"values":{"temperature_c":21.5}}', "payload.clock_unset", ""),
        ('{"ts":4102444800000,"values":{"temperature_c":21.5}}', "payload.clock_ahead", ""),
        ('{"ts":1704067200000,"values":{"temperature_c":21.5}}', "payload.clock_behind", ""),
        ("[" * 100_000, "payload.too_large", ""),
    ],
)  # fmt: skip
def test_a_bad_payload(
    shared: tuple[System, Credentials], payload: str | bytes, code: str, detail: str
) -> None:
    system, kitchen = shared
    before = system.status()["ledger"]
    assert publish(kitchen, payload) == 0
    ledger = system.settled(received=before["received"] + 1)
    assert_balanced(ledger)
    assert ledger["refused"] == before["refused"] + 1
    newest = system.iotctl("quarantine", "list", "--json", "--limit", "1").json_lines[0]
    assert newest["code"].startswith(code)
    assert detail in newest["detail"]
    assert newest["device"] == "kitchen"
    assert newest["payload"] is not None


def test_each_reading_of_an_array_is_judged_alone(embedded: System) -> None:
    kitchen = embedded.enrol("kitchen")
    publish(
        kitchen,
        '[{"boot":1,"n":1,"values":{"temperature_c":20}},'
        '{"boot":1,"n":2,"values":{"humidity_pct":183}},7,'
        '{"boot":1,"n":3,"values":{"temperature_c":21}}]',
    )
    ledger = embedded.settled(received=4)
    assert (ledger["stored"], ledger["refused"]) == (2, 2)
    assert_balanced(ledger)


def test_a_retained_reading_is_refused_when_it_comes_again(embedded: System) -> None:
    kitchen = embedded.enrol("kitchen")
    publish(kitchen, '{"values":{"temperature_c":20}}', retain=True)
    assert embedded.settled(received=1)["stored"] == 1
    killed = embedded.kill("bridge")
    embedded.wait_restarted("bridge", killed)
    refusal(embedded, "publish.retained")
    assert_balanced(embedded.status()["ledger"])


def test_the_device_is_told_by_a_receipt(embedded: System) -> None:
    kitchen = embedded.enrol("kitchen")
    receipts: list[dict[str, Any]] = []
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id="kitchen")
    client.username_pw_set("kitchen", kitchen.password)
    subscribed: list[int] = []
    client.on_subscribe = lambda *_: subscribed.append(1)
    client.on_message = lambda _c, _u, message: receipts.append(json.loads(message.payload))
    client.connect(kitchen.host, kitchen.port)
    client.loop_start()
    try:
        client.subscribe("v1/kitchen/receipt", qos=1)
        wait_for(lambda: subscribed, what="SUBACK")
        good = [{"boot": 17, "n": n, "values": {"temperature_c": 20}} for n in range(4200, 4212)]
        bad = {"boot": 17, "n": 4212, "values": {"humidity_pct": 183}}
        client.publish("v1/kitchen/readings", json.dumps([*good, bad]), qos=1)
        receipt = wait_for(lambda: receipts or None, what="receipt")[0]
    finally:
        client.disconnect()
        client.loop_stop()
    assert receipt["seen"] == [{"boot": 17, "from": 4200, "to": 4211}]
    assert receipt["refused"] == [
        {
            "boot": 17,
            "n": 4212,
            "code": "payload.out_of_range",
            "detail": "humidity_pct 183 > 100",
            "action": "drop",
        }
    ]
    assert receipt["policy"] == embedded.status()["policy"]["revision"]
