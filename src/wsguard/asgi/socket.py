"""
One accepted socket: what the app receives and sends goes through here, at as little a cost as can be.

Where nothing can close the socket from outside, the app gets the server's own ``receive``. Elsewhere one thin wrapper
remembers which task waits for a message, so that `Session.close` can end the wait first and send the close then.
Servers make that order necessary (measured 2026-11): granian 2.8 writes no close while a receive is pending, hypercorn
0.18 wakes the app only when the client has answered, uvicorn 0.54 raises on a send after the close.
"""

from __future__ import annotations

import asyncio
from asyncio import CancelledError, current_task
from typing import TYPE_CHECKING, cast

from wsguard.asgi.answer import socket_answer
from wsguard.engine.answers import answered_subprotocol
from wsguard.engine.sessions import Session
from wsguard.vocabulary import close_codes, reasons

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from wsguard.asgi.types import Message, Receive, Send
    from wsguard.guard import Guard
    from wsguard.vocabulary.decision import Accept
    from wsguard.vocabulary.handshake import Handshake
    from wsguard.vocabulary.reasons import Reason

_BYTES_A_CHARACTER = 4
_TURNS = 16
_LONGEST_REASON = 123
"""Bytes of a Close frame's reason (RFC 6455 §5.5)."""


class GuardedSocket:
    """The two callables that the app is given, and the socket's end."""

    __slots__ = (
        "_accept",
        "_allowed",
        "_cancelled",
        "_closer",
        "_counts",
        "_end",
        "_guard",
        "_handle",
        "_handshake",
        "_heard",
        "_limit",
        "_loop",
        "_overdue",
        "_owes_close",
        "_per_second",
        "_receive",
        "_refill",
        "_send",
        "_sending_since",
        "_session",
        "_state",
        "_text",
        "_time",
        "_timers",
        "_waiting",
    )

    def __init__(
        self,
        guard: Guard,
        session: Session,
        handshake: Handshake,
        accept: Accept,
        *,
        receive: Receive,
        send: Send,
        handle: str | None = None,
    ) -> None:
        self._guard = guard
        self._session = session
        self._handshake = handshake
        self._accept = accept
        self._handle = handle
        self._receive = receive
        self._send = send
        self._loop = asyncio.get_running_loop()
        self._state = "asked"
        self._end: tuple[int, str, str] | None = None
        self._waiting: asyncio.Task[object] | None = None
        self._cancelled: asyncio.Task[object] | None = None
        self._owes_close = self._overdue = False
        self._sending_since: float | None = None
        self._closer: asyncio.Task[None] | None = None
        self._text = ""
        self._timers: dict[str, asyncio.TimerHandle] = {}
        limits = accept.terms.limits
        self._limit = accept.terms.max_message
        self._per_second = None if limits is None else limits.messages_per_second
        self._counts = self._limit is not None or (
            limits is not None and bool(limits.messages_per_second or limits.idle)
        )
        self._allowed = float(self._per_second or 0)
        self._time = self._loop.time
        self._refill = self._heard = self._time()

    @property
    def receive(self) -> Receive:
        """What the app awaits for messages."""
        if self._counts or self._accept.terms.limits is not None or self._accept.identity is not None:
            return self._receive_watched
        return self._receive

    def send(self, message: Message) -> Awaitable[None]:
        """Send what the app says; its accept and its close are looked at, whatever comes after the end is dropped."""
        if self._state == "ended":
            return _dropped()
        if message["type"] == "websocket.send":
            return self._send(message)
        return self._send_other(message)

    async def _send_other(self, message: Message) -> None:
        kind = message["type"]
        if kind == "websocket.accept" and self._state == "asked":
            await self._send_accept(message)
        elif kind == "websocket.close":
            if self._state == "asked":
                self._tell_refused_by_app(403)
            else:
                self._keep_end(int(message.get("code") or 1000), "app", str(message.get("reason") or ""))
            self._state = "ended"
            await self._send(message)
        elif kind == "websocket.http.response.start":
            self._state = "denied"
            self._tell_refused_by_app(int(message["status"]))
            await self._send(message)
        else:
            await self._send(message)

    async def _send_accept(self, message: Message) -> None:
        offered = self._accept.subprotocols.forwarded
        selected = cast("str | None", message.get("subprotocol"))
        foreign = selected is not None and selected not in offered
        answered = answered_subprotocol(self._accept, None if foreign else selected)
        host = self._handshake.fields.first(b"host")
        stands = self._guard.live.register(self._session)
        self._state = "open"
        secure = self._accept.client.secure is True
        answer = socket_answer(message, answered, host=host, secure=secure, handle=self._handle)
        try:
            await self._send(answer)
        except BaseException:
            self._guard.sessions.remove(self._session)  # never opened
            raise
        self._guard.tell_opened(self._session)
        self._session.bind(self._close)
        self._start_timers()
        if self._end is not None:
            return  # closed while the accept was sent: the first reason stands
        if not stands:
            code = self._accept.terms.close_codes.get(close_codes.CREDENTIAL, close_codes.CREDENTIAL)
            await self._close_at_once(code, reasons.SESSION_REVOKED, "revoked")
        elif foreign:
            text = close_codes.TEXTS[close_codes.INTERNAL_ERROR]
            await self._close_at_once(close_codes.INTERNAL_ERROR, reasons.APP_SUBPROTOCOL, text)
        elif offered and answered is None:
            hint = (
                "the app selected none of the offered subprotocols; Chromium fails such a socket: offer wsguard.v1 too"
            )
            self._guard.log.hint("subprotocol.none_selected", hint, path=self._session.path, host=self._session.host)

    async def _close_at_once(self, code: int, reason: Reason, text: str) -> None:
        """Close here and now, before the app can wait for a message."""
        self._end = (code, "wsguard", reason.code)
        self._text = text
        self._state = "ended"
        await self._send_close(code, text)

    async def _receive_watched(self) -> Message:
        if self._end is not None:
            return await self._ended()
        # A coroutine runs in a task; to say so by a cast would cost each message a call, as does not naming the loop.
        task: asyncio.Task[object] = current_task(self._loop)  # pyright: ignore[reportAssignmentType]
        self._waiting = task
        cancelling = task.cancelling()
        try:
            message = await self._receive()
        except CancelledError:
            if self._cancelled is not task:
                raise  # somebody else's cancellation
            if task.uncancel() > cancelling:
                self._begin_close()
                raise  # somebody else's beside ours
            return await self._ended()
        finally:
            if self._waiting is task:
                self._waiting = None  # else another task has begun to wait meanwhile
        if self._cancelled is task:
            task.uncancel()  # the message came all the same
            return await self._ended()
        kind = message["type"]
        if kind == "websocket.disconnect":
            code = int(message.get("code") or close_codes.NO_STATUS)
            # What uvicorn tells the app of its own close when it shuts down; a browser's script cannot send it.
            by = "server" if code == close_codes.SERVICE_RESTART else "client"
            self._keep_end(code, by, str(message.get("reason") or ""))
        elif self._counts and self._end is None and kind == "websocket.receive":
            self._count(message)
        # Two tasks of an app may wait: our close ends one wait, and what comes to the other has come too late.
        return message if self._end is None or kind == "websocket.disconnect" else await self._ended()

    def _count(self, message: Message) -> None:
        """Count *message*; where it goes over a limit, close the socket for it."""
        self._heard = now = self._time()
        limit, per_second = self._limit, self._per_second
        if limit is not None:
            data: bytes | None = message.get("bytes")
            if self._is_too_long(message, limit) if data is None else len(data) > limit:
                self._close_for(reasons.FRAMES_TOO_LARGE)
                return
        if per_second is not None:
            allowed = self._allowed + (now - self._refill) * per_second
            if allowed > per_second:  # noqa: PLR1730 - a call of min() is a tenth of what the limits cost a message
                allowed = per_second
            self._refill = now
            self._allowed = allowed - 1
            if allowed < 1:
                self._close_for(reasons.LIMITS_RATE)

    @staticmethod
    def _is_too_long(message: Message, limit: int) -> bool:
        text: str = message.get("text") or ""
        # UTF-8 takes 1 to 4 bytes a character: most texts need no encoding to be judged.
        return len(text) * _BYTES_A_CHARACTER > limit and (
            len(text) > limit or len(text.encode("utf-8", "surrogatepass")) > limit
        )

    async def finish(self) -> None:
        """The app is done with this socket: let a close of ours out, forget it, and say in the log how it ended."""
        for timer in self._timers.values():
            timer.cancel()
        try:
            if self._state == "asked" and self._session.closing is not None:
                # Closed before it was open, and the app has left it at that: a refusal, not a fault of the app.
                await self._send_other({"type": "websocket.close"})
            await self._close_sent()
        finally:
            if self._closer is not None and self._closer.cancel():
                self._tell_unsent("TimeoutError")
            self._forget()

    def _forget(self) -> None:
        self._state = "ended"
        if self._session.public_id not in self._guard.sessions:
            return
        self._guard.sessions.remove(self._session)
        # Where the app receives from the server itself, only the server knows how the client left.
        code, by, reason = self._end or (None, None, "")
        self._guard.tell_closed(self._session, code=code, by=by, reason=reason)

    def _close(self, code: int, reason: str) -> None:
        """End the socket from outside, from whichever thread: what `Session.close` does."""
        text = reason.encode("utf-8", "replace")[:_LONGEST_REASON].decode("utf-8", "ignore")
        try:
            here = asyncio.get_running_loop() is self._loop
        except RuntimeError:
            here = False  # FastAPI runs what is no coroutine in a thread
        if here:
            self._end_by_us(code, self._session.cause, text)
        else:
            self._loop.call_soon_threadsafe(self._end_by_us, code, self._session.cause, text)

    def _close_for(self, reason: Reason) -> None:
        code = _CODES.get(reason.code, reason.status)
        self._end_by_us(code, reason.code, close_codes.TEXTS.get(code, ""))

    def _end_by_us(self, code: int, reason: str, text: str) -> None:
        if self._end is not None or self._state != "open":
            return
        self._end = (code, "wsguard", reason)
        self._session.note_end(code, reason)
        self._text = text
        self._state = "ended"
        self._owes_close = True
        if self._waiting is None:
            self._begin_close()
        else:
            self._cancelled = self._waiting
            self._waiting.cancel()
            # It may be held up on its way here.
            self._timers["close"] = self._loop.call_later(self._guard.limits.close_deadline, self._begin_close)

    def _begin_close(self) -> None:
        """Send the close that we owe, if we do: the app waits for no message any more, or for too long."""
        if self._owes_close and self._end is not None:
            self._owes_close = False
            # A task of its own: the app may be anywhere, and a client that reads nothing must not hold whoever closes.
            self._closer = self._loop.create_task(self._send_close(self._end[0], self._text))

    async def _send_close(self, code: int, text: str) -> None:
        self._sending_since = self._time()
        try:
            await self._send({"type": "websocket.close", "code": code, "reason": text})
        except Exception as error:  # noqa: BLE001 - servers raise what they like at a socket that is gone
            self._tell_unsent(type(error).__name__)

    async def _close_sent(self) -> None:
        """
        Wait until the close of ours is sent, if there is one: at most ``close_deadline`` from when its turn has come.

        Behind that it is left to be sent: a client may read nothing, and granian 2.8 may hold it until the client
        speaks, where the app waits in the server's own receive. Among thousands that are closed at once the turn of one
        may come after a second, and it must not be given up before.
        """
        self._begin_close()
        closer = self._closer
        while closer is not None and not self._overdue:
            since = self._sending_since
            left = self._guard.limits.close_deadline - (0 if since is None else self._time() - since)
            done, _ = await asyncio.wait([closer], timeout=left)
            if done:
                break
            self._overdue = since is not None and not await self._some_turns(closer)

    async def _some_turns(self, closer: asyncio.Task[None]) -> bool:
        """Give a server whose send takes several turns of a slow loop some more; tell whether the close is sent."""
        for _ in range(_TURNS):
            if closer.done():
                break
            await asyncio.sleep(0)
        return closer.done()

    async def _ended(self) -> Message:
        """Return what the app receives from now on; if the end was ours, the close is sent before."""
        await self._close_sent()
        code, by, reason = self._end or (close_codes.GOING_AWAY, "", "")
        told = self._text if by == "wsguard" else reason
        return {"type": "websocket.disconnect", "code": code, "reason": told}

    def _tell_unsent(self, error: str) -> None:
        self._guard.log.event("session.close_unsent", session=self._session.public_id, error=error)

    def _keep_end(self, code: int, by: str, reason: str) -> None:
        if self._end is None:
            self._end = (code, by, reason)
            self._session.note_end(code, reason)

    def _tell_refused_by_app(self, status: int) -> None:
        session = self._session
        self._guard.log.event(
            "handshake.refused_by_app",
            status=status,
            origin=session.origin,
            host=session.host,
            path=session.path,
            peer=session.peer,
        )

    def _start_timers(self) -> None:
        limits = self._accept.terms.limits
        if limits is not None and limits.max_lifetime is not None:
            self._timers["lifetime"] = self._loop.call_later(
                limits.max_lifetime, self._close_for, reasons.LIMITS_LIFETIME
            )
        if limits is not None and limits.idle is not None:
            self._look_for_silence(limits.idle)

    def _look_for_silence(self, idle: float) -> None:
        # One timer, moved on only when it fires: nothing is done for it per message but noting the time.
        left = self._heard + idle - self._loop.time()
        if left <= 0:
            self._close_for(reasons.LIMITS_IDLE)
        else:
            self._timers["idle"] = self._loop.call_later(left, self._look_for_silence, idle)


_CODES = {reasons.CREDENTIAL_EXPIRED.code: close_codes.CREDENTIAL, reasons.FRAMES_TOO_LARGE.code: 1009}


async def _dropped() -> None:
    """Send nothing: the socket has ended."""
