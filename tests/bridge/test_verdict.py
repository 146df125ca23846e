"""From facts to a level and a named cause."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.forwarder import SinkState
from bridge.health import DeviceCounts, HealthReport, RefusalCount
from bridge.source import SourceState
from bridge.verdict import EXPLAINS, GRACE_MS, Cause, Facts, judge_health
from broker_config.refusals import code_named, every_code
from tests.bridge.examples import LAW, NOW_MS

SINCE_MS = NOW_MS - 60_000
WELL = HealthReport(1.0, 600.0, 600.0, DeviceCounts(60, 60, 0, 0, 0), (), None)
CONNECTED = SourceState(True, SINCE_MS, "", NOW_MS - 2_000)
READY = SinkState("ready", SINCE_MS, "")


def facts(**changes: Any) -> Facts:
    return Facts(
        health=WELL,
        source=CONNECTED,
        sink=READY,
        backlog=0,
        journal_problem="",
        journal_since_ms=0,
        ledger_difference=0,
        ok_ratio=0.95,
        down_ratio=0.5,
        now_ms=NOW_MS,
    )._replace(**changes)


def health(ratio: float, *refusals: RefusalCount, silent: int = 0, late: int = 0) -> HealthReport:
    counts = DeviceCounts(60, 60 - silent - late, late, silent, 0)
    since_ms = SINCE_MS if silent or late else None
    return HealthReport(ratio, 600.0, ratio * 600, counts, refusals, since_ms)


JOURNAL = {"journal_problem": "cannot write journal.db (disk full)", "journal_since_ms": SINCE_MS}
SOURCE = {"source": SourceState(False, SINCE_MS, "cannot reach 127.0.0.1:1883", None)}
SINK = {"sink": SinkState("unauthorized", SINCE_MS, "InfluxDB answered 401"), "backlog": 12}
LEDGER = {"ledger_difference": -3}


def refused(
    code: str, times: int, devices: int, last_ms: int = NOW_MS, *, missing: int | None = None
) -> RefusalCount:
    """Refusals of enrolled devices; as many of these are late or silent as `missing` says."""
    quiet = devices if missing is None else missing
    return RefusalCount(code, times, devices, last_ms, times, quiet, SINCE_MS if quiet else None)


REFUSED = {"health": health(0.6, refused("payload.not_json", 240, 20, NOW_MS - 5), silent=20)}
SILENT = {"health": health(0.6, silent=20, late=4)}


def cause_of(**changes: Any) -> Cause:
    cause = judge_health(facts(**changes)).cause
    assert cause is not None
    return cause


def acquitted(cause: Cause) -> set[str]:
    return {suspect.code for suspect in cause.ruled_out}


def test_where_all_is_well_there_is_no_cause() -> None:
    assert judge_health(facts()) == ("ok", None)


@pytest.mark.parametrize(
    ("changes", "level", "code", "since_ms"),
    [
        (JOURNAL, "down", "journal.unwritable", SINCE_MS),
        (SOURCE, "down", "broker.unreachable", SINCE_MS),
        (SINK, "degraded", "store.unauthorized", SINCE_MS),
        (LEDGER, "degraded", "ledger.unbalanced", NOW_MS),
        (REFUSED, "degraded", "payload.not_json", SINCE_MS),
        (SILENT, "degraded", "devices.silent", SINCE_MS),
    ],
    ids=["journal", "source", "sink", "ledger", "refusals", "silence"],
)
def test_each_cause_has_its_name_level_and_beginning(
    changes: dict[str, Any], level: str, code: str, since_ms: int
) -> None:
    verdict = judge_health(facts(**changes))
    assert verdict.level == level
    assert verdict.cause is not None
    assert (verdict.cause.code, verdict.cause.since_ms) == (code, since_ms)
    assert verdict.cause.summary
    assert verdict.cause.action
    assert verdict.cause.evidence


def test_what_is_nearer_the_end_of_the_line_is_named_first() -> None:
    everything: dict[str, Any] = {**JOURNAL, **SOURCE, **SINK, **LEDGER, **REFUSED}
    found = []
    for healed in (
        {"journal_problem": ""},
        {"source": CONNECTED},
        {"sink": READY},
        {"ledger_difference": 0},
    ):
        found.append(cause_of(**everything).code)
        everything |= healed
    found.append(cause_of(**everything).code)
    assert found == [
        "journal.unwritable",
        "broker.unreachable",
        "store.unauthorized",
        "ledger.unbalanced",
        "payload.not_json",
    ]


@pytest.mark.parametrize(
    ("ratio", "level"),
    [
        (1.0, "ok"),
        (0.95, "ok"),
        (0.9499, "degraded"),
        (0.5, "degraded"),
        (0.4999, "down"),
        (0.0, "down"),
    ],
)
def test_the_thresholds_belong_to_the_better_level(ratio: float, level: str) -> None:
    verdict = judge_health(facts(health=health(ratio, silent=10)))
    assert verdict.level == level
    assert (verdict.cause is None) == (level == "ok")


@pytest.mark.parametrize(
    ("ratio", "level"), [(1.0, "degraded"), (0.94, "degraded"), (0.49, "down")]
)
def test_a_database_that_takes_nothing_is_at_best_degraded(ratio: float, level: str) -> None:
    verdict = judge_health(facts(**SINK, health=health(ratio)))
    assert verdict.level == level
    assert verdict.cause is not None
    assert verdict.cause.code == "store.unauthorized"
    assert "12 wait in the journal" in verdict.cause.summary


@pytest.mark.parametrize(
    ("broken", "code"),
    [
        ({"source": SourceState(False, NOW_MS - GRACE_MS + 1, "lost", None)}, None),
        ({"source": SourceState(False, NOW_MS - GRACE_MS, "lost", None)}, "broker.unreachable"),
        ({"sink": SinkState("unreachable", NOW_MS - GRACE_MS + 1, "refused")}, None),
        ({"sink": SinkState("unreachable", NOW_MS - GRACE_MS, "refused")}, "store.unreachable"),
    ],
)
def test_what_heals_within_the_grace_is_not_reported(
    broken: dict[str, Any], code: str | None
) -> None:
    cause = judge_health(facts(**broken)).cause
    assert (cause.code if cause else None) == code


def test_the_problem_itself_is_the_evidence() -> None:
    assert cause_of(**JOURNAL).evidence == ["cannot write journal.db (disk full)"]
    assert cause_of(**SOURCE).evidence == ["cannot reach 127.0.0.1:1883"]
    assert cause_of(**SINK).evidence == ["InfluxDB answered 401"]
    assert cause_of(**LEDGER).evidence == ["difference -3"]


def test_the_outage_that_the_system_exists_for_is_named_with_its_remedy() -> None:
    """A setting became too strict: a third of the devices is refused at the broker."""
    refusal = refused("publish.topic_denied", 210, 20)
    cause = cause_of(health=health(0.65, refusal, silent=20))
    code = code_named("publish.topic_denied")
    assert code is not None
    assert cause.code == "publish.topic_denied"
    assert cause.summary.startswith("210 refused as publish.topic_denied, from 20 devices: ")
    assert cause.action == code.remedy
    assert cause.since_ms == SINCE_MS
    assert acquitted(cause) == {
        "journal.unwritable",
        "broker.unreachable",
        "store.unreachable",
        "ledger.unbalanced",
    }
    assert "2 s ago" in next(
        one.because for one in cause.ruled_out if one.code == "broker.unreachable"
    )


@pytest.mark.parametrize(
    ("times", "devices", "silent", "code"),
    [
        (120, 1, 0, "payload.not_json"),
        (119, 1, 0, "devices.silent"),
        (1, 10, 20, "payload.not_json"),
        (1, 9, 20, "devices.silent"),
        (500, 1, 20, "devices.silent"),
    ],
)
def test_refusals_are_the_cause_when_they_explain_half_of_what_is_missing(
    times: int, devices: int, silent: int, code: str
) -> None:
    assert EXPLAINS == 0.5
    refusal = refused("payload.not_json", times, devices, missing=min(devices, silent))
    assert cause_of(health=health(0.6, refusal, silent=silent)).code == code


def test_refusals_of_somebody_else_are_not_the_cause() -> None:
    """Half the boards lost power while a stranger tried passwords: it is the power."""
    stranger = RefusalCount("connect.bad_password", 6_000, 1, NOW_MS)
    assert cause_of(health=health(0.5, stranger, silent=30)).code == "devices.silent"
    assert cause_of(health=health(0.5, stranger)).code == "devices.silent"


def test_the_cause_began_when_the_devices_that_it_touches_fell_quiet() -> None:
    refusal = refused("payload.not_json", 240, 20)._replace(since_ms=SINCE_MS - 77)
    assert cause_of(health=health(0.6, refusal, silent=20)).since_ms == SINCE_MS - 77


def test_a_code_of_a_newer_program_is_no_cause() -> None:
    unknown = refused("payload.of_tomorrow", 900, 50)
    known = refused("payload.empty", 200, 20)
    assert cause_of(health=health(0.6, unknown, known, silent=20)).code == "payload.empty"


def test_refusals_alone_are_no_alarm() -> None:
    noisy = health(0.99, RefusalCount("connect.unknown_identity", 5_000, 300, NOW_MS))
    assert judge_health(facts(health=noisy)) == ("ok", None)


def test_silence_acquits_everything_else() -> None:
    cause = cause_of(**SILENT)
    assert cause.summary.startswith("24 of 60 devices ")
    assert acquitted(cause) == {
        "journal.unwritable",
        "broker.unreachable",
        "store.unreachable",
        "refusals",
        "ledger.unbalanced",
    }


def test_nobody_is_acquitted_who_is_under_suspicion() -> None:
    for changes in (JOURNAL, SOURCE, SINK, LEDGER, REFUSED):
        both: dict[str, Any] = {**JOURNAL, **changes}
        suspects = {
            "journal.unwritable": bool(both.get("journal_problem")),
            "broker.unreachable": "source" in both,
            "store.unreachable": "sink" in both,
            "ledger.unbalanced": "ledger_difference" in both,
            "refusals": "health" in both,
        }
        expected = {code for code, suspected in suspects.items() if not suspected}
        assert acquitted(cause_of(**both)) == expected


def test_a_subscription_without_an_echo_yet_still_stands() -> None:
    cause = cause_of(**SILENT, source=CONNECTED._replace(echo_ms=None))
    assert ("broker.unreachable", "the bridge's subscription stands") in cause.ruled_out


@LAW
@given(
    st.floats(0, 1),
    st.sampled_from(every_code()),
    st.integers(1, 1_000),
    st.integers(0, 60),
    st.fixed_dictionaries(
        {},
        optional={
            "journal_problem": st.just("disk full"),
            "source": st.just(SOURCE["source"]),
            "sink": st.just(SINK["sink"]),
            "ledger_difference": st.integers(1, 9),
        },
    ),
)
def test_every_level_below_ok_has_a_cause_and_only_those(
    ratio: float, code: Any, times: int, silent: int, broken: dict[str, Any]
) -> None:
    refusal = RefusalCount(code.name, times, min(times, 5), NOW_MS)
    verdict = judge_health(facts(health=health(ratio, refusal, silent=silent), **broken))
    assert (verdict.cause is None) == (verdict.level == "ok")
    assert verdict.level == "down" or ratio >= 0.5
