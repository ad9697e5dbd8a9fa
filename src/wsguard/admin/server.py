"""Serves the admin socket on the running loop: one request a connection, bounded in bytes, time and number."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import TYPE_CHECKING

from wsguard.admin.requests import AdminAnswer, AdminRequest, answer_admin
from wsguard.admin.socket import bound_admin_socket, may_administer, peer_uid
from wsguard.vocabulary.bounds import DEFAULTS
from wsguard.vocabulary.errors import ConfigurationError, HeadViolation

if TYPE_CHECKING:
    import socket
    from pathlib import Path

    from wsguard.admin.requests import Administered
    from wsguard.observe.decision_log import DecisionLog

MAX_BODY = 64 * 1024
_SECONDS = 10.0
_AT_ONCE = 128
"""So many connections are served at one time; more wait in the kernel."""
_PAUSE_SECONDS = 1.0


class AdminServer:
    """
    Listens at *path* for *guard*.

    `bind` may be called before the loop runs, to learn at start that the path cannot be had; `start` binds where nobody
    has, and then tells the log instead; *listener* is one that is bound already. A child that was forked off does not
    serve its parent's socket.
    """

    def __init__(
        self, path: Path, guard: Administered, log: DecisionLog, listener: socket.socket | None = None
    ) -> None:
        self.path = path
        self._guard = guard
        self._log = log
        self._listener = listener
        self._pid = 0 if listener is None else os.getpid()
        self._serving: asyncio.Task[None] | None = None
        self._connections: set[asyncio.Task[None]] = set()

    def bind(self) -> None:
        """Bind the socket. Raises ConfigurationError."""
        if self._listener is None:
            self._listener = bound_admin_socket(self.path)
            self._pid = os.getpid()

    def released(self) -> socket.socket | None:
        """Return the socket that `bind` has bound, for another server."""
        listener, self._listener = self._listener, None
        return listener

    def start(self) -> None:
        """Serve on the running loop, if it does not yet."""
        serving = self._serving
        if serving is not None and not serving.get_loop().is_closed():
            return
        try:
            self.bind()
        except ConfigurationError as error:
            self._log.hint("admin.unavailable", str(error))
            return
        if self._listener is not None and self._pid == os.getpid():
            self._serving = asyncio.get_running_loop().create_task(self._serve(self._listener))

    def stop(self) -> None:
        """Serve no more, and take the socket away."""
        for task in (self._serving, *self._connections):
            if task is not None and not task.get_loop().is_closed():
                task.cancel()
        self._serving = None
        if self._listener is not None and self._pid == os.getpid():
            self._listener.close()
            with contextlib.suppress(OSError):
                self.path.unlink(missing_ok=True)
        self._listener = None

    async def _serve(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            while len(self._connections) >= _AT_ONCE:
                await asyncio.wait(self._connections, return_when=asyncio.FIRST_COMPLETED)
            try:
                connection, _ = await loop.sock_accept(listener)
            except OSError as error:  # no descriptor is free, perhaps: one will be
                self._log.hint("admin.unavailable", error.strerror or type(error).__name__)
                await asyncio.sleep(_PAUSE_SECONDS)
                continue
            task = loop.create_task(self._serve_one(connection))
            self._connections.add(task)
            task.add_done_callback(self._connections.discard)

    async def _serve_one(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError, TimeoutError, EOFError):
            connection.setblocking(False)  # noqa: FBT003 - the standard library's signature
            async with asyncio.timeout(_SECONDS):
                answer = await self._answered(connection)
                head = f"HTTP/1.1 {answer.status} \r\nContent-Type: application/json\r\nConnection: close\r\n"
                head += "".join(f"{name}: {value}\r\n" for name, value in answer.fields)
                whole = f"{head}Content-Length: {len(answer.body)}\r\n\r\n".encode() + answer.body
                await asyncio.get_running_loop().sock_sendall(connection, whole)

    async def _answered(self, connection: socket.socket) -> AdminAnswer:
        uid = peer_uid(connection)
        try:
            # Read whole before anything is answered: a peer that is cut off while it writes learns nothing.
            request = await _request(connection, -1 if uid is None else uid)
        except HeadViolation as violation:
            return AdminAnswer(violation.reason.status, b"{}")
        if not may_administer(uid):
            self._log.hint("admin.refused", f"user {uid} may not use the admin socket", uid=uid)
            return AdminAnswer(403, b'{"status":403,"error":"Forbidden"}')
        return await answer_admin(self._guard, request)


async def _request(connection: socket.socket, uid: int) -> AdminRequest:
    """Read one request with its body. Raises HeadViolation, and EOFError where it is cut short."""
    from wsguard.vocabulary import reasons
    from wsguard.wire.request_head import head_end, parse_request_head

    loop = asyncio.get_running_loop()
    data = bytearray()

    async def more() -> None:
        read = await loop.sock_recv(connection, 65536)
        if not read:
            raise EOFError
        data.extend(read)

    while (end := head_end(data, 0, DEFAULTS)) is None:
        await more()
    head = parse_request_head(bytes(data[:end]), DEFAULTS)
    if head.body.framing not in ("none", "length") or head.body.length > MAX_BODY:
        raise HeadViolation(reasons.ENDPOINT_BODY_TOO_LARGE, "a body of at most 64 KiB, with its Content-Length")
    whole = end + head.body.length
    while len(data) < whole:
        await more()
    return AdminRequest(head.method, head.target.decode("ascii", "replace"), bytes(data[end:whole]), uid)
