"""The whole way of one message: nothing is acknowledged that is not on disk."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest

from bridge import pipeline as pipeline_module
from bridge.outcomes import BootState, Ledger
from bridge.seen import SeenRanges
from broker_config.broker.decision_log import DecisionLog, DecisionRecord
from broker_config.errors import StorageError
from broker_config.registry import Enrolment, Registry
from tests.bridge.examples import NOW_MS, delivery
from tests.bridge.wiring import Bridge, running, until

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from bridge.outcomes import Delivery


@pytest.fixture(autouse=True)
def fixture_short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    for pause in ("RETRY_S", "DECISIONS_EVERY_S", "RECEIPTS_EVERY_S"):
        monkeypatch.setattr(pipeline_module, pause, 0.002)


def sent(n: int, device: str = "dev-1") -> Delivery:
    reading = {"boot": 1, "n": n, "ts": NOW_MS + n, "values": {"temperature_c": 21.5}}
    return delivery(reading, device, token=n)


def fill_disk(bridge: Bridge) -> None:
    bridge.journal._db.execute(
        "CREATE TRIGGER full BEFORE INSERT ON messages BEGIN SELECT RAISE(ABORT, 'disk full'); END"
    )


def make_room(bridge: Bridge) -> None:
    bridge.journal._db.execute("DROP TRIGGER full")


def topics(bridge: Bridge) -> list[str]:
    return [topic for topic, _ in bridge.source.published]


def test_a_message_is_acknowledged_only_when_it_is_on_disk(tmp_path: Path) -> None:
    async def scenario() -> None:
        with Bridge(tmp_path) as bridge:
            on_disk: list[int] = []

            def look(_batch: Sequence[Delivery]) -> None:
                on_disk.append(bridge.memory.ledger().received)

            bridge.source.on_acknowledge = look
            async with running(bridge.pipeline.run()):
                for numbers in (range(1), range(1, 4), range(4, 6)):
                    bridge.source.give(*(sent(n) for n in numbers))
                await until(lambda: len(bridge.source.acknowledged) == 6)
            assert on_disk == [1, 4, 6]
            assert [one.token for one in bridge.source.acknowledged] == list(range(6))

    asyncio.run(scenario())


def test_while_the_journal_fails_nothing_is_acknowledged_and_then_everything_once(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        with Bridge(tmp_path) as bridge:
            fill_disk(bridge)
            bridge.source.give(*(sent(n) for n in range(5)))
            bridge.source.give(*(sent(n) for n in range(5, 8)))
            async with running(bridge.pipeline.run(), bridge.pipeline.send_receipts()):
                await until(lambda: "disk full" in bridge.pipeline.journal_problem)
                assert bridge.pipeline.journal_problem_since_ms > 0
                assert bridge.source.acknowledged == []
                assert topics(bridge) == []
                assert bridge.journal.ledger() == Ledger(0, 0, 0, 0, 0)
                make_room(bridge)
                await until(lambda: len(bridge.source.acknowledged) == 8)
                await until(lambda: bool(topics(bridge)))
            assert bridge.pipeline.journal_problem == ""
            assert bridge.journal.ledger() == Ledger(8, 0, 0, 0, 8)
            assert [one.token for one in bridge.source.acknowledged] == list(range(8))
            assert bridge.memory.boot("dev-1", 1).seen.ranges() == [(0, 7)]

    asyncio.run(scenario())


def test_a_memory_that_cannot_be_read_for_a_while_marks_nothing_as_duplicate(
    tmp_path: Path,
) -> None:
    """The first message of the batch is judged before the second one's boot cannot be read."""

    async def scenario() -> None:
        with Bridge(tmp_path) as bridge:
            failures = 3
            read = bridge.memory.boot

            def load(device: str, boot: int) -> BootState:
                nonlocal failures
                if device == "dev-2" and failures:
                    failures -= 1
                    raise StorageError("cannot read journal.db")
                return read(device, boot)

            bridge.boots._load = load
            bridge.source.give(sent(1), sent(1, "dev-2"), sent(2))
            async with running(bridge.pipeline.run()):
                await until(lambda: len(bridge.source.acknowledged) == 3)
            assert failures == 0
            assert bridge.journal.ledger() == Ledger(3, 0, 0, 0, 3)
            assert bridge.pipeline.journal_problem == ""

    asyncio.run(scenario())


@pytest.mark.parametrize("fails_at", range(1, 7))
def test_a_registry_that_cannot_be_read_for_a_moment_loses_nothing_and_ends_nothing(
    tmp_path: Path, fails_at: int
) -> None:
    """Whichever of its reads it is that fails."""

    async def scenario() -> None:
        with Bridge(tmp_path) as bridge:
            reads = 0
            sites = bridge.roster.sites

            def sometimes() -> Mapping[str, str]:
                nonlocal reads
                reads += 1
                if reads == fails_at:
                    raise StorageError("cannot read registry.db")
                return sites()

            bridge.roster.sites = sometimes  # type: ignore[method-assign]  # the failure to test
            async with running(bridge.pipeline.run()) as (task,):
                for n in range(4):
                    bridge.source.give(sent(n))
                await until(lambda: len(bridge.source.acknowledged) == 4 or task.done())
                assert len(bridge.source.acknowledged) == 4
            assert reads > fails_at
            assert bridge.journal.ledger() == Ledger(4, 0, 0, 0, 4)

    asyncio.run(scenario())


def test_what_is_delivered_again_is_a_duplicate_and_gets_its_receipt_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        with Bridge(tmp_path) as bridge:
            async with running(bridge.pipeline.run(), bridge.pipeline.send_receipts()):
                bridge.source.give(sent(1), sent(2))
                await until(lambda: len(topics(bridge)) == 1)
                bridge.source.give(sent(1), sent(2))
                await until(lambda: len(topics(bridge)) == 2)
            assert bridge.journal.ledger() == Ledger(4, 0, 2, 0, 2)
            first, second = (json.loads(payload) for _, payload in bridge.source.published)
            assert first["seen"] == second["seen"] == [{"boot": 1, "from": 1, "to": 2}]
            assert set(topics(bridge)) == {"v1/dev-1/receipt"}

    asyncio.run(scenario())


def test_after_a_restart_what_was_stored_before_is_a_duplicate(tmp_path: Path) -> None:
    async def run_once(devices: tuple[str, ...]) -> Ledger:
        with Bridge(tmp_path, *devices) as bridge:
            bridge.source.give(sent(1), sent(2))
            async with running(bridge.pipeline.run(), bridge.forwarder.run()):
                await until(lambda: len(bridge.source.acknowledged) == 2)
                await until(lambda: not bridge.journal.pending_rows())
            return bridge.journal.ledger()

    assert asyncio.run(run_once(("dev-1",))) == Ledger(2, 2, 0, 0, 0)
    assert asyncio.run(run_once(("dev-2",))) == Ledger(4, 2, 2, 0, 0)


def test_every_refusal_is_in_the_ledger_and_in_the_receipt(tmp_path: Path) -> None:
    async def scenario() -> None:
        with Bridge(tmp_path) as bridge:
            bad = {"boot": 1, "n": 2, "values": {"humidity_pct": 183}}
            bridge.source.give(
                sent(1),
                delivery(bad),
                delivery(b"no json"),
                delivery(bad, "stranger"),
                delivery(bad, topic="v1/dev-1/status"),
            )
            async with running(bridge.pipeline.run(), bridge.pipeline.send_receipts()):
                await until(lambda: len(topics(bridge)) == 2)
            assert bridge.journal.ledger() == Ledger(5, 0, 0, 4, 1)
            receipts = {topic: json.loads(payload) for topic, payload in bridge.source.published}
            assert [one["code"] for one in receipts["v1/dev-1/receipt"]["refused"]] == [
                "payload.out_of_range",
                "payload.not_json",
                "publish.topic_invalid",
            ]
            assert [one["action"] for one in receipts["v1/stranger/receipt"]["refused"]] == [
                "reprovision"
            ]
            assert len(bridge.journal.refusals(limit=10)) == 4
            assert [device for device, *_ in bridge.journal.devices()] == ["dev-1"]

    asyncio.run(scenario())


def test_a_device_that_is_enrolled_while_the_bridge_runs_is_known_at_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        with Bridge(tmp_path) as bridge:
            async with running(bridge.pipeline.run()):
                bridge.source.give(sent(1, "dev-9"))
                await until(lambda: len(bridge.source.acknowledged) == 1)
                other = Registry(tmp_path / "registry.db")
                other.add(Enrolment("dev-9", "yard"), now_ms=2)
                other.close()
                bridge.source.give(sent(2, "dev-9"))
                await until(lambda: len(bridge.source.acknowledged) == 2)
            assert bridge.journal.ledger() == Ledger(2, 0, 0, 1, 1)
            (message,) = bridge.journal.pending(10)
            assert message.rows[0].site == "yard"

    asyncio.run(scenario())


def test_no_two_messages_without_a_key_get_the_same_row(tmp_path: Path) -> None:
    async def scenario() -> None:
        with Bridge(tmp_path) as bridge:
            keyless = [{"values": {"gas_ratio": 1}}] * 20
            bridge.source.give(*(delivery(keyless) for _ in range(50)))
            async with running(bridge.pipeline.run()):
                await until(lambda: len(bridge.source.acknowledged) == 50)
            rows = [row for message in bridge.journal.pending(100) for row in message.rows]
            assert len(rows) == len({row.time_ns for row in rows}) == 1_000

    asyncio.run(scenario())


def refused_by_broker(code: str, device: str, times: int) -> DecisionRecord:
    return DecisionRecord(
        0, NOW_MS, code, device, "192.0.2.7:1", "v1/x/readings", "", "", "p", times
    )


def test_the_broker_s_refusals_come_into_the_same_ledger_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        with Bridge(tmp_path) as bridge:
            log = DecisionLog(tmp_path / "broker.db")
            log.append(
                [
                    refused_by_broker("publish.topic_denied", "dev-1", 12),
                    refused_by_broker("connect.bad_password", "dev-2", 3),
                    refused_by_broker("connect.unknown_identity", "stranger", 1),
                ]
            )
            async with running(bridge.pipeline.take_decisions(log)):
                await until(lambda: bridge.journal.decision_id(log.log_id) == 3)
                log.append([refused_by_broker("publish.topic_denied", "dev-1", 1)])
                await until(lambda: bridge.journal.decision_id(log.log_id) == 4)
            log.close()
            assert bridge.journal.ledger() == Ledger(13, 0, 0, 13, 0)
            found = {one.code: one.times for one in bridge.health.report({}, NOW_MS).refusals}
            assert found == {
                "publish.topic_denied": 13,
                "connect.bad_password": 3,
                "connect.unknown_identity": 1,
            }
            assert sorted(device for device, *_ in bridge.journal.devices()) == ["dev-1", "dev-2"]

    asyncio.run(scenario())


def test_decisions_that_cannot_be_written_are_taken_when_they_can(tmp_path: Path) -> None:
    async def scenario() -> None:
        with Bridge(tmp_path) as bridge:
            log = DecisionLog(tmp_path / "broker.db")
            log.append([refused_by_broker("publish.topic_denied", "dev-1", 2)])
            bridge.journal._db.execute("PRAGMA query_only=ON")
            attempts = 0
            read_after = log.read_after

            def read(last_id: int, limit: int) -> list[DecisionRecord]:
                nonlocal attempts
                attempts += 1
                return read_after(last_id, limit)

            log.read_after = read  # type: ignore[method-assign]  # counts the attempts
            async with running(bridge.pipeline.take_decisions(log)):
                await until(lambda: attempts >= 3)
                assert bridge.memory.ledger() == Ledger(0, 0, 0, 0, 0)
                bridge.journal._db.execute("PRAGMA query_only=OFF")
                await until(lambda: bridge.journal.decision_id(log.log_id) == 1)
            log.close()
            assert bridge.journal.ledger() == Ledger(2, 0, 0, 2, 0)

    asyncio.run(scenario())


def test_without_a_connection_receipts_wait(tmp_path: Path) -> None:
    async def scenario() -> None:
        with Bridge(tmp_path) as bridge:
            connected = bridge.source.state
            bridge.source.state = connected._replace(connected=False)
            beats = 0

            def beat() -> None:
                nonlocal beats
                beats += 1

            bridge.source.beat = beat  # type: ignore[method-assign]  # counts the rounds
            bridge.source.give(sent(1))
            async with running(bridge.pipeline.run(), bridge.pipeline.send_receipts()):
                await until(lambda: len(bridge.source.acknowledged) == 1 and beats > 3)
                assert topics(bridge) == []
                bridge.source.state = connected
                await until(lambda: topics(bridge) == ["v1/dev-1/receipt"])

    asyncio.run(scenario())


def test_the_memory_of_a_boot_is_on_disk_with_its_messages(tmp_path: Path) -> None:
    async def scenario() -> None:
        with Bridge(tmp_path) as bridge:
            bridge.source.give(
                sent(5), sent(6), delivery({"boot": 2, "up": 9, "values": {"gas_ratio": 1}})
            )
            async with running(bridge.pipeline.run()):
                await until(lambda: len(bridge.source.acknowledged) == 3)
            assert bridge.memory.boot("dev-1", 1).seen.ranges() == SeenRanges([(5, 6)]).ranges()
            assert bridge.memory.boot("dev-1", 2).offset_ms == NOW_MS - 9

    asyncio.run(scenario())
