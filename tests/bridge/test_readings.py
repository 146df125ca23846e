"""Laws of decoding, checking and timing a reading."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.readings import (
    MAX_COUNTER,
    MAX_FAULT_CHARS,
    Timed,
    WireReading,
    check_values,
    decode,
    make_row,
    payload_text,
    row_time_ns,
)
from broker_config.refusals import MAX_DETAIL_CHARS, Refusal, Stage, every_code
from tests.bridge.examples import LAW, NOW_MS, PAYLOADS, POLICY, reading, with_limits

DESIGN_READING = (
    b'{"boot": 17, "n": 4211, "ts": 1795425779860, "values": {"temperature_c": 23.4,'
    b' "humidity_pct": 51.0, "gas_ratio": 0.83}, "faults": ["dht11.timeout"]}'
)
DEEP = 100_000


def outcomes(payload: bytes, policy: Any = POLICY) -> list[str]:
    """Per part of the message: its refusal code, or "reading"."""
    return [
        part.code.name if isinstance(part, Refusal) else "reading"
        for part in decode(payload, policy)
    ]


def only(payload: bytes) -> WireReading:
    (part,) = decode(payload, POLICY)
    assert isinstance(part, WireReading)
    return part


def code_of(refusal: Refusal | None) -> str | None:
    return refusal.code.name if refusal else None


@LAW
@given(PAYLOADS)
def test_every_payload_gives_at_least_one_part_and_never_raises(payload: bytes) -> None:
    parts = decode(payload, POLICY)
    assert parts
    for part in parts:
        if isinstance(part, Refusal):
            assert part.code in every_code()
            assert part.code.stage is Stage.PAYLOAD
            assert part.detail
            assert len(part.detail) <= MAX_DETAIL_CHARS
        else:
            refusal = check_values(part, POLICY)
            assert refusal is None or refusal.code.stage is Stage.PAYLOAD


@LAW
@given(st.binary(max_size=30), st.integers(0, len(DESIGN_READING)), st.integers(0, 20))
def test_a_damaged_reading_never_raises(noise: bytes, at: int, missing: int) -> None:
    damaged = DESIGN_READING[:at] + noise + DESIGN_READING[at + missing :]
    assert len(decode(damaged, POLICY)) >= 1


def test_the_reading_of_the_design_document() -> None:
    assert only(DESIGN_READING) == WireReading(
        values={"temperature_c": 23.4, "humidity_pct": 51.0, "gas_ratio": 0.83},
        boot=17,
        n=4211,
        ts=1795425779860,
        faults=["dht11.timeout"],
    )


def test_the_smallest_reading_of_the_design_document() -> None:
    assert only(b'{"values":{"temperature_c":21.5}}') == WireReading({"temperature_c": 21.5})


def test_values_may_be_empty_when_faults_says_why() -> None:
    part = only(b'{"values":{},"faults":["dht11.timeout"]}')
    assert check_values(part, POLICY) is None


def test_fields_of_newer_firmware_are_ignored() -> None:
    assert only(b'{"values":{"gas_ratio":1},"rssi":-70,"x":{"y":[null]}}') == WireReading(
        {"gas_ratio": 1.0}
    )


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (b"", "payload.not_json"),
        (b"  \r\n", "payload.not_json"),
        (b"\x00", "payload.not_json"),
        (b"hello", "payload.not_json"),
        (b"{'values':{}}", "payload.not_json"),
        (b'{"values":{}', "payload.not_json"),
        (b'{"values":{}} {"values":{}}', "payload.not_json"),
        (b'[{"values":{}}] x', "payload.not_json"),
        (b"[", "payload.not_json"),
        (b'\xef\xbb\xbf{"values":{}}', "payload.not_json"),
        (b'\xef\xbb\xbf[{"values":{}}]', "payload.not_json"),
        ('{"values":{}}'.encode("utf-16"), "payload.not_json"),
        (b'{"values":{"temperature_c":NaN}}', "payload.not_json"),
        (b'{"values":{"temperature_c":Infinity}}', "payload.not_json"),
        (b'{"values":{"temperature_c":-Infinity}}', "payload.not_json"),
        (b'{"values":{"temperature_c":01}}', "payload.not_json"),
        (b'{"values":{"\xff":1}}', "payload.not_json"),
        (b'{"values":{},"faults":["\xff"]}', "payload.not_json"),
        (b'{"values":{},"faults":["\\ud800"]}', "payload.not_json"),
        (b'{"values":{"\\udc00x":1}}', "payload.not_json"),
        (b"null", "payload.wrong_shape"),
        (b"1", "payload.wrong_shape"),
        (b'"values"', "payload.wrong_shape"),
        (b"{}", "payload.wrong_shape"),
        (b'{"values":null}', "payload.wrong_shape"),
        (b'{"values":[21.5]}', "payload.wrong_shape"),
        (b'{"values":{"temperature_c":"21.5"}}', "payload.wrong_shape"),
        (b'{"values":{"temperature_c":true}}', "payload.wrong_shape"),
        (b'{"values":{"temperature_c":null}}', "payload.wrong_shape"),
        (b'{"values":{"temperature_c":1e400}}', "payload.wrong_shape"),
        (b'{"values":{"temperature_c":-1e400}}', "payload.wrong_shape"),
        (b'{"values":{"temperature_c":%s}}' % (b"9" * 400), "payload.wrong_shape"),
        (b'{"values":{},"boot":"17"}', "payload.wrong_shape"),
        (b'{"values":{},"boot":true}', "payload.wrong_shape"),
        (b'{"values":{},"boot":-1}', "payload.wrong_shape"),
        (b'{"values":{},"n":1.5}', "payload.wrong_shape"),
        (b'{"values":{},"n":%d}' % (MAX_COUNTER + 1), "payload.wrong_shape"),
        (b'{"values":{},"ts":%s}' % (b"9" * 5_000), "payload.wrong_shape"),
        (b'{"values":{},"up":-0.5}', "payload.wrong_shape"),
        (b'{"values":{},"faults":"dht11.timeout"}', "payload.wrong_shape"),
        (b'{"values":{},"faults":[1]}', "payload.wrong_shape"),
        (b'{"values":{},"faults":null}', "payload.wrong_shape"),
        (b"[]", "payload.empty"),
        (b" [ ] ", "payload.empty"),
    ],
    ids=lambda value: repr(value[:40]),
)
def test_what_is_no_reading_is_refused_by_name(payload: bytes, code: str) -> None:
    assert outcomes(payload) == [code]


@pytest.mark.parametrize(
    ("opening", "code"),
    [
        (b"[", "payload.not_json"),
        (b'{"x":', "payload.not_json"),
        (b'[{"values":[', "payload.not_json"),
        (b'{"values":', "payload.wrong_shape"),
    ],
)
def test_deep_nesting_is_refused(opening: bytes, code: str) -> None:
    payload = opening * DEEP
    assert outcomes(payload) == ["payload.too_large"]
    assert outcomes(payload, with_limits(payload_bytes=len(payload))) == [code]


def test_of_equal_keys_the_last_counts_as_for_every_common_decoder() -> None:
    payload = b'{"values":{"gas_ratio":9},"n":1,"values":{"gas_ratio":1,"gas_ratio":2},"n":2}'
    assert only(payload) == WireReading(**json.loads(payload))


def test_the_greatest_counter_is_the_greatest_exact_json_number() -> None:
    assert only(b'{"values":{},"boot":9007199254740992}').boot == MAX_COUNTER


@LAW
@given(
    st.dictionaries(st.text(max_size=20), st.floats(allow_nan=False, allow_infinity=False)),
    st.none() | st.integers(0, MAX_COUNTER),
    st.lists(st.text(max_size=20), max_size=4),
    st.booleans(),
)
def test_numbers_and_names_arrive_as_another_encoder_wrote_them(
    values: dict[str, float], counter: int | None, faults: list[str], ascii_only: bool
) -> None:
    sent = {"values": values, "boot": counter, "n": counter, "ts": counter, "faults": faults}
    part = only(json.dumps(sent, ensure_ascii=ascii_only).encode())
    assert part == WireReading(values, counter, counter, counter, None, faults)


def test_the_parts_of_an_array_are_judged_alone() -> None:
    payload = b"""[
        {"values":{"temperature_c":1}}, 7, {"values":{"temperature_c":"x"}}, null,
        {"values":{"\xff":1}}, [], {"values":{"temperature_c":2}}
    ]"""
    assert outcomes(payload) == [
        "reading",
        "payload.wrong_shape",
        "payload.wrong_shape",
        "payload.wrong_shape",
        "payload.not_json",
        "payload.wrong_shape",
        "reading",
    ]
    parts = decode(payload, POLICY)
    assert parts[0] == WireReading({"temperature_c": 1.0})
    assert parts[-1] == WireReading({"temperature_c": 2.0})


@LAW
@given(
    st.lists(st.sampled_from([DESIGN_READING, b"7", b"null", b'{"values":{"a":"b"}}']), min_size=1)
)
def test_an_array_has_the_parts_that_its_elements_have_alone(elements: list[bytes]) -> None:
    whole = decode(b"[" + b",".join(elements) + b"]", POLICY)
    assert whole == [decode(element, POLICY)[0] for element in elements]


def test_as_many_readings_as_the_limit_are_taken_and_one_more_is_not() -> None:
    policy = with_limits(readings_per_message=3)
    element = b'{"values":{"gas_ratio":1}}'
    assert outcomes(b"[" + b",".join([element] * 3) + b"]", policy) == ["reading"] * 3
    parts = decode(b"[" + b",".join([element] * 4) + b"]", policy)
    assert {(part.code.name, part.rule) for part in parts if isinstance(part, Refusal)} == {
        ("payload.too_many_readings", "limits.readings_per_message")
    }
    assert len(parts) == 4


def test_as_many_bytes_as_the_limit_are_taken_and_one_more_is_not() -> None:
    payload = b'{"values":{"gas_ratio":1}}'
    assert outcomes(payload, with_limits(payload_bytes=len(payload))) == ["reading"]
    assert outcomes(payload + b" ", with_limits(payload_bytes=len(payload))) == [
        "payload.too_large"
    ]


@pytest.mark.parametrize("name", sorted(POLICY.quantities))
def test_both_ends_of_a_range_are_allowed_and_nothing_beyond(name: str) -> None:
    quantity = POLICY.quantities[name]
    for value in (quantity.min, quantity.max):
        assert check_values(reading(values={name: value}), POLICY) is None
    for value in (math.nextafter(quantity.min, -math.inf), math.nextafter(quantity.max, math.inf)):
        refusal = check_values(reading(values={name: value}), POLICY)
        assert refusal is not None
        assert (refusal.code.name, refusal.rule) == ("payload.out_of_range", f"quantities.{name}")


@LAW
@given(
    st.dictionaries(
        st.sampled_from(sorted(POLICY.quantities)),
        st.floats(-60, 60_000) | st.floats(allow_nan=False),
        min_size=1,
    )
)
def test_a_reading_is_taken_when_all_its_values_are_in_range(values: dict[str, float]) -> None:
    in_range = all(
        POLICY.quantities[name].min <= value <= POLICY.quantities[name].max
        for name, value in values.items()
    )
    assert (check_values(reading(values=values), POLICY) is None) == in_range


def test_the_refusal_of_the_design_document() -> None:
    refusal = check_values(reading(values={"humidity_pct": 183}), POLICY)
    assert refusal is not None
    assert (refusal.code.name, refusal.detail) == ("payload.out_of_range", "humidity_pct 183 > 100")


@LAW
@given(st.floats(min_value=100, exclude_min=True, allow_infinity=False))
def test_the_number_in_a_refusal_is_out_of_range_as_it_is_written(value: float) -> None:
    refusal = check_values(reading(values={"humidity_pct": value}), POLICY)
    assert refusal is not None
    written = refusal.detail.split()[1]
    assert float(written) > 100


@LAW
@given(st.text(max_size=300).filter(lambda name: name not in POLICY.quantities))
def test_a_quantity_that_the_policy_does_not_name_is_refused(name: str) -> None:
    refusal = check_values(reading(values={"gas_ratio": 1.0, name: 1.0}), POLICY)
    assert code_of(refusal) == "payload.unknown_quantity"


@pytest.mark.parametrize(
    ("faults", "code"),
    [
        ([], "payload.empty"),
        (["x"], None),
        (["x" * MAX_FAULT_CHARS], None),
        (["x" * (MAX_FAULT_CHARS + 1)], "payload.wrong_shape"),
        ([""], "payload.wrong_shape"),
        (["a\nb"], "payload.wrong_shape"),
        (["a\x00"], "payload.wrong_shape"),
        (["ok", "\x1b[2J"], "payload.wrong_shape"),
        (["Fühler.kaputt"], None),
        (["x"] * POLICY.limits.faults_per_reading, None),
        (["x"] * (POLICY.limits.faults_per_reading + 1), "payload.wrong_shape"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_fault_names_are_few_short_and_printable(faults: list[str], code: str | None) -> None:
    assert code_of(check_values(reading(values={}, faults=faults), POLICY)) == code


@LAW
@given(st.integers(0, 2**42), st.integers(0, MAX_COUNTER))
def test_a_row_time_keeps_the_millisecond(ts_ms: int, order: int) -> None:
    assert row_time_ns(ts_ms, order) // 1_000_000 == ts_ms


@LAW
@given(st.lists(st.integers(0, 999_999), unique=True))
def test_sequence_numbers_keep_readings_of_one_millisecond_apart(numbers: list[int]) -> None:
    rows = [
        make_row(reading(boot=1, n=n), Timed(NOW_MS, "device"), device="d", site="s", arrival=0)
        for n in numbers
    ]
    assert len({one.time_ns for one in rows}) == len(numbers)


def test_a_repeat_with_a_sequence_number_has_the_time_of_the_first() -> None:
    first, second = (
        make_row(reading(n=7, ts=NOW_MS), Timed(NOW_MS, "device"), device="d", site="s", arrival=a)
        for a in (1, 2)
    )
    assert first == second


def test_readings_that_have_only_the_time_of_receipt_are_kept_apart_by_arrival() -> None:
    first, second = (
        make_row(reading(), Timed(NOW_MS, "received"), device="d", site="s", arrival=a)
        for a in (1, 2)
    )
    assert first.time_ns != second.time_ns


def test_a_row_says_what_the_reading_said() -> None:
    sent = reading(values={"gas_ratio": 0.5}, faults=["dht11.timeout"], n=3)
    made = make_row(sent, Timed(NOW_MS, "boot"), device="dev-1", site="hall", arrival=9)
    assert (made.device, made.site, made.ts_source) == ("dev-1", "hall", "boot")
    assert (made.values, made.faults) == ({"gas_ratio": 0.5}, ("dht11.timeout",))
    assert made.time_ns == NOW_MS * 1_000_000 + 3


@LAW
@given(PAYLOADS)
def test_every_payload_can_be_shown_to_people(payload: bytes) -> None:
    try:
        expected = json.loads(payload.decode(), parse_constant=float.fromhex)
    except ValueError:
        assert isinstance(payload_text(payload), str)
    else:
        assert payload_text(payload) == expected
