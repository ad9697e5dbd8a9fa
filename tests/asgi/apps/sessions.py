"""
A FastAPI app behind `WebSocketGuard`, with a route a rule: identities, limits, nested guards, and a page that closes.

What a socket of the plain ASGI part does is the last word of its path: ``/pass/wait``, ``/plain/busy``.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Annotated, Any, cast

from fastapi import Depends, FastAPI, WebSocket
from starlette.websockets import WebSocketDisconnect

from tests.asgi.apps.recording import listed_proxies, plain_message, record, record_call
from wsguard import Guard, Identity, Policy
from wsguard.asgi import WebSocketGuard, session
from wsguard.fastapi import identity, require_scope
from wsguard.vocabulary import reasons
from wsguard.vocabulary.bounds import Limits
from wsguard.vocabulary.decision import Refusal

if TYPE_CHECKING:
    from wsguard.asgi.types import Receive, Scope, Send
    from wsguard.engine.policy import Context
    from wsguard.engine.ports import Carriage
    from wsguard.vocabulary.handshake import Handshake

ORIGINS = ["https://app.test"]


class Pass:
    """``X-Pass: NAME[;SECONDS]``: whoever says a name has it, for so long. An authenticator as a user writes one."""

    name = "pass"
    carriage: Carriage = "explicit"

    async def authenticate(self, handshake: Handshake, context: Context) -> Identity | Refusal | None:
        """Read the field."""
        value = handshake.fields.first(b"x-pass")
        if value is None:
            return None
        name, _, seconds = value.decode("ascii").partition(";")
        if name == "invalid":
            return Refusal(reasons.CREDENTIAL_INVALID)
        if name == "forbidden":
            return Refusal(reasons.CREDENTIAL_AMBIENT)
        expires_at = time.time() + float(seconds) if seconds else None
        return Identity(name, "tests", "pass", scopes=frozenset({"read"}), expires_at=expires_at)


class Slow:
    """Thinks about whoever names a case in ``X-Slow`` until it is cancelled."""

    name = "slow"
    carriage: Carriage = "explicit"

    async def authenticate(self, handshake: Handshake, context: Context) -> Identity | Refusal | None:
        """Wait for ever."""
        case = (handshake.fields.first(b"x-slow") or b"").decode("ascii")
        record("thinking", case)
        try:
            await asyncio.Event().wait()
        finally:
            record("thought", case)
        return None


class Broken:
    """Raises."""

    name = "broken"
    carriage: Carriage = "explicit"

    async def authenticate(self, handshake: Handshake, context: Context) -> Identity | Refusal | None:
        """Raise."""
        raise RuntimeError("the store is on fire")


async def broken_list(origin: str) -> bool:
    """Stand for a customer database that cannot be reached."""
    raise ConnectionError(origin)


def policy(**keys: Any) -> Policy:
    """A policy of this app."""
    written: dict[str, Any] = {"origins": ORIGINS, "hosts": ["app.test"], "anonymous": True, **keys}
    return Policy(**written)


def named(**keys: Any) -> Policy:
    """A policy that asks who it is."""
    return policy(anonymous=False, auth=["pass"], **keys)


guard = Guard(
    routes={
        "/control/*": policy(http="open"),
        "/pass/*": named(),
        "/told/*": named(refusal="close"),
        "/page/*": named(),
        "/size/*": policy(max_message=125),
        "/rate/*": policy(messages_per_second=3),
        "/idle/*": policy(idle=0.3),
        "/life/*": policy(max_lifetime=0.3),
        "/slow/*": policy(anonymous=False, auth=["slow"]),
        "/broken/*": policy(anonymous=False, auth=["broken"]),
        "/broken-list/*": policy(origins=broken_list),
        "/nested/*": policy(origins=["https://app.test", "https://inner.test"]),
        "/*": policy(),
    },
    authenticators=[Pass(), Slow(), Broken()],
    trusted_proxies=listed_proxies(),
    limits=Limits(decision=1),
)
inner_guard = Guard(
    routes={"/nested/inner/*": named(origins=["https://inner.test"])},
    authenticators=[Pass()],
)
app = FastAPI()
app.add_middleware(WebSocketGuard, guard=guard)
_released: dict[str, asyncio.Event] = {}


@app.post("/control/close")
async def close(public_id: str, code: int, reason: str) -> dict[str, object]:
    """Close a socket from outside, as an app's own revocation does; say when, and how many were live."""
    return _close(public_id, code, reason)


@app.post("/control/close-in-thread")
def close_in_thread(public_id: str, code: int, reason: str) -> dict[str, object]:
    """The same from a thread: FastAPI runs what is no coroutine there."""
    return _close(public_id, code, reason)


def _close(public_id: str, code: int, reason: str) -> dict[str, object]:
    live = {one.public_id: one for guard_ in (guard, inner_guard) for one in guard_.sessions}
    found = live.get(public_id)
    at = time.monotonic()
    if found is not None:
        found.close(code, reason)
    return {"at": at, "found": found is not None, "live": len(live)}


@app.post("/control/release")
async def release(case: str) -> dict[str, object]:
    """Let a socket that is busy go on."""
    _released.setdefault(case, asyncio.Event()).set()
    return {}


@app.get("/control/tasks")
async def tasks() -> dict[str, object]:
    """How many tasks of this process are inside the guard, but this one, and how many sockets the guard counts."""
    inside = [task for task in asyncio.all_tasks() if task is not asyncio.current_task() and _is_inside(task)]
    return {"tasks": len(inside), "live": len(guard.sessions)}


def _is_inside(task: asyncio.Task[Any]) -> bool:
    coroutine: Any = task.get_coro()
    while coroutine is not None:
        code = getattr(coroutine, "cr_code", None)
        if code is not None and "/wsguard/" in code.co_filename:
            return True
        coroutine = getattr(coroutine, "cr_await", None)
    return False


Who = Annotated[Identity, Depends(identity)]
Writer = Annotated[Identity, Depends(require_scope("write"))]
Reader = Annotated[Identity, Depends(require_scope("read"))]


@app.get("/page/me")
async def page_me(who: Who) -> dict[str, str]:
    """Say who asks."""
    return {"subject": who.subject}


@app.get("/page/write")
async def page_write(who: Writer) -> dict[str, str]:
    """Nobody of these tests may write."""
    return {"subject": who.subject}


@app.websocket("/pass/fastapi")
async def socket_me(websocket: WebSocket, who: Reader) -> None:
    """Say who it is, then echo."""
    case = record_call(websocket.scope)
    await websocket.accept()
    await websocket.send_text(who.subject)
    try:
        while True:
            await websocket.send_text(await websocket.receive_text())
    except WebSocketDisconnect as ended:
        record("received", case, message={"type": "websocket.disconnect", "code": ended.code, "reason": ended.reason})
    record("returned", case)


@app.websocket("/pass/write")
async def socket_write(websocket: WebSocket, who: Writer) -> None:
    """Nobody of these tests may write."""
    record_call(websocket.scope)
    await websocket.accept()


@app.websocket("/plain/nobody")
async def socket_nobody(websocket: WebSocket, who: Who) -> None:
    """A route that asks nobody has no identity to depend on."""
    record_call(websocket.scope)
    await websocket.accept()


async def raw(scope: Scope, receive: Receive, send: Send) -> None:
    """Do what the path says, and write down all that comes."""
    if scope["type"] == "lifespan":
        return
    case = record_call(scope)
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"3")]})
        await send({"type": "http.response.body", "body": b"raw"})
        return
    await receive()
    what = str(scope["path"]).rpartition("/")[2]
    chosen = {"foreign": "not-offered", "first": next(iter(cast("list[str]", scope["subprotocols"])), None)}.get(what)
    await send({"type": "websocket.accept", "subprotocol": chosen, "headers": [(b"x-app", b"1")]})
    record("accepted", case)
    if what == "return":
        session(scope).close(3000, "revoked")
        record("returned", case)
        return
    if what == "busy":
        await _released.setdefault(case, asyncio.Event()).wait()
    while True:
        message = await receive()
        record("received", case, message=plain_message(message))
        if message["type"] == "websocket.disconnect":
            break
        await send({"type": "websocket.send", "text": message.get("text") or ""})
    # As an app does that has not heard of the end yet. Behind a close of the guard's nothing of this may raise.
    try:
        await send({"type": "websocket.send", "text": "too late"})
        await send({"type": "websocket.close", "code": 1000})
    except Exception as error:  # noqa: BLE001 - servers raise what they like
        record("raised", case, error=type(error).__name__)
    record("returned", case)


app.mount("/nested/inner", WebSocketGuard(raw, guard=inner_guard))
app.mount("/nested/open", raw)
app.mount("/", raw)
