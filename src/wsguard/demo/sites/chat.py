"""
The victim's app: a small chat that trusts a cookie session, as thousands do.

It is wrong on purpose in one point only: it asks the handshake for its session cookie and not for its Origin. All
copies run this very code. Between the open and the guarded one the gateway in front is the only difference; the page of
the third opens its socket with a ticket (`pages/ticket-socket.js` in place of `pages/socket.js`), which it buys with a
token, and who opened it is what the gateway says.
"""

from __future__ import annotations

import json
import secrets
from collections import OrderedDict, deque
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, cast

from websockets.exceptions import ConnectionClosed

from wsguard.demo.observations import MESSAGES_KEPT, Message
from wsguard.demo.places import CHAT_PATHS, App, Caller, Case, Places, websocket_url
from wsguard.demo.sites.assets import asset, plain
from wsguard.demo.sites.site import cookies_of, is_handshake, origin_of, path_of, sent_with

if TYPE_CHECKING:
    from websockets.asyncio.server import ServerConnection
    from websockets.http11 import Request, Response

    from wsguard.demo.observations import Observations
    from wsguard.demo.sites.tokens import TokenIssuer

STRICT_COOKIE = "__Host-session"
NONE_COOKIE = "session_none"
SESSION_COOKIES = (STRICT_COOKIE, NONE_COOKIE)
SESSIONS_KEPT = 32
USER = "Ada"
CORRESPONDENT = "Ben"
ASSETS = {name: name[1:] for name in ("/chat.css", "/chat.js", "/base.css", "/icon.svg")}
SOCKET_SCRIPTS = {App.OPEN: "socket.js", App.GUARDED: "socket.js", App.TICKETS: "ticket-socket.js"}
FIRST_MESSAGES = (
    Message(CORRESPONDENT, "The board approved the offer. Not a word before Friday."),
    Message(USER, "Good. What is the figure?"),
    Message(CORRESPONDENT, "4.2 million. The door code is 7391, come by tonight."),
)


@dataclass(eq=False)
class Session:
    """A signed-in user: two cookies, the newest messages, and the sockets that read along."""

    subject: str = field(default_factory=lambda: f"ada-{secrets.token_hex(4)}")
    strict: str = field(default_factory=secrets.token_urlsafe, repr=False)
    none: str = field(default_factory=secrets.token_urlsafe, repr=False)
    messages: deque[Message] = field(default_factory=lambda: deque(FIRST_MESSAGES, maxlen=MESSAGES_KEPT))
    sockets: set[ServerConnection] = field(default_factory=set["ServerConnection"])


class Chat:
    """One copy of the chat app."""

    def __init__(self, app: App, places: Places, observations: Observations, tokens: TokenIssuer) -> None:
        self._app = app
        self._tokens = tokens
        self._assets = {**ASSETS, "/socket.js": SOCKET_SCRIPTS[app]}
        self._places = places
        self._observations = observations
        self._sessions: OrderedDict[str, Session] = OrderedDict()

    def respond(self, request: Request) -> Response | None:
        """Serve the page, which signs its visitor in; let a handshake through if a session came with it."""
        path = path_of(request)
        if is_handshake(request) and path == CHAT_PATHS[self._app]:
            return self._authenticate(request)
        if path == "/":
            return self._page(request)
        if path == "/token" and self._app is App.TICKETS:
            return self._token(request)
        return asset(self._assets[path]) if path in self._assets else plain(404, "There is nothing here.")

    async def converse(self, socket: ServerConnection) -> None:
        """Send the session's messages and take new ones. Whoever opened the socket reads along: here is the theft."""
        request = cast("Request", socket.request)
        session = self._session(request)
        if session is None:
            return
        session.sockets.add(socket)
        try:
            await self._greet(socket, request, session)
            async for text in socket:
                await self.say(session, Message(USER, _text_of(text)))
        finally:
            session.sockets.discard(socket)

    @property
    def newest_session(self) -> Session | None:
        """Return the session that was made last."""
        return next(reversed(self._sessions.values()), None)

    async def say(self, session: Session, message: Message) -> None:
        """Add *message* to the conversation of *session* and tell every socket of it."""
        if not message.text:
            return
        session.messages.append(message)
        for socket in tuple(session.sockets):
            await _send(socket, {"kind": "message", **asdict(message)})

    def sign_out_readers(self) -> list[str]:
        """End the sessions that have a socket open, and return whose they were."""
        reading = {name: session for name, session in self._sessions.items() if session.sockets}
        for name in reading:
            del self._sessions[name]
        return sorted({session.subject for session in reading.values()})

    def sign_everybody_out(self) -> None:
        """End every session; the cookies still ride, but mean nothing any more."""
        self._sessions.clear()

    def _authenticate(self, request: Request) -> Response | None:
        case = self._places.case_from(origin_of(request), self._app)
        known = self._session(request) is not None
        if case is not None:
            self._observe(case, request, known=known)
        return None if known else plain(401, "Sign in first.")

    def _observe(self, case: Case, request: Request, *, known: bool) -> None:
        if case.caller is Caller.OWN:
            self._observations.begin(case)
        self._observations.handshake(case, sent_with(request, SESSION_COOKIES))
        if known:
            self._observations.admitted(case)
        else:
            self._observations.turned_away(case)

    def _session(self, request: Request) -> Session | None:
        # Behind a gateway that asks for tickets, it says who came, and takes the field from whoever else would say so.
        subject = request.headers.get("X-WSGuard-Subject")
        if self._app is App.TICKETS and subject is not None:
            return next((session for session in self._sessions.values() if session.subject == subject), None)
        cookies = cookies_of(request)
        for name in SESSION_COOKIES:
            session = self._sessions.get(cookies.get(name, ""))
            if session is not None:
                return session
        return None

    def _page(self, request: Request) -> Response:
        session = self._session(request) or self._sign_in()
        page = asset("chat.html", websocket_url(self._places.app(self._app), ""))
        page.headers["Set-Cookie"] = f"{STRICT_COOKIE}={session.strict}; Path=/; Secure; HttpOnly; SameSite=Strict"
        page.headers["Set-Cookie"] = f"{NONE_COOKIE}={session.none}; Path=/; Secure; HttpOnly; SameSite=None"
        return page

    def _token(self, request: Request) -> Response:
        """Answer the own page, which alone can read it: HTTP is bound by the Same-Origin Policy."""
        session = self._session(request)
        return plain(401, "Sign in first.") if session is None else plain(200, self._tokens.mint(session.subject))

    def _sign_in(self) -> Session:
        session = Session()
        self._sessions[session.strict] = session
        self._sessions[session.none] = session
        while len(self._sessions) > 2 * SESSIONS_KEPT:
            self._sessions.popitem(last=False)
        return session

    async def _greet(self, socket: ServerConnection, request: Request, session: Session) -> None:
        rode = sent_with(request, SESSION_COOKIES).cookies
        await _send(socket, {"kind": "session", "user": USER, "cookies": rode})
        for message in tuple(session.messages):
            await _send(socket, {"kind": "message", **asdict(message)})


def _text_of(frame: str | bytes) -> str:
    return frame.strip() if isinstance(frame, str) else ""


async def _send(socket: ServerConnection, event: object) -> None:
    with suppress(ConnectionClosed):  # the reader left; its own loop ends it
        await socket.send(json.dumps(event))
