from __future__ import annotations

import base64
import queue
import re
import subprocess
from typing import TYPE_CHECKING

import paho.mqtt.client as paho
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from paho.mqtt.enums import CallbackAPIVersion

from broker_config.passwords import ITERATIONS, SALT_BYTES, hash_password, matches_password
from broker_config.registry import Enrolment, Registry, new_secret
from tests.services import mosquitto
from tests.services.mosquitto import MOSQUITTO, Mosquitto
from tests.services.requirements import require

from .strategies import UNTIMED

if TYPE_CHECKING:
    from pathlib import Path

SALT = bytes(range(SALT_BYTES))
CONNACK_TIMEOUT_S = 20

PASSWORDS = [
    "secret",
    "with space",
    "with:colon",
    "$7$101$looks$like",
    "Wärme-日本語-🌡",
    "x" * 200,
    "'\"\\",
    *(new_secret() for _ in range(5)),
]


def connack(broker: Mosquitto, name: str, password: str) -> str:
    """What the broker answers to a CONNECT: paho's name for the return code."""
    answers: queue.Queue[str] = queue.Queue()
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id=name)
    client.username_pw_set(name, password)
    client.on_connect = lambda _client, _data, _flags, reason, _properties: answers.put(str(reason))
    client.connect(broker.host, broker.port)
    client.loop_start()
    try:
        return answers.get(timeout=CONNACK_TIMEOUT_S)
    finally:
        client.disconnect()
        client.loop_stop()


def test_what_mosquitto_passwd_writes_is_accepted(tmp_path: Path) -> None:
    program = require("mosquitto_passwd", mosquitto.HOW_TO_GET)
    file = tmp_path / "passwords"
    file.touch(mode=0o600)
    for n, password in enumerate(PASSWORDS):
        subprocess.run([program, "-b", file, f"u{n}", password], check=True)

    hashes = dict(line.split(":", 1) for line in file.read_text().splitlines())
    assert len(hashes) == len(PASSWORDS)
    for n, password in enumerate(PASSWORDS):
        assert hashes[f"u{n}"].startswith("$7$")
        assert matches_password(password, hashes[f"u{n}"]), password
        assert not matches_password(password + "x", hashes[f"u{n}"])


def test_mosquitto_accepts_our_hashes_and_the_registrys(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "registry.db")
    names = [f"device-{n}" for n in range(3)]
    issued = registry.add_many([Enrolment(name) for name in names], now_ms=1)
    file = tmp_path / "passwords"
    lines = [f"{entry.name}:{entry.password_hash}" for entry in registry.entries()]
    lines += [f"u{n}:{hash_password(text, SALT)}" for n, text in enumerate(PASSWORDS)]
    file.write_text("\n".join([*lines, ""]))
    file.chmod(0o600)
    registry.close()

    program = require(MOSQUITTO, mosquitto.HOW_TO_GET)
    with Mosquitto(program, password_file=file, allow_anonymous=False) as broker:
        for name, secret in issued:
            assert connack(broker, name, secret) == "Success"
        for n, password in enumerate(PASSWORDS):
            assert connack(broker, f"u{n}", password) == "Success", password
        assert connack(broker, names[0], issued[1].secret) == "Not authorized"


@UNTIMED
@given(st.text(max_size=20), st.binary(max_size=20), st.integers(1, 200))
def test_a_password_matches_its_own_hash(password: str, salt: bytes, iterations: int) -> None:
    assert matches_password(password, hash_password(password, salt, iterations=iterations))


@UNTIMED
@given(st.text(max_size=20), st.text(max_size=20))
@example("", "\0")
def test_no_other_password_matches(password: str, other: str) -> None:
    # HMAC fills a key up with zeros (RFC 2104 section 2), so zeros at the end do not count.
    same = other.rstrip("\0") == password.rstrip("\0")
    assert matches_password(other, hash_password(password, SALT)) is same


@UNTIMED
@given(st.integers(0, 63), st.integers(1, 255))
def test_every_bit_of_the_hash_counts(position: int, flip: int) -> None:
    head, _, text = hash_password("secret", SALT).rpartition("$")
    digest = bytearray(base64.b64decode(text))
    digest[position] ^= flip
    assert not matches_password("secret", f"{head}${base64.b64encode(digest).decode()}")


@UNTIMED
@given(st.integers(1, 300).filter(lambda number: number != ITERATIONS))
def test_the_iterations_count(iterations: int) -> None:
    encoded = hash_password("secret", SALT).replace(f"${ITERATIONS}$", f"${iterations}$")
    assert not matches_password("secret", encoded)


def test_the_form_is_mosquittos() -> None:
    encoded = hash_password("secret", SALT)
    assert re.fullmatch(r"\$7\$101\$[A-Za-z0-9+/]{16}\$[A-Za-z0-9+/]{86}==", encoded)
    assert encoded != hash_password("secret", bytes(SALT_BYTES))


GOOD = hash_password("", SALT)


@pytest.mark.parametrize(
    "encoded",
    [
        "",
        "$",
        "$$$$",
        "secret",
        GOOD[1:],
        f"x{GOOD}",
        f"{GOOD}$",
        GOOD.replace("$7$", "$6$"),
        GOOD.replace("$101$", "$0$"),
        GOOD.replace("$101$", "$-101$"),
        GOOD.replace("$101$", "$$"),
        GOOD.replace("$101$", "$1e2$"),
        GOOD.replace("$101$", f"${10**9}$"),
        GOOD.replace("$101$", f"${'9' * 5_000}$"),
        GOOD.rpartition("$")[0] + "$",
        GOOD.rpartition("$")[0] + "$====",
        GOOD.rpartition("$")[0] + "$é",
        GOOD.rpartition("$")[0] + "$AA=A",
    ],
)
def test_anything_else_is_no_hash(encoded: str) -> None:
    assert not matches_password("", encoded)


@UNTIMED
@given(st.text("$7 10=aé\x00", max_size=30) | st.text(max_size=30), st.text(max_size=5))
def test_nothing_breaks_the_check(encoded: str, password: str) -> None:
    assert not matches_password(password, encoded)


def test_a_password_that_is_no_unicode_matches_nothing() -> None:
    assert not matches_password("\ud800", GOOD)
