"""Bearer tokens, API keys and tickets in ASGI under uvicorn, on real sockets: from purchase to the code on the wire."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.asgi.conftest import StartServer
from tests.asgi.fake_server import FakeServer, page_scope
from tests.asgi.server_process import SERVERS, ServerName, ServerProcess
from tests.credentials import Place, Visitor, as_subprotocol, bearer, closed, echoes, echoes_until, minted
from wsguard import Guard, Identity, Policy, Refusal
from wsguard.asgi import WebSocketGuard
from wsguard.engine.policy import Context
from wsguard.engine.ports import Carriage
from wsguard.vocabulary.handshake import Handshake

pytestmark = pytest.mark.slow


class Mount:
    """One server, and who visits it; *key* is the API key of ``robot``."""

    def __init__(self, place: Place, key: str, server: ServerProcess, page: Visitor) -> None:
        self.place, self.key, self.server, self.page = place, key, server, page
        self.program = Visitor(page.address, page.context, page.stack, None)

    def reason(self, refused: tuple[int, str]) -> tuple[int, str | None]:
        """The status of a refusal and the reason in the log."""
        return refused[0], self.server.reason_of(refused[1])

    def saw(self, case: str) -> tuple[dict[str, str], dict[str, Any]]:
        """The fields that the app was called with, and the rest."""
        called = self.server.record.wait_for("called", case=case)
        return dict(called["headers"]), called


Start = Callable[..., Mount]


@pytest.fixture
def start(start_server: StartServer, context: ssl.SSLContext, tmp_path: Path) -> Iterator[Start]:
    with ExitStack() as stack:

        def begin(app: str = "credentials:app", name: ServerName = "uvicorn", **keys: Any) -> Mount:
            place = Place(tmp_path)
            key = place.add_key("robot", "chat")
            server = start_server(name, app, environment={"WSGUARD_TEST_FOLDER": str(tmp_path)}, **keys)
            return Mount(place, key, server, Visitor(server.address, context, stack))

        yield begin


def test_the_page_from_purchase_to_expiry(start: Start) -> None:
    """By bearer a ticket, by the ticket a socket, renewed in place; then 3000; and no secret told."""
    mount = start()
    first = bearer(3)
    bought_at = time.time()
    sold = mount.page.buy(first)
    raw, fields = mount.page.open(["chat", *sold["protocols"]], path="/ws/chat?case=page")
    assert fields["sec-websocket-protocol"] == "chat"
    assert "x-wsguard-session" not in fields
    assert echoes(raw, "hello")
    ends = bought_at + 4.5
    renewed = mount.page.renew(sold["session"], bearer(ends - time.time()))
    assert (renewed.status, renewed.json["session_expires_at"]) == (200, int(ends))
    assert renewed.fields["access-control-allow-origin"] == "https://app.test"
    echoes_until(raw, bought_at + 3.3)  # it would have ended by now
    assert closed(raw) == (3000, "credential expired")
    assert -0.2 < time.time() - ends < 2
    seen, called = mount.saw("page")
    assert (called["subject"], called["subprotocols"]) == ("alice", ["chat"])
    assert seen["sec-websocket-protocol"] == "chat"
    assert "reason=credential.expired" in mount.server.wait_for("session.closed")
    told = mount.server.output() + json.dumps(called)
    for secret in (sold["ticket"].rpartition(".")[2], sold["session"], first["Authorization"].split()[1]):
        assert secret not in told


@pytest.mark.parametrize("app", ["credentials:app", "credentials:without_lifespan"])
def test_a_program_by_its_key(start: Start, app: str) -> None:
    """The handle of its 101 renews; the key that leaves the file closes it, with lifespan and without."""
    options = ("--lifespan", "off") if app.endswith("without_lifespan") else ()
    mount = start(app, options=options)
    raw, fields = mount.program.open(fields={"X-API-Key": mount.key}, path="/ws/chat?case=key")
    handle = fields["x-wsguard-session"]
    token, _ = mount.program.open(fields=bearer())
    renewed = mount.program.renew(handle, {"X-API-Key": mount.key})
    assert (renewed.status, renewed.json) == (200, {"session_expires_at": None, "renew_after": None})
    assert mount.program.renew(handle, bearer()).status == 403
    at = time.monotonic()
    mount.place.revoke_key("robot")
    assert closed(raw) == (3000, "revoked")
    print(f"closed {time.monotonic() - at:.2f} s after the key had left the file")
    assert time.monotonic() - at < 5
    refused = mount.program.refused(fields={"X-API-Key": mount.key})
    assert mount.reason(refused) == (401, "api_key.unknown")
    assert echoes(token, "still there")
    assert mount.saw("key")[1]["subject"] == "robot"
    assert mount.key not in mount.server.output()


@pytest.mark.parametrize("name", SERVERS)
def test_the_background_runs_in_a_mounted_app(start: Start, name: ServerName) -> None:
    """No lifespan reaches it: its first scope starts the watch of its key file, its timers, and what ends its sockets."""
    mount = start("credentials:mounted", name)
    raw, _ = mount.program.open(fields={"X-API-Key": mount.key})
    sold = mount.page.buy(bearer(3))
    expires = time.time() + 3
    ticket, _ = mount.page.open(sold["protocols"])
    kept, _ = mount.page.open(mount.page.buy(bearer(60))["protocols"])
    mount.place.revoke_key("robot")
    assert closed(raw) == (3000, "revoked")
    refused = mount.program.refused(fields={"X-API-Key": mount.key})
    assert mount.reason(refused) == (401, "api_key.unknown")
    echoes_until(ticket, expires - 0.5)
    assert closed(ticket) == (3000, "credential expired")
    assert abs(time.time() - expires) < 2
    assert echoes(kept, "still there")


def test_a_program_renews_by_the_handle_of_its_101(start: Start) -> None:
    """Bearer header, no Origin; a weaker token ends the socket with 3003."""
    mount = start()
    begin = time.time()
    raw, fields = mount.program.open(fields=bearer(3))
    handle = fields["x-wsguard-session"]
    assert mount.program.renew(handle, bearer(sub="mallory")).status == 403
    assert mount.program.renew("x" * 43, bearer()).status == 404
    assert mount.program.renew(handle, bearer(60)).status == 200
    echoes_until(raw, begin + 3.3)
    assert mount.program.renew(handle, bearer(60, scope="read")).status == 403
    assert closed(raw) == (3003, "not allowed")
    assert handle not in mount.server.output()


def test_what_the_app_never_sees(start: Start) -> None:
    """Tickets and bearer subprotocols are gone, a client's identity headers too; a replay closes the first socket."""
    mount = start()
    forged = {"X-WSGuard-Subject": "admin", "x_wsguard_scopes": "all", "X-WSGuard-Session": "x"}
    secret = as_subprotocol(minted())
    mount.page.open([secret, "chat"], forged, path="/ws/chat?case=forged")
    seen, called = mount.saw("forged")
    assert not any("wsguard" in name for name in seen)
    assert (called["subject"], called["subprotocols"]) == ("alice", ["chat"])
    assert secret not in json.dumps(called) + mount.server.output()
    sold = mount.page.buy(bearer())
    for query in ("?ticket=x", "?%74icket=x"):
        assert mount.reason(mount.page.refused(sold["protocols"], path=f"/ws/chat{query}")) == (400, "ticket.query")
    raw, _ = mount.page.open(sold["protocols"])
    assert mount.reason(mount.page.refused(sold["protocols"])) == (401, "ticket.used")
    assert closed(raw) == (3000, "ticket.replayed")


def test_the_endpoints_on_the_wire(start: Start) -> None:
    """Framing, methods and CORS as HTTP has them; what is ours never reaches the app."""
    mount = start()
    page, ticket = mount.page, "/.wsguard/ticket"
    preflight = page.ask(ticket, {"Access-Control-Request-Method": "POST"}, None, method="OPTIONS")
    assert (preflight.status, preflight.body, "content-length" in preflight.fields) == (204, b"", False)
    head = page.ask(ticket, {}, None, method="HEAD")
    assert (head.status, head.body, head.fields["allow"]) == (405, b"", "POST, OPTIONS")
    assert page.ask(ticket, bearer(), b'{"path": "' + b"a" * 20_000 + b'"}').status == 413
    foreign = Visitor(page.address, page.context, page.stack, "https://evil.test")
    assert foreign.ask(ticket, bearer(), b'{"path": "/ws/chat"}').status == 403
    session = page.ask("/.wsguard/session?path=/ws/chat", bearer(), None, method="GET")
    assert set(session.json) == {"expires_at"}
    assert mount.server.record.reached() == 0


class Anybody:
    """Everybody is alice, by a header."""

    name = "anybody"
    carriage: Carriage = "explicit"
    in_header = True

    async def authenticate(self, handshake: Handshake, context: Context) -> Identity | Refusal | None:
        return Identity("alice", "tests", self.name)


def test_a_body_that_ends_early_is_no_body() -> None:
    """A client that goes while it sends leaves half a body: 400, and nothing is waited for."""

    async def scenario() -> None:
        policy = Policy(origins=["https://app.test"], hosts=["app.test"], auth=["anybody"])
        guard = Guard(policy, authenticators=[Anybody()])
        fields = [(b"host", b"app.test"), (b"content-type", b"application/json")]
        scope = page_scope(method="POST", path="/.wsguard/renew", raw_path=b"/.wsguard/renew", headers=fields)
        server = FakeServer(scope)
        server._messages.put_nowait({"type": "http.request", "body": b'{"session": ', "more_body": True})
        server._messages.put_nowait({"type": "http.disconnect"})
        await server.run(WebSocketGuard(server.app, guard=guard))
        assert server.sent[0]["status"] == 400
        assert server.calls == []

    asyncio.run(scenario())
