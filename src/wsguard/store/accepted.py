"""What every store takes: short keys, values within their bound, an end in time. Anything else is refused whole."""

from __future__ import annotations

import math

from wsguard.vocabulary.errors import StoreError

MOST_KEY_BYTES = 64
"""A key is a hash; the longest in use (SHA-512) has these."""
MOST_NAME_CHARACTERS = 64
"""Spaces and streams are named by us, never by who asks."""


def check_name(name: str) -> None:
    """Refuse what is no name of a space or stream. Raises StoreError."""
    if not 0 < len(name) <= MOST_NAME_CHARACTERS or not name.isascii():
        raise StoreError(f"a space or stream is named by 1 to {MOST_NAME_CHARACTERS} ASCII characters")


def check_place(space: str, key: bytes) -> None:
    """Refuse what is no place of a value. Raises StoreError."""
    check_name(space)
    check_key(key)


def check_key(key: bytes) -> None:
    """Refuse what is no key. Raises StoreError."""
    if not 0 < len(key) <= MOST_KEY_BYTES:
        raise StoreError(f"a key has 1 to {MOST_KEY_BYTES} bytes, this one {len(key)}: use hashed_key")


def check_value(value: bytes, most: int) -> None:
    """Refuse a *value* of more than *most* bytes. Raises StoreError."""
    if len(value) > most:
        raise StoreError(f"a value of {len(value)} bytes; limits.store_value allows {most}")


def check_end(expires_at: float) -> None:
    """Refuse a value that would stay for ever: a bounded store would fill with them. Raises StoreError."""
    if not math.isfinite(expires_at):
        raise StoreError("a value needs an end: expires_at is a number of Unix seconds")
