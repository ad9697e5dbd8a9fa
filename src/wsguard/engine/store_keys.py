"""
The keys of the store: one hash over all the parts that a thing is found by, so that no two tuples share a key.

Parts joined by a character collide as soon as one holds it (``a:b`` + ``c``, ``a`` + ``b:c``); here each part's kind
and length stand before it (B-STORE-06).
"""

from __future__ import annotations

import hashlib

_NONE, _TEXT, _BYTES = b"N", b"T", b"B"
_LENGTH_BYTES = 8


def hashed_key(*parts: str | bytes | None) -> bytes:
    """Return the 32 bytes under which what *parts* name is stored. None, ``""`` and ``b""`` are three things."""
    return hashlib.sha256(encoded_parts(parts)).digest()


def encoded_parts(parts: tuple[str | bytes | None, ...]) -> bytes:
    """Write *parts* so that they could be read back: different tuples never give the same bytes."""
    return b"".join(_encoded(part) for part in parts)


def _encoded(part: str | bytes | None) -> bytes:
    if part is None:
        return _NONE
    # Lone surrogates come in from JSON's \ud800; they must not stop the lookup that would refuse them.
    kind, data = (_TEXT, part.encode("utf-8", "surrogatepass")) if isinstance(part, str) else (_BYTES, part)
    return kind + len(data).to_bytes(_LENGTH_BYTES) + data
