"""What Grafana does with a dashboard's queries on their way to InfluxDB.

Sources: Grafana documentation, "Variable syntax" and "InfluxDB query editor"; Grafana 12.4,
`pkg/tsdb/influxdb/models/query.go` (the order in which macros are replaced) and
`pkg/tsdb/influxdb/influxql/influxql.go` (the request, and that only the first result counts).
"""

import base64
import http
import json
import re
import string
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from .http_exchange import Answer, exchange

FORM = "application/x-www-form-urlencoded"

Panel = dict[str, Any]
Row = dict[str, Any]
Choice = Sequence[str] | None
"""The chosen values of a variable; None is "All"."""

_REGEX_SPECIAL = re.compile(r"[\\^$*+?.()|\[\]{}/]")


class QueryError(Exception):
    """InfluxDB refused a query; Grafana would show the message on the panel."""


class TimeRange(NamedTuple):
    """The range at the top of the page, in ms since 1970 UTC, and the interval of a point."""

    from_ms: int
    to_ms: int
    interval_s: int


def panels_of(dashboard: Mapping[str, Any]) -> list[Panel]:
    """All panels that show something; rows are only headings."""
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def targets_of(dashboard: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every query of every panel, with a name for it: the panel's title and the query's letter."""
    for panel in panels_of(dashboard):
        for target in panel["targets"]:
            yield f"{panel['title']} {target['refId']}", target


def format_regex(chosen: Choice, all_value: str) -> str:
    """A variable in the format `${name:regex}`.

    A custom "All" value is inserted as it is, everything else is escaped.
    """
    if chosen is None:
        return all_value
    escaped = [_REGEX_SPECIAL.sub(lambda found: f"\\{found[0]}", each) for each in chosen]
    return escaped[0] if len(escaped) == 1 else f"({'|'.join(escaped)})"


def interpolate(query: str, variables: Mapping[str, str], time_range: TimeRange) -> str:
    """The query as InfluxDB gets it.

    `variables` are formatted already. Raises KeyError for a variable that is not there.
    """
    query = re.sub(r"\$\{(\w+):regex\}", lambda found: variables[found[1]], query)
    interval = f"{time_range.interval_s}s"
    time_filter = f"time >= {time_range.from_ms}ms and time <= {time_range.to_ms}ms"
    for macro, text in (
        ("$timeFilter", time_filter),
        ("$interval", interval),
        ("$__interval_ms", str(time_range.interval_s * 1000)),
        ("$__interval", interval),
    ):
        query = query.replace(macro, text)
    return query


def provisioned(path: Path, environment: Mapping[str, str]) -> Any:
    """A provisioning file as Grafana reads it: `$NAME` in its values is a variable.

    Raises KeyError for a variable that the container does not have.
    """
    return msgspec.yaml.decode(string.Template(path.read_text("utf-8")).substitute(environment))


class DataSource:
    """A provisioned InfluxQL data source, but of a database at another address."""

    def __init__(self, settings: Mapping[str, Any], host: str, port: int) -> None:
        """`settings` is an entry of `datasources` in the provisioning file."""
        user, password = settings["basicAuthUser"], settings["secureJsonData"]["basicAuthPassword"]
        credentials = base64.b64encode(f"{user}:{password}".encode()).decode()
        self._headers = {"Authorization": f"Basic {credentials}"}
        self._database = settings["jsonData"]["dbName"]
        self._host = host
        self._port = port

    def query(self, query: str) -> list[Row]:
        """Return the rows of the first statement: columns, tags of a GROUP BY, `time` in ms.

        Raises QueryError.
        """
        parameters = {"db": self._database, "epoch": "ms"}
        form = urllib.parse.urlencode({"q": query}).encode()
        status, text = self.send("/query", parameters, form, FORM)
        if status != http.HTTPStatus.OK:
            raise QueryError(text)
        result = json.loads(text)["results"][0]
        if "error" in result:
            raise QueryError(result["error"])
        return [
            {**series.get("tags", {}), **dict(zip(series["columns"], values, strict=True))}
            for series in result.get("series", [])
            for values in series.get("values", [])
        ]

    def send(
        self, path: str, parameters: Mapping[str, str], body: bytes, content_type: str
    ) -> Answer:
        """POST anything with the data source's credential, as its proxy lets a viewer do."""
        headers = {**self._headers, "Content-Type": content_type}
        return exchange(self._host, self._port, path, parameters, headers=headers, body=body)


def load_dashboard(path: Path) -> dict[str, Any]:
    """A dashboard file."""
    dashboard: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return dashboard
