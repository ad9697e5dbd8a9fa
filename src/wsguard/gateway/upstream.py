"""
Connections to the app behind: where it is, how it is reached, which idle ones may serve another page.

An upgrade always has a connection of its own, never one from the pool and never returned to it (B-UPSTREAM-03). An idle
connection is reused for safe methods only, because the upstream may be closing it that very moment.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wsguard.engine.forwarding import UpstreamName
from wsguard.gateway.stream import ByteStream, ReadBuffer, StreamEnded
from wsguard.gateway.transports import adopted
from wsguard.vocabulary import reasons
from wsguard.vocabulary.errors import ConfigurationError, UpstreamFailure
from wsguard.vocabulary.host import Host, HostSyntaxError
from wsguard.wire.response_head import parse_response_head, response_head_end

if TYPE_CHECKING:
    from wsguard.gateway.reaper import Reaper
    from wsguard.gateway.transports import TransportEngine
    from wsguard.vocabulary.bounds import Limits
    from wsguard.wire.response_head import ResponseHead

_PORTS = {"http": 80, "https": 443}
Destination = tuple[int, Any]


@dataclass(frozen=True, slots=True)
class UpstreamAddress:
    """Where the app is: a host and port, or the *path* of a Unix socket; over TLS where *scheme* is https."""

    scheme: str
    host: str
    port: int
    path: str | None = None

    @classmethod
    def parse(cls, url: str) -> UpstreamAddress:
        """Read ``http://host[:port]``, ``https://host[:port]`` or ``unix:PATH``. Raises ConfigurationError."""
        if url.startswith("unix:") and len(url) > len("unix:"):
            return cls("http", "localhost", 80, url.removeprefix("unix:"))
        expected = "http://HOST:PORT, https://HOST:PORT or unix:PATH"
        scheme, separator, authority = url.partition("://")
        if not separator:
            raise ConfigurationError("upstream", repr(url), f"{expected}; perhaps http://{url}")
        if scheme in {"ws", "wss"}:
            raise ConfigurationError("upstream", repr(url), f"{expected}; perhaps http{scheme[2:]}://{authority}")
        if scheme not in _PORTS:
            raise ConfigurationError("upstream", repr(url), expected)
        authority = authority.removesuffix("/")
        if any(mark in authority for mark in "/?#@"):
            raise ConfigurationError("upstream", repr(url), f"{expected}, without path, query or password")
        try:
            host = Host.parse_entry(authority)
        except HostSyntaxError as error:
            raise ConfigurationError("upstream", repr(url), f"{expected} ({error})") from None
        if host.port == 0:
            raise ConfigurationError("upstream", repr(url), "a port from 1 to 65535")
        return cls(scheme, host.name, host.port or _PORTS[scheme])

    @property
    def name(self) -> UpstreamName:
        """How it is called where Host or Origin are rewritten to it."""
        authority = self.host if self.port == _PORTS[self.scheme] else f"{self.host}:{self.port}"
        return UpstreamName(self.scheme, authority)

    @property
    def is_name(self) -> bool:
        """Tell whether it must be looked up."""
        return self.path is None and not Host(self.host).is_ip_literal

    def __str__(self) -> str:
        """Write it as the operator does."""
        return f"unix:{self.path}" if self.path else f"{self.scheme}://{self.host}:{self.port}"


class Upstream:
    """Opens connections to one app, and keeps a bounded number of idle ones."""

    def __init__(
        self,
        address: UpstreamAddress,
        context: ssl.SSLContext | None,
        *,
        engine: TransportEngine,
        buffer: ReadBuffer,
        limits: Limits,
        reaper: Reaper,
    ) -> None:
        self.address = address
        self._context = context
        self._engine = engine
        self._buffer = buffer
        self._limits = limits
        self._reaper = reaper
        self._idle: deque[tuple[ByteStream, float]] = deque()
        self._destinations = _resolve(address)

    async def connect(self) -> ByteStream:
        """Open a new connection. Raises UpstreamFailure: unreachable or TLS 502, slow 504."""
        try:
            async with asyncio.timeout(self._limits.upstream_connect):
                sock = await self._connected_socket()
                return await self._stream_over(sock)
        except TimeoutError:
            raise UpstreamFailure(reasons.UPSTREAM_SLOW, "connecting") from None
        except ssl.SSLError as error:
            raise UpstreamFailure(reasons.UPSTREAM_TLS, error.reason or type(error).__name__) from None
        except OSError as error:
            raise UpstreamFailure(reasons.UPSTREAM_UNREACHABLE, error.strerror or type(error).__name__) from None

    def reusable(self) -> ByteStream | None:
        """Take an idle connection that looks alive, or None. The newest is the least likely to be closing."""
        now = asyncio.get_running_loop().time()
        while self._idle:
            stream, since = self._idle.pop()
            if now - since < self._limits.upstream_pool_idle and not stream.ended and not stream.data:
                return stream
            stream.close()
        return None

    def release(self, stream: ByteStream) -> None:
        """Keep a connection whose two messages have both ended cleanly for another page."""
        if stream.ended or stream.data or self._limits.upstream_pool == 0:
            stream.close()
            return
        self._idle.append((stream, asyncio.get_running_loop().time()))
        if len(self._idle) > self._limits.upstream_pool:
            self._idle.popleft()[0].close()

    def close_idle(self) -> None:
        """Close every idle connection."""
        while self._idle:
            self._idle.pop()[0].close()

    async def _connected_socket(self) -> socket.socket:
        error: OSError | None = None
        for destination in self._destinations:
            try:
                return await _connect(destination)
            except OSError as failure:
                error = failure
        if self.address.is_name:
            # The name may mean another machine by now. This alone uses the resolver's thread.
            loop = asyncio.get_running_loop()
            self._destinations = await loop.run_in_executor(None, _resolve, self.address)
        raise error or OSError(f"{self.address.host} has no address")

    async def _stream_over(self, sock: socket.socket) -> ByteStream:
        server_hostname = self.address.host.strip("[]") if self._context is not None else None
        opening = self._engine.connect(
            lambda: ByteStream(self._buffer, self._limits, self._reaper), sock, self._context, server_hostname
        )
        _, stream = await adopted(opening, sock)
        return stream


async def read_response_head(stream: ByteStream, method: str, limits: Limits) -> ResponseHead:
    """Read one response head to *method* from *stream*. Raises UpstreamFailure where none comes."""
    searched = 0
    while True:
        end = response_head_end(stream.data, searched, limits.upstream_head)
        if end is not None:
            return parse_response_head(stream.take(end), method)
        searched = len(stream.data)
        try:
            await stream.more()
        except StreamEnded:
            raise UpstreamFailure(reasons.UPSTREAM_UNREACHABLE, "the connection ended before a response") from None


def _resolve(address: UpstreamAddress) -> list[Destination]:
    """Look the address up. A process without threads is cheaper a system call, so this is done once, at start."""
    if address.path is not None:
        return [(socket.AF_UNIX, address.path)]
    try:
        found = socket.getaddrinfo(address.host.strip("[]"), address.port, type=socket.SOCK_STREAM)
    except OSError:
        return []
    return [(family, destination) for family, _, _, _, destination in found]


async def _connect(destination: Destination) -> socket.socket:
    family, address = destination
    loop = asyncio.get_running_loop()
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)  # noqa: FBT003 - the standard library's signature
        # Not loop.sock_connect: uvloop asks its resolver threads even for a number.
        try:
            sock.connect(address)
        except BlockingIOError:
            await _writable(loop, sock)
            error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if error:
                raise OSError(error, os.strerror(error)) from None
    except BaseException:
        sock.close()
        raise
    return sock


async def _writable(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
    ready = loop.create_future()
    loop.add_writer(sock, lambda: ready.done() or ready.set_result(None))
    try:
        await ready
    finally:
        loop.remove_writer(sock)
