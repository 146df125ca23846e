"""The broker process: what is wired to what."""

from __future__ import annotations

import asyncio
import os
from contextlib import ExitStack, closing, suppress
from importlib.metadata import version
from typing import TYPE_CHECKING

from broker_config.broker.admission import AdmittingBroker
from broker_config.broker.decision_log import DecisionLog
from broker_config.broker.gatekeeper import Gatekeeper
from broker_config.errors import BrokerVersionError, StorageError
from broker_config.events import Event, record
from broker_config.home import Home, read_policy
from broker_config.listening_port import check_mqtt_listener
from broker_config.registry import Registry
from broker_config.run_files import Address, announce, retract, sole_process
from broker_config.stop_signal import stop_event

if TYPE_CHECKING:
    from collections.abc import Callable

    from broker_config.settings import Settings

AMQTT_VERSION = "0.12.1"
"""The plugin interface and the listener's internals used here are those of this version."""

FLUSH_S = 0.2
"""How long a refusal may wait before it is in the log, in seconds."""


async def run_broker(home: Home, settings: Settings, on_ready: Callable[[Address], None]) -> None:
    """Serve MQTT until SIGTERM or SIGINT.

    Args:
        on_ready: called once with the address when clients can connect.

    Raises:
        ConfigurationError: port taken, plaintext on an open address, policy unreadable.
        BrokerVersionError: another amqtt than `AMQTT_VERSION` is installed.
    """
    stop = stop_event()
    _check_amqtt()
    check_mqtt_listener(settings.mqtt)
    with sole_process(home, "broker"), ExitStack() as opened:
        policy = read_policy(home)
        registry = opened.enter_context(closing(Registry(home.registry_file)))
        decisions = opened.enter_context(closing(DecisionLog(home.broker_file)))
        gatekeeper = Gatekeeper(policy, registry)
        record(Event.POLICY_ACTIVE, revision=gatekeeper.revision)
        broker = AdmittingBroker(_amqtt_configuration(settings, gatekeeper))
        broker.gatekeeper = gatekeeper
        await broker.start()
        flusher = asyncio.create_task(_flush_decisions(gatekeeper, decisions, stop))
        address = Address(os.getpid(), settings.mqtt.host, _bound_port(broker))
        announce(home, "broker", address)
        record(Event.PROCESS_READY, host=address.host, port=address.port)
        on_ready(address)
        try:
            await stop.wait()
        finally:
            retract(home, "broker")
            await broker.shutdown()
            await flusher
            await _flush_once(gatekeeper, decisions)
            record(Event.PROCESS_STOPPED)


def _check_amqtt() -> None:
    found = version("amqtt")
    if found != AMQTT_VERSION:
        raise BrokerVersionError(
            f"amqtt {found} is installed, this broker needs {AMQTT_VERSION}",
            f"pip install amqtt=={AMQTT_VERSION}",
        )


def _amqtt_configuration(settings: Settings, gatekeeper: Gatekeeper) -> dict[str, object]:
    plugin = {"gatekeeper": gatekeeper}
    bind = f"{settings.mqtt.host}:{settings.mqtt.port}"
    return {
        "listeners": {"default": {"type": "tcp", "bind": bind}},
        "plugins": {
            "broker_config.broker.plugins.AdmitPlugin": plugin,
            "broker_config.broker.plugins.TopicPlugin": plugin,
        },
    }


def _bound_port(broker: AdmittingBroker) -> int:
    """The port that the listener really has; amqtt has no public way to ask."""
    server = broker._servers["default"].instance  # noqa: SLF001 -- see the docstring; version pinned
    return int(server.sockets[0].getsockname()[1])


async def _flush_decisions(gatekeeper: Gatekeeper, log: DecisionLog, stop: asyncio.Event) -> None:
    """Put refusals into the log until the broker stops."""
    while not stop.is_set():
        with suppress(TimeoutError):
            async with asyncio.timeout(FLUSH_S):
                await stop.wait()
        await _flush_once(gatekeeper, log)


async def _flush_once(gatekeeper: Gatekeeper, log: DecisionLog) -> None:
    rows = gatekeeper.pending.take()
    try:
        await asyncio.to_thread(log.append, rows)
    except StorageError as exc:
        gatekeeper.pending.give_back(rows)
        record(Event.JOURNAL_UNWRITABLE, code=type(exc).__name__, problem=str(exc))
        return
    for row in rows:
        record(
            Event.REFUSED,
            code=row.code,
            count=row.times,
            device=row.device,
            address=row.address,
            topic=row.topic,
            detail=row.detail,
        )
