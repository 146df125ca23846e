"""The answers of `/api/status` and `/api/devices`, from facts. Pure.

The shape of the status is DESIGN's; `iotctl status --json` prints the same object.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bridge.verdict import Facts, Verdict
from broker_config.refusals import code_named

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from bridge.health import Expectation, HealthBook
    from bridge.outcomes import Ledger
    from bridge.readings import Row
    from broker_config.registry import Entry

_WORST_FIRST = {"silent": 0, "late": 1, "never_seen": 2, "reporting": 3, "revoked": 4}


def status_answer(
    facts: Facts,
    verdict: Verdict,
    ledger: Ledger,
    *,
    window_s: int,
    sink_kind: str,
    policy_revision: str,
    policy_activated_ms: int,
    shift_ms: int,
) -> dict[str, Any]:
    """The status object of DESIGN, "Commands that others rely on".

    Args:
        shift_ms: from the clock of the facts to ms since 1970 UTC.
    """
    health = facts.health
    return {
        "level": verdict.level,
        "ingest_health": round(health.ratio, 4),
        "window_s": window_s,
        "expected": round(health.expected),
        "stored": round(health.stored),
        "cause": _cause(verdict, shift_ms),
        "ledger": ledger._asdict(),
        "devices": health.devices._asdict(),
        "refusals": [
            {
                "code": one.code,
                "stage": code.stage.value,
                "count": one.times,
                "devices": one.devices,
                "last_ms": one.last_ms + shift_ms,
            }
            for one in health.refusals
            if (code := code_named(one.code)) is not None
        ],
        "sink": {"kind": sink_kind, "state": facts.sink.state, "backlog": facts.backlog},
        "policy": {"revision": policy_revision, "activated_ms": policy_activated_ms},
    }


def _cause(verdict: Verdict, shift_ms: int) -> dict[str, Any] | None:
    if verdict.cause is None:
        return None
    cause = verdict.cause._asdict()
    cause["since_ms"] = verdict.cause.since_ms + shift_ms
    cause["ruled_out"] = [suspect._asdict() for suspect in verdict.cause.ruled_out]
    return cause


def devices_answer(
    devices: Iterable[Entry],
    expectations: Mapping[str, Expectation],
    health: HealthBook,
    latest: Mapping[str, Row],
    *,
    now_ms: int,
    shift_ms: int,
    limit: int,
) -> dict[str, Any]:
    """Enrolled devices with their state and latest values; the worst first."""
    refused = health.refused_devices(now_ms)
    listed = [(health.state(d.name, expectations[d.name], now_ms), d) for d in devices]
    listed.sort(key=lambda pair: (_WORST_FIRST[pair[0]], pair[1].name))
    return {
        "devices": [
            {
                **_device(entry, state, latest.get(entry.name)),
                "last_ms": _shifted(health.stored_ms(entry.name), shift_ms),
                "refused": refused.get(entry.name, 0),
            }
            for state, entry in listed[:limit]
        ],
        "total": len(listed),
    }


def stale_answer(status: dict[str, Any], *, age_ms: int, now_ms: int) -> dict[str, Any]:
    """A status that was not measured anew for too long: then the journal itself hangs."""
    return {
        **status,
        "level": "down",
        "cause": {
            "code": "journal.unwritable",
            "summary": "The journal has not answered for a while; what is shown is old.",
            "since_ms": now_ms - age_ms,
            "evidence": [f"last measured {age_ms / 1000:.0f} s ago"],
            "ruled_out": [],
            "action": "Look at the disk of the home folder: a write to it does not come back.",
        },
    }


def _shifted(at_ms: int | None, shift_ms: int) -> int | None:
    return None if at_ms is None else at_ms + shift_ms


def _device(entry: Entry, state: str, row: Row | None) -> dict[str, Any]:
    return {
        "device": entry.name,
        "site": entry.site,
        "state": state,
        "interval_s": entry.interval_s,
        "values": row.values if row else {},
        "faults": list(row.faults) if row else [],
    }
