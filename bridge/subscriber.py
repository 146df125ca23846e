"""The MQTT source: paho-mqtt, QoS 1, persistent session, manual acknowledgement.

paho runs its own network thread. That thread puts messages into a bounded buffer and waits while
it is full, so that a slow disk does not fill memory: the broker has to keep what it cannot send.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from bridge.outcomes import Delivery
from bridge.source import SourceState
from broker_config.clock import now_ms, steady_ms
from broker_config.errors import InternalError, IotError
from broker_config.events import Event, record
from broker_config.topics import Kind, is_valid_topic_name, matches, topic_for

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from paho.mqtt.client import ConnectFlags, DisconnectFlags
    from paho.mqtt.properties import Properties
    from paho.mqtt.reasoncodes import ReasonCode

READINGS_FILTER = "v1/+/readings"
KEEPALIVE_S = 30
RECONNECT_MIN_S = 1
RECONNECT_MAX_S = 10
BUFFER_MESSAGES = 5_000
"""Most messages between paho's thread and the event loop."""

MAX_QUEUED = 10_000
"""Most receipts waiting to be sent; further ones are dropped, which costs nothing."""

_PACKET_IDS = 65_536
"""Packet ids are 16 bits [MQTT-2.3.1-1]; a token is the connection's number above them."""

BEAT_MS = 5_000
"""Time between two own heartbeats, in ms."""

DEAF_MS = 20_000
"""No heartbeat came back for so long: the subscription is dead though the connection lives."""


class MqttSubscriber:
    """A `Source` that subscribes at an MQTT 3.1.1 broker."""

    def __init__(
        self,
        *,
        host: str,
        port: int,
        username: str,
        password: str,
        batch_messages: int,
        renew: Callable[[], str] | None = None,
    ) -> None:
        """Make the client; nothing is sent yet.

        Args:
            renew: gives a new password when the broker refuses the old one; None where there is
                only one.
        """
        self._where = f"{host}:{port}"
        self._host, self._port = host, port
        self._username = username
        self._renew = renew
        self._batch_messages = batch_messages
        self._heartbeat_topic = topic_for(username, Kind.HEARTBEAT)
        self._buffer: deque[Delivery] = deque()
        self._room = threading.Condition()
        self._stopping = False
        self._connection = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._arrived = asyncio.Event()
        self._last_beat_ms = 0
        self._state = SourceState(False, steady_ms(), f"not yet connected to {self._where}", None)
        self._client = self._make_client(password)
        self._thread_name = f"paho-mqtt-client-{username}"

    def _make_client(self, password: str) -> Client:
        client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=self._username,
            clean_session=False,
            protocol=MQTTProtocolVersion.MQTTv311,
            manual_ack=True,
        )
        client.username_pw_set(self._username, password)
        client.reconnect_delay_set(RECONNECT_MIN_S, RECONNECT_MAX_S)
        client.max_queued_messages_set(MAX_QUEUED)
        client.max_inflight_messages_set(1_000)
        client.on_pre_connect = self._on_pre_connect
        client.on_connect = self._on_connect
        client.on_connect_fail = self._on_connect_fail
        client.on_subscribe = self._on_subscribe
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        return client

    @property
    def state(self) -> SourceState:
        """What is known about the way to the broker."""
        return self._state

    async def start(self) -> None:
        """Begin to connect; paho goes on trying by itself."""
        self._loop = asyncio.get_running_loop()
        self._client.connect_async(self._host, self._port, KEEPALIVE_S)
        self._client.loop_start()

    async def next_batch(self) -> list[Delivery]:
        """Wait for messages, then return at most `batch_messages` of them, oldest first."""
        while not self._buffer:
            self._arrived.clear()
            if not self._buffer:
                await self._arrived.wait()
        with self._room:
            size = min(len(self._buffer), self._batch_messages)
            batch = [self._buffer.popleft() for _ in range(size)]
            self._room.notify()
        return batch

    def acknowledge(self, batch: Sequence[Delivery]) -> None:
        """PUBACK every message of a batch, in the order of arrival [MQTT-4.6.0-2].

        A packet id means something on the connection it came on only; what came on an earlier one
        is delivered again there, and is then a duplicate.
        """
        for delivery in batch:
            connection, packet_id = divmod(delivery.token, _PACKET_IDS)
            if packet_id and connection == self._connection:
                self._client.ack(packet_id, 1)

    def publish(self, topic: str, payload: bytes) -> None:
        """Queue a QoS 1 message; it is dropped while there is no connection or no room."""
        if self._state.connected:
            self._client.publish(topic, payload, qos=1)

    def beat(self) -> None:
        """Send the own heartbeat through the broker and back.

        A subscription that died at the broker looks like devices that send nothing. Only a
        message that must come back tells the two apart.

        Raises:
            InternalError: paho's thread has died; only a new process helps.
        """
        if not any(thread.name == self._thread_name for thread in threading.enumerate()):
            raise InternalError("the MQTT client's thread has died")
        at_ms = steady_ms()
        if not self._state.connected or at_ms - self._last_beat_ms < BEAT_MS:
            return
        heard_ms = max(self._state.echo_ms or 0, self._state.since_ms)
        if at_ms - heard_ms > DEAF_MS and len(self._buffer) < BUFFER_MESSAGES:
            record(Event.SOURCE_DEAF, broker=self._where, silent_ms=at_ms - heard_ms)
            self._set_state(False, f"{self._where} does not deliver what this bridge subscribed to")
            self._cut()
            return
        self._last_beat_ms = at_ms
        self._client.publish(self._heartbeat_topic, b'{"echo":%d}' % at_ms, qos=0)

    def _cut(self) -> None:
        """Break the connection; paho's own thread sees that and connects anew."""
        connection = self._client.socket()
        if isinstance(connection, socket.socket):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    async def stop(self) -> None:
        """Acknowledge what was said to be on disk, and disconnect."""
        with self._room:
            self._stopping = True
            self._room.notify_all()
        self._client.disconnect()
        await asyncio.to_thread(self._client.loop_stop)

    def _set_state(self, connected: bool, problem: str) -> None:
        changed = connected != self._state.connected
        since_ms = steady_ms() if changed else self._state.since_ms
        echo_ms = None if changed else self._state.echo_ms
        self._state = SourceState(connected, since_ms, problem, echo_ms)

    def _on_pre_connect(self, _client: Client, _userdata: Any) -> None:
        self._connection += 1

    def _on_connect(
        self,
        client: Client,
        _userdata: Any,
        _flags: ConnectFlags,
        reason: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        if reason.is_failure:
            self._set_state(False, f"{self._where} refused the bridge: {reason}")
            record(Event.SOURCE_LOST, broker=self._where, reason=str(reason))
            self._renew_password(client)
            return
        client.subscribe([(READINGS_FILTER, 1), (self._heartbeat_topic, 0)])

    def _renew_password(self, client: Client) -> None:
        """Somebody may have rotated the bridge's credential in the registry."""
        if self._renew is None:
            return
        try:
            client.username_pw_set(self._username, self._renew())
        except IotError as exc:
            self._set_state(False, f"{self._where} refused the bridge: {exc}")

    def _on_subscribe(
        self,
        _client: Client,
        _userdata: Any,
        _mid: int,
        reasons: list[ReasonCode],
        _properties: Properties | None,
    ) -> None:
        if any(reason.is_failure for reason in reasons):
            self._set_state(False, f"{self._where} denied the subscription to {READINGS_FILTER}")
            record(Event.SOURCE_LOST, broker=self._where, reason="subscription denied")
            return
        self._set_state(True, "")
        record(Event.SOURCE_CONNECTED, broker=self._where)

    def _on_connect_fail(self, _client: Client, _userdata: Any) -> None:
        self._set_state(False, f"cannot reach {self._where}")

    def _on_disconnect(
        self,
        _client: Client,
        _userdata: Any,
        _flags: DisconnectFlags,
        reason: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        if self._state.connected and not self._stopping:
            record(Event.SOURCE_LOST, broker=self._where, reason=str(reason))
            self._set_state(False, f"lost {self._where}: {reason}")

    def _on_message(self, client: Client, _userdata: Any, message: MQTTMessage) -> None:
        topic = _topic_text(message)
        if topic == self._heartbeat_topic:
            self._state = self._state._replace(echo_ms=steady_ms())
        elif not matches(READINGS_FILTER, topic):
            record(Event.SOURCE_UNASKED, broker=self._where, topic=topic[:200])
        else:
            token = self._connection * _PACKET_IDS + (message.mid if message.qos else 0)
            self._hand_over(
                Delivery(topic, bytes(message.payload), now_ms(), message.retain, token)
            )
            return
        if message.qos:
            client.ack(message.mid, message.qos)

    def _hand_over(self, delivery: Delivery) -> None:
        with self._room:
            self._room.wait_for(lambda: len(self._buffer) < BUFFER_MESSAGES or self._stopping)
            if self._stopping:
                return
            self._buffer.append(delivery)
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._arrived.set)


def _topic_text(message: MQTTMessage) -> str:
    """The topic; one that is no UTF-8 is replaced, and then no filter of ours matches it."""
    try:
        topic = message.topic
    except UnicodeDecodeError:
        return "\ufffd"
    return topic if is_valid_topic_name(topic) else "\ufffd"
