"""The upstream all proxies share: a WebSocket echo server over plain TCP, quick enough not to be the bottleneck."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import cast

import aiofastnet
from websockets.speedups import apply_mask

from benchmarks.relay.errors import BenchmarkError
from benchmarks.relay.frames import CLOSE, server_frame
from benchmarks.relay.handshake import field, response_head

_CAPACITY = 1 << 20
_SHORT_LENGTH = 125


class Echo(asyncio.BufferedProtocol):
    """One connection: answers the opening handshake, then each frame with the same payload, unmasked."""

    def __init__(self) -> None:
        self._buffer = bytearray(_CAPACITY)
        self._view = memoryview(self._buffer)
        self._filled = 0
        self._open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._view[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        self._filled += nbytes
        used = self._echo() if self._open else self._shake_hands()
        left = self._filled - used
        if left and used:
            self._buffer[:left] = self._buffer[used : self._filled]
        self._filled = left

    def _shake_hands(self) -> int:
        end = self._buffer.find(b"\r\n\r\n", 0, self._filled)
        if end < 0:
            return 0
        key = field(bytes(self._buffer[:end]), b"sec-websocket-key")
        if key is None:
            raise BenchmarkError("a proxy asked the upstream for something that is no WebSocket")
        self._transport.write(response_head(key))
        self._open = True
        return end + 4

    def _echo(self) -> int:
        """Answer every whole frame, each in a system call of its own; return how many bytes they took."""
        at = 0
        while (frame := self._frame(at)) is not None:
            at, answer = frame
            self._transport.write(answer)
            if answer[0] == CLOSE:
                self._transport.close()
        return at

    def _frame(self, at: int) -> tuple[int, bytes] | None:
        """Where the frame that begins at `at` ends, and its echo; None while it is incomplete."""
        buffer, filled = self._buffer, self._filled
        if filled - at < 2:
            return None
        size = buffer[at + 1] & 0x7F
        mask_at = at + 2
        if size > _SHORT_LENGTH:
            mask_at += 2 if size == _SHORT_LENGTH + 1 else 8
            if filled < mask_at:
                return None
            size = int.from_bytes(buffer[at + 2 : mask_at], "big")
        end = mask_at + 4 + size
        if filled < end:
            return None
        payload = apply_mask(self._view[mask_at + 4 : end], buffer[mask_at : mask_at + 4])
        return end, server_frame(buffer[at], payload)


@contextlib.asynccontextmanager
async def upstream() -> AsyncGenerator[int]:
    """Serve on a free loopback port, and yield the port."""
    server = await aiofastnet.create_server(asyncio.get_running_loop(), Echo, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
