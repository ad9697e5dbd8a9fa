"""
One server for several host names, safe to run beside a browser that visits strangers' pages.

It listens on loopback only, answers only to host names it knows (a rebound DNS name gets 421), and keeps every count
bounded.
"""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING

from websockets.asyncio.server import serve, unix_serve
from websockets.exceptions import ConnectionClosed

from wsguard.demo.errors import DemoError
from wsguard.demo.sites.assets import plain

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import AsyncGenerator, Iterable, Mapping
    from pathlib import Path
    from typing import Any

    from websockets.asyncio.server import ServerConnection
    from websockets.http11 import Request, Response

    from wsguard.demo.sites.site import Site

SOCKETS = 64
FRAME_BYTES = 4096


class Sites:
    """The sites of one server, by Host field."""

    def __init__(self, by_host: Mapping[str, Site]) -> None:
        self._by_host = by_host

    def respond(self, connection: ServerConnection, request: Request) -> Response | None:
        """Let the site that *request* names answer it."""
        site = self._site(request)
        if site is None:
            return plain(421, "No such host here.")
        if request.method != "GET":
            return plain(405, "Only GET.")
        if len(connection.server.connections) >= SOCKETS:
            return plain(503, "Too many sockets.")
        return site.respond(request)

    async def converse(self, connection: ServerConnection) -> None:
        """Let the site that the handshake names talk."""
        site = self._site(connection.request) if connection.request else None
        if site is None:
            return
        with suppress(ConnectionClosed):  # the browser left
            await site.converse(connection)

    def _site(self, request: Request) -> Site | None:
        hosts = request.headers.get_all("Host")
        return self._by_host.get(hosts[0]) if len(hosts) == 1 else None


@asynccontextmanager
async def serving_tls(
    by_host: Mapping[str, Site], listeners: Iterable[socket.socket], context: ssl.SSLContext
) -> AsyncGenerator[None]:
    """Serve *by_host* over TLS on *listeners*."""
    sites = Sites(by_host)
    async with AsyncExitStack() as stack:
        for listener in listeners:
            tls = {"sock": listener, "ssl": context, "ssl_handshake_timeout": 10}
            server = serve(sites.converse, process_request=sites.respond, **tls, **_options())
            await stack.enter_async_context(server)
        yield


@asynccontextmanager
async def serving_unix(by_host: Mapping[str, Site], path: Path) -> AsyncGenerator[None]:
    """Serve *by_host* on the Unix socket *path*, which no browser can reach."""
    sites = Sites(by_host)
    try:
        server = await unix_serve(sites.converse, str(path), process_request=sites.respond, **_options())
    except OSError as error:
        raise DemoError(f"cannot listen on {path}: {error} (does TMPDIR name a short path?)") from error
    async with server:
        yield


def _options() -> dict[str, Any]:
    return {
        "logger": logging.getLogger(__name__),
        "compression": None,
        "max_size": FRAME_BYTES,
        "max_queue": 8,
        "open_timeout": 10,
        "close_timeout": 1,
        "server_header": None,
    }
