"""
The same without sockets: a smallest app, the ASGI callables of a server that never waits, and the guard between them.

What a wrapper costs a message is below a microsecond and drowns in the noise of a socket. The decision log is on, and
goes to /dev/null: a line is made and written, nobody reads it.
"""

import contextlib
import os
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.asgi.variants import BARE, FOREIGN_ORIGIN, GUARD, GUARDED, App, guarded
from benchmarks.relay.errors import BenchmarkError
from benchmarks.relay.handshake import HOST, ORIGIN

REFUSAL = "guard, foreign origin"
_DENIAL = "websocket.http.response"
_PAYLOAD = b"x" * 256


@dataclass(frozen=True)
class InProcessRun:
    """CPU µs by variant, a figure a round, in the same order for all."""

    handshakes: dict[str, list[float]]
    messages: dict[str, list[float]]


class Wire:
    """The server's end of one socket: gives *messages* at once, then the client's close; counts what is sent."""

    def __init__(self, messages: int) -> None:
        self._left = messages
        self._receiving = False
        self._message = {"type": "websocket.receive", "bytes": _PAYLOAD}
        self.sent: dict[str, int] = {}
        self.began = self.ended = 0

    async def receive(self) -> dict[str, Any]:
        if not self._receiving:
            self._receiving = True
            return {"type": "websocket.connect"}
        if not self.began:
            self.began = time.process_time_ns()
        if self._left:
            self._left -= 1
            return self._message
        self.ended = time.process_time_ns()
        return {"type": "websocket.disconnect", "code": 1000, "reason": ""}

    async def send(self, message: dict[str, Any]) -> None:
        kind = message["type"]
        self.sent[kind] = self.sent.get(kind, 0) + 1


async def echo(_scope: dict[str, Any], receive: Callable[[], Any], send: Callable[[dict[str, Any]], Any]) -> None:
    """The smallest app that answers."""
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "bytes": message["bytes"]})


def scope_of(origin: str) -> dict[str, Any]:
    """Return a scope as uvicorn makes it for a handshake of Firefox."""
    return {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "scheme": "wss",
        "server": ("127.0.0.1", 443),
        "client": ("127.0.0.1", 51474),
        "root_path": "",
        "path": "/echo",
        "raw_path": b"/echo",
        "query_string": b"",
        "headers": [
            (b"host", HOST.encode()),
            (b"user-agent", b"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
            (b"accept", b"*/*"),
            (b"accept-language", b"en-US,en;q=0.5"),
            (b"accept-encoding", b"gzip, deflate, br, zstd"),
            (b"sec-websocket-version", b"13"),
            (b"origin", origin.encode()),
            (b"sec-websocket-extensions", b"permessage-deflate"),
            (b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ=="),
            (b"connection", b"keep-alive, Upgrade"),
            (b"cookie", b"session=0123456789abcdef0123456789abcdef"),
            (b"sec-fetch-dest", b"empty"),
            (b"sec-fetch-mode", b"websocket"),
            (b"sec-fetch-site", b"same-origin"),
            (b"pragma", b"no-cache"),
            (b"cache-control", b"no-cache"),
            (b"upgrade", b"websocket"),
        ],
        "subprotocols": [],
        "state": {},
        "extensions": {_DENIAL: {}},
    }


@contextlib.contextmanager
def apps() -> Generator[dict[str, App]]:
    """Give the bare echo and the guarded ones; their log goes to /dev/null."""
    # The decision log writes to what stdout is at that moment.
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere, contextlib.redirect_stdout(nowhere):
        yield {BARE: echo} | {name: guarded(name, echo) for name in GUARDED}


async def run(rounds: int, handshakes: int, messages: int) -> InProcessRun:
    with apps() as compared:
        found = InProcessRun({name: [] for name in (*compared, REFUSAL)}, {name: [] for name in compared})
        for number in range(rounds):
            order = list(compared.items())
            for name, app in order if number % 2 == 0 else reversed(order):
                found.messages[name].append(await time_messages(app, messages))
                found.handshakes[name].append(await time_handshakes(app, handshakes))
            found.handshakes[REFUSAL].append(await time_refusals(compared[GUARD], handshakes))
        return found


async def time_messages(app: App, messages: int) -> float:
    """Return CPU µs a message: one received and sent back. The handshake is outside the figure."""
    wire = Wire(messages)
    await app(scope_of(ORIGIN), wire.receive, wire.send)
    _check(wire, {"websocket.accept": 1, "websocket.send": messages})
    return (wire.ended - wire.began) / messages / 1e3


async def time_handshakes(app: App, handshakes: int) -> float:
    """Return CPU µs a handshake that opens a socket, which the client then closes."""
    return await _time(app, handshakes, ORIGIN, {"websocket.accept": 1})


async def time_refusals(app: App, handshakes: int) -> float:
    """Return CPU µs a handshake of a foreign page."""
    return await _time(app, handshakes, FOREIGN_ORIGIN, {f"{_DENIAL}.start": 1, f"{_DENIAL}.body": 1})


async def _time(app: App, handshakes: int, origin: str, sent: dict[str, int]) -> float:
    prepared = [(scope_of(origin), Wire(0)) for _ in range(handshakes)]
    began = time.process_time_ns()
    for scope, wire in prepared:
        await app(scope, wire.receive, wire.send)
    ended = time.process_time_ns()
    for _, wire in prepared:
        _check(wire, sent)
    return (ended - began) / handshakes / 1e3


def _check(wire: Wire, sent: dict[str, int]) -> None:
    if wire.sent != sent:
        raise BenchmarkError(f"{sent} should have been sent, and {wire.sent} was")
