"""A process that opens TLS WebSockets, holds them, and notes when each gets its Close frame (CLOCK_MONOTONIC)."""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
import time

import uvloop

_KEY = "dGhlIHNhbXBsZSBub25jZQ=="
_AT_ONCE = 100
_CLOSE = 0x88


class Socket(asyncio.Protocol):
    """One socket: it sends its handshake, and notes what comes."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._data = b""
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.closed: asyncio.Future[tuple[float, int]] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._data += data
        if not self.opened.done():
            head, separator, rest = self._data.partition(b"\r\n\r\n")
            if not separator:
                return
            if not head.startswith(b"HTTP/1.1 101"):
                self.opened.set_exception(RuntimeError(head.split(b"\r\n")[0].decode("latin-1")))
                return
            self.opened.set_result(None)
            self._data = rest
        # Short frames alone come here: pings of the gateway's, and its Close.
        while len(self._data) >= 2 and len(self._data) >= 2 + self._data[1]:
            frame, self._data = self._data[: 2 + self._data[1]], self._data[2 + self._data[1] :]
            if frame[0] == _CLOSE and not self.closed.done():
                self.closed.set_result((time.monotonic(), int.from_bytes(frame[2:4], "big")))

    def connection_lost(self, exc: Exception | None) -> None:
        for future in (self.opened, self.closed):
            if not future.done():
                future.set_exception(exc or ConnectionResetError("the connection ended"))
                future.exception()


async def hold(told: dict[str, object]) -> None:
    """Open what is *told*, say so, wait for the Close frames, and say when they came."""
    context = ssl.create_default_context(cafile=str(told["authority"]))
    loop = asyncio.get_running_loop()
    gate = asyncio.Semaphore(_AT_ONCE)

    async def opened(headers: str) -> Socket:
        request = (
            f"GET /ws HTTP/1.1\r\nHost: {told['host']}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {_KEY}\r\n{headers}\r\n"
        )
        async with gate:
            _, socket = await loop.create_connection(
                lambda: Socket(request.encode()),
                "127.0.0.1",
                int(str(told["port"])),
                ssl=context,
                server_hostname=str(told["host"]),
            )
            await socket.opened
        return socket

    headers: list[str] = told["headers"]  # type: ignore[assignment]
    sockets = await asyncio.gather(*map(opened, headers))
    print(json.dumps({"opened": len(sockets)}), flush=True)
    for socket, own in zip(sockets, headers, strict=True):
        socket.closed.add_done_callback(lambda closed, own=own: _tell(own, closed))
    await asyncio.gather(*(socket.closed for socket in sockets), return_exceptions=True)


def _tell(headers: str, closed: asyncio.Future[tuple[float, int]]) -> None:
    when, code = closed.result() if closed.exception() is None else (time.monotonic(), 0)
    print(json.dumps({"headers": headers, "at": when, "code": code}), flush=True)


if __name__ == "__main__":
    uvloop.run(hold(json.loads(sys.stdin.readline())))
