"""An ASGI server in the test's own loop: what it receives is put in by the test, what it was sent is kept."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from wsguard import Policy
from wsguard.asgi import WebSocketGuard

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Any, Receive, Send], Awaitable[None]]


def socket_scope(*, origin: str = "https://app.test", path: str = "/ws", **changes: Any) -> dict[str, Any]:
    """A right handshake's scope."""
    return {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "scheme": "wss",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [
            (b"host", b"app.test"),
            (b"upgrade", b"websocket"),
            (b"connection", b"Upgrade"),
            (b"sec-websocket-version", b"13"),
            (b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ=="),
            (b"origin", origin.encode()),
        ],
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 443),
        "subprotocols": [],
        "extensions": {"websocket.http.response": {}},
        **changes,
    }


def page_scope(**changes: Any) -> dict[str, Any]:
    """A right page's scope."""
    scope = socket_scope()
    del scope["subprotocols"], scope["extensions"]
    return {**scope, "type": "http", "method": "GET", "scheme": "https", "headers": [(b"host", b"app.test")], **changes}


class FakeServer:
    """
    Calls an app once. As uvicorn's, its `send` raises behind a close; it keeps what it was sent, and when.

    *calls* are the scopes with which `app`, the innermost one, was called.
    """

    def __init__(self, scope: dict[str, Any], behave: App | None = None) -> None:
        self.scope = scope
        self.sent: list[Message] = []
        self.order: list[str] = []
        self.calls: list[Any] = []
        self.waiting = asyncio.Event()
        self.closed = asyncio.Event()
        self._messages: asyncio.Queue[Message] = asyncio.Queue()
        self._behave = behave
        if scope.get("type") == "websocket":
            self._messages.put_nowait({"type": "websocket.connect"})

    async def app(self, scope: Any, receive: Receive, send: Send) -> None:
        """The innermost app: does what the test wants."""
        self.calls.append(scope)
        if self._behave is not None:
            await self._behave(scope, receive, send)

    async def run(self, app: App) -> None:
        """Serve the one connection."""
        await app(self.scope, self.receive, self.send)

    async def receive(self) -> Message:
        """The server's own receive: what the guard hands on where nothing can close the socket."""
        self.order.append("receive begins")
        self.waiting.set()
        try:
            return await self._messages.get()
        finally:
            self.waiting.clear()
            self.order.append("receive ends")

    async def send(self, message: Message) -> None:
        """The server's own send."""
        if self.closed.is_set():
            raise RuntimeError("Unexpected ASGI message behind the close")
        if message["type"] == "websocket.close":
            self.closed.set()
        self.order.append(message["type"])
        self.sent.append(message)

    def text(self, text: str) -> None:
        """The client sends a message."""
        self._messages.put_nowait({"type": "websocket.receive", "text": text})

    def disconnect(self, code: int, reason: str = "") -> None:
        """The client goes."""
        self._messages.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})


def guarded(app: App) -> WebSocketGuard:
    """*app* behind a guard that serves app.test."""
    return WebSocketGuard(app, policy=Policy(origins=["https://app.test"], hosts=["app.test"]))
