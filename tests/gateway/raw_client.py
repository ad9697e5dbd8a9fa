"""A WebSocket client that does exactly what a test says: raw bytes over TLS, no library in between."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
from dataclasses import dataclass
from typing import Self

from tests.leaks import Sink, saw

KEY = "dGhlIHNhbXBsZSBub25jZQ=="


def handshake(
    host: str = "app.test", origin: str | None = "https://app.test", path: str = "/ws", extra: str = ""
) -> bytes:
    """A good handshake's bytes."""
    origin_line = "" if origin is None else f"Origin: {origin}\r\n"
    return (
        f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n{origin_line}{extra}\r\n"
    ).encode("latin-1")


def frame(opcode: int, payload: bytes, *, fin: bool = True, masked: bool = True, rsv: int = 0) -> bytes:
    """One frame; masked as a client's are, unless told otherwise."""
    first = (0x80 if fin else 0) | rsv << 4 | opcode
    bit = 0x80 if masked else 0
    if len(payload) < 126:
        head = bytes((first, bit | len(payload)))
    elif len(payload) < 65536:
        head = bytes((first, bit | 126)) + struct.pack(">H", len(payload))
    else:
        head = bytes((first, bit | 127)) + struct.pack(">Q", len(payload))
    if not masked:
        return head + payload
    mask = b"\x37\xfa\x21\x3d"  # fixed (RFC 6455 §5.7 uses it too): test names must not change from run to run
    repeated = (mask * (len(payload) // 4 + 1))[: len(payload)]
    return (
        head + mask + (int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")).to_bytes(len(payload), "big")
    )


@dataclass(frozen=True)
class Frame:
    """A frame as received from a server, or (unmasked already) from a client."""

    fin: bool
    opcode: int
    payload: bytes
    masked: bool = False

    @property
    def close_code(self) -> int:
        """The code of a Close."""
        return int.from_bytes(self.payload[:2], "big") if self.payload else 1005


def read_frame(reader: Reader) -> Frame | None:
    """Read one frame from *reader*; None at the end of the stream."""
    head = reader.exactly(2)
    if head is None:
        return None
    length = head[1] & 127
    if length == 126:
        length = struct.unpack(">H", reader.exactly(2) or b"\0\0")[0]
    elif length == 127:
        length = struct.unpack(">Q", reader.exactly(8) or b"\0" * 8)[0]
    masked = bool(head[1] & 128)
    mask = (reader.exactly(4) or b"\0" * 4) if masked else b"\0\0\0\0"
    payload = reader.exactly(length)
    if payload is None:
        return None
    if masked:
        payload = bytes(byte ^ mask[index & 3] for index, byte in enumerate(payload))
    return Frame(bool(head[0] & 128), head[0] & 15, payload, masked)


class Reader:
    """Reads whole pieces from a socket."""

    def __init__(self, sock: socket.socket, begin: bytes = b"") -> None:
        self.sock = sock
        self.data = bytearray(begin)

    def exactly(self, count: int) -> bytes | None:
        """Return *count* bytes, or None if the stream ends before."""
        while len(self.data) < count:
            try:
                more = self.sock.recv(65536)
            except (ConnectionError, ssl.SSLError):
                return None
            if not more:
                return None
            self.data += more
        piece = bytes(self.data[:count])
        del self.data[:count]
        return piece

    def head(self) -> bytes:
        """Return everything up to the empty line (or the end)."""
        while b"\r\n\r\n" not in self.data:
            try:
                more = self.sock.recv(65536)
            except (ConnectionError, ssl.SSLError):
                break
            if not more:
                break
            self.data += more
        head, separator, rest = bytes(self.data).partition(b"\r\n\r\n")
        self.data = bytearray(rest)
        return head + separator

    def everything(self) -> bytes:
        """Return all bytes until the end."""
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            while more := self.sock.recv(65536):
                self.data += more
        return bytes(self.data)


class RawClient:
    """One TLS connection to the gateway."""

    def __init__(
        self,
        address: tuple[str, int],
        context: ssl.SSLContext,
        server_name: str | None = "app.test",
        *,
        receive_buffer: int | None = None,
        source: str | None = None,
    ) -> None:
        plain = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
        plain.settimeout(20)
        if receive_buffer is not None:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        if source is not None:
            plain.bind((source, 0))
        plain.connect(address)
        self.plain = plain
        self.sock = context.wrap_socket(plain, server_hostname=server_name)
        self.reader = Reader(self.sock)

    def send(self, data: bytes) -> None:
        """Send raw bytes."""
        self.sock.sendall(data)

    def open(self, request: bytes | None = None) -> bytes:
        """Do a good handshake; return the 101's head."""
        self.send(handshake() if request is None else request)
        head = self.reader.head()
        assert head.startswith(b"HTTP/1.1 101 "), head
        return head

    def status(self, request: bytes) -> int:
        """Send a request; return the status that answers (0 for none)."""
        self.send(request)
        head = self.reader.head()
        words = head.split(b" ", 2)
        status = int(words[1]) if len(words) > 1 else 0
        if status >= 400:
            saw(Sink.REFUSALS, head, "the gateway")
        return status

    def frame(self) -> Frame | None:
        """Read one frame."""
        return read_frame(self.reader)

    def close(self) -> None:
        """Close the connection without another word."""
        self.sock.close()

    def reset(self) -> None:
        """End the TCP connection with a RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
