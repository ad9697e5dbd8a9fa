"""What reaches a guide's app from outside: a browser's handshake, and the same with one thing wrong."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import ssl
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from wsguard.testing.browser import upgrade_headers

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence

HOST = "app.test"
ORIGIN = "https://app.test"
FOREIGN = "https://evil.test"
# Each is refused, whoever sends it. None sends no Origin: a client that is no browser.
WRONG_ORIGINS = (FOREIGN, "https://app.test.evil.test", "http://app.test", "null", None)
SECONDS = 20.0


@dataclass(frozen=True)
class Answer:
    """An answer over HTTP."""

    status: int
    fields: Mapping[str, str]
    cookies: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


@dataclass(frozen=True)
class Visitor:
    """
    Somebody who reaches `app.test` at *port* of loopback, and in the clear at *plain_port*.

    *unauthorized* is what answers a handshake without a credential: 401, where the server lets the guard say so, and
    *malformed* one whose credential came twice: 400 there.
    """

    port: int
    plain_port: int
    context: ssl.SSLContext
    unauthorized: int = 401
    malformed: int = 400

    @asynccontextmanager
    async def socket(
        self,
        path: str,
        *,
        origin: str = ORIGIN,
        fields: Mapping[str, str] | None = None,
        subprotocols: Sequence[str] = (),
    ) -> AsyncGenerator[ClientConnection]:
        """Open a socket at *path*, and close it in the end."""
        async with connect(
            f"wss://{HOST}{path}",
            sock=socket.create_connection(("127.0.0.1", self.port), timeout=SECONDS),
            ssl=self.context,
            additional_headers={**(fields or {}), "Origin": origin},
            subprotocols=[Subprotocol(name) for name in subprotocols] or None,
            proxy=None,
            open_timeout=SECONDS,
            close_timeout=SECONDS,
        ) as opened:
            yield opened

    def status(
        self,
        path: str,
        *,
        origin: str | None = ORIGIN,
        fields: Mapping[str, str] | None = None,
        subprotocols: Sequence[str] = (),
        secure: bool = True,
    ) -> int:
        """Return what answers a handshake: 101, or the status of its refusal."""
        offered = {"Sec-WebSocket-Protocol": ", ".join(subprotocols)} if subprotocols else {}
        sent = {**upgrade_headers(), **offered, **(fields or {})}
        return self.page("GET", path, origin=origin, fields=sent, secure=secure).status

    def page(
        self,
        method: str,
        path: str,
        *,
        origin: str | None = None,
        fields: Mapping[str, str] | None = None,
        body: bytes | str | None = None,
        secure: bool = True,
    ) -> Answer:
        """Ask over HTTP, on a connection of its own."""
        sent = {"host": HOST, "connection": "close", **{name.lower(): value for name, value in (fields or {}).items()}}
        if origin is not None:
            sent["origin"] = origin
        connection = _Connection(self, secure=secure)
        try:
            connection.request(method, path, body, sent)
            response = connection.getresponse()
            cookies = [value for name, value in response.getheaders() if name.lower() == "set-cookie"]
            kept = dict(cookie.partition(";")[0].split("=", 1) for cookie in cookies)
            found = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, found, kept, response.read())
        finally:
            connection.close()


class _Connection(http.client.HTTPConnection):
    """To loopback, by the name that the certificate has."""

    def __init__(self, visitor: Visitor, *, secure: bool) -> None:
        super().__init__(HOST, visitor.port if secure else visitor.plain_port, timeout=SECONDS)
        self._context = visitor.context if secure else None

    def connect(self) -> None:
        self.sock = socket.create_connection(("127.0.0.1", self.port), timeout=SECONDS)
        if self._context is not None:
            self.sock = self._context.wrap_socket(self.sock, server_hostname=HOST)


async def heard(opened: ClientConnection) -> Any:
    """Return the next message, which is JSON."""
    async with asyncio.timeout(SECONDS):
        return json.loads(await opened.recv())
