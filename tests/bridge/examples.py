"""Values that many tests of the bridge begin with."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import msgspec
from hypothesis import settings
from hypothesis import strategies as st

from bridge.outcomes import BootState, Delivery, Judged, RefusedReading
from bridge.readings import Row, WireReading
from bridge.seen import SeenRanges
from broker_config import refusals
from broker_config.policy import Policy, parse_policy
from broker_config.refusals import refuse

POLICY: Policy = parse_policy(
    files("broker_config").joinpath("policy_default.toml").read_text("utf-8")
)

NOW_MS = 1_795_425_779_860
"""The `ts` of DESIGN's reading: 2026-11-23T09:22:59.860Z."""

DAY_MS = 86_400_000

LAW = settings(deadline=None)
"""Properties say nothing about time: a slow machine must not break one."""


def with_limits(**limits: int) -> Policy:
    return msgspec.structs.replace(POLICY, limits=msgspec.structs.replace(POLICY.limits, **limits))


def delivery(
    payload: bytes | object,
    device: str = "dev-1",
    *,
    topic: str | None = None,
    received_ms: int = NOW_MS,
    retained: bool = False,
    token: int = 1,
) -> Delivery:
    body = payload if isinstance(payload, bytes) else msgspec.json.encode(payload)
    where = f"v1/{device}/readings" if topic is None else topic
    return Delivery(where, body, received_ms, retained, token)


def reading(**fields: Any) -> WireReading:
    return WireReading(**{"values": {"temperature_c": 21.5}, **fields})


def row(device: str = "dev-1", time_ms: int = NOW_MS, **fields: Any) -> Row:
    return msgspec.structs.replace(
        Row(device, "hall", time_ms * 1_000_000, "device", {"temperature_c": 21.5}, ()), **fields
    )


def judged(
    device: str = "dev-1",
    *,
    rows: int = 0,
    duplicates: int = 0,
    refused: int = 0,
    at_ms: int = NOW_MS,
) -> Judged:
    """A message with so many readings of each outcome."""
    refusal = refuse(
        refusals.OUT_OF_RANGE, "humidity_pct 183 > 100", rule="quantities.humidity_pct"
    )
    return Judged(
        delivery(b"a message of %d" % (rows + duplicates + refused), device, received_ms=at_ms),
        device,
        rows + duplicates + refused,
        [row(device, at_ms + position) for position in range(rows)],
        duplicates,
        [RefusedReading(position, refusal, None, None) for position in range(refused)],
        [],
    )


def nothing_known(_device: str, _boot: int) -> BootState:
    """The memory of a journal that is empty."""
    return BootState(SeenRanges())


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=12), inner, max_size=5)
    ),
    max_leaves=20,
)
"""Any JSON value."""

_counters = st.integers(0, 5) | st.integers(-1, 2**54) | JSON

ALMOST_READINGS = st.fixed_dictionaries(
    {},
    optional={
        "values": st.dictionaries(
            st.sampled_from([*POLICY.quantities, "temp"]), st.floats(-50, 120) | JSON, max_size=3
        ),
        "boot": st.integers(0, 2) | _counters,
        "n": st.integers(0, 5) | _counters,
        "ts": st.integers(NOW_MS - 40 * DAY_MS, NOW_MS + DAY_MS) | _counters,
        "up": st.integers(0, DAY_MS) | _counters,
        "faults": st.lists(st.text(max_size=70), max_size=3) | JSON,
    },
)
"""Objects that are a reading, or nearly one."""

PAYLOADS = st.binary(max_size=200) | (
    JSON | ALMOST_READINGS | st.lists(ALMOST_READINGS, max_size=8)
).map(msgspec.json.encode)
"""What may stand in a message: noise, JSON, readings, and arrays of them good and bad."""
