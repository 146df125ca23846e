"""Every answer of the database becomes one error with one disposition (DESIGN, "Errors")."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.sinks.influx import MAX_PAUSE_S, disposition_of
from broker_config.errors import (
    Disposition,
    SinkBusyError,
    SinkError,
    SinkMissingError,
    SinkRejectedError,
    SinkTooLargeError,
    SinkUnauthorizedError,
    SinkUnreachableError,
)
from broker_config.settings import Influx
from tests.bridge.examples import LAW

SETTINGS = Influx(url="http://db:8086", org="my org", bucket="my bucket")
WORDS = "the database's own sentence"


def error_for(status: int | None, **headers: str) -> SinkError:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return disposition_of(
        status, WORDS, named, where="InfluxDB at http://db:8086", settings=SETTINGS
    )


def pause_s(text: str, *, status: int = 503, name: str = "Retry_After") -> float:
    error = error_for(status, **{name: text})
    assert isinstance(error, SinkBusyError)
    return error.retry_after_s


@pytest.mark.parametrize(
    ("status", "kind", "disposition", "state"),
    [
        (400, SinkRejectedError, Disposition.REFUSE, "ready"),
        (422, SinkRejectedError, Disposition.REFUSE, "ready"),
        (413, SinkTooLargeError, Disposition.REFUSE, "ready"),
        (401, SinkUnauthorizedError, Disposition.RETRY, "unauthorized"),
        (403, SinkUnauthorizedError, Disposition.RETRY, "unauthorized"),
        (404, SinkMissingError, Disposition.RETRY, "bucket_missing"),
        (429, SinkBusyError, Disposition.RETRY, "busy"),
        (503, SinkBusyError, Disposition.RETRY, "busy"),
        (500, SinkUnreachableError, Disposition.RETRY, "unreachable"),
        (502, SinkUnreachableError, Disposition.RETRY, "unreachable"),
        (504, SinkUnreachableError, Disposition.RETRY, "unreachable"),
        (408, SinkUnreachableError, Disposition.RETRY, "unreachable"),
        (301, SinkUnreachableError, Disposition.RETRY, "unreachable"),
        (None, SinkUnreachableError, Disposition.RETRY, "unreachable"),
    ],
)
def test_each_status_has_its_error(
    status: int | None, kind: type[SinkError], disposition: Disposition, state: str
) -> None:
    error = error_for(status)
    assert type(error) is kind
    assert (error.disposition, error.state) == (disposition, state)
    assert WORDS in str(error)


@LAW
@given(st.none() | st.integers(100, 599))
def test_only_what_is_wrong_with_the_rows_themselves_is_not_tried_again(status: int | None) -> None:
    refused = error_for(status).disposition is Disposition.REFUSE
    assert refused == (status in {400, 413, 422})


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500, 503])
def test_an_error_that_lasts_says_where_and_that_nothing_is_lost(status: int) -> None:
    line = str(error_for(status))
    assert f"InfluxDB at http://db:8086 answered {status}: {WORDS}" in line
    assert "readings are kept in the journal" in line
    assert "\n" not in line


def test_the_bucket_and_organisation_are_named_where_they_matter() -> None:
    assert "'my bucket'" in str(error_for(401))
    assert "'my bucket' in organisation 'my org'" in str(error_for(404))


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("name", ["Retry_After", "retry_after", "RETRY_AFTER"])
def test_the_pause_that_is_asked_for_is_kept_however_its_name_is_written(
    status: int, name: str
) -> None:
    assert pause_s("17", status=status, name=name) == 17.0


@pytest.mark.parametrize("status", [429, 503])
def test_without_a_pause_there_is_a_short_one(status: int) -> None:
    error = error_for(status)
    assert isinstance(error, SinkBusyError)
    assert error.retry_after_s == 1.0


@pytest.mark.parametrize(
    "text", ["", "soon", "-5", "1.5", "nan", "inf", "Mon, 23 Nov 2026 09:22:59 GMT", "²", "17 s"]
)
def test_a_pause_that_is_no_number_of_seconds_is_a_short_one(text: str) -> None:
    """RFC 9110 section 10.2.3: a number of seconds, or a date, which needs a clock."""
    assert pause_s(text) == 1.0


@LAW
@given(st.text(st.characters(max_codepoint=255)))
def test_no_pause_in_a_header_breaks_anything(text: str) -> None:
    assert pause_s(text) >= 0
    assert not math.isnan(pause_s(text))


def test_a_pause_is_bounded_so_that_a_repaired_database_is_noticed() -> None:
    assert pause_s("300") == 300.0
    assert pause_s("9" * 30) == pause_s("86400") == MAX_PAUSE_S
