from __future__ import annotations

import copy
import datetime
from typing import TYPE_CHECKING, Literal

import paho.mqtt.client as paho
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_config import refusals
from broker_config.errors import PolicyError
from broker_config.policy import (
    Act,
    Clock,
    Decision,
    Policy,
    Principal,
    Role,
    Rule,
    decide_topic,
    may_receive,
    parse_policy,
)
from broker_config.topics import (
    Kind,
    is_valid_filter,
    is_valid_topic_name,
    parse_topic,
)
from tests.broker_config.shipped import FROM_DEVICE, TO_DEVICE

from .shipped import SHIPPED, SHIPPED_TREE, changed
from .strategies import UNTIMED, identities, topic_filters, topic_names, topics_of
from .toml_text import toml_text

if TYPE_CHECKING:
    pass

DEVICE = Principal("esp-1", Role.DEVICE)
BRIDGE = Principal("bridge", Role.BRIDGE)
OPS = Principal("ann", Role.OPS)


# The policy that is shipped


def test_the_shipped_policy_says_what_the_code_has_as_defaults() -> None:
    bare = parse_policy("version = 1\nquantities = {}\nrules = []\n")
    assert (bare.connect, bare.limits, bare.clock) == (
        SHIPPED.connect,
        SHIPPED.limits,
        SHIPPED.clock,
    )


def test_the_shipped_quantities_carry_their_unit() -> None:
    assert set(SHIPPED.quantities) == {"temperature_c", "humidity_pct", "gas_ratio", "co2eq_ppm"}


SHIPPED_DECISIONS = [
    *((DEVICE, Act.PUBLISH, f"v1/esp-1/{kind}", "device.publish-own") for kind in FROM_DEVICE),
    *((DEVICE, Act.SUBSCRIBE, f"v1/esp-1/{kind}", "device.subscribe-own") for kind in TO_DEVICE),
    *((DEVICE, Act.PUBLISH, f"v1/esp-1/{kind}", "") for kind in TO_DEVICE),
    *((DEVICE, Act.SUBSCRIBE, f"v1/esp-1/{kind}", "") for kind in FROM_DEVICE),
    (DEVICE, Act.SUBSCRIBE, "v1/esp-1/#", ""),
    (DEVICE, Act.SUBSCRIBE, "v1/+/receipt", ""),
    (DEVICE, Act.SUBSCRIBE, "#", ""),
    (DEVICE, Act.SUBSCRIBE, "$SYS/#", ""),
    (DEVICE, Act.PUBLISH, "v2/esp-1/readings", ""),
    (DEVICE, Act.PUBLISH, "v1/esp-1/readings/", ""),
    *((BRIDGE, Act.SUBSCRIBE, f"v1/+/{kind}", "bridge.subscribe-devices") for kind in FROM_DEVICE),
    *((BRIDGE, Act.SUBSCRIBE, f"v1/+/{kind}", "") for kind in TO_DEVICE),
    *((BRIDGE, Act.PUBLISH, f"v1/b/{kind}", "bridge.publish-to-devices") for kind in TO_DEVICE),
    (BRIDGE, Act.PUBLISH, "v1/bridge/heartbeat", "bridge.publish-to-devices"),
    (BRIDGE, Act.PUBLISH, "v1/esp-1/heartbeat", ""),
    (BRIDGE, Act.PUBLISH, "v1/esp-1/readings", ""),
    (BRIDGE, Act.SUBSCRIBE, "v1/#", ""),
    *((OPS, Act.SUBSCRIBE, f"v1/+/{kind}", "ops.subscribe-all") for kind in Kind),
    (OPS, Act.SUBSCRIBE, "v1/#", "ops.subscribe-all"),
    (OPS, Act.SUBSCRIBE, "#", ""),
    (OPS, Act.SUBSCRIBE, "$SYS/#", ""),
    (OPS, Act.PUBLISH, "v1/esp-1/cmd", "ops.publish-commands"),
    (OPS, Act.PUBLISH, "v1/esp-1/config", "ops.publish-commands"),
    (OPS, Act.PUBLISH, "v1/esp-1/receipt", ""),
    (OPS, Act.PUBLISH, "v1/esp-1/readings", ""),
]


@pytest.mark.parametrize(("who", "act", "topic", "rule"), SHIPPED_DECISIONS)
def test_each_shipped_rule(who: Principal, act: Act, topic: str, rule: str) -> None:
    decision = decide_topic(SHIPPED, who, act, topic)
    assert decision.rule == rule
    assert (decision.refusal is None) is bool(rule)


def test_every_shipped_rule_decides_something() -> None:
    assert {rule.id for rule in SHIPPED.rules} == {line[3] for line in SHIPPED_DECISIONS} - {""}


near_levels = st.sampled_from(["v1", "+", "#", "", "readings", "config", "state", "cmd", "receipt"])
near_topics = st.lists(near_levels | identities, min_size=1, max_size=5).map("/".join).filter(bool)


@UNTIMED
@given(identities, identities, st.sampled_from(Kind), st.sampled_from(Act))
def test_a_device_never_uses_the_topics_of_another(
    device: str, other: str, kind: Kind, act: Act
) -> None:
    decision = decide_topic(SHIPPED, Principal(device, Role.DEVICE), act, f"v1/{other}/{kind}")
    if device != other:
        assert decision.refusal is not None
        assert decision.rule == ""


@UNTIMED
@given(identities, near_topics, st.sampled_from(Act))
def test_whatever_a_device_may_use_is_its_own(device: str, topic: str, act: Act) -> None:
    who = Principal(device, Role.DEVICE)
    for tried in (topic, topic.replace("+", device)):
        if decide_topic(SHIPPED, who, act, tried).refusal is None:
            parsed = parse_topic(tried)
            assert parsed is not None
            assert parsed.device == device
            assert parsed.kind in (FROM_DEVICE if act is Act.PUBLISH else TO_DEVICE)


@UNTIMED
@given(identities, identities, st.sampled_from(Kind))
def test_a_device_is_sent_only_what_is_for_it(device: str, other: str, kind: Kind) -> None:
    receives = may_receive(SHIPPED, Principal(device, Role.DEVICE), f"v1/{other}/{kind}")
    assert receives is (device == other and kind in TO_DEVICE)


# Rules in general


def with_rules(*rules: Rule) -> Policy:
    return Policy(version=1, quantities={}, rules=rules)


@UNTIMED
@given(identities, st.sampled_from(Role), st.sampled_from(Act), topic_filters | topic_names)
def test_without_rules_nothing_is_allowed(name: str, role: Role, act: Act, topic: str) -> None:
    decision = decide_topic(with_rules(), Principal(name, role), act, topic)
    assert decision.refusal is not None
    assert decision.rule == ""
    if act is Act.SUBSCRIBE:
        expected = refusals.SUBSCRIPTION_DENIED
    else:
        valid = is_valid_topic_name(topic)
        expected = refusals.TOPIC_DENIED if valid else refusals.TOPIC_INVALID
    assert decision.refusal.code is expected


rules = st.lists(
    st.builds(
        Rule,
        id=st.just("set below"),
        role=st.sampled_from(Role),
        action=st.sampled_from(Act),
        topics=st.lists(
            topic_filters | st.sampled_from(["v1/{id}/a", "{id}", "a/{id}"]), max_size=3
        ).map(tuple),
        effect=st.sampled_from(["allow", "deny"]),
    ),
    max_size=6,
)


@UNTIMED
@given(rules, st.sampled_from(Role), topic_names | st.sampled_from(["v1/me/a", "me", "a/me"]))
def test_the_first_rule_that_matches_a_publish_decides(
    drafts: list[Rule], role: Role, topic: str
) -> None:
    numbered = [
        Rule(id=f"r{n}", role=r.role, action=r.action, topics=r.topics, effect=r.effect)
        for n, r in enumerate(drafts)
    ]
    mine = [rule for rule in numbered if rule.role is role and rule.action is Act.PUBLISH]
    deciding = [
        rule
        for rule in mine
        if any(paho.topic_matches_sub(t.format(id="me"), topic) for t in rule.topics)
    ]
    decision = decide_topic(with_rules(*numbered), Principal("me", role), Act.PUBLISH, topic)
    if deciding:
        assert decision.rule == deciding[0].id
        assert (decision.refusal is None) is (deciding[0].effect == "allow")
    else:
        assert decision.rule == ""
        assert decision.refusal is not None


@st.composite
def subscriptions(draw: st.DrawFn) -> tuple[list[str], str, str]:
    """Filters that rules allow, a filter that is asked for, and a topic that it would bring."""
    wanted = draw(topic_filters)
    near = st.sampled_from([wanted, wanted.replace("#", "+"), wanted.replace("+", "a"), "+"])
    return draw(st.lists(near | topic_filters, max_size=4)), wanted, draw(topics_of(wanted))


@UNTIMED
@given(subscriptions())
def test_an_allowed_subscription_brings_only_what_its_rule_names(
    case: tuple[list[str], str, str],
) -> None:
    allowed, wanted, topic = case
    policy = with_rules(
        *(a_rule(f"r{n}", one, "allow", Act.SUBSCRIBE) for n, one in enumerate(allowed))
    )
    decision = decide_topic(policy, OPS, Act.SUBSCRIBE, wanted)
    if decision.refusal is None:
        assert paho.topic_matches_sub(allowed[int(decision.rule[1:])], topic)
    else:
        assert wanted not in allowed


def a_rule(
    name: str, topic: str, effect: Literal["allow", "deny"], action: Act = Act.PUBLISH
) -> Rule:
    return Rule(id=name, role=Role.OPS, action=action, topics=(topic,), effect=effect)


def test_a_deny_rule_before_an_allow_rule_makes_an_exception() -> None:
    policy = with_rules(a_rule("but-not", "v1/a/cmd", "deny"), a_rule("all", "v1/+/cmd", "allow"))
    denied = decide_topic(policy, OPS, Act.PUBLISH, "v1/a/cmd")
    assert denied == Decision(
        refusals.refuse(
            refusals.TOPIC_DENIED,
            "rule but-not denies ops ann publish 'v1/a/cmd'",
            rule="but-not",
        ),
        "but-not",
    )
    assert decide_topic(policy, OPS, Act.PUBLISH, "v1/b/cmd") == Decision(None, "all")


def test_a_deny_rule_after_an_allow_rule_changes_nothing() -> None:
    policy = with_rules(a_rule("all", "v1/+/cmd", "allow"), a_rule("but-not", "v1/a/cmd", "deny"))
    assert decide_topic(policy, OPS, Act.PUBLISH, "v1/a/cmd") == Decision(None, "all")


def test_a_deny_rule_inside_an_allowed_subscription_holds_at_delivery() -> None:
    policy = with_rules(
        a_rule("but-not", "v1/a/#", "deny", Act.SUBSCRIBE),
        a_rule("all", "v1/#", "allow", Act.SUBSCRIBE),
    )
    assert decide_topic(policy, OPS, Act.SUBSCRIBE, "v1/#").rule == "all"
    assert decide_topic(policy, OPS, Act.SUBSCRIBE, "v1/a/cmd").rule == "but-not"
    assert may_receive(policy, OPS, "v1/b/cmd")
    assert not may_receive(policy, OPS, "v1/a/cmd")


# What is no policy


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("[limits]", "[limts]", "unknown key limts, did you mean limits?"),
        ("ahead_s", "ahed_s", "unknown key clock.ahed_s, did you mean ahead_s?"),
        (
            "max = 85.0",
            "maximum = 85.0",
            "unknown key quantities.temperature_c.maximum, did you mean max?",
        ),
        ('role = "device"', 'roll = "device"', "unknown key rules[0].roll, did you mean role?"),
        ('["v1/#"]', '["v1/#/x"]', "rule 'ops.subscribe-all': 'v1/#/x' is not a topic filter"),
        ('["v1/#"]', '["v1/a+"]', "rule 'ops.subscribe-all': 'v1/a+' is not a topic filter"),
        ('["v1/#"]', '["v1/#{id}"]', "rule 'ops.subscribe-all': 'v1/#{id}' is not a topic filter"),
        ('["v1/#"]', '[""]', "rule 'ops.subscribe-all': '' is not a topic filter"),
        (
            'id = "ops.subscribe-all"',
            'id = "device.publish-own"',
            "two rules have the id 'device.publish-own'",
        ),
        (
            "max = 85.0",
            "max = -41.5",
            "quantities.temperature_c: min -40 is greater than max -41.5",
        ),
        ("max = 85.0", "max = nan", "quantities.temperature_c"),
        ("max = 85.0", 'max = "85"', "quantities.temperature_c.max"),
        ("max = 85.0", "", "quantities.temperature_c"),
        ("2024-01-01T00:00:00Z", "2024-01-01T00:00:00", "clock.earliest needs a time zone"),
        ("2024-01-01T00:00:00Z", "2024-01-01", "clock.earliest"),
        ("payload_bytes = 65536", "payload_bytes = 0", "limits.payload_bytes must be at least 1"),
        ("readings_per_message = 1000", "readings_per_message = -1", "limits.readings_per_message"),
        ("faults_per_reading = 16", "faults_per_reading = 0", "limits.faults_per_reading"),
        ("payload_bytes = 65536", "payload_bytes = 65536.5", "limits.payload_bytes"),
        ('role = "device"', 'role = "root"', "rules[0].role"),
        ('action = "publish"', 'action = "shout"', "rules[0].action"),
        ('client_id = "username"', 'client_id = "free"', "connect.client_id"),
        ("version = 1", "version = 2", "version"),
        ("version = 1", "", "version"),
        ("version = 1", "version 1", "at line 3, column 9"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(old: str, new: str, told: str) -> None:
    with pytest.raises(PolicyError) as caught:
        parse_policy(changed(old, new), where="home/policy.toml")
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith("home/policy.toml")
    assert told in line
    assert caught.value.exit_code == 2


@UNTIMED
@given(st.text("v1/+#{id} $", max_size=10))
def test_a_rule_holds_topic_filters_only(pattern: str) -> None:
    tree = copy.deepcopy(SHIPPED_TREE)
    tree["rules"][0]["topics"] = [pattern]
    if is_valid_filter(pattern.replace("{id}", "a")):
        assert parse_policy(toml_text(tree)).rules[0].topics == (pattern,)
    else:
        with pytest.raises(PolicyError, match="is not a topic filter"):
            parse_policy(toml_text(tree))


@UNTIMED
@given(st.integers(0, 9_000_000_000_000))
def test_the_earliest_time_is_exact_to_the_millisecond(earliest_ms: int) -> None:
    epoch = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
    earliest = epoch + datetime.timedelta(milliseconds=earliest_ms)
    assert Clock(earliest=earliest).earliest_ms == earliest_ms
