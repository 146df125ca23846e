"""A device hears of every reading that has a key, at most once a second."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge import receipts
from bridge.boot_book import BootBook
from bridge.judge import Judgement, judge
from bridge.outcomes import Judged, RefusedReading
from bridge.receipts import INTERVAL_MS, MAX_REFUSALS, ReceiptBook
from broker_config.refusals import Action, code_named, every_code, refuse
from tests.bridge.examples import LAW, NOW_MS, PAYLOADS, POLICY, delivery, nothing_known

Keys = list[tuple[int, int]]
PAYLOAD_CODES = [code for code in every_code() if code.name.startswith(("payload.", "publish."))]


def message(
    device: str = "dev-1", keys: Keys | None = None, refused: list[RefusedReading] | None = None
) -> Judged:
    accepted, turned_away = keys or [], refused or []
    received = len(accepted) + len(turned_away)
    return Judged(delivery(b"", device), device, received, [], len(accepted), turned_away, accepted)


def taken(book: ReceiptBook, now_ms: int) -> dict[str, Any]:
    """The receipts that go out now, by device."""
    found = book.take_due(now_ms, policy="3f9c")
    assert len({device for device, _ in found}) == len(found)
    return {device: json.loads(payload) for device, payload in found}


def covered(receipt: dict[str, Any]) -> Keys:
    return [
        (seen["boot"], n) for seen in receipt["seen"] for n in range(seen["from"], seen["to"] + 1)
    ]


class Note(NamedTuple):
    """A message with these keys came."""

    device: str
    keys: Keys


keys = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 30)), max_size=6)
steps = st.lists(
    st.builds(Note, st.sampled_from(["dev-1", "dev-2"]), keys) | st.integers(0, 1_500), max_size=40
)


@LAW
@given(steps)
def test_receipts_cover_exactly_the_keys_at_most_once_a_second(sequence: list[Note | int]) -> None:
    """A number in the sequence is time that passes, in ms."""
    book, now_ms = ReceiptBook(), NOW_MS
    noted: dict[str, list[tuple[int, int]]] = {}
    last_ms: dict[str, int] = {}
    for step in [*sequence, INTERVAL_MS]:
        if isinstance(step, Note):
            book.add(message(step.device, step.keys))
            noted.setdefault(step.device, []).extend(step.keys)
            continue
        now_ms += step
        for device, receipt in taken(book, now_ms).items():
            assert now_ms - last_ms.get(device, 0) >= INTERVAL_MS
            last_ms[device] = now_ms
            assert sorted(covered(receipt)) == sorted(set(noted.pop(device)))
            assert receipt["refused"] == []
            assert receipt["policy"] == "3f9c"
    assert not any(noted.values())


@LAW
@given(st.lists(PAYLOADS, max_size=4))
def test_every_reading_with_a_key_is_either_seen_or_refused(payloads: list[bytes]) -> None:
    by = Judgement(POLICY, POLICY.revision, {"dev-1": ""}, BootBook(nothing_known))
    judged = [judge(delivery(payload), by, arrival=0) for payload in payloads]
    book = ReceiptBook()
    for one in judged:
        book.add(one)
    receipt = taken(book, NOW_MS).get("dev-1", {"seen": [], "refused": []})
    assert set(covered(receipt)) == {key for one in judged for key in one.keys}
    expected = [refused for one in judged for refused in one.refused]
    assert [entry["code"] for entry in receipt["refused"]] == [
        refused.refusal.code.name for refused in expected[:MAX_REFUSALS]
    ]
    for entry, refused in zip(receipt["refused"], expected, strict=False):
        has_key = refused.boot is not None and refused.n is not None
        assert (entry.get("boot"), entry.get("n")) == (
            (refused.boot, refused.n) if has_key else (None, None)
        )


@pytest.mark.parametrize("code", every_code(), ids=lambda code: code.name)
def test_a_refusal_says_what_the_device_shall_do(code: Any) -> None:
    book = ReceiptBook()
    book.add(message(refused=[RefusedReading(0, refuse(code, "why"), 17, 4212)]))
    (entry,) = taken(book, NOW_MS)["dev-1"]["refused"]
    assert entry == {
        "boot": 17,
        "n": 4212,
        "code": code.name,
        "detail": "why",
        "action": code.action.value,
    }


@pytest.mark.parametrize(
    ("name", "action"),
    [
        ("payload.out_of_range", Action.DROP),
        ("payload.clock_ahead", Action.HOLD),
        ("publish.topic_denied", Action.HOLD),
        ("connect.unknown_identity", Action.REPROVISION),
    ],
)
def test_a_reading_is_dropped_only_where_it_can_never_be_accepted(
    name: str, action: Action
) -> None:
    code = code_named(name)
    assert code is not None
    assert code.action is action


def test_the_receipt_of_the_design_document() -> None:
    code = code_named("payload.out_of_range")
    assert code is not None
    book = ReceiptBook()
    book.add(message(keys=[(17, n) for n in range(4200, 4212)]))
    refusal = refuse(code, "humidity_pct 183 > 100", rule="quantities.humidity_pct")
    book.add(message(refused=[RefusedReading(0, refusal, 17, 4212)]))
    assert taken(book, NOW_MS) == {
        "dev-1": json.loads(
            '{"seen": [{"boot": 17, "from": 4200, "to": 4211}], "refused": [{"boot": 17, "n": 4212,'
            ' "code": "payload.out_of_range", "detail": "humidity_pct 183 > 100",'
            ' "action": "drop"}], "policy": "3f9c"}'
        )
    }


def test_what_comes_within_the_second_waits_for_the_next_receipt() -> None:
    book = ReceiptBook()
    book.add(message(keys=[(1, 1)]))
    assert covered(taken(book, NOW_MS)["dev-1"]) == [(1, 1)]
    book.add(message(keys=[(1, 2)]))
    assert taken(book, NOW_MS + INTERVAL_MS - 1) == {}
    book.add(message(keys=[(1, 3)]))
    assert covered(taken(book, NOW_MS + INTERVAL_MS)["dev-1"]) == [(1, 2), (1, 3)]
    assert taken(book, NOW_MS + 10 * INTERVAL_MS) == {}


def test_a_server_clock_that_is_set_back_does_not_silence_receipts() -> None:
    """Else devices keep and repeat their readings until the clock is where it was."""
    book = ReceiptBook()
    book.add(message(keys=[(1, 1)]))
    taken(book, NOW_MS)
    set_back_ms = NOW_MS - 3_600_000
    book.add(message(keys=[(1, 2)]))
    assert covered(taken(book, set_back_ms + INTERVAL_MS)["dev-1"]) == [(1, 2)]


def test_a_message_that_says_nothing_to_a_device_makes_no_receipt() -> None:
    book = ReceiptBook()
    book.add(message(keys=[]))
    book.add(message(device="", refused=[RefusedReading(0, refuse(PAYLOAD_CODES[0]), None, None)]))
    assert taken(book, NOW_MS) == {}


def test_a_receipt_holds_no_more_refusals_than_its_bound() -> None:
    book = ReceiptBook()
    refused = [
        RefusedReading(n, refuse(PAYLOAD_CODES[0]), 1, n) for n in range(MAX_REFUSALS * 2 // 3)
    ]
    book.add(message(refused=refused))
    book.add(message(refused=refused, keys=[(1, 500)]))
    receipt = taken(book, NOW_MS)["dev-1"]
    assert len(receipt["refused"]) == MAX_REFUSALS
    assert covered(receipt) == [(1, 500)]


def test_beyond_its_bound_of_devices_a_book_notes_only_those_it_knows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(receipts, "MAX_DEVICES", 2)
    book = ReceiptBook()
    for device in ("dev-1", "dev-2", "dev-3", "dev-1"):
        book.add(message(device, keys=[(1, len(device))]))
    assert sorted(taken(book, NOW_MS)) == ["dev-1", "dev-2"]
    book.add(message("dev-3", keys=[(1, 1)]))
    assert sorted(taken(book, NOW_MS + 1)) == ["dev-3"]
    assert len(book._last_ms) <= 3
    book.add(message("dev-4", keys=[(1, 1)]))
    taken(book, NOW_MS + 2 * INTERVAL_MS)
    assert set(book._last_ms) == {"dev-4"}
