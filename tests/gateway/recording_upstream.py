"""An upstream that records what it was given, raw, and answers as the test says. One thread a connection."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.gateway.raw_client import Frame, Reader, frame, read_frame
from tests.leaks import Sink, saw
from wsguard.wire.response_head import accept_for

CLOSE, PING, PONG = 8, 9, 10


@dataclass
class Received:
    """One connection: its head, split, and the socket for scripts that go on."""

    head: bytes
    rest: bytes
    sock: socket.socket = field(repr=False)
    done: threading.Event = field(default_factory=threading.Event)

    @property
    def reader(self) -> Reader:
        """Reads what comes behind the head; made once."""
        if self._reader is None:
            self._reader = Reader(self.sock, self.rest)
        return self._reader

    _reader: Reader | None = None

    def frame(self) -> Frame | None:
        """Read one frame of the client's."""
        return read_frame(self.reader)

    @property
    def request_line(self) -> bytes:
        """The first line."""
        return self.head.split(b"\r\n", 1)[0]

    @property
    def fields(self) -> list[tuple[str, str]]:
        """Names as received, values."""
        pairs = (line.partition(b":") for line in self.head.split(b"\r\n")[1:] if line)
        return [(name.decode("latin-1"), value.strip().decode("latin-1")) for name, _, value in pairs]

    def first(self, name: str) -> str | None:
        """The first value of *name*, however often it stands there."""
        return next((value for key, value in self.fields if key.lower() == name.lower()), None)

    def value(self, name: str) -> str | None:
        """The only value of *name*, in any letter case."""
        values = [value for key, value in self.fields if key.lower() == name.lower()]
        assert len(values) <= 1, values
        return values[0] if values else None

    def switching_protocols(self, *extra: str) -> bytes:
        """A right 101 for this request."""
        accept = accept_for((self.first("Sec-WebSocket-Key") or "").encode()).decode()
        lines = ["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade"]
        return "\r\n".join([*lines, f"Sec-WebSocket-Accept: {accept}", *extra, "", ""]).encode()


Script = Callable[[Received], None]


def answer_anything(received: Received) -> None:
    """101 to whatever has a key, 200 to the rest; then echo nothing and wait for the end."""
    if received.first("Upgrade") is not None and received.first("Sec-WebSocket-Key") is not None:
        received.sock.sendall(received.switching_protocols())
        while received.sock.recv(65536):
            pass
    else:
        received.sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")


def hold(received: Received) -> None:
    """101, then the test itself uses the socket until it says done."""
    received.sock.settimeout(20)
    received.sock.sendall(received.switching_protocols())
    received.done.wait(60)


def hold_before_101(received: Received) -> None:
    """Answer nothing; the test does."""
    received.sock.settimeout(20)
    received.done.wait(60)


def echo(received: Received) -> None:
    """101, then every data frame back, unmasked, and a Close for a Close."""
    received.sock.sendall(received.switching_protocols())
    while (got := received.frame()) is not None:
        opcode = got.opcode if got.opcode != PING else PONG
        received.sock.sendall(frame(opcode, got.payload, fin=got.fin, masked=False))
        if got.opcode == CLOSE:
            return


class RecordingUpstream:
    """Listens on loopback; *script* serves each connection after its head was read."""

    def __init__(self, script: Script = answer_anything) -> None:
        self.script = script
        self.received: list[Received] = []
        self._changed = threading.Condition()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        """Its address as the gateway takes it."""
        return f"http://127.0.0.1:{self.port}"

    def receive_buffer(self, size: int) -> None:
        """Give the connections to come a small kernel buffer, which would hide what is not read."""
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)

    def count(self) -> int:
        """How many requests have come."""
        with self._changed:
            return len(self.received)

    def wait_for(self, count: int) -> Received:
        """Return request number *count* (from 1), waiting for it."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.received) >= count, 20), self.received
            return self.received[count - 1]

    def close(self) -> None:
        """Listen no more, and let every script end."""
        self._listener.close()
        with self._changed:
            for received in self.received:
                received.done.set()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):
            data = b""
            while b"\r\n\r\n" not in data:
                more = sock.recv(65536)
                if not more:
                    return
                data += more
            head, _, rest = data.partition(b"\r\n\r\n")
            saw(Sink.UPSTREAM, data, "the upstream")
            received = Received(head, rest, sock)
            with self._changed:
                self.received.append(received)
                self._changed.notify_all()
            self.script(received)
