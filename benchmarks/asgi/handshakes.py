"""The load of handshakes: TCP, TLS, opening handshake, closing handshake, end; each answer checked."""

import asyncio
import os
import ssl
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.asgi.variants import FOREIGN_ORIGIN, FOREIGN_STATUS
from benchmarks.relay.errors import BenchmarkError
from benchmarks.relay.frames import CLOSE, client_frame
from benchmarks.relay.handshake import HOST, ORIGIN, is_tunnel, new_key, request_head

_AT_ONCE = 8
_DEADLINE = 60.0
# After the client has seen the end the server still finishes its task and writes its log line.
_SETTLE = 0.02
_NORMAL = (1000).to_bytes(2, "big")


@dataclass(frozen=True)
class HandshakeRound:
    cpu_us_per_handshake: float
    count: int


async def count_handshakes(
    port: int, context: ssl.SSLContext, count: int, cpu_seconds: Callable[[], float]
) -> HandshakeRound:
    await asyncio.sleep(_SETTLE)
    before = cpu_seconds()
    opened = await open_and_close(port, context, count)
    await asyncio.sleep(_SETTLE)
    cpu = cpu_seconds() - before
    if opened != count:
        raise BenchmarkError(f"{count} handshakes were sent, {opened} sockets opened")
    return HandshakeRound(cpu / count * 1e6, opened)


async def open_and_close(port: int, context: ssl.SSLContext, count: int) -> int:
    """Open and close *count* sockets, some at once; return how many the server opened."""
    left, opened = count, 0

    async def worker() -> None:
        nonlocal left, opened
        while left:
            left -= 1
            status = await handshake(port, context, ORIGIN)
            opened += status == 101

    async with asyncio.timeout(_DEADLINE):
        async with asyncio.TaskGroup() as group:
            for _ in range(_AT_ONCE):
                group.create_task(worker())
    return opened


async def handshake(port: int, context: ssl.SSLContext, origin: str) -> int:
    """Send one handshake of a page from *origin*, close what it opened, read to the end; return the status."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=HOST)
    try:
        key = new_key()
        writer.write(request_head(key).replace(ORIGIN.encode(), origin.encode()))
        head = await reader.readuntil(b"\r\n\r\n")
        status = int(head.split(b" ", 2)[1])
        if status == 101:
            if not is_tunnel(head, key):
                raise BenchmarkError(f"no tunnel: {head[:200]!r}")
            writer.write(client_frame(CLOSE, _NORMAL))
            await writer.drain()
            end = await reader.read(-1)
            if end != bytes((CLOSE, len(_NORMAL))) + _NORMAL:
                raise BenchmarkError(f"the Close was answered with {end[:20]!r}")
        return status
    except (asyncio.IncompleteReadError, ConnectionError) as error:
        raise BenchmarkError(f"a handshake was not answered: {error!r}") from None
    finally:
        writer.transport.abort()


async def check_foreign_origin(name: str, port: int, context: ssl.SSLContext) -> int:
    """Ask in the very run: a bare app opens a socket for a stranger, a guarded one does not."""
    status = await handshake(port, context, FOREIGN_ORIGIN)
    if status != FOREIGN_STATUS[name]:
        raise BenchmarkError(f"{name} answers {FOREIGN_ORIGIN} with {status}, not with {FOREIGN_STATUS[name]}")
    return status


def load_average() -> str:
    return " ".join(f"{value:.2f}" for value in os.getloadavg())
