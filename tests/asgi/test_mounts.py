"""Where the guard stands: around an app with or without a lifespan, around a mounted app, around another guard."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

import pytest

from tests.asgi.client import TEXT, Client, answer, close_frame, page, reason_of
from tests.asgi.conftest import StartServer
from tests.asgi.fake_server import FakeServer, Receive, Send, guarded, page_scope, socket_scope
from tests.asgi.server_process import SERVERS, ServerName
from tests.gateway.raw_client import RawClient, frame
from wsguard import Context, Guard, Handshake, Identity, Limits, Policy, Refusal, Ticket
from wsguard.asgi import WebSocketGuard
from wsguard.engine.ports import Carriage

# --- lifespan ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", SERVERS)
def test_the_apps_lifespan_runs_under_the_guard(
    start_server: StartServer, context: ssl.SSLContext, name: ServerName
) -> None:
    """An app that opens its database at startup and closes it at shutdown does so behind a guard too."""
    server = start_server(name)
    with_socket(server.address, context)
    assert [event["state"] for event in server.record.events("lifespan")] == ["startup"]
    server.stop()
    assert [event["state"] for event in server.record.events("lifespan")] == ["startup", "shutdown"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("app", "options"), [("plain:app", ("--lifespan", "off")), ("plain:without_lifespan", ())], ids=["off", "none"]
)
def test_the_guard_needs_no_lifespan(
    start_server: StartServer, context: ssl.SSLContext, app: str, options: tuple[str, ...]
) -> None:
    """Where the server sends no lifespan, or the app knows none, everything works as with one."""
    server = start_server("uvicorn", app, options=options)
    with_socket(server.address, context)
    assert server.record.events("lifespan") == []


def with_socket(address: tuple[str, int], context: ssl.SSLContext) -> None:
    """Open a socket and hear an echo."""
    client = RawClient(address, context)
    client.open()
    client.send(frame(TEXT, b"hello"))
    echo = client.frame()
    assert echo is not None
    assert echo.payload == b"hello"
    client.close()


def test_an_app_that_knows_no_lifespan_says_so_to_the_server() -> None:
    """Its exception reaches the server, which takes it for the answer that it is."""

    async def behave(scope: Any, receive: Receive, send: Send) -> None:
        raise NotImplementedError(scope["type"])  # ASGI: an app says by raising that it knows no lifespan

    server = FakeServer({"type": "lifespan"}, behave)
    with pytest.raises(NotImplementedError, match="lifespan"):
        asyncio.run(server.run(guarded(server.app)))


# --- mounted apps and other guards ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_mounted_app_is_judged_by_the_whole_path(client: Client) -> None:
    """Starlette's Mount changes root_path only: routes match the whole path, and the mounted app sees what it always saw."""
    raw = client.connect()
    raw.open(client.request("/nested/open/wait", origin="https://inner.test"))
    called = client.wait_for("called")
    assert (called["raw_path"], called["root_path"]) == ("/nested/open/wait", "/nested/open")
    other = client.connect()
    # the origin is listed for /nested/* alone
    assert other.status(client.request("/elsewhere/wait", origin="https://inner.test")) == 403


@pytest.mark.slow
@pytest.mark.parametrize(
    ("origin", "extra", "status", "reason"),
    [
        ("https://evil.test", "X-Pass: alice\r\n", 403, "origin.not_allowed"),
        ("https://app.test", "X-Pass: alice\r\n", 403, "origin.not_allowed"),
        ("https://inner.test", "", 401, "credential.missing"),
    ],
    ids=["outer refuses", "inner refuses", "inner asks for a credential"],
)
def test_a_guard_behind_a_guard_still_judges(client: Client, origin: str, extra: str, status: int, reason: str) -> None:
    """An outer guard that lets a handshake in takes nothing from the inner one: each refuses by its own policy."""
    got, _, request_id = client.refused("/nested/inner/wait", origin=origin, extra=extra)
    assert got == status
    assert client.server.reason_of(request_id) == reason
    assert client.events("called") == []


@pytest.mark.slow
def test_the_app_behind_two_guards_has_the_inner_session(client: Client) -> None:
    """Both let it in: the app sees the identity that the inner guard found, and a close through it reaches the wire."""
    client.alone()
    raw = client.connect()
    raw.open(client.request("/nested/inner/wait", origin="https://inner.test", extra="X-Pass: alice\r\n"))
    called = client.wait_for("called")
    assert (called["subject"], called["root_path"]) == ("alice", "/nested/inner")
    fields = dict(called["headers"])
    assert fields["x-forwarded-proto"] == "https"
    assert client.control("GET", "/control/tasks")["live"] == 1
    raw.send(frame(TEXT, b"hello"))
    echo = raw.frame()
    assert echo is not None
    assert echo.payload == b"hello"
    client.close(3000, "revoked")
    close = close_frame(raw)
    assert (close.close_code, reason_of(close)) == (3000, "revoked")
    answer(raw, close)
    client.wait_for("returned")


@pytest.mark.slow
def test_pages_of_a_mounted_app(client: Client) -> None:
    """Pages pass the guards too, and a page of a route with credentials is asked for one."""
    path = f"/nested/inner/page?case={client.case}"
    assert page(client.address, client.context, "GET", path)[0] == 401
    assert page(client.address, client.context, "GET", path, {"X-Pass": "alice"})[0] == 200
    assert client.wait_for("called")["admission"] == "GuardedPage"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/ws/room", 400),
        ("/api/ws", 400),
        ("/api/.wsguard/ticket", 404),
        ("/api/open/ws", None),
        ("/api/other", None),
        ("/apiws/room", None),
    ],
)
def test_a_path_that_is_an_earlier_routes_without_its_prefix_is_refused(path: str, status: int | None) -> None:
    """uvicorn's ``--root-path`` is in every path: routes that do not write it would be passed over, down to the last."""

    async def behave(scope: Any, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.close"})

    scope = socket_scope(path=path, raw_path=path.encode(), root_path="/api")
    server = FakeServer(scope, behave)
    routes = {
        "/ws/*": Policy(origins=["https://app.test"], auth=["ticket"]),
        "/api/open/*": Policy(origins=["https://app.test"], anonymous=True),
        "/*": Policy(origins=["https://app.test"], anonymous=True),
    }
    guard = Guard(routes=routes, ticket=Ticket(), public_url="https://app.test")
    asyncio.run(server.run(WebSocketGuard(server.app, guard=guard)))
    assert server.sent[0].get("status") == status
    assert len(server.calls) == (status is None)


@pytest.mark.parametrize(
    ("scope", "status"),
    [
        ({"path": "/prefix/ws", "raw_path": b"/prefix/ws", "root_path": "/prefix"}, None),
        ({"path": "/ws", "raw_path": b"/ws", "root_path": "/prefix"}, 404),
        ({"path": "/prefix/ws", "raw_path": None, "root_path": "/prefix"}, None),
        ({"path": "/prefix/w s", "raw_path": None, "root_path": "/prefix"}, None),
        ({"path": "/prefix/\u00e9", "raw_path": None, "root_path": "/prefix"}, None),
        ({"path": "/prefix/../ws", "raw_path": None, "root_path": "/prefix"}, 400),
        ({"path": "/prefix/a\\b", "raw_path": None, "root_path": "/prefix"}, 400),
        ({"path": "/prefix/a\x00b", "raw_path": None, "root_path": "/prefix"}, 400),
        ({"path": "/prefix/../ws", "raw_path": b"/prefix/%2e%2e/ws", "root_path": "/prefix"}, 400),
        ({"path": "/prefix", "raw_path": b"/prefix?x", "root_path": "/prefix"}, None),
    ],
)
def test_the_path_that_is_matched(scope: dict[str, Any], status: int | None) -> None:
    """The raw path decides, the root path in it included; without one the decoded path, which is all the app has too."""

    async def behave(scope: Any, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.close"})

    server = FakeServer(socket_scope(**scope), behave)
    app = WebSocketGuard(server.app, routes={"/prefix/*": Policy(origins=["https://app.test"])})
    asyncio.run(server.run(app))
    assert server.sent[0].get("status") == status
    assert len(server.calls) == (status is None)


# --- endpoints of ours ------------------------------------------------------------------------------------------------


def test_a_body_that_stops_coming_is_waited_for_no_longer_than_its_bound() -> None:
    """A server hands a slow body on byte by byte, or never: 408, and the app hears nothing (every wait is bounded)."""
    guard = Guard(
        Policy(origins=["https://app.test"], auth=["ticket", "nobody"]),
        authenticators=[Nobody()],
        ticket=Ticket(["nobody"]),
        limits=Limits(body_timeout=1),
    )
    scope = page_scope(method="POST", path="/.wsguard/ticket", raw_path=b"/.wsguard/ticket")
    server = FakeServer(scope)
    asyncio.run(server.run(WebSocketGuard(server.app, guard=guard)))
    assert server.sent[0]["status"] == 408
    assert server.calls == []


class Nobody:
    """An authenticator that finds no credential."""

    name = "nobody"
    carriage: Carriage = "explicit"

    async def authenticate(self, handshake: Handshake, context: Context) -> Identity | Refusal | None:
        return None
