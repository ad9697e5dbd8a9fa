"""The ClientHello: read from what real TLS clients send, whole or split, and refused when its lengths lie."""

from __future__ import annotations

import contextlib
import random
import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsguard.vocabulary.errors import HelloViolation
from wsguard.wire.client_hello import MAX_HELLO, read_client_hello


def real_hello(server_name: str | None) -> bytes:
    """The first flight that OpenSSL sends."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    connection = context.wrap_bio(incoming, outgoing, server_hostname=server_name)
    with pytest.raises(ssl.SSLWantReadError):
        connection.do_handshake()
    return outgoing.read()


def in_records(data: bytes, size: int) -> bytes:
    """Split one record's message over records of *size* bytes."""
    message = data[5:]
    pieces = [message[start : start + size] for start in range(0, len(message), size)]
    return b"".join(data[:3] + len(piece).to_bytes(2, "big") + piece for piece in pieces)


@pytest.mark.parametrize("name", ["app.test", "a.b.c.localhost", "xn--bcher-kva.example"])
def test_the_server_name_is_read(name: str) -> None:
    """What a real client sends is understood."""
    hello = read_client_hello(real_hello(name))
    assert hello is not None
    assert hello.server_name == name


def test_no_server_name_is_none() -> None:
    """A client that names no server is told from one that names an empty one."""
    hello = read_client_hello(real_hello(None))
    assert hello is not None
    assert hello.server_name is None


@pytest.mark.parametrize("size", [1, 7, 100])
def test_a_split_hello_is_the_same_hello(size: int) -> None:
    """B-TLS-01: a ClientHello split over records must not lose its name."""
    hello = read_client_hello(in_records(real_hello("app.test"), size))
    assert hello is not None
    assert hello.server_name == "app.test"


def test_a_hello_cut_at_every_byte_waits_for_more() -> None:
    """Half a ClientHello is neither refused nor taken for one without a name."""
    data = real_hello("app.test")
    for cut in range(len(data)):
        assert read_client_hello(data[:cut]) is None


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n",
        b"\x16\x02\x00\x00\x05",
        b"\x16\x03\x01\x00\x00",
        b"\x16\x03\x01\xff\xff",
        b"\x15\x03\x01\x00\x02\x01\x00",
        b"\x16\x03\x01\x00\x04\x02\x00\x00\x00",
        b"\x16\x03\x01\x00\x04\x01\xff\xff\xff",
        b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03",
    ],
)
def test_what_is_no_hello_is_refused(data: bytes) -> None:
    """Other protocols, impossible lengths and other handshake messages end the connection."""
    with pytest.raises(HelloViolation):
        read_client_hello(data)


def test_a_hello_over_the_bound_is_refused_early() -> None:
    """Nobody buffers what says itself that it is too large."""
    with pytest.raises(HelloViolation):
        read_client_hello(b"\x16\x03\x01\x40\x00\x01" + (MAX_HELLO + 1).to_bytes(3, "big"))


@given(st.integers(0, 2**32), st.integers(1, 8))
def test_flipped_bytes_raise_nothing_else(seed: int, flips: int) -> None:
    """Fuzz: a damaged ClientHello is read, waited for, or refused; never an IndexError."""
    chance = random.Random(seed)
    data = bytearray(real_hello("app.test"))
    for _ in range(flips):
        data[chance.randrange(len(data))] = chance.randrange(256)
    with contextlib.suppress(HelloViolation):
        read_client_hello(bytes(data))
