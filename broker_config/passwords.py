"""Password hashes in Mosquitto's `$7$` form: PBKDF2-HMAC-SHA-512. Pure.

The form is `$7$<iterations>$<salt, base64>$<hash, base64>`, as `mosquitto_passwd` 2.0 writes it,
so that the registry can be rendered to a Mosquitto password file without knowing a secret.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac

ITERATIONS = 101
"""Mosquitto 2.0's own default. Few, because our secrets are 256 random bits: stretching
protects guessable passwords, and would only slow a storm of reconnects here."""

SALT_BYTES = 12
"""Mosquitto 2.0's salt length, in bytes."""

SECRET_BYTES = 32
"""256 bits of randomness in a generated secret."""


_HASH_BYTES = 64
_MAX_ITERATIONS = 10_000_000


def hash_password(password: str, salt: bytes, *, iterations: int = ITERATIONS) -> str:
    """The `$7$` hash of a password.

    Args:
        salt: `SALT_BYTES` random bytes.
    """
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, iterations, _HASH_BYTES)
    return f"$7${iterations}${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"


def matches_password(password: str, encoded: str) -> bool:
    """Whether `password` has this `$7$` hash; False for anything that is no such hash."""
    try:
        empty, scheme, iterations_text, salt_text, digest_text = encoded.split("$")
        iterations = int(iterations_text)
        salt = base64.b64decode(salt_text, validate=True)
        digest = base64.b64decode(digest_text, validate=True)
    except (ValueError, binascii.Error):
        return False
    if empty or scheme != "7" or not 1 <= iterations <= _MAX_ITERATIONS or not digest:
        return False
    candidate = hashlib.pbkdf2_hmac(
        "sha512", password.encode("utf-8", "surrogatepass"), salt, iterations, len(digest)
    )
    return hmac.compare_digest(candidate, digest)
