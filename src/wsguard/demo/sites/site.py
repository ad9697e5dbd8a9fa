"""A site of the demo, and how it reads a request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from wsguard.demo.observations import TEXT_KEPT, Sent

if TYPE_CHECKING:
    from websockets.asyncio.server import ServerConnection
    from websockets.http11 import Request, Response

FETCH_METADATA = ("Sec-Fetch-Site", "Sec-Fetch-Mode", "Sec-Fetch-Dest")


class Site(Protocol):
    """What one host name serves."""

    def respond(self, request: Request) -> Response | None:
        """Answer a page or refuse a handshake; None lets the handshake through."""
        ...

    async def converse(self, socket: ServerConnection) -> None:
        """Talk over a socket that `respond` let through, until it ends."""
        ...


def path_of(request: Request) -> str:
    """Return the path without its query."""
    return request.path.partition("?")[0]


def is_handshake(request: Request) -> bool:
    """Say whether *request* wants to open a WebSocket."""
    return request.headers.get("Upgrade", "").lower() == "websocket"


def origin_of(request: Request) -> str:
    """Return the Origin of a handshake, shortened, or an empty string."""
    return ", ".join(request.headers.get_all("Origin"))[:TEXT_KEPT]


def cookies_of(request: Request) -> dict[str, str]:
    """Return the cookies of *request* by name."""
    pairs = "; ".join(request.headers.get_all("Cookie")).split(";")
    split = (pair.strip().partition("=") for pair in pairs)
    return {name: value for name, equals, value in split if equals}


def sent_with(request: Request, cookie_names: tuple[str, ...]) -> Sent:
    """Return what a browser sent, of the cookies only those named."""
    cookies = cookies_of(request)
    fetch = {name: request.headers.get_all(name)[0][:TEXT_KEPT] for name in FETCH_METADATA if name in request.headers}
    return Sent(origin_of(request), tuple(name for name in cookie_names if name in cookies), fetch)
