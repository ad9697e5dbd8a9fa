"""The smallest guarded app, without a framework: counts what reaches it, and echoes."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from tests.asgi.apps.recording import listed_proxies, record, record_call
from wsguard import Guard, Policy
from wsguard.asgi import WebSocketGuard

if TYPE_CHECKING:
    from wsguard.asgi.types import Receive, Scope, Send


async def bare(scope: Scope, receive: Receive, send: Send) -> None:
    """Accept every socket and answer every page: whatever is refused was refused by the guard or the server."""
    if scope["type"] == "lifespan":
        await _live(receive, send)
        return
    record_call(scope)
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
        await send({"type": "http.response.body", "body": b"page"})
        return
    await receive()
    offered = cast("list[str]", scope["subprotocols"])
    await send({"type": "websocket.accept", "subprotocol": offered[0] if offered else None})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message.get("text") or ""})


async def bare_without_lifespan(scope: Scope, receive: Receive, send: Send) -> None:
    """The same for a server that asks for a lifespan in vain."""
    if scope["type"] == "lifespan":
        raise NotImplementedError("lifespan")  # ASGI: an app says by raising that it knows no lifespan
    await bare(scope, receive, send)


async def _live(receive: Receive, send: Send) -> None:
    await receive()
    record("lifespan", state="startup")
    await send({"type": "lifespan.startup.complete"})
    await receive()
    record("lifespan", state="shutdown")
    await send({"type": "lifespan.shutdown.complete"})


guard = Guard(
    Policy(origins=["https://app.test"], hosts=["app.test"]),
    trusted_proxies=listed_proxies(),
)
app = WebSocketGuard(bare, guard=guard)
without_lifespan = WebSocketGuard(bare_without_lifespan, guard=guard)
