from __future__ import annotations

import paho.mqtt.client as paho
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from paho.mqtt.enums import CallbackAPIVersion

from broker_config.topics import (
    MAX_TOPIC_BYTES,
    DeviceTopic,
    Kind,
    covers,
    is_identity,
    is_valid_filter,
    is_valid_topic_name,
    matches,
    parse_topic,
    topic_for,
)
from tests.broker_config.shipped import FROM_DEVICE, TO_DEVICE

from .strategies import UNTIMED, identities, topic_filters, topic_names, topics_of

# MQTT 3.1.1 section 4.7.1.2
PLAYER = "sport/tennis/player1"
EXAMPLES_OF_THE_STANDARD = [
    (f"{PLAYER}/#", PLAYER, True),
    (f"{PLAYER}/#", f"{PLAYER}/ranking", True),
    (f"{PLAYER}/#", f"{PLAYER}/score/wimbledon", True),
    ("sport/#", "sport", True),
    ("#", "sport", True),
    ("#", f"{PLAYER}/ranking", True),
    # section 4.7.1.3
    ("sport/tennis/+", "sport/tennis/player1", True),
    ("sport/tennis/+", "sport/tennis/player2", True),
    ("sport/tennis/+", "sport/tennis/player1/ranking", False),
    ("sport/+", "sport", False),
    ("sport/+", "sport/", True),
    ("+/+", "/finance", True),
    ("/+", "/finance", True),
    ("+", "/finance", False),
    # section 4.7.2
    ("#", "$SYS/monitor/Clients", False),
    ("+/monitor/Clients", "$SYS/monitor/Clients", False),
    ("$SYS/#", "$SYS/monitor/Clients", True),
    ("$SYS/monitor/+", "$SYS/monitor/Clients", True),
    # section 4.7.3
    ("ACCOUNTS", "Accounts", False),
    ("Accounts payable", "Accounts payable", True),
    ("/finance", "finance", False),
    ("finance/", "finance", False),
]


@pytest.fixture(name="client", scope="module")
def fixture_client() -> paho.Client:
    return paho.Client(CallbackAPIVersion.VERSION2)


def paho_subscribes(client: paho.Client, topic_filter: str) -> bool:
    """Whether paho would put the filter into a SUBSCRIBE; it is not connected."""
    try:
        client.subscribe(topic_filter)
    except ValueError:
        return False
    return True


def paho_publishes(client: paho.Client, topic: str) -> bool:
    try:
        client.publish(topic)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize(("topic_filter", "topic", "expected"), EXAMPLES_OF_THE_STANDARD)
def test_matching_is_as_the_standard_says(topic_filter: str, topic: str, *, expected: bool) -> None:
    assert is_valid_filter(topic_filter)
    assert is_valid_topic_name(topic)
    assert matches(topic_filter, topic) is expected


@UNTIMED
@given(topic_filters, topic_names)
def test_matching_agrees_with_paho(topic_filter: str, topic: str) -> None:
    assert matches(topic_filter, topic) is paho.topic_matches_sub(topic_filter, topic)


@UNTIMED
@given(topic_filters.flatmap(lambda wide: st.tuples(st.just(wide), topics_of(wide))))
def test_what_is_made_from_a_filter_matches_it_here_and_in_paho(pair: tuple[str, str]) -> None:
    assert matches(*pair)
    assert paho.topic_matches_sub(*pair)


@pytest.mark.parametrize(
    ("topic_filter", "expected"),
    [
        # MQTT 3.1.1 sections 4.7.1.2, 4.7.1.3 and 4.7.3
        ("sport/tennis/#", True),
        ("sport/tennis#", False),
        ("sport/tennis/#/ranking", False),
        ("+", True),
        ("+/tennis/#", True),
        ("sport+", False),
        ("sport/+/player1", True),
        ("", False),
        ("/", True),
        ("a\x00b", False),
        ("a" * MAX_TOPIC_BYTES, True),
        ("a" * (MAX_TOPIC_BYTES + 1), False),
        ("é" * (MAX_TOPIC_BYTES // 2 + 1), False),
    ],
)
def test_a_valid_filter_is_what_the_standard_says(topic_filter: str, *, expected: bool) -> None:
    assert is_valid_filter(topic_filter) is expected


@UNTIMED
@given(st.text("ab/+#$é ", max_size=8))
def test_valid_filters_and_names_are_those_that_paho_sends(client: paho.Client, text: str) -> None:
    assert is_valid_filter(text) is paho_subscribes(client, text)
    assert is_valid_topic_name(text) is paho_publishes(client, text)


@pytest.mark.parametrize("length", [MAX_TOPIC_BYTES, MAX_TOPIC_BYTES + 1])
def test_a_topic_name_fits_its_two_byte_length(client: paho.Client, length: int) -> None:
    assert is_valid_topic_name("a" * length) is paho_publishes(client, "a" * length)


def test_a_topic_name_has_no_nul() -> None:
    assert not is_valid_topic_name("a\x00b")  # [MQTT-4.7.3-2]


@st.composite
def filter_and_wider(draw: st.DrawFn) -> tuple[str, str]:
    """A filter, and one made from it by putting wildcards for some of its levels."""
    wanted = draw(topic_filters)
    levels = wanted.split("/")
    wide = [level if level == "#" or draw(st.booleans()) else "+" for level in levels]
    if draw(st.booleans()):
        wide = [*wide[: draw(st.integers(0, len(wide) - 1))], "#"]
    return "/".join(wide), wanted


@st.composite
def covering(draw: st.DrawFn) -> tuple[str, str, str]:
    """Two filters, and a topic of the second."""
    allowed, wanted = draw(filter_and_wider() | st.tuples(topic_filters, topic_filters))
    return allowed, wanted, draw(topics_of(wanted))


@UNTIMED
@given(covering())
def test_a_filter_that_covers_another_matches_all_its_topics(case: tuple[str, str, str]) -> None:
    allowed, wanted, topic = case
    if covers(allowed, wanted):
        assert paho.topic_matches_sub(allowed, topic)


def telling_topics(wanted: str) -> list[str]:
    """Topics of `wanted` with levels that stand in no generated filter, and every depth of `#`."""
    head = ["new" if level == "+" else level for level in wanted.split("/")]
    if head[-1] != "#":
        return ["/".join(head)]
    stem = head[:-1]
    depths = range(0 if stem else 1, 8)
    return ["/".join([*stem, *["new"] * depth]) for depth in depths]


@UNTIMED
@given(filter_and_wider() | st.tuples(topic_filters, topic_filters))
@example(("+/#", "#"))
def test_covers_says_no_only_where_some_topic_is_not_matched(pair: tuple[str, str]) -> None:
    allowed, wanted = pair
    topics = telling_topics(wanted)
    assert all(paho.topic_matches_sub(wanted, topic) for topic in topics)
    assert covers(allowed, wanted) is all(
        paho.topic_matches_sub(allowed, topic) for topic in topics
    )


@pytest.mark.parametrize(
    ("allowed", "wanted", "expected"),
    [
        ("v1/#", "v1/+/readings", True),
        ("v1/#", "v1", True),
        ("v1/#", "#", False),
        ("v1/+/readings", "v1/#", False),
        ("v1/+/readings", "v1/a/readings", True),
        ("v1/a/readings", "v1/+/readings", False),
        ("v1/a/#", "v1/a/config/state", True),
        ("#", "$SYS/#", False),
        ("+/#", "$SYS/#", False),
        ("$SYS/#", "$SYS/#", True),
    ],
)
def test_covers_by_example(allowed: str, wanted: str, *, expected: bool) -> None:
    assert covers(allowed, wanted) is expected


@UNTIMED
@given(identities, st.sampled_from(Kind))
def test_a_topic_of_ours_is_read_back(device: str, kind: Kind) -> None:
    topic = topic_for(device, kind)
    assert is_valid_topic_name(topic)
    assert topic == f"v1/{device}/{kind}"
    assert parse_topic(topic) == DeviceTopic(device, kind)


parts = st.sampled_from(["v1", "v2", "", "a", "a b", "+", "readings", "config", "state", "cmd"])


@UNTIMED
@given(st.lists(parts, max_size=5).map("/".join) | st.text(max_size=20))
def test_a_topic_is_ours_only_if_we_would_have_written_it(topic: str) -> None:
    parsed = parse_topic(topic)
    assert parsed is None or topic_for(parsed.device, parsed.kind) == topic


@pytest.mark.parametrize(
    "topic",
    [
        "/v1/a/readings",
        "v1/a/readings/",
        "v1/a/readings/x",
        "v1//readings",
        "v1/+/readings",
        "V1/a/readings",
        "v1/a/Readings",
        "v1/a",
        "v1/a/config/",
        "",
    ],
)
def test_any_other_topic_is_not_ours(topic: str) -> None:
    assert parse_topic(topic) is None


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a", True),
        ("greenhouse-7_b.x", True),
        ("0", True),
        ("a" * 64, True),
        ("a" * 65, False),
        ("", False),
        (".a", False),
        ("-a", False),
        ("_a", False),
        ("a/b", False),
        ("a+", False),
        ("#", False),
        ("a b", False),
        ("a\n", False),
        ("é", False),
        ("٣", False),
    ],
)
def test_an_identity_is_what_the_design_says(name: str, *, expected: bool) -> None:
    assert is_identity(name) is expected


@UNTIMED
@given(st.text(max_size=5).filter(lambda name: not is_identity(name)), st.sampled_from(Kind))
def test_there_is_no_topic_for_what_is_no_identity(name: str, kind: Kind) -> None:
    with pytest.raises(ValueError, match="is not a device id"):
        topic_for(name, kind)


@UNTIMED
@given(identities, identities)
def test_an_identity_in_a_filter_stands_for_itself_only(one: str, other: str) -> None:
    assert is_valid_filter(f"v1/{one}/#")
    assert matches(f"v1/{one}/#", f"v1/{other}/readings") is (one == other)


def test_every_kind_goes_one_way() -> None:
    assert set(Kind) == FROM_DEVICE | TO_DEVICE
    assert not FROM_DEVICE & TO_DEVICE
