"""What several tests of this folder generate: identities, topics and filters."""

from __future__ import annotations

from hypothesis import assume, settings
from hypothesis import strategies as st

UNTIMED = settings(deadline=None)
"""A slow machine is no failure."""

# DESIGN, "Topics": the device id, user name and client id.
identities = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", fullmatch=True)

# Few and short, so that a generated filter often meets a generated topic.
levels = st.sampled_from(["", "a", "b", "v1", "$SYS", "$", "x y", "é"])

topic_names = st.lists(levels, min_size=1, max_size=4).map("/".join).filter(bool)

topic_filters = (
    st.tuples(
        st.lists(levels | st.just("+"), max_size=4),
        st.sampled_from([[], ["#"]]),
    )
    .map(lambda parts: "/".join([*parts[0], *parts[1]]))
    .filter(bool)
)


@st.composite
def topics_of(draw: st.DrawFn, topic_filter: str) -> str:
    """A topic name that the filter matches, made by writing levels for its wildcards."""
    given: list[str] = []
    for position, level in enumerate(topic_filter.split("/")):
        # [MQTT-4.7.2-1]: a wildcard in front does not stand for `$...`
        free = levels.filter(lambda text: text[:1] != "$") if position == 0 else levels
        if level == "+":
            given.append(draw(free))
        elif level == "#":
            first = [draw(free)] if position == 0 else []
            given += [*first, *draw(st.lists(levels, max_size=3))]
        else:
            given.append(level)
    topic = "/".join(given)
    assume(topic)
    return topic
