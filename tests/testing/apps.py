"""Small ASGI apps as a project under test would have them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from wsguard import Policy
from wsguard.asgi import WebSocketGuard

ORIGIN = "https://app.example.com"
EVIL = "https://evil.example"


class Echo:
    """Opens every socket and answers `/missing` with a close before the accept; counts what reaches it."""

    def __init__(self) -> None:
        self.scopes: list[dict[str, Any]] = []
        self.lifespan: list[str] = []

    async def __call__(self, scope: dict[str, Any], receive: Callable[..., Any], send: Callable[..., Any]) -> None:
        if scope["type"] == "lifespan":
            while True:
                kind = (await receive())["type"]
                self.lifespan.append(kind)
                await send({"type": f"{kind}.complete"})
                if kind == "lifespan.shutdown":
                    return
        self.scopes.append(scope)
        await receive()
        if scope["path"] == "/missing":
            await send({"type": "websocket.close", "code": 1000})
            return
        if scope["path"] == "/raises":
            raise RuntimeError("a fault of the app")
        await send({"type": "websocket.accept", "subprotocol": next(iter(scope["subprotocols"]), None)})
        await send({"type": "websocket.send", "text": "x" * 70_000})
        while (await receive())["type"] != "websocket.disconnect":
            pass


class GuardedEcho(WebSocketGuard):
    """An Echo behind a guard, by default for one origin."""

    def __init__(self, policy: Policy | None = None, **options: Any) -> None:
        self.echo = Echo()
        if policy is None and "routes" not in options:
            policy = Policy(origins=[ORIGIN])
        super().__init__(self.echo, policy=policy, **options)
