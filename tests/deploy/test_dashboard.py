"""The dashboard's file: what Grafana would accept in silence and show wrongly."""

import re
from collections import Counter
from itertools import pairwise
from typing import Any

import pytest

from .files import DASHBOARD
from .grafana import Panel, format_regex, load_dashboard, panels_of, targets_of

COLUMNS = 24
ROWS = ("Ingest health", "Ledger", "Readings by device", "Devices without data", "Faults")
MACROS = {"timeFilter", "__interval"}
ALIASES = {"tag_device", "tag_bridge", "col"}
NAME = re.compile(r"\$\{?(\w+)")


@pytest.fixture(name="dashboard")
def fixture_dashboard() -> dict[str, Any]:
    return load_dashboard(DASHBOARD)


def cells_of(panel: Panel) -> set[tuple[int, int]]:
    """The cells of the page's grid that a panel covers."""
    place = panel["gridPos"]
    return {
        (x, y)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    }


def test_it_has_an_identity_but_no_database_id(dashboard: dict[str, Any]) -> None:
    assert dashboard["uid"] == "iot-ingest"
    assert dashboard["title"] == "IoT ingest"
    assert "id" not in dashboard


def test_its_rows_stand_in_order(dashboard: dict[str, Any]) -> None:
    rows = [panel for panel in dashboard["panels"] if panel["type"] == "row"]
    assert tuple(row["title"] for row in rows) == ROWS
    assert all(above["gridPos"]["y"] < below["gridPos"]["y"] for above, below in pairwise(rows))


def test_panels_have_their_own_number_and_place(dashboard: dict[str, Any]) -> None:
    panels = dashboard["panels"]
    assert max(Counter(panel["id"] for panel in panels).values()) == 1
    covered = Counter(cell for panel in panels for cell in cells_of(panel))
    assert max(covered.values()) == 1
    assert max(x for x, _ in covered) == COLUMNS - 1


def test_panels_say_what_they_show(dashboard: dict[str, Any]) -> None:
    titles = [panel["title"] for panel in panels_of(dashboard)]
    assert len(set(titles)) == len(titles)
    assert [panel["title"] for panel in panels_of(dashboard) if not panel["description"]] == []


def test_every_number_has_a_unit(dashboard: dict[str, Any]) -> None:
    without = [
        panel["title"]
        for panel in panels_of(dashboard)
        if panel["type"] != "table" and not panel["fieldConfig"]["defaults"].get("unit")
    ]
    assert without == []


def test_every_query_is_one_raw_influxql_statement(dashboard: dict[str, Any]) -> None:
    """Grafana 12.4 reads the first statement's result only."""
    for name, target in targets_of(dashboard):
        assert target["rawQuery"] is True, name
        assert target["resultFormat"] in {"time_series", "table"}, name
        assert target["query"].startswith("SELECT "), name
        assert ";" not in target["query"], name


def test_series_have_a_legend(dashboard: dict[str, Any]) -> None:
    series = [target for _, target in targets_of(dashboard)]
    series = [target for target in series if target["resultFormat"] == "time_series"]
    assert {name for target in series for name in NAME.findall(target["alias"])} == ALIASES


def test_queries_use_the_variables_that_there_are(dashboard: dict[str, Any]) -> None:
    variables = dashboard["templating"]["list"]
    defined = {variable["name"] for variable in variables}
    queries = [target["query"] for _, target in targets_of(dashboard)]
    queries += [variable["query"]["query"] for variable in variables]
    used = {name for query in queries for name in NAME.findall(query)}
    assert used - MACROS == defined == {"site", "device"}


def test_the_health_figure_turns_at_the_levels_of_the_status_page(
    dashboard: dict[str, Any],
) -> None:
    (panel,) = [each for each in panels_of(dashboard) if each["title"] == "Ingest health now"]
    steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
    assert [step["value"] for step in steps] == [None, 0.5, 0.95]


@pytest.mark.parametrize(
    ("chosen", "text"),
    [
        (None, ".*"),
        (["test."], r"test\."),
        (["test1", "test2"], "(test1|test2)"),
        (["a/b (c)"], r"a\/b \(c\)"),
    ],
)
def test_variables_are_formatted_as_grafana_does(chosen: list[str] | None, text: str) -> None:
    """Grafana documentation, "Variable syntax", Regex; and its escapeRegex."""
    assert format_regex(chosen, ".*") == text
