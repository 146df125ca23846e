"""The closed list of refusals: every way in which a message can fail to become a row. Pure.

A code is `<stage>.<reason>`. Nothing anywhere refuses with free text: the detail beside a code
says what was found, the code says what it means and what to do. `docs/refusals.md` is generated
from this list.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class Stage(StrEnum):
    """Where on the line of one reading it was turned away."""

    CONNECT = "connect"
    PUBLISH = "publish"
    PAYLOAD = "payload"
    STORE = "store"


class Action(StrEnum):
    """What the device shall do with the reading (DESIGN, "A receipt")."""

    DROP = "drop"
    """It can never be accepted as it is: delete it and count it."""
    HOLD = "hold"
    """The server may be at fault: keep it and try later."""
    REPROVISION = "reprovision"
    """The device's identity or credential is wrong: keep the outbox, ask for a new one."""


class Code(NamedTuple):
    """One refusal code.

    Attributes:
        name: `<stage>.<reason>`.
        stage: where it happens.
        action: what the device shall do.
        meaning: one sentence, what it says about the message.
        remedy: "do this, not that": what the person who builds or operates the device does.
    """

    name: str
    stage: Stage
    action: Action
    meaning: str
    remedy: str


class Refusal(NamedTuple):
    """One refusal as it happened.

    Attributes:
        code: a code of the closed list.
        detail: what was found, for people; at most `MAX_DETAIL_CHARS` characters.
        rule: the id of the policy rule that decided; empty where no rule did.
        boot, n: the key of a reading that could not be decoded otherwise.
    """

    code: Code
    detail: str
    rule: str = ""
    boot: int | None = None
    n: int | None = None


MAX_DETAIL_CHARS = 200
"""A detail travels in receipts, logs and tables; a device must not be able to flood them."""

_CODES: dict[str, Code] = {}


def _code(name: str, action: Action, meaning: str, remedy: str) -> Code:
    code = Code(name, Stage(name.partition(".")[0]), action, meaning, remedy)
    _CODES[name] = code
    return code


def refuse(code: Code, detail: str = "", *, rule: str = "") -> Refusal:
    """The one way to make a refusal; the detail is cut to `MAX_DETAIL_CHARS`."""
    return Refusal(code, detail[:MAX_DETAIL_CHARS], rule)


def every_code() -> tuple[Code, ...]:
    """The closed list, in the order of the line."""
    return tuple(_CODES.values())


def code_named(name: str) -> Code | None:
    """The code of that name, or None when the list has no such code."""
    return _CODES.get(name)


NO_CREDENTIALS = _code(
    "connect.no_credentials",
    Action.REPROVISION,
    "The client connected without a user name or without a password.",
    "Send the device id as user name with its secret (`iotctl devices add`). "
    "Do not switch on anonymous access: there is no such setting.",
)
UNKNOWN_IDENTITY = _code(
    "connect.unknown_identity",
    Action.REPROVISION,
    "No device, bridge or person of that name is enrolled.",
    "Enrol it with `iotctl devices add ID`, and check the id for typing errors. "
    "Do not reuse another device's credentials.",
)
BAD_PASSWORD = _code(
    "connect.bad_password",
    Action.REPROVISION,
    "The name is enrolled, but the password is not the one on record.",
    "Issue a new secret with `iotctl devices rotate ID` and write it to the device. "
    "Do not look for the old one: only its hash is kept.",
)
REVOKED = _code(
    "connect.revoked",
    Action.REPROVISION,
    "The credential was revoked by an operator.",
    "If the revocation was a mistake, `iotctl devices rotate ID` makes the device valid again. "
    "Do not enrol it under a second name: its history would break in two.",
)
CLIENT_ID_MISMATCH = _code(
    "connect.client_id_mismatch",
    Action.REPROVISION,
    "The MQTT client id is not the user name.",
    "Use the device id for both (`mosquitto_pub -i ID -u ID`). "
    "Do not let the library choose a random client id: a session belongs to its credential.",
)
SUBSCRIPTION_DENIED = _code(
    "connect.subscription_denied",
    Action.HOLD,
    "No rule of the policy allows this topic filter to this role.",
    "Subscribe to topics below `v1/<your id>/` only. Do not subscribe to `#`.",
)
TOPIC_DENIED = _code(
    "publish.topic_denied",
    Action.HOLD,
    "No rule of the policy allows this client to publish on this topic.",
    "Publish on `v1/<your id>/readings`. Do not trust the PUBACK here: MQTT 3.1.1 has no "
    "negative one, so a refused QoS 1 message is acknowledged all the same.",
)
TOPIC_INVALID = _code(
    "publish.topic_invalid",
    Action.DROP,
    "The topic is not of the form `v1/<device>/<kind>` with a kind that devices send.",
    "Publish on `v1/<your id>/readings`. Do not put a leading slash or further levels into it.",
)
RETAINED = _code(
    "publish.retained",
    Action.DROP,
    "A retained reading came with a subscription, and has no boot and n to tell whether it was "
    "stored before.",
    "Publish readings with retain off, and clear the old one with an empty retained message. "
    "Do not retain measurements: every reconnect would deliver the same one again.",
)
TOO_LARGE = _code(
    "payload.too_large",
    Action.DROP,
    "The payload is larger than the policy's limits.payload_bytes.",
    "Send fewer readings in a message. Do not raise the limit for one device.",
)
NOT_JSON = _code(
    "payload.not_json",
    Action.DROP,
    "The payload is not JSON in UTF-8.",
    'Send an object such as {"values":{"temperature_c":21.5}}. '
    "Do not build JSON by gluing strings together: use the platform's encoder.",
)
WRONG_SHAPE = _code(
    "payload.wrong_shape",
    Action.DROP,
    "The payload is JSON, but a field is missing or has the wrong type.",
    "`values` is an object of numbers, `boot`, `n`, `ts` and `up` are integers, `faults` a list "
    "of strings. Do not send numbers as text.",
)
TOO_MANY_READINGS = _code(
    "payload.too_many_readings",
    Action.DROP,
    "The message holds more readings than the policy's limits.readings_per_message.",
    "Split the batch over several messages. Do not send the whole outbox at once.",
)
EMPTY = _code(
    "payload.empty",
    Action.DROP,
    "There is nothing in it to store: no values, and no fault that says why.",
    'When a sensor fails, send {"values":{},"faults":["dht11.timeout"]}. '
    "Do not invent a number for a failed sensor.",
)
UNKNOWN_QUANTITY = _code(
    "payload.unknown_quantity",
    Action.DROP,
    "A quantity is not in the policy's list.",
    "Use the policy's names, which carry their unit (`temperature_c`), or add the new quantity "
    "with its range to policy.toml. Do not send `temp`.",
)
OUT_OF_RANGE = _code(
    "payload.out_of_range",
    Action.DROP,
    "A value lies outside the range that the policy gives for its quantity.",
    "Check the sensor and its wiring; report a fault instead of the number. "
    "Do not widen the range to silence a broken sensor.",
)
CLOCK_UNSET = _code(
    "payload.clock_unset",
    Action.DROP,
    "`ts` is a time before the policy's clock.earliest: the device's clock was never set.",
    "Leave `ts` out until the clock is set, and send `up` (ms since boot) instead. "
    "Do not send the year 1970 or 2000.",
)
CLOCK_AHEAD = _code(
    "payload.clock_ahead",
    Action.HOLD,
    "`ts` lies further in the future than the policy's clock.ahead_s.",
    "Set the device's clock by NTP, and check the server's own clock first: when many devices "
    "report this at once, the server is behind. Do not send local time as UTC.",
)
CLOCK_BEHIND = _code(
    "payload.clock_behind",
    Action.DROP,
    "`ts` is older than the policy's clock.behind_s.",
    "Readings that old are not stored unasked. Do not replay an archive over MQTT: "
    "raise clock.behind_s for the time of the import.",
)
REJECTED = _code(
    "store.rejected",
    Action.DROP,
    "The database took the rest of the batch, but not this row.",
    "The detail is the database's own sentence; mostly a field changed its type. "
    "Do not delete the bucket: write the quantity under its old type or a new name.",
)
