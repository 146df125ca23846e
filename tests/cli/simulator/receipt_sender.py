"""A minimal server side for boards: remembers readings and answers each message with a receipt."""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from paho.mqtt.client import Client, ConnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode


class ReceiptSender:
    """A paho client in a thread of its own, subscribed to everything that boards publish.

    Its session is persistent: what comes while it is away is kept by the broker.

    Args:
        action_for: the action of a refusal for a reading, or None to accept it.
        silent: remember, but send no receipts until `speak`.
        login: user name and password, where the broker asks for them.

    Attributes:
        readings: device to (boot, n) to the reading, first copy.
        batches: number of readings in each message, in order of arrival.
        copies: readings received, repeated ones included.
        statuses: device to the status messages received, in order.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        action_for: Callable[[dict[str, Any]], str | None] = lambda _reading: None,
        silent: bool = False,
        login: tuple[str, str] | None = None,
    ) -> None:
        self.readings: dict[str, dict[tuple[int, int], dict[str, Any]]] = defaultdict(dict)
        self.batches: list[int] = []
        self.copies = 0
        self.statuses: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self._action_for = action_for
        self._silent = silent
        self._subscribed = threading.Event()
        self._client = Client(
            CallbackAPIVersion.VERSION2, client_id="receipt-sender", clean_session=False
        )
        if login is not None:
            self._client.username_pw_set(*login)
        self._client.reconnect_delay_set(1, 1)
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = self._on_subscribe
        self._client.on_message = self._on_message
        self._address = host, port

    @property
    def unique(self) -> int:
        """How many different readings arrived."""
        return sum(len(by_key) for by_key in list(self.readings.values()))

    def speak(self) -> None:
        """Sends receipts from now on."""
        self._silent = False

    def __enter__(self) -> Self:
        self._client.connect(*self._address)
        self._client.loop_start()
        assert self._subscribed.wait(10), "the broker did not take the subscription"
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _on_connect(
        self,
        client: Client,
        _userdata: object,
        _flags: ConnectFlags,
        _reason: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        client.subscribe([("v1/+/readings", 1), ("v1/+/status", 1)])

    def _on_subscribe(
        self,
        _client: Client,
        _userdata: object,
        _mid: int,
        _reasons: list[ReasonCode],
        _properties: Properties | None,
    ) -> None:
        self._subscribed.set()

    def _on_message(self, client: Client, _userdata: object, message: MQTTMessage) -> None:
        _, device, kind = message.topic.split("/")
        body = json.loads(message.payload)
        if kind == "status":
            self.statuses[device].append(body)
            return
        readings = body if isinstance(body, list) else [body]
        self.batches.append(len(readings))
        self.copies += len(readings)
        for reading in readings:
            self.readings[device].setdefault((reading["boot"], reading["n"]), reading)
        if not self._silent:
            client.publish(f"v1/{device}/receipt", json.dumps(self._receipt(readings)), qos=1)

    def _receipt(self, readings: list[dict[str, Any]]) -> dict[str, Any]:
        receipt: dict[str, Any] = {"seen": [], "refused": [], "policy": "test"}
        for reading in readings:
            boot, n, action = reading["boot"], reading["n"], self._action_for(reading)
            if action is None:
                receipt["seen"].append({"boot": boot, "from": n, "to": n})
            else:
                refusal = {"boot": boot, "n": n, "code": "payload.out_of_range", "action": action}
                receipt["refused"].append(refusal)
        return receipt
