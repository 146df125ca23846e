"""From what is measured to a level and a named cause. Pure.

The order of the checks is the order of the line seen from its end: what would explain everything
behind it comes first. What was looked at and found well is said too (`ruled_out`), because the
people on call otherwise look there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from broker_config.refusals import code_named

if TYPE_CHECKING:
    from bridge.forwarder import SinkState
    from bridge.health import HealthReport, RefusalCount
    from bridge.source import SourceState

Level = Literal["ok", "degraded", "down"]

GRACE_MS = 5_000
"""A broken connection that heals within this time is not reported, in ms."""

EXPLAINS = 0.5
"""Refusals are the cause when they happened to at least this share of the devices that are late or
silent; where none is, when they are at least this share of the readings that are missing."""


class Facts(NamedTuple):
    """Everything that the verdict looks at.

    Attributes:
        journal_problem: why the journal cannot be written; empty when it can.
        ledger_difference: 0 when the ledger balances.
    """

    health: HealthReport
    source: SourceState
    sink: SinkState
    backlog: int
    journal_problem: str
    journal_since_ms: int
    ledger_difference: int
    ok_ratio: float
    down_ratio: float
    now_ms: int


class RuledOut(NamedTuple):
    """A suspect that was looked at, and why it is none."""

    code: str
    because: str


class Cause(NamedTuple):
    """Why data is missing.

    Attributes:
        code: a refusal code, or what a check below names.
        since_ms: since when, by the clock of the facts.
        action: what to do first.
    """

    code: str
    summary: str
    since_ms: int
    evidence: list[str]
    ruled_out: list[RuledOut]
    action: str


class Verdict(NamedTuple):
    """The answer."""

    level: Level
    cause: Cause | None


def judge_health(facts: Facts) -> Verdict:
    """The level and, where it is not ok, the cause."""
    for check in (_journal, _source, _sink, _behind, _ledger):
        found = check(facts)
        if found is not None:
            stops = check in (_journal, _source)
            return Verdict("down" if stops else _level(facts, at_best="degraded"), found)
    level = _level(facts, at_best="ok")
    if level == "ok":
        return Verdict("ok", None)
    return Verdict(level, _refusals(facts) or _silence(facts))


def _level(facts: Facts, *, at_best: Level) -> Level:
    if facts.health.ratio < facts.down_ratio:
        return "down"
    return "degraded" if facts.health.ratio < facts.ok_ratio else at_best


def _journal(facts: Facts) -> Cause | None:
    if not facts.journal_problem:
        return None
    return Cause(
        "journal.unwritable",
        "The bridge cannot write its journal, so it acknowledges nothing.",
        facts.journal_since_ms,
        [facts.journal_problem],
        _ruled_out(facts, but="journal"),
        "Make room on the disk of the home folder, or make it writable. "
        "Devices keep their readings until they get a receipt.",
    )


def _source(facts: Facts) -> Cause | None:
    if facts.source.connected or facts.now_ms - facts.source.since_ms < GRACE_MS:
        return None
    return Cause(
        "broker.unreachable",
        "The bridge has no subscription at the broker.",
        facts.source.since_ms,
        [facts.source.problem],
        _ruled_out(facts, but="source"),
        "Look at the broker's log; `iotctl up` restarts a broker that died.",
    )


def _sink(facts: Facts) -> Cause | None:
    if not facts.sink.problem or facts.now_ms - facts.sink.since_ms < GRACE_MS:
        return None
    return Cause(
        f"store.{facts.sink.state}",
        f"The database does not take rows; {facts.backlog} wait in the journal, none is lost.",
        facts.sink.since_ms,
        [facts.sink.problem],
        _ruled_out(facts, but="sink"),
        "Repair the database or its token. The backlog is written by itself afterwards.",
    )


def _behind(facts: Facts) -> Cause | None:
    missing = facts.health.expected - facts.health.stored
    if not missing or facts.health.ratio >= facts.ok_ratio or facts.backlog < missing:
        return None
    return Cause(
        "store.behind",
        f"{facts.backlog} readings wait in the journal for the database; none is lost.",
        facts.sink.since_ms,
        [f"{missing:.0f} readings are missing in the database, {facts.backlog} are on their way"],
        _ruled_out(facts, but="sink"),
        "Wait until the backlog is written. If it grows, the database is too slow.",
    )


def _ledger(facts: Facts) -> Cause | None:
    if not facts.ledger_difference:
        return None
    return Cause(
        "ledger.unbalanced",
        "Readings are unaccounted for: received is not stored + duplicate + refused + pending.",
        facts.now_ms,
        [f"difference {facts.ledger_difference:+d}"],
        _ruled_out(facts, but="ledger"),
        "This is a defect of the bridge: keep journal.db and report it.",
    )


def _refusals(facts: Facts) -> Cause | None:
    for refusal in facts.health.refusals:
        code = code_named(refusal.code)
        if code is None or not _explains(refusal, facts):
            continue
        plural = "s" if refusal.devices != 1 else ""
        return Cause(
            code.name,
            f"{refusal.times} refused as {code.name}, from {refusal.devices} device{plural}: "
            f"{code.meaning}",
            refusal.since_ms or refusal.first_ms,
            [
                f"{one.code}: {one.times} from {one.devices} devices, "
                f"{one.missing_devices} of them late or silent"
                for one in facts.health.refusals
            ],
            _ruled_out(facts, but="refusals"),
            code.remedy,
        )
    return None


def _explains(refusal: RefusalCount, facts: Facts) -> bool:
    """Whether this refusal happened to those whose data is missing, and not to somebody else."""
    counts = facts.health.devices
    quiet = counts.late + counts.silent
    if quiet:
        return refusal.missing_devices >= EXPLAINS * quiet
    missing = facts.health.expected - facts.health.stored
    return refusal.enrolled_times >= EXPLAINS * missing > 0


def _silence(facts: Facts) -> Cause:
    counts = facts.health.devices
    quiet = counts.late + counts.silent
    who = f"{quiet} of {counts.enrolled} devices are" if quiet else "No device is"
    return Cause(
        "devices.silent",
        f"{who} late or silent; fewer readings came than are expected, and none were refused.",
        facts.health.silent_since_ms or facts.now_ms,
        [
            f"{counts.silent} silent, {counts.late} late, {counts.reporting} reporting",
            f"{facts.health.stored:.0f} stored of {facts.health.expected:.0f} expected",
        ],
        _ruled_out(facts, but="devices"),
        "Look at power and network of the devices listed as silent on the status page; "
        "if they share a site, begin there.",
    )


def _ruled_out(facts: Facts, *, but: str) -> list[RuledOut]:
    """Every suspect that the facts acquit."""
    found: list[RuledOut] = []
    if but != "journal" and not facts.journal_problem:
        found.append(RuledOut("journal.unwritable", "the last commit reached the disk"))
    if but != "source" and facts.source.connected:
        echo_ms = facts.source.echo_ms
        because = (
            f"the bridge's own heartbeat came back {(facts.now_ms - echo_ms) / 1000:.0f} s ago"
            if echo_ms is not None
            else "the bridge's subscription stands"
        )
        found.append(RuledOut("broker.unreachable", because))
    if but != "sink" and not facts.sink.problem:
        found.append(RuledOut("store.unreachable", "the database took the last batch"))
    if but != "refusals" and not facts.health.refusals:
        found.append(RuledOut("refusals", "nothing was refused in the window"))
    if but != "ledger" and not facts.ledger_difference:
        found.append(RuledOut("ledger.unbalanced", "every reading received is accounted for"))
    return found
