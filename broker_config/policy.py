"""The policy: everything that can turn a device away, in one frozen value. Pure.

`policy.toml` is read by `parse_policy`; `decide_connect` and `decide_topic` are the only two
functions that allow or refuse a client, and `Policy.quantities`, `.limits` and `.clock` are what
`bridge.readings` judges a payload by. Nothing is allowed that no rule allows.
"""

from __future__ import annotations

import datetime
import hashlib
import math
import re
from enum import StrEnum
from typing import Literal, NamedTuple

import msgspec
from msgspec.structs import asdict, replace

from broker_config import refusals, topics
from broker_config.errors import PolicyError
from broker_config.refusals import Refusal, refuse
from broker_config.toml_tree import convert_tree, parse_toml

RESERVED_NAMES = frozenset({"device", "faults", "result", "site", "table", "time", "ts_source"})
"""Names that a row, or an answer of InfluxDB, has beside its quantities."""

_QUANTITY = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


class Role(StrEnum):
    """What a principal is; a rule names the role it is for."""

    DEVICE = "device"
    BRIDGE = "bridge"
    OPS = "ops"


class Act(StrEnum):
    """What a client wants to do with a topic."""

    PUBLISH = "publish"
    SUBSCRIBE = "subscribe"


class Principal(NamedTuple):
    """Somebody who has been authenticated: an identity and its role."""

    name: str
    role: Role


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the access list; the first rule that matches decides.

    Attributes:
        id: a name that stands in decisions, logs and refusals.
        topics: topic filters (MQTT 3.1.1 section 4.7); `{id}` stands for the client's own name.
    """

    id: str
    role: Role
    action: Act
    topics: tuple[str, ...]
    effect: Literal["allow", "deny"] = "allow"


class Connect(msgspec.Struct, frozen=True, kw_only=True):
    """What a CONNECT must look like.

    Attributes:
        client_id: "username": the MQTT client id is the user name (bridges and people may add
            `-something`); "any": it is free.
    """

    client_id: Literal["username", "any"] = "username"


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How much one message may hold.

    Attributes:
        payload_bytes: largest PUBLISH payload in bytes.
        readings_per_message: most readings in one array.
        faults_per_reading: most fault names in one reading, each of at most 64 characters.
    """

    payload_bytes: int = 65_536
    readings_per_message: int = 1_000
    faults_per_reading: int = 16


class Clock(msgspec.Struct, frozen=True, kw_only=True):
    """Which device times are believed.

    Attributes:
        earliest: a `ts` before this was sent by a clock that was never set.
        ahead_s: how far a `ts` may lie in the server's future, in seconds.
        behind_s: how old a `ts` may be, in seconds.
    """

    earliest: datetime.datetime = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)
    ahead_s: int = 300
    behind_s: int = 31 * 86_400

    @property
    def earliest_ms(self) -> int:
        """`earliest` in ms since 1970 UTC."""
        return (self.earliest - _EPOCH) // datetime.timedelta(milliseconds=1)


class Quantity(msgspec.Struct, frozen=True, kw_only=True):
    """The range of one quantity, in the unit that its name carries; both ends are allowed."""

    min: float
    max: float


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """One revision of the policy."""

    version: Literal[1]
    connect: Connect = Connect()
    limits: Limits = Limits()
    clock: Clock = Clock()
    quantities: dict[str, Quantity]
    rules: tuple[Rule, ...]

    @property
    def revision(self) -> str:
        """SHA-256 of the canonical form, in hex: two files that mean the same share it."""
        return hashlib.sha256(msgspec.json.encode(self, order="deterministic")).hexdigest()


class Decision(NamedTuple):
    """What the policy says about one attempt.

    Attributes:
        refusal: None when it is allowed.
        rule: the id of the rule that decided; empty when none matched (default deny).
    """

    refusal: Refusal | None
    rule: str


def parse_policy(text: str, *, where: str = "policy.toml") -> Policy:
    """The policy that a TOML text says.

    Raises:
        PolicyError: with the key and what is wrong with it.
    """
    policy = convert_tree(
        parse_toml(text, where=where, error=PolicyError), Policy, where=where, error=PolicyError
    )
    problem = _inconsistency(policy)
    if problem:
        raise PolicyError(f"{where}: {problem}")
    return _canonical(policy)


def _canonical(policy: Policy) -> Policy:
    """The same policy in the one form that its revision is made from: times in UTC, no -0.0."""
    earliest = policy.clock.earliest.astimezone(datetime.UTC)
    quantities = {
        name: Quantity(min=quantity.min + 0.0, max=quantity.max + 0.0)
        for name, quantity in policy.quantities.items()
    }
    return replace(policy, clock=replace(policy.clock, earliest=earliest), quantities=quantities)


def _inconsistency(policy: Policy) -> str:
    """A sentence about the first value that has the right type but makes no sense, or empty."""
    if policy.clock.earliest.tzinfo is None:
        return "clock.earliest needs a time zone, for example 2024-01-01T00:00:00Z"
    for name in ("ahead_s", "behind_s"):
        if getattr(policy.clock, name) < 0:
            return f"clock.{name} must not be negative"
    for name, value in asdict(policy.limits).items():
        if value < 1:
            return f"limits.{name} must be at least 1"
    return _wrong_range(policy.quantities) or _wrong_rule(policy.rules)


def _wrong_range(quantities: dict[str, Quantity]) -> str:
    for name, quantity in quantities.items():
        if not _QUANTITY.fullmatch(name) or name in RESERVED_NAMES:
            return (
                f"quantities: {name!r} cannot be a field, use letters, digits and '_', and not "
                f"{', '.join(sorted(RESERVED_NAMES))}"
            )
        if not (math.isfinite(quantity.min) and math.isfinite(quantity.max)):
            return f"quantities.{name}: min and max must be finite numbers"
        if quantity.min > quantity.max:
            return f"quantities.{name}: min {quantity.min:g} is greater than max {quantity.max:g}"
    return ""


def _wrong_rule(rules: tuple[Rule, ...]) -> str:
    seen: set[str] = set()
    for rule in rules:
        if not rule.id:
            return "a rule has an empty id"
        if rule.id in seen:
            return f"two rules have the id {rule.id!r}"
        seen.add(rule.id)
        for pattern in rule.topics:
            if not topics.is_valid_filter(pattern.replace("{id}", "x")):
                return f"rule {rule.id!r}: {pattern!r} is not a topic filter"
    return ""


def decide_connect(  # noqa: PLR0911 -- one return a refusal, in the order of the checks
    policy: Policy,
    *,
    client_id: str,
    username: str | None,
    has_password: bool,
    principal: Principal | None,
    revoked: bool,
    password_matches: bool,
) -> Refusal | None:
    """Whether a CONNECT is let in; None when it is.

    Args:
        principal: who is enrolled under `username`, or None.
        password_matches: whether the password is the one on record.
    """
    if not username or not has_password:
        return refuse(refusals.NO_CREDENTIALS, f"client id {client_id!r}")
    if principal is None:
        return refuse(refusals.UNKNOWN_IDENTITY, f"user name {username!r}")
    if not password_matches:
        return refuse(refusals.BAD_PASSWORD, f"user name {username!r}")
    if revoked:
        return refuse(refusals.REVOKED, f"user name {username!r}")
    if policy.connect.client_id == "any" or client_id == username:
        return None
    if principal.role is not Role.DEVICE and client_id.startswith(f"{username}-"):
        return None
    return refuse(
        refusals.CLIENT_ID_MISMATCH,
        f"client id {client_id!r}, user name {username!r}",
        rule="connect.client_id",
    )


def decide_topic(policy: Policy, principal: Principal, act: Act, topic: str) -> Decision:
    """Whether a client may publish on a topic, or subscribe to a filter.

    Args:
        topic: a topic name for PUBLISH, a topic filter for SUBSCRIBE.
    """
    if act is Act.PUBLISH and not topics.is_valid_topic_name(topic):
        return Decision(refuse(refusals.TOPIC_INVALID, f"topic {topic!r}"), "")
    if act is Act.SUBSCRIBE and not topics.is_valid_filter(topic):
        return Decision(_denied(act, principal, topic, ""), "")
    fits = topics.matches if act is Act.PUBLISH else topics.covers
    for rule in policy.rules:
        if rule.role is not principal.role or rule.action is not act:
            continue
        for pattern in rule.topics:
            if fits(pattern.replace("{id}", principal.name), topic):
                if rule.effect == "allow":
                    return Decision(None, rule.id)
                return Decision(_denied(act, principal, topic, rule.id), rule.id)
    return Decision(_denied(act, principal, topic, ""), "")


def may_receive(policy: Policy, principal: Principal, topic: str) -> bool:
    """Whether a message on `topic` may be delivered to a client: by the rules for subscribing."""
    return decide_topic(policy, principal, Act.SUBSCRIBE, topic).refusal is None


def _denied(act: Act, principal: Principal, topic: str, rule: str) -> Refusal:
    code = refusals.TOPIC_DENIED if act is Act.PUBLISH else refusals.SUBSCRIPTION_DENIED
    why = f"rule {rule} denies" if rule else "no rule allows"
    return refuse(code, f"{why} {principal.role} {principal.name} {act} {topic!r}", rule=rule)
