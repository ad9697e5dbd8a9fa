"""
The two TLS transports that can carry the gateway: aiofastnet (on uvloop) and the standard library's.

Everything else in the gateway is written against asyncio's transport and protocol interfaces, so both pass the same
tests.
"""

from __future__ import annotations

import asyncio
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

from wsguard.vocabulary.errors import ConfigurationError

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Callable, Coroutine

EngineName = Literal["aiofastnet", "stdlib"]
P = TypeVar("P", bound=asyncio.BaseProtocol)

# Room for one relayed read and its records: more only costs memory, less costs system calls (docs/performance.md).
_BIO_BYTES = 4 * (16 * 1024 + 64)


class TransportEngine(Protocol):
    """How sockets become transports."""

    @property
    def description(self) -> str:
        """Name and version, for the start line."""
        ...

    @property
    def read_bytes(self) -> int:
        """How much is read at once: what one slow reader can add to its bound."""
        ...

    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        """Make the loop that this engine runs on."""
        ...

    async def accept(
        self, factory: Callable[[], P], sock: socket.socket, context: ssl.SSLContext, seconds: float
    ) -> tuple[asyncio.Transport, P]:
        """Do the server's TLS handshake on an accepted socket, within *seconds*."""
        ...

    async def connect(
        self, factory: Callable[[], P], sock: socket.socket, context: ssl.SSLContext | None, server_hostname: str | None
    ) -> tuple[asyncio.Transport, P]:
        """Make a transport of a connected socket, with TLS where a context is given."""
        ...

    def writer(self, transport: asyncio.Transport) -> Callable[[memoryview], None]:
        """Return the fastest safe way to write a view of the shared read buffer, which is reused right after."""
        ...

    def lender(self, view: memoryview) -> Callable[[int], memoryview]:
        """Return the fastest way to lend *view* for a read: what a protocol's ``get_buffer`` does."""
        ...


class FastTransports:
    """aiofastnet: OpenSSL driven from C, on uvloop where it is installed."""

    def __init__(self, shutdown_seconds: float) -> None:
        self._shutdown_seconds = shutdown_seconds
        try:
            import aiofastnet
        except ImportError:
            raise ConfigurationError(
                "tls_engine",
                "aiofastnet, which is not installed",
                "pip install 'wsguard[gateway]', or --tls-engine stdlib",
            ) from None
        self._aiofastnet: Any = aiofastnet

    @property
    def description(self) -> str:
        """Say whether OpenSSL is driven directly; a Python that links it statically gets the slower way."""
        way = "direct" if self._aiofastnet.OPENSSL_DYN_LIBS else "memory BIO: this Python links OpenSSL statically"
        return f"aiofastnet {version('aiofastnet')} ({way})"

    read_bytes = 256 * 1024

    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        """Return a uvloop, or asyncio's own loop where there is none."""
        try:
            import uvloop
        except ImportError:
            return asyncio.new_event_loop()
        return uvloop.new_event_loop()

    async def accept(
        self, factory: Callable[[], P], sock: socket.socket, context: ssl.SSLContext, seconds: float
    ) -> tuple[asyncio.Transport, P]:
        """See TransportEngine."""
        return await self._aiofastnet.connect_accepted_socket(
            asyncio.get_running_loop(),
            factory,
            sock,
            ssl=context,
            ssl_handshake_timeout=seconds,
            ssl_shutdown_timeout=self._shutdown_seconds,
            ssl_incoming_bio_size=_BIO_BYTES,
            ssl_outgoing_bio_size=_BIO_BYTES,
        )

    async def connect(
        self, factory: Callable[[], P], sock: socket.socket, context: ssl.SSLContext | None, server_hostname: str | None
    ) -> tuple[asyncio.Transport, P]:
        """See TransportEngine."""
        options: dict[str, Any] = {} if context is None else {"ssl": context, "server_hostname": server_hostname}
        return await self._aiofastnet.create_connection(asyncio.get_running_loop(), factory, sock=sock, **options)

    def writer(self, transport: asyncio.Transport) -> Callable[[memoryview], None]:
        """Hand the view over as it is: aiofastnet copies what it cannot send at once. Unchecked: it gets only views."""
        write: Callable[[memoryview], None] = getattr(transport, "write_nocheck", transport.write)
        return write

    def lender(self, view: memoryview) -> Callable[[int], memoryview]:
        """Lend it without a Python frame: aiofastnet always asks for -1, the only element of a list of one."""
        return [view].__getitem__


class StandardTransports:
    """asyncio and ssl of the standard library: slower, and always there."""

    def __init__(self, shutdown_seconds: float) -> None:
        self._shutdown_seconds = shutdown_seconds

    @property
    def description(self) -> str:
        """Name it."""
        return "stdlib asyncio"

    # asyncio's TLS keeps 256 KiB of its own a connection: less at once keeps the sum bounded as well.
    read_bytes = 64 * 1024

    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        """Return asyncio's own loop."""
        return asyncio.new_event_loop()

    async def accept(
        self, factory: Callable[[], P], sock: socket.socket, context: ssl.SSLContext, seconds: float
    ) -> tuple[asyncio.Transport, P]:
        """See TransportEngine."""
        transport, protocol = await asyncio.get_running_loop().connect_accepted_socket(
            factory, sock, ssl=context, ssl_handshake_timeout=seconds, ssl_shutdown_timeout=self._shutdown_seconds
        )
        return transport, protocol

    async def connect(
        self, factory: Callable[[], P], sock: socket.socket, context: ssl.SSLContext | None, server_hostname: str | None
    ) -> tuple[asyncio.Transport, P]:
        """See TransportEngine."""
        options: dict[str, Any] = {} if context is None else {"ssl": context, "server_hostname": server_hostname}
        return await asyncio.get_running_loop().create_connection(factory, sock=sock, **options)

    def writer(self, transport: asyncio.Transport) -> Callable[[memoryview], None]:
        """Copy first: asyncio's transports keep what they are given."""
        write = transport.write
        return lambda view: write(bytes(view))

    def lender(self, view: memoryview) -> Callable[[int], memoryview]:
        """Lend it whatever size is asked for."""
        return lambda _: view


async def adopted(
    opening: Coroutine[Any, Any, tuple[asyncio.Transport, P]], sock: socket.socket
) -> tuple[asyncio.Transport, P]:
    """
    Await *opening*, which makes a transport of *sock*; when that fails or is given up, close the socket safely.

    A socket must not be closed beneath a transport that lives: its descriptor would go to the next connection, which
    the old transport would then read, write and close.
    """
    task = asyncio.ensure_future(opening)
    try:
        return await asyncio.shield(task)
    except BaseException:
        task.add_done_callback(lambda task: _end_late(task, sock))
        raise


def _end_late(task: asyncio.Task[tuple[asyncio.Transport, P]], sock: socket.socket) -> None:
    if task.cancelled() or task.exception() is not None:
        # The transport closes its socket in the loop's next turn; where it never had it, this does.
        loop = asyncio.get_running_loop()
        loop.call_soon(loop.call_soon, sock.close)
    else:
        task.result()[0].abort()


def transport_engine(name: EngineName, shutdown_seconds: float) -> TransportEngine:
    """
    Return the engine called *name*; a closing connection has *shutdown_seconds* to take what is left and say so.

    Raises ConfigurationError where its package is missing.
    """
    return FastTransports(shutdown_seconds) if name == "aiofastnet" else StandardTransports(shutdown_seconds)
