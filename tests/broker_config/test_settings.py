from __future__ import annotations

import re
import tomllib
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_config.errors import ConfigurationError
from broker_config.home import Home
from broker_config.settings import Secret, Settings, build_settings, is_loopback, load_settings

from .strategies import UNTIMED

if TYPE_CHECKING:
    from pathlib import Path

SHIPPED_TEXT = files("broker_config").joinpath("iot_default.toml").read_text("utf-8")
HIDDEN = "tVeryS3cret-value"

KEYS = [
    (section, key)
    for section, shape in get_type_hints(Settings).items()
    for key in get_type_hints(shape)
]
every_key = pytest.mark.parametrize(("section", "key"), KEYS, ids=lambda name: name)


def other_value(section: str, key: str) -> Any:
    """A value that is not the default, of the right type, that makes sense with the defaults."""
    hint = get_type_hints(get_type_hints(Settings)[section])[key]
    default = value_of(Settings(), section, key)
    if get_origin(hint) is Literal:
        return next(word for word in get_args(hint) if word != default)
    if hint is bool:
        return not default
    if hint is int:
        return default + 1
    if hint is float:
        return default * 0.99
    return "https://influx.example:8086" if key == "url" else HIDDEN


def value_of(settings: Settings, section: str, key: str) -> Any:
    value = getattr(getattr(settings, section), key)
    return value.reveal() if isinstance(value, Secret) else value


def variable(section: str, key: str) -> str:
    return f"IOT_{section}_{key}".upper()


def as_text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


# The layers


@every_key
def test_a_key_is_set_by_the_file_by_a_variable_and_by_a_flag(section: str, key: str) -> None:
    other = other_value(section, key)
    assert value_of(Settings(), section, key) != other
    for settings in (
        build_settings({section: {key: other}}, {}, {}),
        build_settings({}, {variable(section, key): as_text(other)}, {}),
        build_settings({}, {}, {f"{section}.{key}": other}),
    ):
        assert value_of(settings, section, key) == other
        rest = [(s, k) for s, k in KEYS if (s, k) != (section, key)]
        assert [value_of(settings, s, k) for s, k in rest] == [
            value_of(Settings(), s, k) for s, k in rest
        ]


layers = st.dictionaries(st.sampled_from(["mqtt.port", "http.port"]), st.integers(0, 65_535))


@UNTIMED
@given(layers, layers, layers)
def test_a_later_layer_wins(
    file: dict[str, int], environment: dict[str, int], flags: dict[str, int]
) -> None:
    tree: dict[str, Any] = {}
    for name, port in file.items():
        tree[name.removesuffix(".port")] = {"port": port}
    settings = build_settings(
        tree,
        {variable(*name.split(".")): str(port) for name, port in environment.items()},
        flags,
    )
    merged = {"mqtt.port": 1883, "http.port": 8080, **file, **environment, **flags}
    assert {"mqtt.port": settings.mqtt.port, "http.port": settings.http.port} == merged


def test_a_flag_that_was_not_given_changes_nothing() -> None:
    assert build_settings({"mqtt": {"port": 7}}, {}, {"mqtt.port": None}).mqtt.port == 7


def test_other_variables_are_not_ours() -> None:
    environment = {"PATH": "/bin", "IOT_HOME": "/x", "MQTT_PORT": "1", "IOTA_MQTT_PORT": "1"}
    assert build_settings({}, environment, {}) == Settings()


@pytest.mark.parametrize(("text", "expected"), [("true", True), ("1", True), ("false", False)])
def test_a_switch_can_be_a_variable(text: str, *, expected: bool) -> None:
    environment = {"IOT_MQTT_ALLOW_PLAINTEXT": text}
    assert build_settings({}, environment, {}).mqtt.allow_plaintext is expected


def test_the_tree_is_frozen() -> None:
    settings = build_settings({}, {}, {})
    with pytest.raises(AttributeError):
        settings.mqtt.port = 1  # type: ignore[misc]  # that it cannot be done is the test


# What is wrong is said


@pytest.mark.parametrize(
    ("tree", "environment", "told"),
    [
        ({"mqtt": {"prot": 1}}, {}, "iot.toml: unknown key mqtt.prot, did you mean port?"),
        ({"mqttt": {"port": 1}}, {}, "iot.toml: unknown key mqttt, did you mean mqtt?"),
        ({"mqtt": {"port": "1883"}}, {}, "mqtt.port"),
        ({"mqtt": {"port": True}}, {}, "mqtt.port"),
        ({"mqtt": {"port": -1}}, {}, "mqtt.port -1 is no port"),
        ({"http": {"port": 65_536}}, {}, "http.port 65536 is no port"),
        ({"mqtt": {"allow_plaintext": "yes"}}, {}, "mqtt.allow_plaintext"),
        ({"mqtt": {"password": 5}}, {}, "mqtt.password"),
        ({"log": {"level": "loud"}}, {}, "log.level"),
        ({"influx": {"url": "influx:8086"}}, {}, "influx.url"),
        ({"health": {"ok_ratio": 1.5}}, {}, "health"),
        ({"health": {"ok_ratio": 0.4}}, {}, "health"),
        ({"health": {"down_ratio": 0.0}}, {}, "health"),
        ({"health": {"down_ratio": float("nan")}}, {}, "health"),
        ({"health": {"window_s": 0}}, {}, "health.window_s"),
        ({"bridge": {"commit_messages": 0}}, {}, "bridge"),
        ({"bridge": {"forward_messages": 0}}, {}, "bridge"),
        (
            {},
            {"IOT_MQTT_PROT": "1"},
            "unknown variable IOT_MQTT_PROT, did you mean IOT_MQTT_PORT?",
        ),
        ({}, {"IOT_INFLUXDB_URL": "http://x"}, "did you mean IOT_INFLUX_URL?"),
        ({}, {"IOT_MQTT_PORT": "many"}, "variable IOT_MQTT_PORT: mqtt.port"),
        ({}, {"IOT_MQTT_PORT": ""}, "variable IOT_MQTT_PORT: mqtt.port"),
        ({}, {"IOT_MQTT_PORT": "65536"}, "mqtt.port 65536 is no port"),
        ({}, {"IOT_LOG_FORMAT": "xml"}, "variable IOT_LOG_FORMAT: log.format"),
    ],
)
def test_a_setting_that_is_wrong_is_said_in_one_line(
    tree: dict[str, Any], environment: dict[str, str], told: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        build_settings(tree, environment, {})
    line = str(caught.value)
    assert told in line
    assert "\n" not in line
    assert caught.value.exit_code == 2


@every_key
def test_a_misspelled_variable_is_answered_with_the_right_one(section: str, key: str) -> None:
    right = variable(section, key)
    with pytest.raises(ConfigurationError, match=rf"did you mean {right}\?"):
        build_settings({}, {f"{right}X": "1"}, {})


@UNTIMED
@given(st.integers(-(2**70), 2**70))
def test_a_port_is_a_number_from_0_to_65535(port: int) -> None:
    if 0 <= port <= 65_535:
        assert build_settings({"mqtt": {"port": port}}, {}, {}).mqtt.port == port
    else:
        with pytest.raises(ConfigurationError, match="is no port"):
            build_settings({"mqtt": {"port": port}}, {}, {})


# Secrets


@pytest.mark.parametrize("section_key", ["mqtt.password", "influx.token"])
@pytest.mark.parametrize("layer", ["file", "variable", "flag"])
def test_a_secret_is_masked_wherever_the_tree_is_printed(section_key: str, layer: str) -> None:
    section, key = section_key.split(".")
    settings = build_settings(
        {section: {key: HIDDEN}} if layer == "file" else {},
        {variable(section, key): HIDDEN} if layer == "variable" else {},
        {section_key: HIDDEN} if layer == "flag" else {},
    )
    assert value_of(settings, section, key) == HIDDEN
    branch = getattr(settings, section)
    for shown in (
        repr(settings),
        str(settings),
        f"{settings}",
        f"{branch!r}",
        f"{getattr(branch, key)}",
        f"{msgspec.structs.asdict(branch)}",
        "%s" % (getattr(branch, key),),  # noqa: UP031 -- the logging module formats like this
    ):
        assert HIDDEN not in shown
        assert "********" in shown
    with pytest.raises(TypeError):
        msgspec.json.encode(settings)


def test_the_mask_does_not_tell_the_length() -> None:
    assert repr(Secret("a")) == repr(Secret("a" * 50))
    assert repr(Secret("")) == "''"


@UNTIMED
@given(st.text(max_size=20), st.text(max_size=20))
def test_secrets_compare_by_their_text(one: str, other: str) -> None:
    assert (Secret(one) == Secret(other)) is (one == other)
    assert len({Secret(one), Secret(other)}) == len({one, other})
    assert Secret(one) != one
    assert bool(Secret(one)) is bool(one)


@pytest.mark.parametrize(
    "text",
    [
        f'[influx]\ntoken = "{HIDDEN}',
        f"[influx]\ntoken = {HIDDEN}",
        f'[influx]\ntokn = "{HIDDEN}"',
        f'[influx]\ntoken = ["{HIDDEN}"]',
        f'[influx]\ntoken = "{HIDDEN}"\nurl = 3',
        f'influx = "{HIDDEN}"',
    ],
)
def test_an_error_does_not_show_the_secret_beside_it(tmp_path: Path, text: str) -> None:
    Home(tmp_path).settings_file.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        load_settings(Home(tmp_path), {}, {})
    assert HIDDEN not in str(caught.value)


# The file


def test_the_shipped_file_says_the_defaults() -> None:
    assert build_settings(tomllib.loads(SHIPPED_TEXT), {}, {}) == Settings()


def test_the_commented_keys_of_the_shipped_file_are_keys() -> None:
    text, count = re.subn(r"(?m)^# (?=\w+ = )", "", SHIPPED_TEXT)
    settings = build_settings(tomllib.loads(text), {}, {})
    assert count
    assert settings.mqtt.allow_plaintext
    assert settings.influx.url == "http://127.0.0.1:8086"


def test_the_file_of_a_home_is_read(tmp_path: Path) -> None:
    Home(tmp_path).settings_file.write_text("[mqtt]\nport = 7\n")
    assert load_settings(Home(tmp_path), {}, {}).mqtt.port == 7


def test_a_home_without_a_file_has_the_defaults(tmp_path: Path) -> None:
    assert load_settings(Home(tmp_path), {}, {}) == Settings()


@pytest.mark.parametrize("content", [b"\xff\xfe", b"[mqtt]\nprot = 1", b"port"])
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, content: bytes) -> None:
    file = Home(tmp_path).settings_file
    file.write_bytes(content)
    with pytest.raises(ConfigurationError, match=re.escape(str(file))):
        load_settings(Home(tmp_path), {}, {})


def test_a_folder_in_place_of_the_file_is_an_error(tmp_path: Path) -> None:
    Home(tmp_path).settings_file.mkdir()
    with pytest.raises(ConfigurationError, match="cannot read"):
        load_settings(Home(tmp_path), {}, {})


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.1.2.3", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.0.7", False),
        ("example.org", False),
        ("localhost.example.org", False),
        ("", False),
    ],
)
def test_loopback_is_what_only_this_machine_reaches(host: str, *, expected: bool) -> None:
    assert is_loopback(host) is expected
