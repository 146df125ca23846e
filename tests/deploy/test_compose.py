"""docker-compose.yml, read by Docker Compose itself (`config` needs no Docker engine)."""

import re
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from broker_config.settings import build_settings

from .compose import ComposeError, Model, load_compose, make_env_file, read_env_file
from .dockerfile import read_stages
from .files import (
    COMPOSE_FILE,
    DASHBOARD,
    DASHBOARD_PROVIDERS,
    DATASOURCES,
    DOCKERFILE,
    INIT_SCRIPTS,
    MAKE_ENV,
    ROOT,
)
from .grafana import load_dashboard, provisioned, targets_of

EXACT_TAG = re.compile(r"[\w./-]+:\d+\.\d+\.\d+(-[\w.-]+)?")
SECRET_NAME = re.compile(r"PASSWORD|TOKEN|SECRET")
SERVICES = ("grafana", "influxdb", "iot")
LOOPBACK_PORTS = {
    ("iot", 1883, "127.0.0.1", "1883"),
    ("iot", 8080, "127.0.0.1", "8080"),
    ("influxdb", 8086, "127.0.0.1", "8086"),
    ("grafana", 3000, "127.0.0.1", "3000"),
}


@pytest.fixture(name="env_file")
def fixture_env_file(tmp_path: Path) -> Path:
    return make_env_file(tmp_path)


@pytest.fixture(name="model")
def fixture_model(env_file: Path) -> Model:
    return load_compose(env_file)


def ports_of(model: Model) -> set[tuple[str, int, str, str]]:
    """(service, container port, host address, host port) of all that is published."""
    return {
        (name, port["target"], port["host_ip"], port["published"])
        for name, service in model["services"].items()
        for port in service.get("ports", [])
    }


def test_compose_accepts_the_file_and_has_the_three_services(model: Model) -> None:
    assert tuple(sorted(model["services"])) == SERVICES


def test_compose_refuses_a_key_that_the_specification_does_not_have(
    env_file: Path, tmp_path: Path
) -> None:
    text = COMPOSE_FILE.read_text("utf-8")
    wrong = tmp_path / "docker-compose.yml"
    wrong.write_text(text.replace("stop_grace_period: 30s", "stop_grace_time: 30s"), "utf-8")

    with pytest.raises(ComposeError, match="stop_grace_time"):
        load_compose(env_file, compose_file=wrong)


def test_every_secret_is_required_and_the_error_says_what_to_run(env_file: Path) -> None:
    secrets = read_env_file(env_file)
    for missing in secrets:
        others = "\n".join(f"{name}={text}" for name, text in secrets.items() if name != missing)
        env_file.write_text(others, "utf-8")
        with pytest.raises(ComposeError, match=rf"{missing} .*run deploy/make-env\.sh"):
            load_compose(env_file)


def test_no_secret_is_written_in_the_file(model: Model, env_file: Path) -> None:
    secrets = set(read_env_file(env_file).values())
    found = {
        f"{service}.{name}": text
        for service in SERVICES
        for name, text in model["services"][service]["environment"].items()
        if SECRET_NAME.search(name)
    }
    assert len(found) >= len(secrets)
    assert {name for name, text in found.items() if text not in secrets} == set()


def test_grafana_has_no_credential_of_the_database_but_its_own(model: Model) -> None:
    grafana = set(model["services"]["grafana"]["environment"].values())
    influxdb = model["services"]["influxdb"]["environment"]
    assert influxdb["GRAFANA_INFLUXDB_PASSWORD"] in grafana
    assert influxdb["DOCKER_INFLUXDB_INIT_ADMIN_TOKEN"] not in grafana
    assert influxdb["DOCKER_INFLUXDB_INIT_PASSWORD"] not in grafana


def test_a_token_of_its_own_can_be_given_to_the_system(env_file: Path) -> None:
    model = load_compose(env_file, {"IOT_INFLUX_TOKEN": "narrower"})

    assert model["services"]["iot"]["environment"]["IOT_INFLUX_TOKEN"] == "narrower"
    influxdb = model["services"]["influxdb"]["environment"]
    assert influxdb["DOCKER_INFLUXDB_INIT_ADMIN_TOKEN"] != "narrower"


def test_every_image_has_an_exact_tag(model: Model) -> None:
    images = [service["image"] for service in model["services"].values() if "image" in service]
    images += [stage.image for stage in read_stages(DOCKERFILE)]
    assert len(images) == 4
    assert [image for image in images if not EXACT_TAG.fullmatch(image)] == []


@pytest.mark.parametrize("image", ["influxdb", "influxdb:2.7", "influxdb:latest", "a/b:12.4"])
def test_a_tag_that_can_move_is_not_exact(image: str) -> None:
    assert not EXACT_TAG.fullmatch(image)


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_has_a_health_check(model: Model, name: str) -> None:
    service = model["services"][name]
    if "build" in service:
        assert service["build"] == {"context": str(ROOT), "dockerfile": "Dockerfile"}
        assert read_stages(DOCKERFILE)[-1].healthcheck()
    else:
        assert service["healthcheck"]["test"][0] == "CMD"


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_confined_restarted_and_bounded_in_its_logs(
    model: Model, name: str
) -> None:
    service = model["services"][name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert "privileged" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["restart"] == "unless-stopped"
    assert set(service["logging"]["options"]) == {"max-size", "max-file"}


def test_ports_are_published_on_loopback_unless_a_variable_says_otherwise(env_file: Path) -> None:
    assert ports_of(load_compose(env_file)) == LOOPBACK_PORTS

    variables = {"MQTT_PUBLISH": "0.0.0.0:11883", "GRAFANA_PUBLISH": "127.0.0.1:13000"}
    changed = ports_of(load_compose(env_file, variables)) - LOOPBACK_PORTS
    assert changed == {
        ("iot", 1883, "0.0.0.0", "11883"),
        ("grafana", 3000, "127.0.0.1", "13000"),
    }


def test_what_must_survive_is_on_named_volumes(model: Model) -> None:
    places = {
        (name, volume["source"], volume["target"])
        for name, service in model["services"].items()
        for volume in service["volumes"]
        if volume["type"] == "volume"
    }
    assert places == {
        ("iot", "iot-home", "/var/lib/iot"),
        ("influxdb", "influxdb-data", "/var/lib/influxdb2"),
        ("influxdb", "influxdb-config", "/etc/influxdb2"),
        ("grafana", "grafana-data", "/var/lib/grafana"),
    }
    assert set(model["volumes"]) == {source for _, source, _ in places}


def test_every_mounted_path_is_in_the_repository_and_read_only(model: Model) -> None:
    binds = [
        volume
        for service in model["services"].values()
        for volume in service["volumes"]
        if volume["type"] == "bind"
    ]
    assert len(binds) == 3
    assert [bind["source"] for bind in binds if not Path(bind["source"]).is_dir()] == []
    assert [bind["source"] for bind in binds if not bind["read_only"]] == []


def test_grafana_waits_for_the_database_but_the_devices_do_not(model: Model) -> None:
    def condition(name: str) -> Any:
        return model["services"][name]["depends_on"]["influxdb"]["condition"]

    assert condition("grafana") == "service_healthy"
    assert condition("iot") == "service_started"


def test_the_system_takes_its_environment(model: Model, env_file: Path) -> None:
    environment = read_stages(DOCKERFILE)[-1].environment()
    environment |= model["services"]["iot"]["environment"]

    settings = build_settings({}, environment, {})

    assert settings.mqtt.allow_plaintext
    assert (settings.mqtt.host, settings.mqtt.port) == ("0.0.0.0", 1883)
    assert (settings.http.host, settings.http.port) == ("0.0.0.0", 8080)
    assert settings.influx.url == "http://influxdb:8086"
    assert settings.influx.token.reveal() == read_env_file(env_file)["INFLUXDB_ADMIN_TOKEN"]
    influxdb = model["services"]["influxdb"]["environment"]
    assert settings.influx.org == influxdb["DOCKER_INFLUXDB_INIT_ORG"]
    assert settings.influx.bucket == influxdb["DOCKER_INFLUXDB_INIT_BUCKET"]


def test_grafana_finds_its_data_source_and_its_dashboard(model: Model) -> None:
    service = model["services"]["grafana"]
    (source,) = provisioned(DATASOURCES, service["environment"])["datasources"]
    assert source["url"] == "http://influxdb:8086"
    assert source["type"] == "influxdb"
    assert source["jsonData"]["version"] == "InfluxQL"
    influxdb = model["services"]["influxdb"]["environment"]
    assert source["jsonData"]["dbName"] == influxdb["DOCKER_INFLUXDB_INIT_BUCKET"]
    password = source["secureJsonData"]["basicAuthPassword"]
    assert password == influxdb["GRAFANA_INFLUXDB_PASSWORD"]

    mounted = {bind["target"]: Path(bind["source"]) for bind in service["volumes"]}
    (provider,) = provisioned(DASHBOARD_PROVIDERS, {})["providers"]
    folder = provider["options"]["path"]
    assert mounted[folder] == DASHBOARD.parent
    home = service["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home == f"{folder}/{DASHBOARD.name}"
    targets = [target for _, target in targets_of(load_dashboard(DASHBOARD))]
    assert {target["datasource"]["uid"] for target in targets} == {source["uid"]}


def test_the_generator_writes_different_secrets_for_its_owner_only(tmp_path: Path) -> None:
    values: list[str] = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        env_file = make_env_file(tmp_path / name)
        assert stat.S_IMODE(env_file.stat().st_mode) == 0o600
        values += read_env_file(env_file).values()
    assert len(set(values)) == len(values) == 10
    assert min(map(len, values)) >= 32


def test_the_generator_never_overwrites(env_file: Path) -> None:
    before = env_file.read_bytes()

    result = subprocess.run(
        [MAKE_ENV, env_file], capture_output=True, text=True, timeout=30, check=False
    )

    assert result.returncode == 1
    assert "left as it is" in result.stderr
    assert env_file.read_bytes() == before


def test_the_generator_writes_beside_the_compose_file(tmp_path: Path) -> None:
    (tmp_path / "deploy").mkdir()
    script = shutil.copy(MAKE_ENV, tmp_path / "deploy")

    subprocess.run([script], check=True, timeout=30, capture_output=True, cwd="/")

    assert (tmp_path / ".env").is_file()


def test_the_init_script_asks_for_a_reader_of_the_one_bucket(tmp_path: Path) -> None:
    """The `influx` program is not here: its documented flags are what is checked."""
    (script,) = INIT_SCRIPTS.iterdir()
    (tmp_path / "influx").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n', "utf-8")
    (tmp_path / "influx").chmod(0o755)
    environment = {
        "PATH": f"{tmp_path}:/usr/bin:/bin",
        "DOCKER_INFLUXDB_INIT_ORG": "the org",
        "DOCKER_INFLUXDB_INIT_BUCKET_ID": "0123456789abcdef",
        "GRAFANA_INFLUXDB_PASSWORD": "the password",
    }

    result = subprocess.run(
        [script], check=True, timeout=30, capture_output=True, text=True, env=environment
    )

    arguments = result.stdout.splitlines()
    assert arguments[:3] == ["v1", "auth", "create"]
    flags = dict(zip(arguments[3::2], arguments[4::2], strict=True))
    assert flags.pop("--description")
    assert flags == {
        "--org": "the org",
        "--username": "grafana",
        "--password": "the password",
        "--read-bucket": "0123456789abcdef",
    }


def test_the_init_script_fails_without_its_variables() -> None:
    (script,) = INIT_SCRIPTS.iterdir()
    result = subprocess.run([script], timeout=30, capture_output=True, check=False, env={})
    assert result.returncode != 0


def test_the_data_source_is_the_reader_that_the_init_script_makes() -> None:
    (script,) = INIT_SCRIPTS.iterdir()
    variables = {"INFLUXDB_BUCKET": "b", "GRAFANA_INFLUXDB_PASSWORD": "p"}
    (source,) = provisioned(DATASOURCES, variables)["datasources"]
    assert source["basicAuth"] is True
    assert f"--username {source['basicAuthUser']} " in script.read_text("utf-8")
