"""One handshake on a TLS socket: the head out, the whole answer in, and a Close if a socket was opened."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wsguard.vocabulary import close_codes
from wsguard.wire.frames import close_payload, control_frame

if TYPE_CHECKING:
    from io import BufferedIOBase

SECONDS = 10.0
LONGEST_BODY = 1 << 20
SWITCHING_PROTOCOLS = 101
_CLOSE = 0x8
_NORMAL = 1000
_SIXTEEN_BITS, _SIXTY_FOUR_BITS = 126, 127


@dataclass(frozen=True)
class Exchanged:
    """
    What came back. *status* is 0 where the connection ended without an answer.

    *closed_by_server* is code and reason of a Close frame that did not answer ours. *sent_from* is our own address, as
    a server's log names it.
    """

    sent_from: str
    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    closed_by_server: tuple[int, str] | None = None


def exchange(port: int, context: ssl.SSLContext, server_name: str | None, head: bytes) -> Exchanged:
    """Send *head* to *port* of 127.0.0.1 and read what is answered. Raises TimeoutError for a server that says none."""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as plain,
        context.wrap_socket(plain, server_hostname=server_name) as secure,
    ):
        own_address, own_port = secure.getsockname()[:2]
        sent_from = f"{own_address}:{own_port}"
        secure.sendall(head)
        response = http.client.HTTPResponse(secure, method="GET")
        try:
            response.begin()
        except (http.client.HTTPException, ConnectionError, ssl.SSLError):
            return Exchanged(sent_from, 0)
        with response:
            headers = tuple((name, value) for name, value in response.getheaders())
            if response.status != SWITCHING_PROTOCOLS:
                return Exchanged(sent_from, response.status, headers, _body(response))
            closed = _close(secure, response.fp)
            return Exchanged(sent_from, response.status, headers, closed_by_server=closed)


def _body(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read(LONGEST_BODY)
    except (http.client.HTTPException, ConnectionError, ssl.SSLError):
        return b""


def _close(secure: ssl.SSLSocket, stream: BufferedIOBase) -> tuple[int, str] | None:
    """Close the opened socket as a browser does; return the server's own Close if it had sent one before."""
    own = close_payload(_NORMAL)
    with contextlib.suppress(OSError):
        secure.sendall(control_frame(_CLOSE, own, os.urandom(4)))
        while (frame := _read_frame(stream)) is not None:
            opcode, payload = frame
            if opcode == _CLOSE:
                code = int.from_bytes(payload[:2], "big") if payload else close_codes.NO_STATUS
                return None if payload == own else (code, payload[2:].decode("utf-8", "replace"))
    return None


def _read_frame(stream: BufferedIOBase) -> tuple[int, bytes] | None:
    """Read one frame of a server (RFC 6455 §5.2: never masked), or None at the end."""
    begin = stream.read(2)
    if len(begin) < 2:  # noqa: PLR2004 - opcode and length
        return None
    size = begin[1] & 0x7F
    if size == _SIXTEEN_BITS:
        size = int.from_bytes(stream.read(2), "big")
    elif size == _SIXTY_FOUR_BITS:
        size = int.from_bytes(stream.read(8), "big")
    if size > LONGEST_BODY:
        return None
    return begin[0] & 0x0F, stream.read(size)
