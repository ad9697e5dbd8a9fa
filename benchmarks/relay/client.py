"""One TLS WebSocket connection under load: sends, compares every echoed byte, sends again."""

import asyncio
import ssl
from dataclasses import dataclass
from typing import cast

import aiofastnet

from benchmarks.relay.errors import BenchmarkError
from benchmarks.relay.frames import Reel
from benchmarks.relay.handshake import HOST, is_tunnel, new_key, request_head

_CAPACITY = 1 << 18


class Budget:
    """How many messages are still to be sent and to arrive; shared by all connections, so that all end together."""

    def __init__(self, messages: int) -> None:
        self._to_send = messages
        self._to_arrive = messages
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def take(self, wanted: int) -> int:
        granted = min(wanted, self._to_send)
        self._to_send -= granted
        return granted

    def arrived(self, count: int) -> None:
        self._to_arrive -= count
        if self._to_arrive < 0:
            self.fail("more messages arrived than were sent")
        elif self._to_arrive == 0 and not self.done.done():
            self.done.set_result(None)

    def fail(self, reason: str) -> None:
        if not self.done.done():
            self.done.set_exception(BenchmarkError(reason))


class Client(asyncio.BufferedProtocol):
    """Keeps `in_flight` messages under way while the budget lasts: for each that arrives it sends the next."""

    # All connections share one loop, and each read is used up at once: one buffer serves them all.
    _buffer = bytearray(_CAPACITY)
    _view = memoryview(_buffer)

    def __init__(self, reel: Reel, first: int) -> None:
        self._reel = reel
        self._reel_bytes = len(reel.sent) * reel.echoed_frame
        self._next_sent = first % len(reel.sent)
        self._expected_at = self._next_sent * reel.echoed_frame
        self._partial = 0
        self._key = new_key()
        self._head = b""
        self._budget: Budget | None = None
        self._closing = False
        self._failure: str | None = None
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.bytes_compared = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(request_head(self._key))

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._closing:
            self._fail(f"connection lost: {exc!r}")

    def start(self, budget: Budget, in_flight: int) -> None:
        self._budget = budget
        if self._failure is not None:
            budget.fail(self._failure)
        elif first := budget.take(in_flight):
            self._send(first)

    def close(self) -> None:
        self._closing = True
        self._transport.close()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._view

    def buffer_updated(self, nbytes: int) -> None:
        budget = self._budget
        if budget is None:
            self._shake_hands(nbytes)
            return
        at = self._expected_at
        expected = self._reel.echoed[at : at + nbytes]
        if len(expected) != nbytes or not self._buffer.startswith(expected):
            self._fail(f"{nbytes} bytes arrived that are not the echo of what was sent")
            return
        self._expected_at = (at + nbytes) % self._reel_bytes
        self.bytes_compared += nbytes
        whole, self._partial = divmod(self._partial + nbytes, self._reel.echoed_frame)
        if whole:
            if more := budget.take(whole):
                self._send(more)
            budget.arrived(whole)

    def _send(self, count: int) -> None:
        """Each message is a TLS record and a system call of its own, as when an application sends it."""
        frames, write = self._reel.sent, self._transport.write
        for _ in range(count):
            write(frames[self._next_sent])
            self._next_sent = (self._next_sent + 1) % len(frames)

    def _fail(self, reason: str) -> None:
        # Also between two rounds, when nobody waits: the next round then fails.
        self._failure = reason
        if self._budget is not None:
            self._budget.fail(reason)
        if not self.opened.done():
            self.opened.set_exception(BenchmarkError(reason))

    def _shake_hands(self, nbytes: int) -> None:
        self._head += self._buffer[:nbytes]
        if b"\r\n\r\n" not in self._head or self.opened.done():
            return
        if self._head.endswith(b"\r\n\r\n") and is_tunnel(self._head, self._key):
            self.opened.set_result(None)
        else:
            self._fail(f"no tunnel: {self._head[:200]!r}")


@dataclass(frozen=True)
class Negotiated:
    """What TLS agreed on."""

    version: str
    cipher: str


async def connect(port: int, context: ssl.SSLContext, reel: Reel, first: int) -> tuple[Client, Negotiated]:
    transport, client = await aiofastnet.create_connection(
        asyncio.get_running_loop(),
        lambda: Client(reel, first),
        "127.0.0.1",
        port,
        ssl=context,
        server_hostname=HOST,
    )
    await client.opened
    cipher, version, _ = transport.get_extra_info("cipher")
    return client, Negotiated(version, cipher)
