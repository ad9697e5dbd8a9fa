"""
One transport as a bounded stream: bytes are pulled by whoever serves the connection, and written with backpressure.

Used for heads and pages. When a socket opens, the transport changes hands to the relay and the stream is done.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from wsguard.wire.frames import whole_frame_prefixes

if TYPE_CHECKING:
    from collections.abc import Callable

    from wsguard.gateway.reaper import Reaper
    from wsguard.vocabulary.bounds import Limits

_MOST_SIZES = 8192


# Whole frames by size: the prefixes that such a read begins with, and the view that is written on.
KnownSizes = dict[int, tuple[tuple[bytes, ...], memoryview]]


class ReadBuffer:
    """
    The one buffer that every connection of a loop is read into: used up, or copied, before the next read.

    It remembers, for each direction, what a read of a size begins with when it is one whole frame, and the slice that
    is then written: making both for every read would cost more than the rest of the relay. The sizes are the peers'
    to choose, so at most `_MOST_SIZES` are remembered; others take the longer way.
    """

    __slots__ = ("data", "from_clients", "from_upstream", "view")

    def __init__(self, size: int) -> None:
        self.data = bytearray(size)
        self.view = memoryview(self.data)
        self.from_clients: KnownSizes = {}
        self.from_upstream: KnownSizes = {}

    def remember(self, nbytes: int, *, masked: bool) -> None:
        """Remember reads of *nbytes* from clients (masked) or from the upstream."""
        known = self.from_clients if masked else self.from_upstream
        if len(known) < _MOST_SIZES:
            known[nbytes] = (whole_frame_prefixes(nbytes, masked=masked), self.view[:nbytes])


class StreamEnded(ConnectionError):
    """The connection ended while bytes were awaited or written."""


class ByteStream(asyncio.BufferedProtocol):
    """
    A pull stream over one transport.

    At most `Limits.early_bytes` plus one read wait in *data*; then the peer is not read until somebody takes some.
    """

    def __init__(self, buffer: ReadBuffer, limits: Limits, reaper: Reaper) -> None:
        self.data = bytearray()
        self.transport: asyncio.Transport
        self.ended = False
        self.lost = False
        self.reset = False
        self.on_lost: Callable[[], object] | None = None
        self.successor: asyncio.BufferedProtocol | None = None
        self._reaper = reaper
        self._buffer = buffer
        self._limits = limits
        self._reader: asyncio.Future[None] | None = None
        self._drainer: asyncio.Future[None] | None = None
        self._writing_paused = False
        self._reading_paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self.transport = cast(
            "asyncio.Transport", transport
        )  # aiofastnet's are no subclasses, but have all its methods
        self.transport.set_write_buffer_limits(high=self._limits.buffer)
        self._reaper.watch(self.transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Lend the shared buffer for one read."""
        del sizehint
        return self._buffer.view

    def buffer_updated(self, nbytes: int) -> None:
        """Copy what was read; stop reading when too much waits."""
        self.data += self._buffer.view[:nbytes]
        if len(self.data) >= self._limits.early_bytes and not self._reading_paused:
            self._reading_paused = True
            self.transport.pause_reading()
        self._wake(self._reader)

    def eof_received(self) -> bool:
        """Note that the peer sends no more; the transport closes itself."""
        self.ended = True
        self._wake(self._reader)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Note the end, and whether it came without a FIN (over TLS: without close_notify); wake whoever waits."""
        self.reset = exc is not None or not self.ended
        self._reaper.forget(self.transport)
        self.ended = self.lost = True
        self._wake(self._reader)
        self._wake(self._drainer)
        if self.successor is not None:
            # asyncio's TLS tells the protocol that it had when the end came, though the relay has taken over since.
            self.successor.connection_lost(exc)
        elif self.on_lost is not None:
            self.on_lost()

    def pause_writing(self) -> None:
        """The peer does not read: `drain` waits."""
        self._writing_paused = True

    def resume_writing(self) -> None:
        """The peer reads again."""
        self._writing_paused = False
        self._wake(self._drainer)

    async def more(self) -> None:
        """Wait until bytes are added to *data*, whatever waits there. Raises StreamEnded when no more will come."""
        if self.ended:
            raise StreamEnded
        if self._reading_paused:
            # Who asks for more bounds what he keeps: a head by its own limit, a body by taking all of it.
            self._reading_paused = False
            self.transport.resume_reading()
        before = len(self.data)
        while len(self.data) == before:
            if self.ended:
                raise StreamEnded
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader

    def take(self, count: int) -> bytes:
        """Remove and return the first *count* waiting bytes."""
        taken = bytes(self.data[:count])
        del self.data[:count]
        return taken

    def take_all(self) -> bytes:
        """Remove and return all waiting bytes."""
        taken = bytes(self.data)
        self.data.clear()
        return taken

    def put_back(self, data: bytes) -> None:
        """Put bytes in front of those that wait."""
        self.data[:0] = data

    async def write(self, data: bytes) -> None:
        """Write *data* and wait while the peer reads too slowly. Raises StreamEnded when the connection is gone."""
        if self.lost:
            raise StreamEnded
        self.transport.write(data)
        await self._drained()
        if self.lost:
            raise StreamEnded

    async def _drained(self) -> None:
        while self._writing_paused and not self.lost:
            self._drainer = asyncio.get_running_loop().create_future()
            await self._drainer

    async def finish(self) -> None:
        """Close once the peer has taken everything, but wait no longer than `Limits.body_timeout`; then abort."""
        if not self.lost:
            self.transport.set_write_buffer_limits(high=1, low=0)
            try:
                async with asyncio.timeout(self._limits.body_timeout):
                    await self._drained()
            except TimeoutError:
                self.abort()
        self.close()

    def close(self) -> None:
        """Flush what was written, then close. Once: a second close makes asyncio's TLS forget how to abort."""
        if not self.transport.is_closing():
            self.transport.close()

    def abort(self) -> None:
        """Close at once; the peer can see that something is missing."""
        self.transport.abort()

    def _wake(self, waiter: asyncio.Future[None] | None) -> None:
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
