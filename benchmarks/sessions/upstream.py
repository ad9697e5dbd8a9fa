"""An app that accepts every WebSocket and says nothing: a process of its own."""

from __future__ import annotations

import asyncio
import sys

import uvloop

from benchmarks.relay.handshake import field, response_head


class Silent(asyncio.Protocol):
    """One connection: a 101, and then it reads over what comes."""

    def __init__(self) -> None:
        self._head: bytes | None = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        if self._head is None:
            if data[:1] == b"\x88":
                self._transport.write(b"\x88\x02\x03\xe8")
                self._transport.close()
            elif data[:1] == b"\x89":  # the gateway pings a silent app, masked, without a payload
                self._transport.write(b"\x8a\x00")
            return
        self._head += data
        if b"\r\n\r\n" in self._head:
            key = field(self._head, b"sec-websocket-key")
            self._head = None
            self._transport.write(response_head(key or b""))


async def serve() -> None:
    """Listen on a free port, and say which."""
    server = await asyncio.get_running_loop().create_server(Silent, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    sys.exit(uvloop.run(serve()))
