"""The one settings tree: defaults < `iot.toml` < `IOT_*` variables < flags. Frozen.

Nothing in it can refuse a device; that is `policy.py`. `build_settings` is pure;
`load_settings` reads the file.
"""

from __future__ import annotations

import difflib
import ipaddress
from typing import TYPE_CHECKING, Any, Literal, get_type_hints
from urllib.parse import urlsplit

import msgspec

from broker_config.errors import ConfigurationError
from broker_config.toml_tree import convert_tree, nearest, parse_toml

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker_config.home import Home

PREFIX = "IOT_"
_NOT_SETTINGS = frozenset({"IOT_HOME"})
_MAX_PORT = 65_535
MAX_TIMEOUT_S = 3_600.0
NEARLY = 0.85
"""How alike two variable names are (difflib's ratio) when one is a misspelling of the other."""


class Secret:
    """A secret that shows itself only when asked; its text form is masked."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The secret itself, for the one place that needs it."""
        return self._text

    def __bool__(self) -> bool:
        """Whether there is one at all."""
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        """Equal to another secret of the same text."""
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        """Hash of the text."""
        return hash(self._text)

    def __repr__(self) -> str:
        """Masked."""
        return "'********'" if self._text else "''"

    __str__ = __repr__


class Mqtt(msgspec.Struct, frozen=True, kw_only=True):
    """Where the broker listens, and where the bridge finds it.

    Attributes:
        public_host: the name by which devices reach the broker, where that is not `host`;
            `iotctl devices add` prints it.
        username, password: the bridge's credential at a broker that is not ours; empty means the
            bridge gives itself a fresh one in this home's registry at each start.
        allow_plaintext: listen without TLS on an address that is not loopback.
    """

    host: str = "127.0.0.1"
    port: int = 1883
    public_host: str = ""
    username: str = ""
    password: Secret = Secret("")
    allow_plaintext: bool = False


class Http(msgspec.Struct, frozen=True, kw_only=True):
    """Where the status page, the API and the metrics are served."""

    host: str = "127.0.0.1"
    port: int = 8080


class Influx(msgspec.Struct, frozen=True, kw_only=True):
    """The InfluxDB 2 API to write to; without `url` the embedded store is used.

    Attributes:
        token_file: a file that holds the token, relative to the home folder; read again after
            every 401, so that a new token needs no restart.
        timeout_s: time-out of one request, in seconds.
    """

    url: str = ""
    token: Secret = Secret("")
    token_file: str = ""
    org: str = "iot"
    bucket: str = "iot"
    timeout_s: float = 10.0


class Bridge(msgspec.Struct, frozen=True, kw_only=True):
    """The bridge process.

    Attributes:
        id: its MQTT user name and client id.
        commit_messages: most messages in one journal commit.
        forward_messages: most messages in one write to the database.
    """

    id: str = "bridge"
    commit_messages: int = 500
    forward_messages: int = 2_000


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """How ingest health is judged.

    Attributes:
        window_s: length of the sliding window, in seconds.
        ok_ratio: at least this much of what is expected: level ok.
        down_ratio: less than this: level down.
    """

    window_s: int = 60
    ok_ratio: float = 0.95
    down_ratio: float = 0.5


class Log(msgspec.Struct, frozen=True, kw_only=True):
    """What the log on stderr looks like; "auto" is console on a terminal, else JSON."""

    format: Literal["auto", "console", "json"] = "auto"
    level: Literal["debug", "info", "warning", "error"] = "info"


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Every setting of one system."""

    mqtt: Mqtt = Mqtt()
    http: Http = Http()
    influx: Influx = Influx()
    bridge: Bridge = Bridge()
    health: Health = Health()
    log: Log = Log()


def build_settings(
    tree: Mapping[str, Any],
    environment: Mapping[str, str],
    flags: Mapping[str, Any],
    *,
    where: str = "iot.toml",
) -> Settings:
    """Merge the layers; later ones win.

    Args:
        tree: `iot.toml` as a tree.
        environment: variables; only `IOT_<SECTION>_<KEY>` counts.
        flags: `"mqtt.port": 1884`; None stands for a flag that was not given.

    Raises:
        ConfigurationError: unknown key, wrong type, or a value that makes no sense.
    """
    settings = convert_tree(tree, Settings, where=where, error=ConfigurationError, dec_hook=_secret)
    for name, text in environment.items():
        path = _setting_named(name)
        if path is not None:
            settings = _replace(settings, path, text, where=f"variable {name}", strict=False)
    for dotted, value in flags.items():
        if value is not None:
            section, _, key = dotted.partition(".")
            settings = _replace(settings, (section, key), value, where="flag", strict=True)
    _check(settings)
    return settings


def load_settings(home: Home, environment: Mapping[str, str], flags: Mapping[str, Any]) -> Settings:
    """Read `iot.toml` of a home (its defaults where it is missing) and merge the layers.

    Raises:
        ConfigurationError: as `build_settings`, or when the file cannot be read.
    """
    where = str(home.settings_file)
    try:
        text = home.settings_file.read_text("utf-8")
    except FileNotFoundError:
        text = ""
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigurationError(f"cannot read {where} ({exc})") from None
    tree = parse_toml(text, where=where, error=ConfigurationError)
    return build_settings(tree, environment, flags, where=where)


def is_loopback(host: str) -> bool:
    """Whether an address to listen on can be reached from this machine only."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _setting_named(variable: str) -> tuple[str, str] | None:
    """The (section, key) that a variable sets; None when it is not one of ours."""
    if not variable.startswith(PREFIX) or variable in _NOT_SETTINGS:
        return None
    section, _, key = variable.removeprefix(PREFIX).lower().partition("_")
    sections = get_type_hints(Settings)
    if section not in sections:
        _check_not_misspelt(variable, sections)
        return None
    known = get_type_hints(sections[section])
    if key not in known:
        names = [f"{PREFIX}{section}_{name}".upper() for name in known]
        raise ConfigurationError(f"unknown variable {variable}{nearest(variable, names)}")
    return section, key


def _check_not_misspelt(variable: str, sections: Mapping[str, type]) -> None:
    """A variable of somebody else may begin with our prefix; one that is nearly ours is ours."""
    known = [
        f"{PREFIX}{section}_{key}".upper()
        for section, shape in sections.items()
        for key in get_type_hints(shape)
    ]
    if difflib.get_close_matches(variable, known, n=1, cutoff=NEARLY):
        raise ConfigurationError(f"unknown variable {variable}{nearest(variable, known)}")


def _replace(
    settings: Settings, path: tuple[str, str], value: Any, *, where: str, strict: bool
) -> Settings:
    section, key = path
    old = getattr(settings, section)
    hint = get_type_hints(type(old))[key]
    try:
        new = msgspec.convert(value, hint, strict=strict, dec_hook=_secret)
    except msgspec.ValidationError as exc:
        raise ConfigurationError(f"{where}: {section}.{key}: {exc}") from None
    return msgspec.structs.replace(
        settings, **{section: msgspec.structs.replace(old, **{key: new})}
    )


def _check(settings: Settings) -> None:
    for name, port in (("mqtt.port", settings.mqtt.port), ("http.port", settings.http.port)):
        if not 0 <= port <= _MAX_PORT:
            raise ConfigurationError(f"{name} {port} is no port", "use 1 to 65535, or 0 for any")
    if not 0 < settings.health.down_ratio <= settings.health.ok_ratio <= 1:
        raise ConfigurationError("health: 0 < down_ratio <= ok_ratio <= 1 does not hold")
    if settings.health.window_s < 1:
        raise ConfigurationError("health.window_s must be at least 1")
    if settings.bridge.commit_messages < 1 or settings.bridge.forward_messages < 1:
        raise ConfigurationError("bridge: batch sizes must be at least 1")
    _check_influx(settings.influx)


def _check_influx(influx: Influx) -> None:
    if not 0 < influx.timeout_s <= MAX_TIMEOUT_S:
        raise ConfigurationError(f"influx.timeout_s must be above 0 and at most {MAX_TIMEOUT_S:g}")
    if not influx.url:
        return
    try:
        parts = urlsplit(influx.url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    else:
        if parts.username or parts.password:
            raise ConfigurationError("influx.url holds a password", "give influx.token instead")
    if not usable:
        raise ConfigurationError("influx.url is no URL", "use http://HOST:8086")
    if not influx.org or not influx.bucket:
        raise ConfigurationError("influx.org and influx.bucket must not be empty")


def _secret(kind: type, value: Any) -> Any:
    if kind is Secret and isinstance(value, str):
        return Secret(value)
    # msgspec adds the key to a TypeError, and only to that and ValueError.
    msg = f"Expected `str`, got `{type(value).__name__}`"
    raise TypeError(msg)
