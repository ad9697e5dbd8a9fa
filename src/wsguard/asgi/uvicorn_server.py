"""
uvicorn, started as a secure deployment needs it (``wsguard run``).

What uvicorn has not is added: deadlines for the TLS handshake, for the request head and for the shutdown, caps on
connections that are not admitted yet, TLS settings of ours. What it would do unasked is off: reading forwarded fields,
per-message compression, its name in answers, and log lines that hold the query string of every socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from wsguard.asgi.uvicorn_socket import MendedWebSocketProtocol
from wsguard.engine.limits import AddressLimits, Place, address_key
from wsguard.tls.contexts import server_context

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Generator, Mapping

    from wsguard.asgi.types import ASGIApp, Receive, Scope, Send
    from wsguard.vocabulary.bounds import Limits

_SOCKET_MODE = 0o660
# Lines of "uvicorn.error" that hold a socket's query string, or report its own refusals as faults of the app.
_HIDDEN_BEGINNINGS = (
    '%s - "WebSocket %s"',
    "connection open",
    "connection closed",
    "connection rejected",
    "connection failed",
    "ASGI callable returned without completing handshake",
)


@dataclass(frozen=True)
class ListenPlace:
    """Where to listen: *host* and *port*, or the *path* of a Unix socket."""

    host: str = "127.0.0.1"
    port: int = 8443
    path: str | None = None


@dataclass(frozen=True)
class ServerSettings:
    """
    What uvicorn serves and how. *app* is an import string or an app; *options* are uvicorn's own, by their names.

    Without *certificate* and *key* (PEM files) it serves in the clear, for a trusted proxy in front.
    """

    app: Any
    place: ListenPlace
    limits: Limits
    certificate: Path | None = None
    key: Path | None = None
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])


class GuardedProtocol(HttpToolsProtocol):
    """
    uvicorn's HTTP/1.1 protocol with a deadline for each head, and a place in the counts until a head is whole.

    *limits* and *addresses* are set by `protocol_for`; a class attribute, because uvicorn makes the instances.
    """

    limits: Limits
    addresses: AddressLimits
    _deadline: asyncio.TimerHandle | None = None
    _place: Place | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Count the connection; one too many is ended at once."""
        super().connection_made(transport)
        key = address_key(self.client[0]) if self.client else "unix"
        self._place = self.addresses.enter(key)
        if self._place is None:
            transport.abort()
            return
        self._start_deadline()

    def data_received(self, data: bytes) -> None:
        """Start the deadline at the first byte of a later head, too."""
        cycle = cast("RequestResponseCycle | None", self.cycle)  # None until the first head is whole
        if self._deadline is None and cycle is not None and cycle.response_complete:
            self._start_deadline()
        super().data_received(data)

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._end_deadline()
        if self._place is not None:
            self._place.release()
        super().on_headers_complete()

    def handle_websocket_upgrade(self) -> None:
        """
        Hand the handshake on, and end the connection if nothing comes of it.

        uvicorn's WebSocket side stays silent on what it does not like (a large head, a body): no app is ever asked, and
        nobody would end the connection.
        """
        super().handle_websocket_upgrade()
        if not self.transport.is_closing():
            protocol = cast("Any", self.transport.get_protocol())
            self.loop.call_later(self.limits.head_timeout, self._end_if_unasked, self.transport, protocol)

    @staticmethod
    def _end_if_unasked(transport: asyncio.Transport, protocol: Any) -> None:
        if getattr(protocol, "scope", None) is None:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Give up what is held."""
        self._end_deadline()
        if self._place is not None:
            self._place.release()
        super().connection_lost(exc)

    def _start_deadline(self) -> None:
        self._deadline = self.loop.call_later(self.limits.head_timeout, self._head_is_late)

    def _end_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _head_is_late(self) -> None:
        self._deadline = None
        self.transport.abort()


def protocol_for(limits: Limits, clock: Callable[[], float]) -> type[GuardedProtocol]:
    """Return the protocol class of one server: its instances share *limits* and the counts of its connections."""
    shared: dict[str, Any] = {"limits": limits, "addresses": AddressLimits(limits, clock)}
    return type("GuardedProtocol", (GuardedProtocol,), shared)


class GuardedServer(uvicorn.Server):
    """uvicorn's server, on an event loop that gives TLS handshakes a deadline."""

    def __init__(self, config: uvicorn.Config, limits: Limits) -> None:
        super().__init__(config)
        self._limits = limits

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """End on SIGINT and SIGTERM, without raising them once more: that they ended well is the exit code's to say."""
        with super().capture_signals():
            yield
            cast("Any", self)._captured_signals.clear()  # noqa: SLF001 - uvicorn has no other way

    async def startup(self, sockets: Any = None) -> None:
        """Start as uvicorn does, with the deadline where uvicorn has no option for it."""
        loop = asyncio.get_running_loop()
        create_server = loop.create_server

        async def create_server_with_deadline(*arguments: Any, **options: Any) -> Any:
            if options.get("ssl") is not None:
                options["ssl_handshake_timeout"] = self._limits.tls_handshake
            return await create_server(*arguments, **options)

        guarded = cast("Any", loop)
        guarded.create_server = create_server_with_deadline
        try:
            await super().startup(sockets)
        finally:
            del guarded.create_server


def uvicorn_config(settings: ServerSettings, clock: Callable[[], float]) -> uvicorn.Config:
    """Return uvicorn's configuration for *settings*."""
    place, limits = settings.place, settings.limits
    secure: dict[str, Any] = {}
    if settings.certificate is not None and settings.key is not None:
        certificate, key = settings.certificate, settings.key

        def context_factory(*_: object) -> ssl.SSLContext:
            return server_context(certificate, key)

        secure = {"ssl_certfile": str(certificate), "ssl_keyfile": str(key), "ssl_context_factory": context_factory}
    ours: dict[str, Any] = {
        "host": place.host,
        "port": place.port,
        "uds": place.path,
        "http": protocol_for(limits, clock),
        "ws": MendedWebSocketProtocol,
        "ws_per_message_deflate": False,
        "proxy_headers": False,
        "server_header": False,
        "access_log": False,
        # Whole seconds; uvicorn by itself waits for ever for a client who does not answer.
        "timeout_graceful_shutdown": math.ceil(limits.close_deadline + limits.close_handshake),
    }
    return uvicorn.Config(settings.app, **{**ours, **secure, **settings.options})


def below(app: ASGIApp, root_path: str) -> ASGIApp:
    """Return *app* as uvicorn's ``--root-path`` has it called: with *root_path* before each path."""
    if not root_path:
        return app

    async def moved(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in {"http", "websocket"}:
            raw_path = scope.get("raw_path") or b""
            paths = {"path": root_path + scope["path"], "raw_path": root_path.encode("utf-8") + raw_path}
            scope = {**scope, "root_path": root_path, **paths}
        await app(scope, receive, send)

    return moved


def serve(settings: ServerSettings, clock: Callable[[], float], sockets: list[socket.socket] | None = None) -> int:
    """
    Serve until uvicorn is told to stop (SIGINT, SIGTERM), on *sockets* if they are bound already.

    Returns the exit code: 0, or 1 where the app did not start.
    """
    config = uvicorn_config(settings, clock)
    if settings.place.path is not None and sockets is None:
        keep_to_owner_and_group(Path(settings.place.path))
    keep_secrets_out_of_the_log()
    server = GuardedServer(config, settings.limits)
    server.run(sockets)
    return 0 if server.started else 1


def keep_to_owner_and_group(path: Path) -> None:
    """
    Let nobody but this user and its group connect to the Unix socket that uvicorn will bind at *path*.

    Whoever may connect is the trusted proxy. uvicorn gives a new socket mode 0666, and one in the place of another that
    one's: so there is another.
    """
    if not path.exists():
        with socket.socket(socket.AF_UNIX) as placeholder:
            placeholder.bind(str(path))
    if path.is_socket():
        path.chmod(_SOCKET_MODE)


def keep_secrets_out_of_the_log() -> None:
    """
    Take uvicorn's lines about each socket out: they hold its query string. The decision log has one instead.

    Below INFO it writes whole requests, cookies and all, which a log configuration might ask for.
    """
    for name in ("uvicorn.error", "uvicorn.asgi"):
        logging.getLogger(name).addFilter(_is_shown)


def _is_shown(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.INFO and not str(record.msg).startswith(_HIDDEN_BEGINNINGS)
