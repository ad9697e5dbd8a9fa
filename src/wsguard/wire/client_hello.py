"""
The first flight of TLS, read before TLS begins: the ClientHello and its server name (RFC 8446 §4.1.2, RFC 6066 §3).

Peeked, because a Python callback on a context that aiofastnet 1.2.0 uses ends the process. Bounded: a ClientHello over
`MAX_HELLO` bytes, or one whose lengths contradict each other, is none.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from wsguard.vocabulary.errors import HelloViolation

MAX_HELLO = 16 * 1024
_RECORD_HEADER = 5
_HANDSHAKE, _CLIENT_HELLO = 22, 1
_MAX_RECORD = 16384
_SERVER_NAME_EXTENSION, _HOST_NAME = 0, 0
_NAME = re.compile(rb"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,252})", re.ASCII)


@dataclass(frozen=True, slots=True)
class ClientHello:
    """What is read of a ClientHello: the server name as sent, or None where there is none."""

    server_name: str | None


def read_client_hello(data: bytes) -> ClientHello | None:
    """
    Read the ClientHello that *data* begins with; None while it is not whole.

    Raises HelloViolation as soon as the bytes can no longer become one.
    """
    message = _first_handshake_message(data)
    return None if message is None else ClientHello(_server_name(message))


def _first_handshake_message(data: bytes) -> bytes | None:
    # A handshake message may be split over records, each with a header of its own (RFC 8446 §5.1).
    message = bytearray()
    position = 0
    while True:
        if data[position : position + 1] not in (b"", b"\x16"):
            raise HelloViolation("not a TLS handshake record")
        header = data[position : position + _RECORD_HEADER]
        if header[1:2] not in (b"", b"\x03"):
            raise HelloViolation("not TLS")
        if len(header) < _RECORD_HEADER:
            return None
        length = int.from_bytes(header[3:5], "big")
        if not 0 < length <= _MAX_RECORD:
            raise HelloViolation("a record of an impossible length")
        message += data[position + _RECORD_HEADER : position + _RECORD_HEADER + length]
        if message and message[0] != _CLIENT_HELLO:
            raise HelloViolation("not a ClientHello")
        if len(message) >= 4:  # noqa: PLR2004 - type and length of the message
            whole = 4 + int.from_bytes(message[1:4], "big")
            if whole > MAX_HELLO:
                raise HelloViolation("a ClientHello larger than the bound")
            if len(message) >= whole:
                return bytes(message[4:whole])
        position += _RECORD_HEADER + length
        if position > MAX_HELLO:
            raise HelloViolation("a ClientHello in too many records")
        if len(data) < position:
            return None


class _Reader:
    """Reads length-prefixed vectors; whatever points outside of its vector is a violation."""

    __slots__ = ("_data", "_position")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    def take(self, length: int) -> bytes:
        end = self._position + length
        if end > len(self._data):
            raise HelloViolation("a length that points outside of the ClientHello")
        piece = self._data[self._position : end]
        self._position = end
        return piece

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def vector(self, size: int) -> bytes:
        return self.take(self.number(size))

    @property
    def at_end(self) -> bool:
        return self._position == len(self._data)


def _server_name(message: bytes) -> str | None:
    hello = _Reader(message)
    hello.take(2 + 32)  # legacy_version, random
    hello.vector(1)  # legacy_session_id
    hello.vector(2)  # cipher_suites
    hello.vector(1)  # legacy_compression_methods
    if hello.at_end:
        return None
    extensions = _Reader(hello.vector(2))
    found: str | None = None
    seen = False
    while not extensions.at_end:
        kind = extensions.number(2)
        content = extensions.vector(2)
        if kind != _SERVER_NAME_EXTENSION:
            continue
        if seen:
            raise HelloViolation("two server_name extensions")
        seen = True
        found = _host_name(content)
    return found


def _host_name(content: bytes) -> str:
    names = _Reader(_Reader(content).vector(2))
    kind = names.number(1)
    name = names.vector(2)
    if kind != _HOST_NAME or not names.at_end or not _NAME.fullmatch(name):
        raise HelloViolation("a server name that is none")
    return name.decode("ascii")
