"""The bridge process: what is wired to what.

One event loop; two threads beside it, one for the journal and one for the database, because both
wait for a disk or a network.
"""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, nullcontext
from typing import TYPE_CHECKING, Any

import uvicorn

from bridge.boot_book import BootBook
from bridge.forwarder import Forwarder
from bridge.health import HealthBook
from bridge.journal import Journal
from bridge.journal_reader import JournalReader
from bridge.monitor import Monitor, refusal_note
from bridge.pipeline import Pipeline
from bridge.receipts import ReceiptBook
from bridge.roster import Roster
from bridge.sinks import open_sink
from bridge.subscriber import MqttSubscriber
from bridge.web.app import make_app
from broker_config.broker.decision_log import DecisionLog
from broker_config.clock import now_ms, steady_ms
from broker_config.errors import InternalError
from broker_config.events import Event, record
from broker_config.home import Home, read_policy
from broker_config.listening_port import check_port
from broker_config.policy import Role
from broker_config.registry import Enrolment, Registry
from broker_config.run_files import Address, announce, retract, sole_process
from broker_config.settings import is_loopback
from broker_config.stop_signal import stop_event

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from bridge.readings import Row
    from broker_config.settings import Settings

WATCH_S = 0.05
"""How often the start of the HTTP server is looked at, in seconds."""


async def run_bridge(home: Home, settings: Settings, on_ready: Callable[[Address], None]) -> None:
    """Take readings until SIGTERM or SIGINT.

    Args:
        on_ready: called once with the HTTP address when the page answers and the subscription
            stands.

    Raises:
        ConfigurationError: port taken, policy unreadable, InfluxDB without a token.
        StorageError: the journal cannot be used.
    """
    check_port(settings.http.host, settings.http.port, flag="--http-port")
    with sole_process(home, "bridge"):
        policy = read_policy(home)
        registry = Registry(home.registry_file)
        roster = Roster(registry)
        journal, memory = Journal(home.journal_file), JournalReader(home.journal_file)
        sink = open_sink(home, settings)
        journal_thread, sink_thread = (
            ThreadPoolExecutor(1, "journal"),
            ThreadPoolExecutor(1, "sink"),
        )
        health = HealthBook(window_s=settings.health.window_s, started_ms=steady_ms())
        for seen in journal.devices():
            health.remember(seen.device, seen.first_ms, seen.stored_ms)
        on_refused = refusal_note(health)
        latest: dict[str, Row] = {}
        source = _make_source(home, settings)
        forwarder = Forwarder(
            journal=journal,
            journal_thread=journal_thread,
            sink=sink,
            sink_thread=sink_thread,
            policy_revision=policy.revision,
            batch_messages=settings.bridge.forward_messages,
            on_stored=health.stored,
            on_refused=on_refused,
            latest=latest,
        )
        pipeline = Pipeline(
            source=source,
            policy=policy,
            roster=roster,
            boots=BootBook(memory.boot),
            journal=journal,
            journal_thread=journal_thread,
            forwarder=forwarder,
            receipts=ReceiptBook(),
            health=health,
            on_refused=on_refused,
        )
        monitor = Monitor(
            settings=settings,
            sink_kind=sink.kind,
            policy_revision=policy.revision,
            roster=roster,
            health=health,
            source=source,
            pipeline=pipeline,
            forwarder=forwarder,
            journal=journal,
            journal_thread=journal_thread,
            latest=latest,
        )
        decisions = DecisionLog(home.broker_file)
        server = _make_server(settings, monitor)
        work = [
            pipeline.run(),
            pipeline.send_receipts(),
            pipeline.take_decisions(decisions),
            forwarder.run(),
            monitor.run(),
            monitor.write_health(),
            server.serve(),
            _announce_when_ready(home, settings, server, source, on_ready),
        ]
        try:
            await source.start()
            await _run_until_stopped(work)
        finally:
            retract(home, "bridge")
            await source.stop()
            for thread in (journal_thread, sink_thread):
                thread.shutdown()
            for opened in (sink, memory, journal, registry, decisions):
                opened.close()
            record(Event.PROCESS_STOPPED)


def _make_source(home: Home, settings: Settings) -> MqttSubscriber:
    """The subscription, with a credential of its own.

    At our broker the bridge gives itself a fresh secret at every start: none is kept on disk.
    """
    mqtt, own = settings.mqtt, not settings.mqtt.username

    def renew() -> str:
        with closing(Registry(home.registry_file)) as registry:
            wanted = Enrolment(settings.bridge.id, role=Role.BRIDGE)
            return registry.ensure(wanted, now_ms=now_ms()).secret

    return MqttSubscriber(
        host=mqtt.host,
        port=mqtt.port,
        username=settings.bridge.id if own else mqtt.username,
        password=renew() if own else mqtt.password.reveal(),
        batch_messages=settings.bridge.commit_messages,
        renew=renew if own else None,
    )


def _make_server(settings: Settings, monitor: Monitor) -> uvicorn.Server:
    # Starlette compares names without a port, which it cannot cut off an IPv6 address.
    guarded = is_loopback(settings.http.host) and ":" not in settings.http.host
    hosts = ["localhost", "127.0.0.1", settings.http.host] if guarded else ["*"]
    config = uvicorn.Config(
        make_app(monitor, allowed_hosts=hosts),
        host=settings.http.host,
        port=settings.http.port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=1,
        lifespan="off",
        limit_concurrency=1_000,
        h11_max_incomplete_event_size=16_384,
    )
    server = uvicorn.Server(config)
    server.capture_signals = nullcontext  # type: ignore[assignment]  # signals are ours: the whole process stops, not only HTTP
    return server


async def _announce_when_ready(
    home: Home,
    settings: Settings,
    server: uvicorn.Server,
    source: MqttSubscriber,
    on_ready: Callable[[Address], None],
) -> None:
    """Say where the page is as soon as it answers, and that all works when it does."""
    while not server.started:  # noqa: ASYNC110 -- uvicorn has no event for it
        await asyncio.sleep(WATCH_S)
    port = server.servers[0].sockets[0].getsockname()[1]
    address = Address(os.getpid(), settings.http.host, port, ready=False)
    announce(home, "bridge", address)
    while not source.state.connected:  # noqa: ASYNC110 -- paho's thread sets it
        await asyncio.sleep(WATCH_S)
    announce(home, "bridge", address._replace(ready=True))
    record(Event.PROCESS_READY, host=address.host, port=address.port)
    on_ready(address)
    await asyncio.Event().wait()


async def _run_until_stopped(work: list[Coroutine[Any, Any, None]]) -> None:
    """Run everything until a signal; when one part ends by itself, that is an error of ours."""
    stop = stop_event()
    tasks = [asyncio.create_task(part) for part in work]
    waiting = asyncio.create_task(stop.wait())
    done, _ = await asyncio.wait([waiting, *tasks], return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    if waiting in done:
        return
    waiting.cancel()
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome
    raise InternalError("a part of the bridge ended by itself")
