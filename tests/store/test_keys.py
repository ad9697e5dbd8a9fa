"""The keys of the store."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsguard.engine.store_keys import encoded_parts, hashed_key

Parts = tuple[str | bytes | None, ...]
# Few characters and those that separate elsewhere, so that what could run together is tried.
PART = st.none() | st.text(st.sampled_from("a:\n\0,B8\ud800é"), max_size=4) | st.binary(max_size=4) | st.text()
PARTS = st.lists(PART, max_size=4).map(tuple)


def read_back(data: bytes) -> Parts:
    """Read an encoding by what it says of itself: kind, length, bytes."""
    parts: list[str | bytes | None] = []
    while data:
        kind, data = data[:1], data[1:]
        if kind == b"N":
            parts.append(None)
            continue
        length, data = int.from_bytes(data[:8]), data[8:]
        part, data = data[:length], data[length:]
        assert len(part) == length
        parts.append(part.decode("utf-8", "surrogatepass") if kind == b"T" else part)
    return tuple(parts)


@given(PARTS, PARTS)
def test_keys_are_hashed_tuples(one: Parts, other: Parts) -> None:
    """B-STORE-06: ids that hold a separator never run together into one key; what can be read back cannot collide."""
    assert read_back(encoded_parts(one)) == one
    assert (encoded_parts(one) == encoded_parts(other)) == (_typed(one) == _typed(other))
    assert (hashed_key(*one) == hashed_key(*other)) == (_typed(one) == _typed(other))


def _typed(parts: Parts) -> list[tuple[type, str | bytes | None]]:
    return [(type(part), part) for part in parts]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("a:b", "c"), ("a", "b:c")),
        (("a\nb",), ("a", "b")),
        (("a", ""), ("a",)),
        (("a", None), ("a", "")),
        ((None,), ("",)),
        (("",), (b"",)),
        (("None",), (None,)),
        (("N",), (None,)),
        (("ab", "c"), ("a", "bc")),
        (("é",), ("é".encode(),)),
        (("\ud800",), ("?",)),
        ((), (None,)),
    ],
)
def test_pairs_that_others_confused_have_two_keys(one: Parts, other: Parts) -> None:
    """Joined by a character, or written as text, each pair is one key."""
    assert hashed_key(*one) != hashed_key(*other)


def test_a_key_is_what_it_was_yesterday() -> None:
    """A store outlives its process, and a new version has to find what an old one put."""
    encoded = b"T" + (3).to_bytes(8) + b"jti" + b"N" + b"B" + (2).to_bytes(8) + b"\x00\xff"
    assert hashed_key("jti", None, b"\x00\xff") == hashlib.sha256(encoded).digest()
