"""Start and end of the gateway: sockets are bound, signals heard, and at the end every socket is told first."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import socket
import ssl
import sys
import traceback
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from wsguard.gateway.connection import Services
from wsguard.gateway.listener import Listener, listening_socket
from wsguard.gateway.reaper import Reaper
from wsguard.gateway.relay import Heartbeat
from wsguard.gateway.stream import ReadBuffer
from wsguard.gateway.transports import EngineName, TransportEngine, transport_engine
from wsguard.gateway.upstream import Upstream, UpstreamAddress
from wsguard.vocabulary import close_codes

if TYPE_CHECKING:
    from wsguard.engine.sessions import SessionRegistry
    from wsguard.guard import Guard

_TELL_SECONDS = 60.0
_COLLECTIONS = (5_000, 10, 20)
"""A full collection comes with every million objects more, so that what some fault leaves behind is bounded, too."""


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """Where to listen. An *optional* one (::1 on a machine without IPv6) may be missing."""

    host: str
    port: int
    optional: bool = False


@dataclass(frozen=True)
class GatewaySettings:
    """
    Everything a gateway needs, read and checked. The log tells *notices* at start, and *urls* in its start line.

    *workers* is how many processes there shall be; in each of them *shared_port* lets it listen where the others do.
    """

    listen: tuple[ListenAddress, ...]
    context: ssl.SSLContext
    guard: Guard
    upstream: UpstreamAddress
    upstream_context: ssl.SSLContext | None = None
    engine: EngineName = "aiofastnet"
    notices: tuple[str, ...] = ()
    urls: tuple[str, ...] = field(default=())
    workers: int = 1
    shared_port: bool = False


class Gateway:
    """One running gateway in one event loop."""

    def __init__(self, settings: GatewaySettings, engine: TransportEngine) -> None:
        self._settings = settings
        self._engine = engine
        buffer = ReadBuffer(engine.read_bytes)
        limits = settings.guard.limits
        reaper = Reaper()
        self._services = Services(
            guard=settings.guard,
            upstream=Upstream(
                settings.upstream, settings.upstream_context, engine=engine, buffer=buffer, limits=limits, reaper=reaper
            ),
            engine=engine,
            buffer=buffer,
            heartbeat=Heartbeat(limits),
            reaper=reaper,
        )
        self._listeners: list[Listener] = []
        self._teller: asyncio.TimerHandle | None = None

    @property
    def sessions(self) -> SessionRegistry:
        """The live sockets."""
        return self._services.guard.sessions

    @property
    def addresses(self) -> list[str]:
        """Where it listens, as host:port."""
        return [listener.address for listener in self._listeners]

    def start(self, sockets: list[socket.socket]) -> None:
        """Accept on *sockets*, which are bound, and say so in the log."""
        asyncio.get_running_loop().set_exception_handler(_on_loop_exception)
        self._listeners = [Listener(sock, self._settings.context, self._services) for sock in sockets]
        for listener in self._listeners:
            listener.start()
        self._tell_later()
        self._services.guard.start()
        log = self._services.guard.log
        for notice in (*self._services.guard.notices, *self._settings.notices):
            log.event("gateway.notice", notice=notice)
        log.event(
            "gateway.listening",
            on=self.addresses,
            open=list(self._settings.urls) or None,
            upstream=str(self._settings.upstream),
            engine=self._engine.description,
            openssl=ssl.OPENSSL_VERSION,
        )

    async def stop(self) -> None:
        """Accept no more, close every socket with 1001, and wait for them, but no longer than the deadlines allow."""
        for listener in self._listeners:
            listener.stop()
        closed = self.sessions.close_all(close_codes.GOING_AWAY, "shutdown")
        for listener in self._listeners:
            await listener.end_connections()
        limits = self._services.limits
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limits.close_deadline + limits.close_handshake):
                await self._services.heartbeat.all_ended()
        self._services.heartbeat.stop()
        self._services.reaper.stop()
        self._services.upstream.close_idle()
        await self._services.guard.aclose()
        await self._services.guard.store.aclose()
        if self._teller is not None:
            self._teller.cancel()
        self._services.guard.log.tell_unfinished()
        self._services.guard.log.event("gateway.stopped", closed=closed)

    def _tell_later(self) -> None:
        self._teller = asyncio.get_running_loop().call_later(_TELL_SECONDS, self._tell)

    def _tell(self) -> None:
        self._services.guard.log.tell_unfinished()
        self._tell_later()


def bound_sockets(addresses: tuple[ListenAddress, ...], *, share: bool = False) -> list[socket.socket]:
    """Bind every address, with other workers if *share*; leave out an optional one that cannot be bound."""
    sockets: list[socket.socket] = []
    for address in addresses:
        if address.optional and not _has_address(address.host):
            continue
        port = sockets[0].getsockname()[1] if address.port == 0 and sockets else address.port
        sockets.append(listening_socket(address.host, port, share=share))
    return sockets


def bindable(addresses: tuple[ListenAddress, ...]) -> list[tuple[str, int]]:
    """Return host and port of each address, without the optional ones that this machine does not have."""
    return [(one.host, one.port) for one in addresses if not one.optional or _has_address(one.host)]


def run_gateway(settings: GatewaySettings) -> int:
    """Run until SIGTERM or SIGINT; return the exit code. Raises ConfigurationError before anything is served."""
    engine = transport_engine(settings.engine, settings.guard.limits.close_handshake)
    sockets = bound_sockets(settings.listen, share=settings.shared_port)
    if settings.guard.admin is not None:
        settings.guard.admin.bind()
    if settings.engine == "aiofastnet":
        _spare_the_collector()
    with asyncio.Runner(loop_factory=engine.new_event_loop) as runner:
        return runner.run(_serve(settings, engine, sockets))


def _spare_the_collector() -> None:
    """
    Let the garbage collector look seldom: what ends here is freed without it (tests/gateway/test_garbage.py).

    Not with asyncio's own TLS, which is a ring of objects a connection, each with a quarter of a megabyte.

    A full collection looks at every live object, 65 a socket, and nothing else happens meanwhile: with ten thousand
    sockets that took 0.3 s and more, time and again while they came.
    """
    gc.collect()
    gc.freeze()  # what the start has made stays
    gc.set_threshold(*_COLLECTIONS)


async def _serve(settings: GatewaySettings, engine: TransportEngine, sockets: list[socket.socket]) -> int:
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    gateway = Gateway(settings, engine)
    gateway.start(sockets)
    await stopping.wait()
    await gateway.stop()
    return 0


def _has_address(host: str) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.bind((host, 0))
    except OSError:
        return False
    return True


def _is_of_a_certificate(error: UnicodeDecodeError) -> bool:
    """Tell whether the transport stumbled over it when it had shaken hands, where it decodes the certificate."""
    frames = traceback.walk_tb(error.__traceback__)
    return any(frame.f_code.co_name.endswith("_on_handshake_complete") for frame, _ in frames)


def _on_loop_exception(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """
    Keep the noise of strangers out of stderr: what a peer can cause is counted elsewhere.

    aiofastnet reports a connect-and-close with an exception *class* in the context, hence the two looks. A client
    certificate whose names are no text ends in a UnicodeDecodeError, which the listener tells.
    """
    exception = context.get("exception")
    kind = exception if isinstance(exception, type) else type(exception)
    if exception is not None and issubclass(kind, OSError | asyncio.CancelledError | EOFError):
        return
    if isinstance(exception, UnicodeDecodeError) and _is_of_a_certificate(exception):
        return
    print(f"wsguard: {context.get('message')}: {exception!r}", file=sys.stderr)  # noqa: T201 - faults go to stderr
    if isinstance(exception, BaseException):
        traceback.print_exception(exception)
    del loop
