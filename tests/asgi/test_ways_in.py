"""Every way into an app runs the checks, whatever the server makes of a request, and no way in leaks when a client goes."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

import pytest

from tests.asgi.client import Client
from tests.asgi.fake_server import FakeServer, guarded, page_scope, socket_scope
from wsguard import Guard, Policy
from wsguard.asgi import WebSocketGuard, session
from wsguard.asgi.middleware import UnguardedScopeError, identity
from wsguard.engine.ports import Carriage
from wsguard.vocabulary.bounds import Limits
from wsguard.vocabulary.errors import ConfigurationError
from wsguard.vocabulary.identity import Identity

UPGRADE = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "fields"),
    [
        ("GET {path} HTTP/1.1", UPGRADE),
        ("POST {path} HTTP/1.1", UPGRADE),
        ("GET {path} HTTP/1.0", UPGRADE),
        ("GET {path} HTTP/1.1", "Upgrade: websocket\r\n"),
        (
            "GET {path} HTTP/1.1",
            "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
        ),
        ("GET {path} HTTP/1.1", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"),
        ("GET {path} HTTP/1.1", UPGRADE + "Transfer-Encoding: chunked\r\n"),
        ("CONNECT {path} HTTP/1.1", UPGRADE),
    ],
    ids=["socket", "post", "http/1.0", "no connection", "h2c", "lone key", "chunked", "connect"],
)
def test_every_way_in_runs_the_checks(client: Client, line: str, fields: str) -> None:
    """B-ORIGIN-10: a foreign origin is refused as a socket and as plain HTTP, however a server hands the request on."""
    raw = client.connect()
    request = line.format(path=f"/plain/wait?case={client.case}")
    raw.send(f"{request}\r\nHost: app.test\r\nOrigin: https://evil.test\r\n{fields}\r\n".encode())
    raw.sock.settimeout(1)
    try:
        head = raw.reader.head().decode("latin-1")
    except TimeoutError:
        head = ""  # uvicorn 0.54 answers nothing to a body in a handshake
    h2c = head.startswith("HTTP/1.1 101") and "upgrade: h2c" in head.lower()
    if h2c:
        client.server.wait_for("reason=syntax.method")  # hypercorn changes to HTTP/2; the request is refused there
    else:
        assert head[9:10] in {"4", ""}, head
    # nothing late either: another request behind it is answered
    assert client.refused("/plain/wait", origin="https://evil.test")[0] == 403
    assert client.events("called") == []


@pytest.mark.parametrize("kind", ["webtransport", "websocket2", "Websocket", ""])
def test_a_scope_of_an_unknown_type_is_refused(kind: str) -> None:
    """What nobody can judge does not reach the app (B-ORIGIN-10)."""
    server = FakeServer({"type": kind})
    with pytest.raises(UnguardedScopeError, match="only websocket, http and lifespan"):
        asyncio.run(server.run(guarded(server.app)))
    assert server.calls == []
    assert server.sent == []


@pytest.mark.parametrize("method", ["GET", "POST", "CONNECT"])
@pytest.mark.parametrize("version", ["1.1", "2", "3"])
def test_a_handshake_as_plain_http_is_never_a_page(method: str, version: str) -> None:
    """A server that hands a right handshake on as HTTP has lost it: 4xx, and the app takes it for no page."""
    scope = page_scope(method=method, http_version=version, headers=socket_scope()["headers"])
    server = FakeServer(scope)
    asyncio.run(server.run(guarded(server.app)))
    assert server.sent[0]["status"] in {400, 405}
    assert server.calls == []


def test_without_the_extension_a_refusal_is_a_close() -> None:
    """On a server without the denial response a handshake is refused by a close before the accept."""
    scope = socket_scope(origin="https://evil.test")
    del scope["extensions"]
    server = FakeServer(scope)
    asyncio.run(server.run(guarded(server.app)))
    assert server.sent == [{"type": "websocket.close", "code": 1008, "reason": ""}]
    assert server.calls == []


def test_an_app_without_a_guard_has_no_session() -> None:
    """`session` and `identity` raise where no guard has been, in place of an empty answer that lets everybody in."""
    with pytest.raises(UnguardedScopeError, match="is WebSocketGuard around this app"):
        session(socket_scope())
    with pytest.raises(UnguardedScopeError, match="is WebSocketGuard around this app"):
        identity(page_scope())
    with pytest.raises(UnguardedScopeError):
        session({**socket_scope(), "wsguard": {"subject": "root"}})


def test_a_guard_and_its_arguments_together_are_an_error() -> None:
    """Arguments that would be ignored beside `guard=` are none that anybody meant."""
    guard = Guard(Policy(origins=["https://app.test"]))
    with pytest.raises(ConfigurationError, match="guard=Guard"):
        WebSocketGuard(FakeServer({}).app, guard=guard, policy=Policy(origins=["https://other.test"]))
    with pytest.raises(ConfigurationError, match="guard=Guard"):
        WebSocketGuard(FakeServer({}).app, guard=guard, limits=Limits(decision=1))


UNREADABLE: list[dict[str, Any]] = [
    {"client": ("127.0.0.1",)},
    {"raw_path": None, "path": "/\ud800"},
    {"subprotocols": ["\u0100"]},
    {"headers": [(b"host",)]},
]


@pytest.mark.parametrize("changes", UNREADABLE)
def test_a_scope_that_cannot_be_read_is_refused(
    changes: dict[str, Any], caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """A server that hands on what no server may hand on gets a 503, the log one line, and the app nothing."""
    caplog.set_level(logging.INFO, "wsguard.decisions")
    server = FakeServer({**socket_scope(), **changes})
    asyncio.run(server.run(guarded(server.app)))
    assert server.sent[0]["status"] == 503
    assert server.calls == []
    (line,) = [line for line in caplog.messages if "handshake.refused" in line]
    assert "reason=gateway.fault" in line
    assert "Traceback" in capsys.readouterr().err
    if "subprotocols" not in changes:
        page = FakeServer({**page_scope(), **changes})
        asyncio.run(page.run(guarded(page.app)))
        assert page.sent[0]["status"] == 503
        assert page.calls == []


# --- a client that is gone --------------------------------------------------------------------------------------------


class Waiting:
    """An authenticator that waits for ever, and says when it was cancelled."""

    name = "waiting"
    carriage: Carriage = "explicit"

    def __init__(self) -> None:
        self.began = asyncio.Event()
        self.ended = asyncio.Event()

    async def authenticate(self, handshake: Any, context: Any) -> Identity | None:
        self.began.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.ended.set()
        return None


class Cancelled:
    """An authenticator that awaits a task of its own, which somebody has cancelled."""

    name = "cancelled"
    carriage: Carriage = "explicit"

    async def authenticate(self, handshake: Any, context: Any) -> Identity | None:
        task = asyncio.create_task(asyncio.sleep(60))
        await asyncio.sleep(0)
        task.cancel()
        await task
        return None


def test_a_cancellation_that_is_not_ours_refuses() -> None:
    """It ends in 503 and one line as every fault of an authenticator does, not in the server's 500."""
    guard = Guard(Policy(origins=["https://app.test"], auth=["cancelled"]), authenticators=[Cancelled()])
    server = FakeServer(socket_scope())
    asyncio.run(server.run(WebSocketGuard(server.app, guard=guard)))
    assert server.sent[0]["status"] == 503
    assert server.calls == []


def test_a_client_that_vanishes_in_a_slow_decision_leaks_nothing() -> None:
    """The decision ends at its bound, or with the server's own task; no task and no place in the counts stays behind."""

    async def scenario(cancel: bool) -> tuple[list[dict[str, Any]], int]:
        waiting = Waiting()
        policy = Policy(origins=["https://app.test"], auth=["waiting"])
        guard = Guard(policy, authenticators=[waiting], limits=Limits(decision=0.2))
        server = FakeServer(socket_scope())
        task = asyncio.create_task(server.run(WebSocketGuard(server.app, guard=guard)))
        await waiting.began.wait()
        server.disconnect(1006)
        if cancel:
            task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert waiting.ended.is_set()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert guard.addresses.enter("127.0.0.1") is not None
        assert len(guard.sessions) == 0
        return server.sent, len(server.calls)

    sent, calls = asyncio.run(scenario(cancel=False))
    assert (sent[0]["status"], calls) == (503, 0)
    assert asyncio.run(scenario(cancel=True)) == ([], 0)


@pytest.mark.slow
def test_a_client_that_vanishes_in_a_slow_decision_leaks_no_task_of_the_server(client: Client) -> None:
    """The same on a real socket: ten clients go while somebody thinks about them, and no task of theirs is left."""
    before = client.alone()["tasks"]
    for _ in range(10):
        raw = client.connect()
        raw.send(client.request("/slow/wait", extra=f"X-Slow: {client.case}\r\n"))
    end = time.monotonic() + 20
    while len(client.events("thinking")) < 10 and time.monotonic() < end:
        time.sleep(0.01)  # a file sends no event
    assert client.control("GET", "/control/tasks")["tasks"] >= before + 10, "the count is blind"
    client.stack.close()
    while (now := client.control("GET", "/control/tasks"))["tasks"] > before and time.monotonic() < end:
        time.sleep(0.05)  # a server tells nobody that a task has ended
    assert now["tasks"] <= before
    assert now["live"] == 0
    assert len(client.events("thought")) == 10
    assert client.events("called") == []
