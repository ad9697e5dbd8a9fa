"""The proof that the gateway measured is the guard: a frame that RFC 6455 §5.1 forbids ends its socket with 1002."""

import asyncio
import ssl

from benchmarks.relay.errors import BenchmarkError
from benchmarks.relay.frames import CLOSE, TEXT, server_frame
from benchmarks.relay.handshake import HOST, is_tunnel, new_key, request_head

BAD_FRAME = "an unmasked text frame from a client"
PROTOCOL_ERROR = 1002
_DEADLINE = 10.0


async def check_bad_frame(port: int, context: ssl.SSLContext) -> int:
    """Send one to wsguard and return the close code it answers with. Raises BenchmarkError if that is not 1002."""
    try:
        async with asyncio.timeout(_DEADLINE):
            code = await _close_code(port, context)
    except (TimeoutError, EOFError, OSError) as error:
        raise BenchmarkError(f"{BAD_FRAME} was not answered with a Close frame: {error!r}") from None
    if code != PROTOCOL_ERROR:
        raise BenchmarkError(f"{BAD_FRAME} was answered with {code}, not {PROTOCOL_ERROR}")
    return code


async def _close_code(port: int, context: ssl.SSLContext) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=HOST)
    try:
        key = new_key()
        writer.write(request_head(key))
        head = await reader.readuntil(b"\r\n\r\n")
        if not is_tunnel(head, key):
            raise BenchmarkError(f"no tunnel: {head[:200]!r}")
        # What a server sends is unmasked: exactly what a client must not send.
        writer.write(server_frame(TEXT, b"unmasked"))
        first, length = await reader.readexactly(2)
        payload = await reader.readexactly(length)
    finally:
        writer.close()
    if first != CLOSE:
        raise BenchmarkError(f"{BAD_FRAME} was answered with a frame that begins with {first:#x}")
    return int.from_bytes(payload[:2], "big")
