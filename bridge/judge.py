"""One message in, its outcome out: topic, decode, validate, time, deduplicate. Pure.

The only state is the memory of boots that it is given, and it says what it changed there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from bridge.outcomes import Judged, RefusedReading
from bridge.readings import (
    Row,
    WireReading,
    check_values,
    decode,
    learned_offset_ms,
    make_row,
    resolve_time,
)
from broker_config import refusals
from broker_config.refusals import Refusal, refuse
from broker_config.topics import Kind, parse_topic

if TYPE_CHECKING:
    from collections.abc import Container, Mapping

    from bridge.boot_book import BootBook
    from bridge.outcomes import Delivery
    from broker_config.policy import Policy


class Judgement(NamedTuple):
    """What messages are judged by.

    Attributes:
        sites: the site of every enrolled device.
        boots: memory of sequence numbers and clock offsets; changed by judging.
        revoked: enrolled devices whose credential was revoked.
    """

    policy: Policy
    revision: str
    sites: Mapping[str, str]
    boots: BootBook
    revoked: Container[str] = frozenset()


def judge(delivery: Delivery, by: Judgement, *, arrival: int) -> Judged:
    """The outcome of every reading in one message.

    Args:
        arrival: a number that grows with every message; it keeps rows apart that have nothing
            but the time of receipt.

    Raises:
        StorageError: when the memory of boots cannot be read. No payload makes it raise.
    """
    parsed = parse_topic(delivery.topic)
    if parsed is None or parsed.kind is not Kind.READINGS:
        refusal = refuse(refusals.TOPIC_INVALID, f"topic {delivery.topic!r}")
        return _refused_whole(delivery, parsed.device if parsed else "", refusal)
    device = parsed.device
    if device not in by.sites:
        refusal = refuse(refusals.UNKNOWN_IDENTITY, f"device {device!r} is not enrolled")
        return _refused_whole(delivery, device, refusal)
    if device in by.revoked:
        return _refused_whole(delivery, device, refuse(refusals.REVOKED, f"device {device!r}"))
    parts = decode(delivery.payload, by.policy)
    _learn_offsets(parts, device, by, delivery.received_ms)
    rows: list[Row] = []
    refused: list[RefusedReading] = []
    keys: list[tuple[int, int]] = []
    duplicates = 0
    for position, part in enumerate(parts):
        if not isinstance(part, WireReading):
            _add_unkeyed(refused, RefusedReading(position, part, part.boot, part.n))
            continue
        outcome = (_repeat_unknown(part) if delivery.retained else None) or _judge_one(
            part, device, by, delivery.received_ms, arrival + position
        )
        if isinstance(outcome, Refusal):
            refused.append(RefusedReading(position, outcome, part.boot, part.n))
            continue
        if outcome is None:
            duplicates += 1
        else:
            rows.append(outcome)
        if part.boot is not None and part.n is not None:
            keys.append((part.boot, part.n))
    return Judged(delivery, device, len(parts), rows, duplicates, refused, keys)


def _add_unkeyed(refused: list[RefusedReading], new: RefusedReading) -> None:
    """Add a refusal without a key; one of thousands of equal ones is counted, not listed."""
    last = refused[-1] if refused else None
    if last is not None and last.n is None is new.n and last.refusal.code is new.refusal.code:
        refused[-1] = last._replace(times=last.times + 1)
    else:
        refused.append(new)


def _repeat_unknown(reading: WireReading) -> Refusal | None:
    """A retained reading comes again with every subscription; only its key can tell a repeat."""
    if reading.boot is not None and reading.n is not None:
        return None
    return refuse(refusals.RETAINED, "retained, without boot and n")


def _judge_one(
    reading: WireReading, device: str, by: Judgement, received_ms: int, arrival: int
) -> Row | Refusal | None:
    """The row of a reading, its refusal, or None when it was accepted before."""
    state = by.boots.get(device, reading.boot) if reading.boot is not None else None
    if state is not None and reading.n is not None and reading.n in state.seen:
        return None
    refusal = check_values(reading, by.policy)
    if refusal is not None:
        return refusal
    timed = resolve_time(
        reading,
        by.policy.clock,
        received_ms=received_ms,
        boot_offset_ms=state.offset_ms if state else None,
    )
    if isinstance(timed, Refusal):
        return timed
    if state is not None and reading.boot is not None and reading.n is not None:
        state.seen.add(reading.n)
        by.boots.changed(device, reading.boot, state)
    return make_row(reading, timed, device=device, site=by.sites[device], arrival=arrival)


def _learn_offsets(
    parts: list[WireReading | Refusal], device: str, by: Judgement, received_ms: int
) -> None:
    """Learn when each boot in the message began, before its readings get their time."""
    of_boot: dict[int, list[WireReading]] = {}
    for part in parts:
        if isinstance(part, WireReading) and part.boot is not None and part.up is not None:
            of_boot.setdefault(part.boot, []).append(part)
    for boot, readings in of_boot.items():
        state = by.boots.get(device, boot)
        offset_ms = learned_offset_ms(
            readings, by.policy.clock, received_ms=received_ms, known_ms=state.offset_ms
        )
        if offset_ms != state.offset_ms:
            state.offset_ms = offset_ms
            by.boots.changed(device, boot, state)


def _refused_whole(delivery: Delivery, device: str, refusal: Refusal) -> Judged:
    return Judged(delivery, device, 1, [], 0, [RefusedReading(0, refusal, None, None)], [])
