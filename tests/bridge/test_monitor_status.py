"""`/api/status` has the shape that DESIGN promises to everybody who reads it."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from bridge.forwarder import SinkState
from bridge.line_protocol import INGEST_HEALTH, encode_point
from bridge.source import SourceState
from broker_config.errors import NotRunningError
from tests.bridge.examples import POLICY, delivery
from tests.bridge.wiring import Bridge, running, until

if TYPE_CHECKING:
    from pathlib import Path

DESIGN_KEYS = {
    "level", "ingest_health", "window_s", "expected", "stored", "cause",
    "ledger", "devices", "refusals", "sink", "policy",
}  # fmt: skip


async def after(bridge: Bridge, *payloads: object) -> dict[str, Any]:
    """The status as JSON when these messages are stored or refused."""
    now_ms = time.time_ns() // 1_000_000  # the monitor looks at the clock
    bridge.source.give(*(delivery(payload, received_ms=now_ms) for payload in payloads))
    async with running(bridge.pipeline.run(), bridge.forwarder.run()):
        await until(lambda: len(bridge.source.acknowledged) == len(payloads))
        await until(lambda: not bridge.journal.pending_rows())
    await bridge.monitor._measure()
    status: dict[str, Any] = json.loads(msgspec.json.encode(bridge.monitor.status()))
    return status


def test_the_status_has_the_keys_of_the_design_document(tmp_path: Path) -> None:
    async def scenario() -> None:
        with Bridge(tmp_path) as bridge:
            good = {"boot": 1, "n": 1, "values": {"temperature_c": 21.5}}
            status = await after(bridge, good, good, b"no json", {"values": {"humidity_pct": 183}})
        assert set(status) == DESIGN_KEYS
        assert status["ledger"] == {
            "received": 4,
            "stored": 1,
            "duplicate": 1,
            "refused": 2,
            "pending": 0,
        }
        assert set(status["devices"]) == {"enrolled", "reporting", "late", "silent", "never_seen"}
        assert status["devices"]["enrolled"] == 2
        assert status["devices"]["never_seen"] == 1
        assert [set(refusal) for refusal in status["refusals"]] == [
            {"code", "stage", "count", "devices", "last_ms"}
        ] * 2
        assert {(one["code"], one["stage"], one["count"]) for one in status["refusals"]} == {
            ("payload.not_json", "payload", 1),
            ("payload.out_of_range", "payload", 1),
        }
        assert status["sink"] == {"kind": "embedded", "state": "ready", "backlog": 0}
        assert set(status["policy"]) == {"revision", "activated_ms"}
        assert status["policy"]["revision"] == POLICY.revision
        assert (status["level"], status["cause"], status["window_s"]) == ("ok", None, 60)
        assert status["ingest_health"] == 1.0

    asyncio.run(scenario())


def test_a_cause_has_the_keys_of_the_design_document(tmp_path: Path) -> None:
    async def scenario() -> None:
        with Bridge(tmp_path) as bridge:
            bridge.source.state = SourceState(False, 0, "cannot reach 127.0.0.1:1883", None)
            await bridge.monitor._measure()
            status = bridge.monitor.status()
        assert status["level"] == "down"
        cause = status["cause"]
        assert set(cause) == {
            "code", "summary", "since_ms", "evidence", "ruled_out", "action",
        }  # fmt: skip
        assert cause["code"] == "broker.unreachable"
        assert cause["evidence"] == ["cannot reach 127.0.0.1:1883"]
        assert all(set(suspect) == {"code", "because"} for suspect in cause["ruled_out"])

    asyncio.run(scenario())


def test_before_the_first_measurement_there_is_no_status(tmp_path: Path) -> None:
    async def scenario() -> None:
        with Bridge(tmp_path) as bridge, pytest.raises(NotRunningError):
            bridge.monitor.status()

    asyncio.run(scenario())


def test_ready_means_source_journal_and_database(tmp_path: Path) -> None:
    async def scenario() -> None:
        with Bridge(tmp_path) as bridge:
            assert bridge.monitor.not_ready() == ""
            bridge.forwarder.state = SinkState("unreachable", 0, "no database")
            assert bridge.monitor.not_ready() == "no database"
            bridge.source.state = SourceState(False, 0, "no broker", None)
            assert bridge.monitor.not_ready() == "no broker"
            bridge.pipeline.journal_problem = "no disk"
            assert bridge.monitor.not_ready() == "no disk"

    asyncio.run(scenario())


def test_the_point_of_the_measurement_says_what_the_status_says(tmp_path: Path) -> None:
    async def scenario() -> None:
        with Bridge(tmp_path) as bridge:
            await after(bridge, {"values": {"gas_ratio": 1}})
            point = bridge.monitor._point
        assert point is not None
        assert (point.measurement, dict(point.tags)) == (INGEST_HEALTH, {"bridge": "bridge"})
        assert point.fields["ratio"] == 1.0
        assert isinstance(point.fields["ratio"], float)
        assert (point.fields["received_total"], point.fields["stored_total"]) == (1, 1)
        assert encode_point(point)

    asyncio.run(scenario())


def test_devices_are_listed_the_worst_first_with_what_they_said_last(tmp_path: Path) -> None:
    async def scenario() -> None:
        with Bridge(tmp_path, "dev-a", "dev-b", "dev-c") as bridge:
            now_ms = time.time_ns() // 1_000_000
            bridge.health.remember("dev-c", 1, 2)
            good = {"values": {"temperature_c": 21.5}, "faults": ["mq135.cold"]}
            for payload in (good, b"no json"):
                bridge.source.give(delivery(payload, "dev-a", received_ms=now_ms))
            async with running(bridge.pipeline.run(), bridge.forwarder.run()):
                await until(lambda: len(bridge.source.acknowledged) == 2)
                await until(lambda: "dev-a" in bridge.latest)
            answer = bridge.monitor.devices(limit=10)
            assert answer["total"] == 3
            assert [(one["device"], one["state"]) for one in answer["devices"]] == [
                ("dev-c", "silent"),
                ("dev-b", "never_seen"),
                ("dev-a", "reporting"),
            ]
            reporting = answer["devices"][-1]
            assert (reporting["values"], reporting["faults"]) == (good["values"], ["mq135.cold"])
            assert (reporting["site"], reporting["interval_s"]) == ("hall", 10.0)
            assert (reporting["refused"], answer["devices"][0]["refused"]) == (1, 0)
            assert reporting["last_ms"] >= now_ms
            assert answer["devices"][1]["last_ms"] is None
            shortened = bridge.monitor.devices(limit=1)
            assert (len(shortened["devices"]), shortened["total"]) == (1, 3)

    asyncio.run(scenario())
