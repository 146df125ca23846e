"""Mosquitto's command line clients: MQTT clients that are not ours."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from tests.services.requirements import require

if TYPE_CHECKING:
    from tests.harness.system import Credentials

HOW_TO_GET = "mosquitto_pub (Debian package mosquitto-clients)"


def publish(
    who: Credentials,
    payload: str | bytes,
    *,
    topic: str | None = None,
    password: str | None = None,
    client_id: str | None = None,
    qos: int = 1,
    retain: bool = False,
) -> int:
    """Publish one message with `mosquitto_pub`; its exit code."""
    command = [
        str(require("mosquitto_pub", HOW_TO_GET)),
        "-h", who.host, "-p", str(who.port), "-q", str(qos),
        "-i", client_id or who.device, "-u", who.device, "-P", password or who.password,
        "-t", topic or f"v1/{who.device}/readings", "-s" if payload else "-n",
        *(["-r"] if retain else []),
    ]  # fmt: skip
    body = payload.encode() if isinstance(payload, str) else payload
    done = subprocess.run(command, input=body, capture_output=True, timeout=30, check=False)
    return done.returncode
