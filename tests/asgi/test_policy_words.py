"""What a policy says beside origins and credentials, through the mount: HSTS, plain pages, loopback, lists, background."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest

from tests.asgi.fake_server import FakeServer, Receive, Send, page_scope, socket_scope
from tests.credentials import Place
from wsguard import APIKeys, FileList, Guard, Policy
from wsguard.asgi import WebSocketGuard

APP = "https://app.example.com"
HSTS = (b"strict-transport-security", b"max-age=15552000")


def headers(**changes: str) -> list[tuple[bytes, bytes]]:
    """Those of a right handshake of app.example.com."""
    fields = dict(socket_scope()["headers"]) | {b"host": b"app.example.com", b"origin": APP.encode()}
    return list((fields | {name.encode(): value.encode() for name, value in changes.items()}).items())


async def accept(_scope: Any, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.close", "code": 1000})


async def page(_scope: Any, _receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"set-cookie", b"a=b")]})
    await send({"type": "http.response.body", "body": b""})


def served(scope: dict[str, Any], policy: Policy, behave: Any) -> FakeServer:
    server = FakeServer(scope, behave)
    asyncio.run(server.run(WebSocketGuard(server.app, policy=policy)))
    return server


def test_every_answer_carries_hsts() -> None:
    """The accept, the refusal, the page and its refusal; and a cookie of the app becomes Secure (B-DELIVER-01)."""
    policy = Policy(origins=[APP])
    opened = served({**socket_scope(), "headers": headers()}, policy, accept)
    assert HSTS in opened.sent[0]["headers"]
    refused = served({**socket_scope(), "headers": headers(origin="https://evil.test")}, policy, accept)
    assert (refused.sent[0]["status"], HSTS in refused.sent[0]["headers"]) == (403, True)
    shown = served({**page_scope(), "headers": [(b"host", b"app.example.com")]}, policy, page)
    assert shown.sent[0]["headers"] == [(b"set-cookie", b"a=b; Secure"), HSTS]
    strange = served({**page_scope(), "headers": [(b"host", b"other.example.com")]}, policy, page)
    assert strange.sent[0]["status"] == 421


def test_a_plain_route_is_for_probes_and_for_nobody_else() -> None:
    """`http="plain"`: a page by address and without TLS reaches the app there, a handshake does not."""
    policy = Policy(origins=[APP], http="plain")
    by_address = {"scheme": "http", "headers": [(b"host", b"10.0.0.7:8000")]}
    assert served({**page_scope(), **by_address}, policy, page).sent[0]["status"] == 200
    assert served({**page_scope(), **by_address}, Policy(origins=[APP]), page).sent[0]["status"] == 403
    insecure = served({**socket_scope(), "scheme": "ws", "headers": headers()}, policy, accept)
    assert (insecure.sent[0]["status"], insecure.calls) == (403, [])


@pytest.mark.parametrize(
    ("host", "origin", "client", "opened"),
    [
        ("localhost:8000", "http://localhost:8000", "127.0.0.1", True),
        ("localhost:8000", "http://localhost:3000", "127.0.0.1", False),
        ("localhost:8000", "http://localhost:8000", "192.0.2.1", False),
        ("app.example.com", "http://localhost:8000", "127.0.0.1", False),
        ("localhost:8000", "https://evil.test", "127.0.0.1", False),
    ],
)
def test_loopback_without_tls_is_for_a_developer(host: str, origin: str, client: str, opened: bool) -> None:
    """`insecure_loopback`: Host, Origin and peer are all this machine, and nothing less."""
    scope = {**socket_scope(), "scheme": "ws", "client": (client, 50000), "headers": headers(host=host, origin=origin)}
    server = served(scope, Policy(insecure_loopback=True), accept)
    assert (server.sent[0]["type"] == "websocket.accept") is opened
    assert bool(server.calls) is opened


def test_the_log_says_which_list_let_an_origin_in(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Thousands of customers' domains stand in a file; whose origin it was is told with the list's name."""
    caplog.set_level(logging.INFO, "wsguard.decisions")
    path = tmp_path / "customers.txt"
    path.write_text(f"{APP}\n")
    server = FakeServer({**socket_scope(), "headers": headers()}, accept)
    guard = Guard(Policy(origins=FileList(path), hosts=["app.example.com"]))

    async def scenario() -> None:
        await server.run(WebSocketGuard(server.app, guard=guard))
        await guard.aclose()

    asyncio.run(scenario())
    assert server.sent[0]["type"] == "websocket.accept"
    (line,) = [line for line in caplog.messages if line.startswith("session.opened")]
    assert f"source=file:{path}" in line


def test_the_end_of_the_lifespan_ends_what_runs_in_the_background(tmp_path: Path) -> None:
    """The guard's tasks begin with the first scope, and with `lifespan.shutdown` none of them is left."""
    Place(tmp_path).add_key("robot")
    policy = Policy(origins=[APP], auth=["api_key"])
    guard = Guard(policy, authenticators=[APIKeys(str(tmp_path / "keys.toml"))], admin=f"unix:{tmp_path / 'a' / 's'}")
    goes_on, began = asyncio.Event(), asyncio.Event()

    async def behave(scope: Any, receive: Receive, send: Send) -> None:
        del scope, receive, send
        began.set()
        await goes_on.wait()

    async def scenario() -> None:
        mine = asyncio.current_task()
        lifespan = FakeServer({"type": "lifespan"}, behave)
        app = WebSocketGuard(lifespan.app, guard=guard)
        living = asyncio.create_task(lifespan.run(app))
        await began.wait()
        refused = FakeServer({**socket_scope(), "headers": headers()})
        await refused.run(app)
        assert refused.sent[0]["status"] == 401
        assert len(asyncio.all_tasks() - {mine, living}) > 0, "nothing runs that could be ended"
        goes_on.set()
        await living
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {mine}

    asyncio.run(scenario())
