"""
A chat in FastAPI. Who knows the password speaks, guests listen; foreign pages can do neither.

Run it here, with a certificate for localhost, and open https://localhost:8443:

    APP_PASSWORD=… uvicorn app:app --port 8443 --ssl-certfile cert.pem --ssl-keyfile key.pem --no-proxy-headers

APP_ORIGINS: the pages that may connect, separated by blanks. APP_TRUSTED_PROXIES: the proxies in front, if there are.
"""

import hashlib
import os
import secrets
import time
from itertools import count
from pathlib import Path
from typing import Annotated, Literal

from fastapi import Cookie, Depends, FastAPI, HTTPException, Response, WebSocket
from fastapi.responses import FileResponse
from pydantic import BaseModel, Field

from wsguard import Context, Guard, Handshake, Identity, Policy, Refusal, only_cookie, reasons
from wsguard.asgi import WebSocketGuard
from wsguard.fastapi import identity, require_scope

HERE = Path(__file__).parent
ORIGINS = os.environ.get("APP_ORIGINS", "https://localhost:8443").split()
PROXIES = os.environ.get("APP_TRUSTED_PROXIES", "").split()
PASSWORD = os.environ["APP_PASSWORD"]
COOKIE = "__Host-session"
HOURS = 8

logins: dict[str, Identity] = {}


def digest(token: str) -> str:
    """Return what is kept of a cookie: who reads `logins` cannot log in with it."""
    return hashlib.sha256(token.encode()).hexdigest()


class SessionCookie:
    """Says who sent a handshake, by the cookie of `log_in`."""

    name = "session"
    carriage: Literal["ambient"] = "ambient"  # the browser attaches it by itself, to foreign pages' handshakes too

    async def authenticate(self, handshake: Handshake, context: Context) -> Identity | Refusal | None:
        """Look the cookie up."""
        token = only_cookie(handshake, COOKIE)
        if token is None or isinstance(token, Refusal):
            return token  # none, or two: a sibling domain may have set one of them
        return logins.get(digest(token)) or Refusal(reasons.CREDENTIAL_INVALID)


guard = Guard(
    routes={
        "/ws/*": Policy(origins=ORIGINS, auth=["session"], max_message=4096, messages_per_second=10),
        "/*": Policy(origins=ORIGINS, anonymous=True, http="same-policy"),
    },
    authenticators=[SessionCookie()],
    trusted_proxies=PROXIES,
)
app = FastAPI()
app.add_middleware(WebSocketGuard, guard=guard)


# --- the chat ---------------------------------------------------------------------------------------------------------

visitors = count(1)
room: set[WebSocket] = set()


@app.websocket("/ws/chat")
async def chat(socket: WebSocket, who: Annotated[Identity, Depends(require_scope("chat:write"))]) -> None:
    """Let a member hear and speak."""
    await stay(socket, who, speaks=True)


@app.websocket("/ws/listen")
async def listen(socket: WebSocket, who: Annotated[Identity, Depends(identity)]) -> None:
    """Let anybody who has logged in hear."""
    await stay(socket, who, speaks=False)


async def stay(socket: WebSocket, who: Identity, *, speaks: bool) -> None:
    """Tell the visitor its number; from then on it hears what anybody says."""
    number = next(visitors)
    await socket.accept()
    await socket.send_json({"visitor": number, "name": who.subject})
    room.add(socket)
    try:
        async for text in socket.iter_text():
            for other in list(room) if speaks else ():
                await other.send_json({"name": who.subject, "says": text})
    finally:
        room.discard(socket)


# --- pages ------------------------------------------------------------------------------------------------------------


class Login(BaseModel):
    """What the form sends; without a password a guest."""

    name: str = Field(min_length=1, max_length=40)
    password: str = Field(default="", max_length=200)


@app.post("/login", status_code=204)
async def log_in(login: Login, response: Response) -> None:
    """Give the browser its cookie."""
    member = secrets.compare_digest(login.password.encode(), PASSWORD.encode())
    if login.password and not member:
        raise HTTPException(403)
    now = time.time()
    for key in [key for key, known in logins.items() if (known.expires_at or 0) < now]:
        del logins[key]
    token = secrets.token_urlsafe()
    logins[digest(token)] = Identity(
        subject=login.name if member else f"{login.name} (guest)",
        issuer="chat",
        method="session",
        scopes=frozenset({"chat:read", "chat:write"} if member else {"chat:read"}),
        credential_id=digest(token)[:16],
        expires_at=now + HOURS * 3600,
    )
    response.set_cookie(COOKIE, token, max_age=HOURS * 3600, secure=True, httponly=True, samesite="lax")


@app.post("/logout", status_code=204)
async def log_out(response: Response, token: Annotated[str, Cookie(alias=COOKIE)] = "") -> None:
    """Forget the login, and close the sockets that it opened."""
    gone = logins.pop(digest(token), None)
    for session in guard.sessions:
        if gone is not None and session.identity == gone:
            session.close(3000, "logged out")
    response.delete_cookie(COOKIE, secure=True, httponly=True, samesite="lax")


@app.get("/")
async def page() -> FileResponse:
    """Show the chat; its script and everything it talks to come from here."""
    return FileResponse(HERE / "chat.html", headers={"Content-Security-Policy": "default-src 'self'"})


@app.get("/chat.js")
async def script() -> FileResponse:
    """Serve the page's script."""
    return FileResponse(HERE / "chat.js")
