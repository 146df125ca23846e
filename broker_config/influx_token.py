"""The token for InfluxDB: from the settings, or from a file that can be replaced while we run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker_config.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

    from broker_config.settings import Influx


def read_token(settings: Influx, home: Path) -> str:
    """The token, from the settings or from its file.

    Raises:
        ConfigurationError: there is none.
    """
    if settings.token:
        return _checked(settings.token.reveal(), "influx.token")
    if not settings.token_file:
        raise ConfigurationError(
            "influx.url is set without a token", "set IOT_INFLUX_TOKEN or influx.token_file"
        )
    path = home / settings.token_file
    try:
        token = path.read_text("utf-8-sig").strip()
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigurationError(f"cannot read influx.token_file {path} ({exc})") from None
    if not token:
        raise ConfigurationError(f"influx.token_file {path} is empty", "write the token into it")
    return _checked(token, f"influx.token_file {path}")


def _checked(token: str, where: str) -> str:
    """A token travels in an HTTP header: printable ASCII without spaces (RFC 9110 5.5)."""
    if token.isascii() and token.isprintable() and " " not in token:
        return token
    raise ConfigurationError(f"{where} is no token", "it must be one word of printable ASCII")
