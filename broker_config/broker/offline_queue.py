"""Hand over what a persistent session missed, as live messages and without dropping any.

amqtt 0.12.1 marks messages that were queued for an absent session as retained, sends all of them
at once, and forgets those that are not acknowledged within 5 s. The bridge would then see every
reading of an outage as a repeat of an old one (MQTT 3.1.1: RETAIN is 0 for these
[MQTT-3.3.1-9], and an unacknowledged QoS 1 message stays due [MQTT-4.3.2-1]).
"""

from __future__ import annotations

import asyncio

from amqtt.broker import Broker
from amqtt.session import ApplicationMessage, Session

WINDOW = 100
"""Queued messages in flight at a time."""


class OfflineQueueBroker(Broker):
    """amqtt with an offline queue that a session can rely on."""

    async def _publish_session_retained_messages(self, session: Session) -> None:
        """Send the queue in order, a window at a time; what is not acknowledged stays in it.

        amqtt calls its per-session offline queue `retained_messages`.
        """
        handler = self._get_handler(session)
        while handler is not None and not session.retained_messages.empty():
            window = [
                session.retained_messages.get_nowait()
                for _ in range(min(WINDOW, session.retained_messages.qsize()))
            ]
            outcomes = await asyncio.gather(
                *(handler.mqtt_publish(m.topic, m.data, m.qos, retain=False) for m in window),
                return_exceptions=True,
            )
            unsent = [
                message
                for message, outcome in zip(window, outcomes, strict=True)
                if isinstance(outcome, BaseException)
            ]
            if unsent:
                _put_in_front(session, unsent)
                return


def _put_in_front(session: Session, messages: list[ApplicationMessage]) -> None:
    queue = session.retained_messages
    later = [queue.get_nowait() for _ in range(queue.qsize())]
    for message in [*messages, *later]:
        queue.put_nowait(message)
