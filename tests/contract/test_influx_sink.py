"""What the InfluxDB sink says of tokens, buckets and bad points, against the real server."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from bridge.line_protocol import Point, point_of
from bridge.sinks.influx import InfluxSink
from broker_config.errors import (
    SinkError,
    SinkMissingError,
    SinkRejectedError,
    SinkUnauthorizedError,
    SinkUnreachableError,
)
from broker_config.settings import Influx, Secret
from tests.bridge.examples import NOW_MS, row
from tests.contract.conftest import influx_settings
from tests.services.ports import LOOPBACK, find_free_port

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.services.influxd import InfluxD


def points(*names: str) -> list[Point]:
    return [point_of(row(name)) for name in names]


def rows_in(server: InfluxD, bucket: str) -> list[str]:
    found = server.query_flux(
        f'from(bucket: "{bucket}") |> range(start: 2020-01-01T00:00:00Z, stop: 2100-01-01T00:00:00Z)'
        ' |> filter(fn: (r) => r._field == "temperature_c")'
    )
    return sorted(one["device"] for one in found)


def organisation_id(server: InfluxD) -> str:
    return str(json.loads(server._request("GET", "/api/v2/orgs"))["orgs"][0]["id"])


def token_for_bucket(server: InfluxD, bucket: str) -> str:
    """A token that may write one bucket and nothing else."""
    organisation = organisation_id(server)
    listed = json.loads(server._request("GET", "/api/v2/buckets", {"name": bucket}))
    resource = {"type": "buckets", "id": listed["buckets"][0]["id"], "orgID": organisation}
    wanted = {"orgID": organisation, "permissions": [{"action": "write", "resource": resource}]}
    answer = server._request("POST", "/api/v2/authorizations", body=json.dumps(wanted))
    return str(json.loads(answer)["token"])


def make_bucket(server: InfluxD, bucket: str) -> None:
    wanted = {"orgID": organisation_id(server), "name": bucket, "retentionRules": []}
    server._request("POST", "/api/v2/buckets", body=json.dumps(wanted))


@pytest.mark.parametrize("token", ["wrong", "x" * 64])
def test_a_wrong_token_is_ours_to_repair(influx: InfluxD, tmp_path: Path, token: str) -> None:
    sink = InfluxSink(influx_settings(influx, token=token), tmp_path)
    with pytest.raises(SinkUnauthorizedError, match="401"):
        sink.write(points("dev-1"))
    with pytest.raises(SinkUnauthorizedError, match="401"):
        list(sink.read("dev-1", since_ms=0, limit=1))
    sink.close()


def test_a_bucket_that_is_missing_is_made_where_the_token_may(
    influx: InfluxD, tmp_path: Path
) -> None:
    sink = InfluxSink(influx_settings(influx, bucket="made-by-us"), tmp_path)
    sink.write(points("dev-1"))
    sink.write(points("dev-2"))
    sink.close()
    assert rows_in(influx, "made-by-us") == ["dev-1", "dev-2"]


def test_a_bucket_that_is_missing_is_said_where_the_token_may_not_make_it(
    influx: InfluxD, tmp_path: Path
) -> None:
    token = token_for_bucket(influx, influx.bucket)
    sink = InfluxSink(influx_settings(influx, bucket="not-there", token=token), tmp_path)
    for _ in range(2):
        with pytest.raises((SinkMissingError, SinkUnauthorizedError), match="'not-there'"):
            sink.write(points("dev-1"))
    sink.close()


def test_a_bucket_that_is_made_later_is_found(influx: InfluxD, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(token_for_bucket(influx, influx.bucket))
    settings = Influx(url=influx.url, token_file="token", org=influx.org, bucket="made-later")
    sink = InfluxSink(settings, tmp_path)
    with pytest.raises(SinkError):
        sink.write(points("dev-1"))
    make_bucket(influx, "made-later")
    (tmp_path / "token").write_text(token_for_bucket(influx, "made-later"))
    assert attempts(sink) <= 3
    sink.close()
    assert rows_in(influx, "made-later") == ["dev-1"]


def attempts(sink: InfluxSink) -> int:
    """How often the forwarder has to try until the database takes a point."""
    for number in range(1, 10):
        with suppress(SinkError):
            sink.write(points("dev-1"))
            return number
    pytest.fail("the database is well and takes nothing")


def test_a_bucket_that_is_deleted_is_made_again(influx: InfluxD, tmp_path: Path) -> None:
    sink = InfluxSink(influx_settings(influx, bucket="deleted"), tmp_path)
    sink.write(points("dev-1"))
    listed = json.loads(influx._request("GET", "/api/v2/buckets", {"name": "deleted"}))
    influx._request("DELETE", f"/api/v2/buckets/{listed['buckets'][0]['id']}")
    with pytest.raises(SinkMissingError, match="'deleted'"):
        sink.write(points("dev-2"))
    sink.write(points("dev-3"))
    sink.close()
    assert rows_in(influx, "deleted") == ["dev-3"]


def test_a_token_that_may_write_one_bucket_is_enough(influx: InfluxD, tmp_path: Path) -> None:
    make_bucket(influx, "write-only")
    token = token_for_bucket(influx, "write-only")
    sink = InfluxSink(influx_settings(influx, bucket="write-only", token=token), tmp_path)
    sink.write(points("dev-1"))
    sink.close()
    assert rows_in(influx, "write-only") == ["dev-1"]


def test_a_token_file_that_is_put_right_needs_no_new_sink(influx: InfluxD, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("wrong\n")
    settings = Influx(url=influx.url, token_file="token", org=influx.org, bucket="token-file")
    sink = InfluxSink(settings, tmp_path)
    with pytest.raises(SinkUnauthorizedError):
        sink.write(points("dev-1"))
    (tmp_path / "token").unlink()
    with pytest.raises(SinkUnauthorizedError):
        sink.write(points("dev-1"))
    (tmp_path / "token").write_text(f"{influx.token}\n")
    assert attempts(sink) <= 3
    sink.close()
    assert rows_in(influx, "token-file") == ["dev-1"]


def test_the_token_is_in_no_message(influx: InfluxD, tmp_path: Path) -> None:
    secret = "a-token-that-nobody-may-see"
    sink = InfluxSink(influx_settings(influx, token=secret), tmp_path)
    with pytest.raises(SinkUnauthorizedError) as caught:
        sink.write(points("dev-1"))
    sink.close()
    assert secret not in str(caught.value)


def test_a_field_that_changed_its_type_is_refused_in_the_database_s_words(
    influx: InfluxD, tmp_path: Path
) -> None:
    sink = InfluxSink(influx_settings(influx, bucket="types"), tmp_path)
    number: Mapping[str, float | str] = {"v": 1.0}
    sink.write([Point("m", {"device": "a"}, number, NOW_MS * 1_000_000)])
    with pytest.raises(SinkRejectedError, match="type"):
        sink.write([Point("m", {"device": "a"}, {"v": "text"}, NOW_MS * 1_000_000)])
    sink.close()


@pytest.mark.parametrize("name", ["pm2\\5", "a\nb", ""])
def test_a_point_that_cannot_be_written_is_refused_and_not_a_crash(
    influx: InfluxD, tmp_path: Path, name: str
) -> None:
    """The forwarder isolates what the sink refuses; any other error would end the bridge."""
    sink = InfluxSink(influx_settings(influx), tmp_path)
    with pytest.raises(SinkRejectedError):
        sink.write([*points("dev-1"), point_of(row(values={name: 1.0}))])
    sink.close()


def test_nobody_at_the_address_is_said_with_the_address(tmp_path: Path) -> None:
    port = find_free_port()
    settings = Influx(url=f"http://{LOOPBACK}:{port}", token=Secret("x"), timeout_s=2.0)
    sink = InfluxSink(settings, tmp_path)
    with pytest.raises(SinkUnreachableError, match=f"http://{LOOPBACK}:{port}"):
        sink.write(points("dev-1"))
    with pytest.raises(SinkUnreachableError):
        list(sink.read("dev-1", since_ms=0, limit=1))
    sink.close()


def test_a_database_that_comes_back_takes_what_it_missed(
    mortal_influx: InfluxD, tmp_path: Path
) -> None:
    sink = InfluxSink(influx_settings(mortal_influx), tmp_path)
    sink.write(points("dev-1"))
    mortal_influx.kill()
    with pytest.raises(SinkUnreachableError):
        sink.write(points("dev-2"))
    mortal_influx.start()
    sink.write(points("dev-2"))
    sink.close()
    assert rows_in(mortal_influx, mortal_influx.bucket) == ["dev-1", "dev-2"]
