"""One simulated board: its sensors, its outbox and its MQTT session.

The way of a reading: the schedule says when, `climate` says what, the outbox keeps it, a PUBLISH
carries it, a receipt settles it. The outbox is the only queue: paho's own is emptied when a
connection ends, and the session is a clean one, so that the broker keeps nothing for a board
that is gone. A receipt lost that way costs one resend, which the server answers again.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any

import msgspec
from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from broker_config.topics import Kind, topic_for
from cli.simulator import climate
from cli.simulator.connecting import (
    ConnectProblem,
    Credentials,
    Endpoint,
    refusal_of,
    retry_wait_s,
    unreachable,
)
from cli.simulator.outbox import Outbox, Reading
from cli.simulator.paho_asyncio import AsyncioSocket
from cli.simulator.schedule import Schedule

READINGS_PER_MESSAGE = 50
"""About 6 KiB of JSON: what an ESP32 can build in one piece."""

UNACKNOWLEDGED_MAX = 20
"""PUBLISH packets awaiting their PUBACK; a broker that is behind gets no more meanwhile."""

KEEPALIVE_S = 60
SESSION_TIMEOUT_S = 30.0
"""From CONNECT to the SUBACK; generous, because hashing a password costs a busy broker time."""

GOODBYE_TIMEOUT_S = 2.0
"""For the PUBACK of the last status message, and again for the connection to end."""

_ONLINE = b'{"state":"online"}'
_OFFLINE = b'{"state":"offline"}'


def encode_readings(readings: list[Reading]) -> bytes:
    """The payload of one message: an object, or an array where there are several (DESIGN)."""
    return msgspec.json.encode(readings[0] if len(readings) == 1 else readings)


async def _first_of(*futures: asyncio.Future[Any], timeout_s: float | None = None) -> None:
    await asyncio.wait(futures, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)


class Board:
    """One board. Make it in a running loop, `start` it, and await `run`.

    Args:
        credentials: who it is.
        endpoint: its broker.
        schedule: when it takes readings.
        outbox: where they wait for their receipts.
        boot: boot counter; must be larger than at its last start.
        clock_ms: the time, ms since 1970 UTC.
        rng: for back-off only.
        readings_per_message: most readings in one PUBLISH.
        on_problem: told of every try to connect that failed.

    Attributes:
        messages: PUBLISH packets of readings, resends included.
        sent: readings in them, resends included.
        connected: whether it is connected and subscribed to its receipts.
        refused: whether the broker turned away its last try to connect.
    """

    def __init__(
        self,
        credentials: Credentials,
        endpoint: Endpoint,
        *,
        schedule: Schedule,
        outbox: Outbox,
        boot: int,
        clock_ms: Callable[[], int],
        rng: random.Random,
        readings_per_message: int = READINGS_PER_MESSAGE,
        on_problem: Callable[[ConnectProblem], None],
    ) -> None:
        self.device_id = credentials.device_id
        self.schedule = schedule
        self.outbox = outbox
        self.messages = 0
        self.sent = 0
        self.connected = False
        self.refused = False
        self._endpoint = endpoint
        self._boot = boot
        self._next_n = 0
        self._seed = climate.seed_of(credentials.device_id)
        self._clock_ms = clock_ms
        self._rng = rng
        self._readings_per_message = readings_per_message
        self._on_problem = on_problem
        self._topic = topic_for(credentials.device_id, Kind.READINGS)
        self._receipt_topic = topic_for(credentials.device_id, Kind.RECEIPT)
        self._status_topic = topic_for(credentials.device_id, Kind.STATUS)
        self._loop = asyncio.get_running_loop()
        self._stop: asyncio.Future[None] = self._loop.create_future()
        self._session: asyncio.Future[ConnectProblem | None] = self._loop.create_future()
        self._closed: asyncio.Future[None] = self._loop.create_future()
        self._acknowledged: asyncio.Future[None] = self._loop.create_future()
        self._unacknowledged = 0
        self._goodbye_mid = 0
        self._timer: asyncio.TimerHandle | None = None
        self._client = self._new_client(credentials)
        self._socket = AsyncioSocket(self._client)

    def _new_client(self, credentials: Credentials) -> Client:
        client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=credentials.device_id,
            clean_session=True,
            protocol=MQTTProtocolVersion.MQTTv311,
            # paho would reconnect by itself, blocking the loop, when the broker asks for another
            # protocol version.
            reconnect_on_failure=False,
        )
        client.username_pw_set(credentials.username, credentials.password)
        client.will_set(self._status_topic, _OFFLINE, qos=1, retain=True)
        if self._endpoint.tls is not None:
            client.tls_set_context(self._endpoint.tls)
        client.max_inflight_messages_set(0)
        client.connect_async(self._endpoint.host, self._endpoint.port, KEEPALIVE_S)
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        client.on_message = self._on_message
        return client

    # -- readings

    def start(self) -> None:
        """Begins to take readings, connected or not."""
        self._on_timer()

    def _on_timer(self) -> None:
        self.pump()
        next_ms = self.schedule.next_ms()
        if next_ms is not None:
            wait_ms = max(next_ms - self._clock_ms(), 0)
            self._timer = self._loop.call_later(wait_ms / 1_000, self._on_timer)

    def tick(self) -> None:
        """Keeps the session alive and sends what became due; call about once a second."""
        self._socket.misc()
        self.pump()

    def pump(self) -> None:
        """Takes the readings that are due and sends what the outbox says."""
        for ts_ms in self.schedule.pull(self._clock_ms(), self.outbox.room):
            values, faults = climate.sample(self._seed, ts_ms)
            self.outbox.append(Reading(self._boot, self._next_n, ts_ms, values, faults))
            self._next_n += 1
        now_ms = int(self._loop.time() * 1_000)
        while self.connected and self._unacknowledged < UNACKNOWLEDGED_MAX:
            batch = self.outbox.due(now_ms, self._readings_per_message)
            if not batch or not self._publish(self._topic, encode_readings(batch)):
                return
            self.outbox.mark_sent(batch, now_ms)
            self.messages += 1
            self.sent += len(batch)

    def _publish(self, topic: str, payload: bytes, *, retain: bool = False) -> int:
        """Queues a QoS 1 PUBLISH: its packet id, or 0 when there is no connection."""
        info = self._client.publish(topic, payload, qos=1, retain=retain)
        if info.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
            return 0
        self._unacknowledged += 1
        return info.mid

    # -- the session

    def stop(self) -> None:
        """Makes `run` say goodbye and return; no further reading is taken."""
        self.schedule.stop()
        if self._timer is not None:
            self._timer.cancel()
        if not self._stop.done():
            self._stop.set_result(None)

    async def run(self, gate: asyncio.Semaphore, executor: Executor) -> None:
        """Connects, and again whenever the connection is lost, until `stop`.

        Args:
            gate: how many boards may be between TCP connect and SUBACK at a time.
            executor: where the blocking handshakes run.
        """
        try:
            await self._stay_connected(gate, executor)
            await self._say_goodbye()
        finally:
            # Where this is cancelled, the last will speaks for the board.
            self._socket.close()

    async def _stay_connected(self, gate: asyncio.Semaphore, executor: Executor) -> None:
        attempt = 0
        while not self._stop.done():
            async with gate:
                problem = await self._open_session(executor)
            self.refused = problem is not None and problem.refused
            if problem is None:
                attempt = 0
                await _first_of(self._closed, self._stop)
            else:
                self._on_problem(problem)
            wait_s = retry_wait_s(attempt, refused=self.refused, rng=self._rng)
            attempt += 1
            await _first_of(self._stop, timeout_s=wait_s)

    async def _open_session(self, executor: Executor) -> ConnectProblem | None:
        """One try. Returns when subscribed to the receipts, or with what went wrong."""
        if self._stop.done():
            return None
        self._client.drop_out_messages()
        self._session = self._loop.create_future()
        self._closed = self._loop.create_future()
        try:
            await self._socket.open(executor)
        except OSError as error:
            return self._problem(unreachable(error), refused=False)
        await _first_of(self._session, self._closed, self._stop, timeout_s=SESSION_TIMEOUT_S)
        if self._session.done():
            problem = self._session.result()
            if problem is not None:
                await self._disconnect()
            return problem
        if self._stop.done():
            return None
        if self._closed.done():
            what = "closed the connection unanswered; check that it is an MQTT port, and its TLS"
            return self._problem(what, refused=False)
        await self._disconnect()
        return self._problem(f"no answer within {SESSION_TIMEOUT_S:g} s", refused=False)

    def _problem(self, what: str, *, refused: bool) -> ConnectProblem:
        where = f"broker {self._endpoint.host}:{self._endpoint.port}"
        return ConnectProblem(self.device_id, refused, f"{where}: {what}")

    async def _say_goodbye(self) -> None:
        """Replaces the last will, which a DISCONNECT deletes [MQTT-3.14.4-3], and leaves."""
        if self.connected:
            self._goodbye_mid = self._publish(self._status_topic, _OFFLINE, retain=True)
            await _first_of(self._acknowledged, self._closed, timeout_s=GOODBYE_TIMEOUT_S)
        await self._disconnect()

    async def _disconnect(self) -> None:
        if self._client.socket() is None:
            return
        self._client.disconnect()
        await _first_of(self._closed, timeout_s=GOODBYE_TIMEOUT_S)
        if not self._closed.done():
            self._socket.abort()
            await _first_of(self._closed, timeout_s=GOODBYE_TIMEOUT_S)

    # -- paho's callbacks, all in the loop's thread

    def _on_connect(
        self,
        client: Client,
        _userdata: object,
        _flags: ConnectFlags,
        reason: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        if not reason.is_failure:
            client.subscribe(self._receipt_topic, qos=1)
        elif not self._session.done():
            what, refused = refusal_of(reason.getName())
            self._session.set_result(self._problem(what, refused=refused))

    def _on_subscribe(
        self,
        _client: Client,
        _userdata: object,
        _mid: int,
        reasons: list[ReasonCode],
        _properties: Properties | None,
    ) -> None:
        if self._session.done():
            return
        if any(reason.is_failure for reason in reasons):
            what = f"subscription refused: check the broker's policy for {self._receipt_topic}"
            self._session.set_result(self._problem(what, refused=True))
            return
        self._session.set_result(None)
        self.connected = True
        self._publish(self._status_topic, _ONLINE, retain=True)
        self.pump()

    def _on_disconnect(
        self,
        _client: Client,
        _userdata: object,
        _flags: DisconnectFlags,
        _reason: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        self.connected = False
        self._unacknowledged = 0
        self.outbox.connection_lost()
        if not self._closed.done():
            self._closed.set_result(None)

    def _on_publish(
        self,
        _client: Client,
        _userdata: object,
        mid: int,
        _reason: ReasonCode,
        _properties: Properties,
    ) -> None:
        self._unacknowledged -= 1
        if mid == self._goodbye_mid and not self._acknowledged.done():
            self._acknowledged.set_result(None)
        self.pump()

    def _on_message(self, _client: Client, _userdata: object, message: MQTTMessage) -> None:
        if message.topic != self._receipt_topic:
            return
        try:
            receipt = msgspec.json.decode(message.payload)
        except msgspec.DecodeError:
            return
        self.outbox.settle(receipt)
        self.pump()
