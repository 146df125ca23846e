from __future__ import annotations

import contextlib
import json
import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from broker_config import errors, refusals
from broker_config.errors import IotError
from broker_config.events import Event, printable, record

from . import children
from .strategies import UNTIMED

if TYPE_CHECKING:
    from collections.abc import Iterator

ERROR_NAMES = [
    name
    for name, value in vars(errors).items()
    if isinstance(value, type) and issubclass(value, IotError)
]
CODES = [*(code.name for code in refusals.every_code()), *ERROR_NAMES]


def count_of(event: Event, code: str = "") -> float:
    labels = {"event": event.label, "code": code}
    return REGISTRY.get_sample_value("iot_events_total", labels) or 0.0


def series() -> Iterator[tuple[str, str]]:
    for metric in REGISTRY.collect():
        for sample in metric.samples:
            if sample.name == "iot_events_total":
                assert set(sample.labels) == {"event", "code"}
                yield sample.labels["event"], sample.labels["code"]


@pytest.mark.parametrize("event", Event)
def test_an_event_counts_under_its_name(event: Event) -> None:
    before = count_of(event)
    record(event)
    record(event, count=4)
    assert count_of(event) == before + 5


@pytest.mark.parametrize("code", CODES)
def test_a_code_of_the_closed_lists_is_a_label(code: str) -> None:
    before = count_of(Event.REFUSED, code), count_of(Event.REFUSED)
    record(Event.REFUSED, code=code, count=2, device="esp-1")
    assert (count_of(Event.REFUSED, code), count_of(Event.REFUSED)) == (before[0] + 2, before[1])


@pytest.mark.parametrize("code", ["invented", "publish.invented", "v1/esp-1/readings", "x" * 200])
def test_nothing_else_becomes_a_label(code: str) -> None:
    with contextlib.suppress(ValueError, IotError):
        record(Event.REFUSED, code=code, device="esp-9", topic="v1/esp-9/readings")
    assert code not in {label for _, label in series()}


@UNTIMED
@given(st.text())
def test_printable_text_has_no_control_characters_and_loses_nothing_else(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert [(a, b) for a, b in zip(text, shown, strict=True) if a != b and a.isprintable()] == []


def test_the_names_of_events_differ_and_are_dotted_words() -> None:
    labels = [event.label for event in Event.__members__.values()]
    assert len(set(labels)) == len(labels)
    assert [label for label in labels if not re.fullmatch(r"[a-z_]+(\.[a-z_]+)?", label)] == []


def test_an_event_is_one_json_line_on_stderr() -> None:
    result = children.run("log", "json", "info")
    assert result.returncode == 0
    assert result.stdout == ""
    lines = [json.loads(line) for line in result.stderr.splitlines()]
    assert [line.pop("timestamp")[-1] for line in lines] == ["Z"] * 3
    assert lines == [
        {
            "event": "process.ready",
            "level": "info",
            "process": "bridge",
            "host": "127.0.0.1",
            "port": 1883,
        },
        {
            "event": "refused",
            "level": "warning",
            "process": "bridge",
            "code": "publish.topic_denied",
            "count": 3,
            "topic": 'v1/a\n{"event": "forged"}',
            "device": "esp\x1b[2J\x9b2J\u2028é",
        },
        {"event": "a library's warning", "level": "warning", "process": "bridge"},
    ]


def test_the_level_says_what_is_logged() -> None:
    result = children.run("log", "json", "warning")
    events = [json.loads(line)["event"] for line in result.stderr.splitlines()]
    assert events == ["refused", "a library's warning"]


def test_the_console_form_is_for_people_and_a_device_cannot_steer_it() -> None:
    result = children.run("log", "console", "info")
    assert result.stdout == ""
    first, second, third, end = result.stderr.split("\n")
    assert "process.ready" in first
    assert "refused" in second
    assert "a library's warning" in third
    assert end == ""
    assert [c for c in result.stderr if not c.isprintable() and c != "\n"] == []
