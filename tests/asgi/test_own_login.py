"""An app that logs people in itself sells tickets by `Guard.issue_ticket`, and takes them for pages by `Guard.redeem`."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.asgi.conftest import StartServer
from tests.asgi.fake_server import FakeServer, page_scope, socket_scope
from tests.credentials import Answer, Visitor
from wsguard import ConfigurationError, Guard, Identity, Policy, Ticket, TicketRefused
from wsguard.asgi import WebSocketGuard
from wsguard.asgi.middleware import UnguardedScopeError
from wsguard.endpoints.messages import EndpointResponse

NOW = 1_800_000_000.0
APP, OTHER = "https://app.test", "https://other.test"
ALICE = Identity("alice", "app", "password", frozenset({"chat"}), expires_at=NOW + 100, issued_at=NOW - 1)


class World:
    """A guard with a clock that the test moves, and an app behind it that does what the test asks."""

    def __init__(self, **policy: Any) -> None:
        self.now = NOW
        asks: dict[str, Any] = {"origins": [APP, OTHER], "hosts": ["app.test"], "auth": ["ticket"], **policy}
        self.guard = Guard(
            routes={
                "/ws/*": Policy(**asks),
                "/export": Policy(**asks, http="open"),
                "/second": Policy(**asks, http="open"),
                "/*": Policy(origins=[APP, OTHER], hosts=["app.test"], anonymous=True),
            },
            ticket=Ticket(),
            public_url=APP,
            wall_clock=lambda: self.now,
        )

    async def page(self, behave: Any, headers: dict[str, str], path: str) -> Any:
        """Let the app do something with a page's request; return what came of it."""
        results: list[Any] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            results.append(await behave(scope))

        raw = [(name.lower().encode(), value.encode()) for name, value in {"Host": "app.test", **headers}.items()]
        server = FakeServer(page_scope(headers=raw, path=path, raw_path=path.encode()), app)
        await server.run(WebSocketGuard(server.app, guard=self.guard))
        assert results, server.sent
        return results[0]

    async def issue(
        self, identity: Identity = ALICE, path: str = "/ws/chat", *, origin: str | None = APP, **headers: str
    ) -> EndpointResponse:
        sent = {**({} if origin is None else {"Origin": origin}), **headers}
        return await self.page(lambda scope: self.guard.issue_ticket(scope, identity, path=path), sent, "/login")

    async def redeem(self, *tickets: str, path: str = "/export", **headers: str) -> Identity | tuple[int, str]:
        async def behave(scope: Any) -> Identity | tuple[int, str]:
            assert not any(name.startswith(b"x-wsguard") for name, _ in scope["headers"])
            try:
                return await self.guard.redeem(scope)
            except TicketRefused as error:
                refused = error
                told = dict(refused.headers)
            if told.get("X-Request-Id") != refused.request_id:
                raise AssertionError(told)
            return refused.status, refused.reason

        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        for one in tickets:
            sent["X-WSGuard-Ticket"] = one
        return await self.page(behave, sent, path)

    async def shake(self, protocols: list[str], origin: str = APP) -> list[str]:
        """Come with a handshake; return what the server was sent."""
        scope = socket_scope(origin=origin, path="/ws/chat", subprotocols=protocols)
        scope["headers"].append((b"sec-websocket-protocol", ", ".join(protocols).encode()))

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "websocket.accept"})

        server = FakeServer(scope, app)
        await server.run(WebSocketGuard(server.app, guard=self.guard))
        return [f"{message['type']} {message.get('status', '')}".strip() for message in server.sent]


def run(scenario: Any) -> None:
    asyncio.run(scenario())


def code(answer: EndpointResponse) -> tuple[int, str | None]:
    return answer.status, None if answer.refusal is None else answer.refusal.reason.code


def test_the_app_sells_what_the_endpoint_sells() -> None:
    """The same answer, bound to the page's origin; it opens one socket."""

    async def scenario() -> None:
        world = World()
        answer = await world.issue()
        sold = answer.json()
        assert answer.status == 200
        assert sold["url"] == "wss://app.test/ws/chat"
        assert (sold["session_expires_at"], sold["expires_in"]) == (int(NOW) + 100, 30)
        assert (await world.shake(sold["protocols"], OTHER))[0] == "websocket.http.response.start 403"
        assert (await world.shake(sold["protocols"]))[0] == "websocket.accept"
        assert (await world.shake(sold["protocols"]))[0] == "websocket.http.response.start 401"

    run(scenario)


def test_who_logs_in_anew_after_a_revocation_is_let_in() -> None:
    """An identity without `issued_at` is issued when it is sold for, not before every revocation there will ever be."""

    async def scenario() -> None:
        world = World()
        plain = Identity("alice", "app", "password", frozenset({"chat"}))
        sold = await world.issue(plain)
        assert sold.status == 200
        world.now += 2
        await world.guard.revoke(subject="alice")
        assert (await world.shake(sold.json()["protocols"]))[0] == "websocket.http.response.start 401"
        world.now += 2
        again = await world.issue(plain)
        assert again.status == 200
        assert (await world.shake(again.json()["protocols"]))[0] == "websocket.accept"

    run(scenario)


def test_what_the_endpoint_would_refuse_the_app_cannot_sell() -> None:
    """Origin, Host, route, what the route requires, a revocation, the end of the login."""

    async def scenario() -> None:
        world = World(require={"scopes": ["chat"]})
        assert code(await world.issue(origin="https://evil.test")) == (403, "origin.not_allowed")
        assert code(await world.issue(origin="null")) == (403, "origin.null")
        assert code(await world.issue(path="/nowhere")) == (403, "ticket.route")
        assert code(await world.issue(path="/ws/chat?x=1")) == (400, "ticket.body")
        assert code(await world.issue(Identity("bob", "app", "password"))) == (403, "authorization.scope")
        world.now += 100
        assert code(await world.issue()) == (401, "credential.expired")
        world.now -= 100
        await world.guard.revoke(subject="alice")
        assert code(await world.issue()) == (401, "session.revoked")

    run(scenario)


def test_a_download_takes_the_ticket() -> None:
    """Once, in its own field, which the app does not see; a browser sends no Origin with a GET to its own site."""

    async def scenario() -> None:
        world = World()
        ticket = (await world.issue(path="/export")).json()["ticket"]
        found = await world.redeem(ticket, Sec_Fetch_Site="same-origin")
        assert isinstance(found, Identity)
        assert found.subject == "alice"
        assert await world.redeem(ticket, Sec_Fetch_Site="same-origin") == (401, "ticket.used")

    run(scenario)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, (403, "ticket.origin")),
        ({"Sec_Fetch_Site": "cross-site"}, (403, "ticket.origin")),
        ({"Sec_Fetch_Site": "none"}, (403, "ticket.origin")),
        ({"Origin": OTHER}, (403, "ticket.origin")),
        ({"Origin": "https://evil.test"}, (403, "origin.not_allowed")),
        ({"Sec_Fetch_Site": "same-origin", "path": "/second"}, (403, "ticket.route")),
    ],
)
def test_a_refused_redemption_spends_no_ticket(headers: dict[str, str], expected: tuple[int, str]) -> None:
    async def scenario() -> None:
        world = World()
        ticket = (await world.issue(path="/export")).json()["ticket"]
        assert await world.redeem(ticket, **headers) == expected
        assert isinstance(await world.redeem(ticket, Origin=APP), Identity)

    run(scenario)


def test_what_is_no_ticket() -> None:
    async def scenario() -> None:
        world = World()
        ticket = (await world.issue(path="/export")).json()["ticket"]
        assert await world.redeem() == (401, "credential.missing")
        assert await world.redeem("nonsense", Origin=APP) == (401, "ticket.malformed")
        assert await world.redeem(ticket[:-4] + "AAAA", Origin=APP) == (401, "ticket.unknown")
        await world.guard.revoke(subject="alice")
        assert await world.redeem(ticket, Origin=APP) == (401, "session.revoked")

    run(scenario)


def test_a_request_that_no_guard_has_seen_is_an_error() -> None:
    """Nobody has judged its Host then; and a guard without tickets has none to sell."""

    async def scenario() -> None:
        world = World()
        for request in (page_scope(), object(), socket_scope()):
            with pytest.raises(UnguardedScopeError, match="is WebSocketGuard around this app"):
                await world.guard.issue_ticket(request, ALICE, path="/ws/chat")
            with pytest.raises(UnguardedScopeError):
                await world.guard.redeem(request)
        with pytest.raises(ConfigurationError, match="ticket"):
            await Guard(Policy(origins=[APP])).issue_ticket(page_scope(), ALICE, path="/ws")

    run(scenario)


@pytest.fixture
def visitor(start_server: StartServer, context: ssl.SSLContext) -> Iterator[Visitor]:
    with ExitStack() as stack:
        server = start_server("uvicorn", "own_login:app")
        yield Visitor(server.address, context, stack)


@pytest.mark.slow
def test_a_fastapi_app_with_a_login_of_its_own(visitor: Visitor) -> None:
    """Under uvicorn, on real sockets: log in, open the socket, download."""

    def login(path: str, password: str = "correct horse") -> Answer:
        told = json.dumps({"user": "alice", "password": password, "path": path}).encode()
        return visitor.ask("/login", {}, told)

    assert login("/ws/chat", "wrong").status == 401
    sold = login("/ws/chat").json
    assert visitor.refused([], path="/ws/chat")[0] == 401
    raw, _ = visitor.open(sold["protocols"], path="/ws/chat")
    found = raw.frame()
    assert found is not None
    assert found.payload == b"alice"
    ticket = login("/export").json["ticket"]
    assert visitor.ask("/export", {}, None, method="GET").status == 401
    answer = visitor.ask("/export", {"X-WSGuard-Ticket": ticket}, None, method="GET")
    assert (answer.status, answer.json) == (200, {"of": "alice", "ticket": "hidden"})
    assert visitor.ask("/export", {"X-WSGuard-Ticket": ticket}, None, method="GET").status == 401
