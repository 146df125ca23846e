"""Ask who a client is before its session is touched.

amqtt 0.12.1 deletes or takes over the session of a client id first and authenticates afterwards:
a stranger who names the bridge's client id, with any password, ends the bridge's subscription. So
CONNECT is read here, judged, and only then handed to amqtt, which reads the same bytes again. A
last will is judged here too, because amqtt publishes it without asking anybody.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from amqtt.adapters import ReaderAdapter, WriterAdapter
from amqtt.mqtt.connack import NOT_AUTHORIZED, ConnackPacket
from amqtt.mqtt.connect import ConnectPacket

from broker_config.broker.offline_queue import OfflineQueueBroker
from broker_config.broker.plugins import PRINCIPAL
from broker_config.policy import Act, Principal
from broker_config.topics import is_valid_topic_name

if TYPE_CHECKING:
    import asyncio

    from amqtt.mqtt.protocol.broker_handler import BrokerProtocolHandler
    from amqtt.session import Session

    from broker_config.broker.gatekeeper import Gatekeeper


class RewindableReader(ReaderAdapter):
    """A stream whose beginning can be read twice."""

    def __init__(self, stream: ReaderAdapter) -> None:
        self._stream = stream
        self._kept = bytearray()
        self._again = b""
        self._keeping = True

    async def read(self, n: int = -1) -> bytes:
        """As the stream does, and after `rewind` first what was read before it."""
        if self._again:
            size = len(self._again) if n < 0 else n
            again, self._again = self._again[:size], self._again[size:]
            return (
                again if len(again) == size else again + await self._stream.read(size - len(again))
            )
        content: bytes = await self._stream.read(n)
        if self._keeping:
            self._kept += content
        return content

    def rewind(self) -> None:
        """Read from the beginning again; can be done once."""
        self._again, self._keeping = bytes(self._kept), False
        self._kept.clear()

    def feed_eof(self) -> None:
        """As the stream does."""
        self._stream.feed_eof()


class AdmittingBroker(OfflineQueueBroker):
    """amqtt with a gatekeeper in front of its sessions."""

    gatekeeper: Gatekeeper

    async def _client_connected(
        self, listener_name: str, reader: ReaderAdapter, writer: WriterAdapter
    ) -> None:
        """Hand a new connection to amqtt, if the gatekeeper admits it."""
        stream = RewindableReader(reader)
        if await self._admits(stream, writer):
            stream.rewind()
            await super()._client_connected(listener_name, stream, writer)

    async def _handle_message_delivery(
        self,
        client_session: Session,
        handler: BrokerProtocolHandler,
        wait_deliver: asyncio.Future[Any],
    ) -> bool:
        """Refuse by name what amqtt would answer by cutting the connection without a word."""
        message = wait_deliver.result()
        principal = client_session.attributes.get(PRINCIPAL)
        if (
            message is not None
            and isinstance(principal, Principal)
            and (message.topic.startswith("$") or not is_valid_topic_name(message.topic))
        ):
            address = client_session.remote_address or ""
            self.gatekeeper.allows(principal, Act.PUBLISH, message.topic, address)
            return True
        permitted: bool = await super()._handle_message_delivery(
            client_session, handler, wait_deliver
        )
        return permitted

    async def _admits(self, reader: ReaderAdapter, writer: WriterAdapter) -> bool:
        try:
            connect = await ConnectPacket.from_stream(reader)
        except Exception:  # noqa: BLE001 -- amqtt's decoder raises whatever the bytes make it raise
            await writer.close()
            return False
        address, _port = writer.get_peer_info() or ("", 0)
        principal = self.gatekeeper.admit(
            client_id=connect.client_id or "",
            username=connect.username,
            password=connect.password,
            address=address,
            will_topic=connect.will_topic if connect.will_flag else None,
        )
        if principal is None:
            await ConnackPacket.build(0, NOT_AUTHORIZED).to_stream(writer)
            await writer.close()
        return principal is not None
