"""From a payload to judged readings: decode, validate, give it a time. Pure.

The wire format is DESIGN's "A reading": a JSON object, or an array of them, each judged alone.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import msgspec

from broker_config import refusals
from broker_config.refusals import Refusal, refuse

if TYPE_CHECKING:
    from broker_config.policy import Clock, Policy

MAX_COUNTER = 2**53
"""Largest `boot`, `n`, `ts` and `up`: beyond it JSON numbers are not exact (RFC 8259 section 6)."""

MAX_FAULT_CHARS = 64

Counter = Annotated[int, msgspec.Meta(ge=0, le=MAX_COUNTER)]


class WireReading(msgspec.Struct, frozen=True):
    """One reading as a device sends it.

    Unknown fields are ignored, so that newer firmware is not turned away by an older server.

    Attributes:
        values: quantity to number; may be empty when `faults` says why.
        boot, n: boot counter and sequence number.
        ts: ms since 1970 UTC by the device's clock.
        up: ms since boot, for a device without a clock.
        faults: names of what failed, such as `dht11.timeout`.
    """

    values: dict[str, float]
    boot: Counter | None = None
    n: Counter | None = None
    ts: Counter | None = None
    up: Counter | None = None
    faults: list[str] = []


class WireKey(msgspec.Struct, frozen=True):
    """The key of a reading that is otherwise not one."""

    boot: Counter | None = None
    n: Counter | None = None


class Row(msgspec.Struct, frozen=True, array_like=True):
    """One accepted reading as it goes to the database; this is what the journal holds.

    Attributes:
        time_ns: ns since 1970 UTC. The milliseconds are the reading's time; what is below them
            keeps readings of one millisecond apart (docs/decisions/0003).
        ts_source: where the time came from: `device`, `boot` or `received`.
    """

    device: str
    site: str
    time_ns: int
    ts_source: str
    values: dict[str, float]
    faults: tuple[str, ...]


class Timed(NamedTuple):
    """A resolved time."""

    ts_ms: int
    ts_source: str


_canonical = msgspec.json.Encoder(order="sorted")
_one = msgspec.json.Decoder(WireReading)
_key = msgspec.json.Decoder(WireKey)
_array = msgspec.json.Decoder(list[msgspec.Raw])


def decode(payload: bytes, policy: Policy) -> list[WireReading | Refusal]:
    """The readings of one message, in its order; one refusal where the message is none at all.

    Never raises for any payload.
    """
    if len(payload) > policy.limits.payload_bytes:
        detail = f"{len(payload)} bytes > {policy.limits.payload_bytes}"
        return [refuse(refusals.TOO_LARGE, detail, rule="limits.payload_bytes")]
    if payload.lstrip(b" \t\r\n")[:1] != b"[":
        return [_decode_one(payload)]
    try:
        parts = _array.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        return [refuse(refusals.NOT_JSON, _sentence(exc))]
    if not parts:
        return [refuse(refusals.EMPTY, "an array without readings")]
    if len(parts) > policy.limits.readings_per_message:
        detail = f"{len(parts)} readings > {policy.limits.readings_per_message}"
        rule = "limits.readings_per_message"
        return [refuse(refusals.TOO_MANY_READINGS, detail, rule=rule)] * len(parts)
    return [_decode_one(part) for part in parts]


def _decode_one(payload: bytes | msgspec.Raw) -> WireReading | Refusal:
    try:
        return _one.decode(payload)
    except msgspec.ValidationError as exc:
        return _with_key(refuse(refusals.WRONG_SHAPE, _sentence(exc)), payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        return refuse(refusals.NOT_JSON, _sentence(exc))


def _with_key(refusal: Refusal, payload: bytes | msgspec.Raw) -> Refusal:
    """The refusal with boot and n where these at least are readable, so that a receipt names it."""
    try:
        key = _key.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return refusal
    return refusal._replace(boot=key.boot, n=key.n)


def _sentence(exc: Exception) -> str:
    return str(exc).replace(" - at `$", " at `") or type(exc).__name__


def check_values(reading: WireReading, policy: Policy) -> Refusal | None:
    """What is wrong with the numbers and faults of a reading; None when nothing is."""
    if not reading.values and not reading.faults:
        return refuse(refusals.EMPTY, "values is empty and faults does not say why")
    for name, value in reading.values.items():
        quantity = policy.quantities.get(name)
        if quantity is None:
            known = ", ".join(sorted(policy.quantities))
            return refuse(refusals.UNKNOWN_QUANTITY, f"{name[:64]!r} is none of {known}")
        if not quantity.min <= value <= quantity.max:
            bound = f"> {quantity.max:g}" if value > quantity.max else f"< {quantity.min:g}"
            detail = f"{name} {_number(value)} {bound}"
            return refuse(refusals.OUT_OF_RANGE, detail, rule=f"quantities.{name}")
    if len(reading.faults) > policy.limits.faults_per_reading:
        detail = f"{len(reading.faults)} faults > {policy.limits.faults_per_reading}"
        return refuse(refusals.WRONG_SHAPE, detail, rule="limits.faults_per_reading")
    for fault in reading.faults:
        if not fault or len(fault) > MAX_FAULT_CHARS or not fault.isprintable():
            detail = f"a fault is 1 to {MAX_FAULT_CHARS} printable characters, not {fault[:64]!r}"
            return refuse(refusals.WRONG_SHAPE, detail)
    return None


def _number(value: float) -> str:
    """A number as short as it can be without becoming another one."""
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


def resolve_time(
    reading: WireReading, clock: Clock, *, received_ms: int, boot_offset_ms: int | None
) -> Timed | Refusal:
    """The time of a reading: from `ts`, else from `up`, else the time of receipt.

    Args:
        received_ms: the server's time at receipt, ms since 1970 UTC.
        boot_offset_ms: when this boot began by the server's clock, where that is known.
    """
    if reading.ts is not None and reading.ts >= clock.earliest_ms:
        return _believed(reading.ts, clock, received_ms) or Timed(reading.ts, "device")
    if reading.up is not None and boot_offset_ms is not None:
        ts_ms = min(boot_offset_ms + reading.up, received_ms)
        if _believed(ts_ms, clock, received_ms) is None:
            return Timed(ts_ms, "boot")
        return Timed(received_ms, "received")  # a guess of ours is no reason to turn it away
    if reading.ts is not None and reading.up is None:
        detail = f"ts {reading.ts} is before {clock.earliest:%Y-%m-%d}"
        return refuse(refusals.CLOCK_UNSET, detail, rule="clock.earliest")
    return Timed(received_ms, "received")


def _believed(ts_ms: int, clock: Clock, received_ms: int) -> Refusal | None:
    """The refusal of a time too far from the server's; None when it is believed."""
    seconds = (ts_ms - received_ms) / 1000
    if seconds > clock.ahead_s:
        detail = f"{seconds:.0f} s ahead > {clock.ahead_s}"
        return refuse(refusals.CLOCK_AHEAD, detail, rule="clock.ahead_s")
    if -seconds > clock.behind_s:
        detail = f"{-seconds:.0f} s old > {clock.behind_s}"
        return refuse(refusals.CLOCK_BEHIND, detail, rule="clock.behind_s")
    return None


def learned_offset_ms(
    readings: list[WireReading], clock: Clock, *, received_ms: int, known_ms: int | None
) -> int | None:
    """When a boot began by the server's clock, from readings of that boot in one message.

    A reading with a believable `ts` beside `up` says it exactly. Else the newest `up` of the
    message was taken at the latest when the message came; the earliest such bound is nearest. An
    `up` by which the boot began before `clock.earliest` is no uptime.
    """
    readings = [
        reading
        for reading in readings
        if reading.up is not None and received_ms - reading.up >= clock.earliest_ms
    ]
    exact = [
        reading.ts - reading.up
        for reading in readings
        if reading.up is not None
        and reading.ts is not None
        and clock.earliest_ms <= reading.ts <= received_ms + clock.ahead_s * 1000
    ]
    if exact:
        return exact[-1]
    bounds = [received_ms - reading.up for reading in readings if reading.up is not None]
    if not bounds:
        return known_ms
    return min(bounds) if known_ms is None else min(known_ms, *bounds)


SUB_MS_NS = 1_000_000
"""Nanoseconds in a millisecond: the room in which readings of one millisecond are told apart."""


BOOT_STRIDE = 7_919
"""Keeps equal sequence numbers of different boots apart; a prime, so that they seldom meet."""


def row_time_ns(ts_ms: int, order: int) -> int:
    """Row time: the reading's millisecond, and its order below it.

    InfluxDB keeps one point a series and timestamp, so two readings of one device in the same
    millisecond would overwrite each other. The order is the sequence number where there is one,
    so that a repeat is written onto the same row, whoever writes it (docs/decisions/0003).
    """
    return ts_ms * SUB_MS_NS + order % SUB_MS_NS


def make_row(reading: WireReading, timed: Timed, *, device: str, site: str, arrival: int) -> Row:
    """The row of an accepted reading.

    Args:
        arrival: a number that differs between readings received in the same millisecond.
    """
    if timed.ts_source == "received":
        order = arrival
    elif reading.n is not None:
        order = reading.n + BOOT_STRIDE * (reading.boot or 0)
    else:
        order = zlib.crc32(_canonical.encode(reading.values))
    return Row(
        device=device,
        site=site,
        time_ns=row_time_ns(timed.ts_ms, order),
        ts_source=timed.ts_source,
        values=reading.values,
        faults=tuple(reading.faults),
    )


def payload_text(payload: bytes) -> Any:
    """A payload for people: JSON where it is, else text with replacement characters."""
    try:
        return msgspec.json.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return payload.decode("utf-8", "replace")
