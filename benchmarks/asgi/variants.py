"""The apps that are compared: one echo, and what stands around it."""

from collections.abc import Callable
from typing import Any, Literal

from fastapi import FastAPI, WebSocket

from benchmarks.relay.handshake import ORIGIN
from wsguard import Context, Guard, Handshake, Identity, Limits, Policy
from wsguard.asgi import WebSocketGuard

BARE = "bare"
BY_HAND = "by hand"
GUARD = "guard"
IDENTITY = "guard, identity"
LIMITS = "guard, limits"
VARIANTS = (BARE, BY_HAND, GUARD, IDENTITY, LIMITS)
GUARDED = (GUARD, IDENTITY, LIMITS)
FOREIGN_ORIGIN = "https://evil.example"
FOREIGN_STATUS = {BARE: 101, BY_HAND: 403, GUARD: 403, IDENTITY: 403, LIMITS: 403}
"""How each answers a foreign origin; a run in which one does not counts for nothing."""

_ORIGINS = {ORIGIN}
# The load comes from one address: the caps by address, at their defaults, would count the benchmark and refuse it.
_RAISED = Limits(attempts_address=100_000_000, open_address=1_000_000, preauth_address=1_000_000)

App = Callable[..., Any]


class Known:
    """Says at once who it is, so that what an identity costs a message is measured, and not what finding it costs."""

    name = "known"
    carriage: Literal["explicit"] = "explicit"

    async def authenticate(self, handshake: Handshake, context: Context) -> Identity:
        return Identity("ada", "bench", "known")


def guard_of(name: str) -> Guard:
    if name == IDENTITY:
        return Guard(Policy(origins=[ORIGIN], auth=["known"]), authenticators=[Known()], limits=_RAISED)
    if name == LIMITS:
        bounds: dict[str, Any] = {"max_message": 1 << 20, "messages_per_second": 1_000_000, "idle": 600}
        return Guard(Policy(origins=[ORIGIN], max_lifetime=86_400, **bounds), limits=_RAISED)
    return Guard(Policy(origins=[ORIGIN]), limits=_RAISED)


def guarded(name: str, app: App) -> App:
    """Return *app* with what *name* puts around it; the check by hand stands in the app itself."""
    return WebSocketGuard(app, guard=guard_of(name)) if name in GUARDED else app


def fastapi_echo(name: str) -> FastAPI:
    app = FastAPI()
    if name in GUARDED:
        app.add_middleware(WebSocketGuard, guard=guard_of(name))

    @app.websocket("/echo")
    async def echo(socket: WebSocket) -> None:
        if name == BY_HAND and socket.headers.get("origin") not in _ORIGINS:
            await socket.close()
            return
        await socket.accept()
        async for message in socket.iter_bytes():
            await socket.send_bytes(message)

    return app
