"""Bearer tokens, API keys and tickets through the gateway, on real sockets: from purchase to the code on the wire."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.credentials import (
    CLOSE,
    Place,
    Visitor,
    as_subprotocol,
    bearer,
    closed,
    echoes,
    echoes_until,
    fields_of,
    minted,
)
from tests.engine.tokens import ISSUER
from tests.gateway.conftest import Certificates
from tests.gateway.gateway_process import GatewayProcess
from tests.gateway.raw_client import read_frame
from tests.gateway.recording_upstream import Received, RecordingUpstream, Script, echo, hold_before_101
from tests.leaks import LEDGER, Sink

CONFIGURATION = """
listen = ["127.0.0.1:0"]
cert = "{cert}"
key = "{key}"
upstream = "{upstream}"
origins = ["https://app.test", "https://second.test"]
hosts = ["app.test", "other.test"]
public_url = "https://app.test"

[jwt."https://id.test"]
audience = ["https://app.test"]
jwks = "file:jwks.json"

[api_keys]
file = "keys.toml"

[ticket]
sold_for = ["bearer"]
{ticket}

[[route]]
path = "/ws/*"
auth = ["ticket", "bearer", "bearer_subprotocol", "api_key"]
origin_required = "unless-header-credential"
require = {{ scopes = ["chat"] }}

[[route]]
path = "/forwarded/*"
auth = ["bearer", "api_key"]
forward_credential = true

[[route]]
path = "/graphql"
auth = ["bearer"]
close_codes = "graphql-transport-ws"

[[route]]
path = "/told/*"
auth = ["ticket", "bearer", "bearer_subprotocol"]
refusal = "close"
require = {{ scopes = ["chat"] }}

[[route]]
path = "/*"
anonymous = true
"""


class Mount:
    """One gateway, what stands behind it, and who visits it; *key* is the API key of ``robot``."""

    def __init__(
        self, place: Place, key: str, gateway: GatewayProcess, upstream: RecordingUpstream, page: Visitor
    ) -> None:
        self.place, self.key, self.gateway, self.upstream, self.page = place, key, gateway, upstream, page
        self.program = Visitor(page.address, page.context, page.stack, None)

    def reason(self, refused: tuple[int, str]) -> tuple[int, str | None]:
        """The status of a refusal and the reason in the log."""
        return refused[0], self.gateway.reason_of(refused[1])


Start = Callable[..., Mount]


@pytest.fixture
def start(certificates: Certificates, client_context: ssl.SSLContext, tmp_path: Path) -> Iterator[Start]:
    """Start the gateway from a file; in the end it stops with 0, has written no traceback, and told no secret."""
    with ExitStack() as stack:

        def begin(script: Script = echo, *, ticket: str = "") -> Mount:
            place = Place(tmp_path)
            key = place.add_key("robot", "chat")
            upstream = RecordingUpstream(or_a_page(script))
            stack.callback(upstream.close)
            text = CONFIGURATION.format(
                cert=certificates.cert, key=certificates.key, upstream=upstream.url, ticket=ticket
            )
            (tmp_path / "wsguard.toml").write_text(text)
            gateway = GatewayProcess(tmp_path / "wsguard.toml")
            stack.callback(ended, gateway)
            page = Visitor(gateway.address, client_context, stack)
            return Mount(place, key, gateway, upstream, page)

        yield begin


def ended(gateway: GatewayProcess) -> None:
    assert gateway.stop() == 0, gateway.stderr()
    assert gateway.stderr() == ""


def or_a_page(script: Script) -> Script:
    """200 to a page, and *script* to a handshake."""

    def serve(received: Received) -> None:
        if received.first("Upgrade") is None:
            received.sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
        else:
            script(received)

    return serve


def selecting(received: Received) -> None:
    """Select the first subprotocol that is offered; then echo."""
    offered = received.value("Sec-WebSocket-Protocol") or ""
    received.sock.sendall(received.switching_protocols(f"Sec-WebSocket-Protocol: {offered.split(',')[0].strip()}"))
    while received.frame() is not None:
        pass


@pytest.mark.slow
def test_the_page_from_purchase_to_expiry(start: Start) -> None:
    """By bearer a ticket, by the ticket a socket, renewed in place; then 3000 to the second; and no secret told."""
    mount = start()
    first = bearer(3)
    bought_at = time.time()
    sold = mount.page.buy(first)
    assert set(sold) == {
        "ticket",
        "expires_in",
        "url",
        "protocols",
        "session",
        "session_expires_at",
        "renew_after",
        "reconnect_window",
    }
    assert sold["url"] == "wss://app.test/ws/chat"
    raw, _ = mount.page.open(["chat", *sold["protocols"]])
    received = mount.upstream.wait_for(1)
    assert echoes(raw, "hello")
    ends = bought_at + 4.5
    renewed = mount.page.renew(sold["session"], bearer(ends - time.time()))
    assert (renewed.status, renewed.json["session_expires_at"]) == (200, int(ends))
    echoes_until(raw, bought_at + 3.3)  # it would have ended by now
    assert closed(raw) == (3000, "credential expired")
    assert -0.2 < time.time() - ends < 2
    line = mount.gateway.wait_for("session.closed")
    assert (line["code"], line["by"], line["reason"]) == (3000, "wsguard", "credential.expired")
    assert (line["subject"], line["issuer"], line["method"]) == ("alice", ISSUER, "bearer")
    for event in ("ticket.sold", "session.opened", "session.renewed"):
        assert mount.gateway.wait_for(event)["subject"] == "alice"
    # What the app saw: whom, and no way to be it.
    assert received.value("Sec-WebSocket-Protocol") == "chat"
    assert received.value("X-WSGuard-Subject") == "alice"
    told = received.head.decode("latin-1") + json.dumps(mount.gateway.log)
    for secret in (sold["ticket"].rpartition(".")[2], sold["session"], first["Authorization"].split()[1]):
        assert secret not in told


@pytest.mark.slow
def test_a_graphql_client_is_told_in_its_own_codes(start: Start) -> None:
    """Expiry is 4401 where the route says so; the log tells the same code."""
    mount = start()
    raw, _ = mount.page.open(None, bearer(1.5), path="/graphql")
    assert closed(raw) == (4401, "credential expired")
    assert mount.gateway.wait_for("session.closed")["code"] == 4401


@pytest.mark.slow
def test_the_program_renews_by_the_handle_of_its_101(start: Start) -> None:
    """No Origin, a bearer header; the handle stands in the 101, renews the socket, and belongs to its subject."""
    mount = start()
    begin = time.time()
    raw, fields = mount.program.open(fields=bearer(3))
    handle = fields["x-wsguard-session"]
    assert len(handle) == 43
    other = mount.program.renew(handle, bearer(60, sub="mallory"))
    assert mount.reason((other.status, other.fields["x-request-id"])) == (403, "session.identity")
    assert mount.page.renew(handle, bearer(60)).status == 403  # from another origin: none is one too
    assert mount.program.renew("x" * 43, bearer(60)).status == 404
    assert mount.program.renew(handle, bearer(4.5)).status == 200
    echoes_until(raw, begin + 3.3)
    weaker = mount.program.renew(handle, bearer(60, scope="read"))
    assert weaker.status == 403
    assert closed(raw) == (3003, "not allowed")
    assert handle not in json.dumps(mount.gateway.log)
    assert mount.program.renew(handle, bearer(60)).status == 404
    # A page's socket has no such handle: its ticket told it.
    _, fields = mount.page.open(mount.page.buy(bearer())["protocols"])
    assert "x-wsguard-session" not in fields


@pytest.mark.slow
def test_a_key_that_leaves_the_file(start: Start) -> None:
    """Its sockets close with 3000 and it opens nothing more; other keys' sockets live; a new key opens."""
    mount = start()
    raw, fields = mount.program.open(fields={"X-API-Key": mount.key})
    token, _ = mount.program.open(fields=bearer())
    assert fields["x-wsguard-session"]
    received = mount.upstream.wait_for(1)
    assert received.value("X-API-Key") is None
    assert (received.value("X-WSGuard-Subject"), received.value("X-WSGuard-Method")) == ("robot", "api_key")
    at = time.monotonic()
    mount.place.revoke_key("robot")
    assert closed(raw) == (3000, "revoked")
    print(f"closed {time.monotonic() - at:.2f} s after the key had left the file")
    assert time.monotonic() - at < 5  # 2 s by RULES §13, on a machine that has nothing else to do
    assert mount.gateway.wait_for("session.closed")["reason"] == "session.revoked"
    assert mount.gateway.wait_for("key.revoked")["credential_id"] == "robot"
    assert mount.reason(mount.program.refused(fields={"X-API-Key": mount.key})) == (401, "api_key.unknown")
    assert echoes(token, "still there")
    assert mount.key not in json.dumps(mount.gateway.log)


@pytest.mark.slow
def test_a_key_that_leaves_while_the_upstream_is_asked(start: Start) -> None:
    """A handshake under way does not slip through: 401 in place of the 101 that the app has given."""
    mount = start(hold_before_101)
    raw = mount.program.connect()
    raw.send(mount.program.request(fields={"X-API-Key": mount.key}))
    received = mount.upstream.wait_for(1)
    mount.place.revoke_key("robot")
    mount.gateway.wait_for("key.revoked", credential_id="robot")
    received.sock.sendall(received.switching_protocols())
    head = raw.reader.head().decode("latin-1")
    assert head.startswith("HTTP/1.1 401 ")
    fields = fields_of(head)
    assert fields["www-authenticate"] == 'Bearer error="invalid_token"'
    assert mount.gateway.reason_of(fields["x-request-id"]) == "session.revoked"


def test_identity_header_deleted_on_upgrade(start: Start) -> None:
    """B-PROXY-06 with identity headers: whatever a client says of itself is gone, and ours stands once, on both ways."""
    mount = start(selecting)
    forged = {
        "X-WSGuard-Subject": "admin",
        "x_wsguard_subject": "admin",
        "X.WSGuard.Scopes": "all",
        "X-WSGuard-Groups": "admins",
        "X-WSGuard-Anything": "admin",
        "X-WSGuard-Session": "admin",
    }
    who = bearer(sub="al ice%\n\u00e9", scope="chat read")
    nobodys = bearer(lifetime=61)
    LEDGER.let_through(Sink.UPSTREAM, nobodys["Authorization"])  # nobody asks for it there: it is the app's own
    mount.page.open(["chat"], {**forged, **who})
    page = mount.page.ask("/ws/page", {**forged, **who}, None, method="GET")
    assert (page.status, page.body) == (200, b"ok")
    anonymous = mount.page.ask("/open", {**forged, **nobodys}, None, method="GET")
    assert anonymous.status == 200
    for number in (1, 2):
        received = mount.upstream.wait_for(number)
        found = sorted((name.lower(), value) for name, value in received.fields if "wsguard" in name.lower())
        assert found == [
            ("x-wsguard-groups", ""),
            ("x-wsguard-issuer", ISSUER),
            ("x-wsguard-method", "bearer"),
            ("x-wsguard-scopes", "chat read"),
            ("x-wsguard-subject", "al%20ice%25%0A%C3%A9"),
        ], received
        assert received.value("Authorization") is None
    third = mount.upstream.wait_for(3)
    assert not any("wsguard" in name.lower() for name, _ in third.fields)
    assert third.value("Authorization") == nobodys["Authorization"]


def test_the_header_goes_on_only_where_it_is_written(start: Start) -> None:
    """``forward_credential``: the app sees the header, of a token and of a key; and elsewhere it does not."""
    mount = start()
    who = bearer()
    LEDGER.let_through(Sink.UPSTREAM, who["Authorization"])
    mount.page.open(fields=who, path="/forwarded/x")
    mount.program.open(fields={"X-API-Key": mount.key}, path="/ws/x")
    assert mount.upstream.wait_for(1).value("Authorization") == who["Authorization"]
    assert mount.upstream.wait_for(2).value("X-API-Key") is None


@pytest.mark.parametrize("prefix", ["wsguard.bearer.", "base64url.bearer.authorization.k8s.io."])
def test_a_bearer_token_among_the_subprotocols(start: Start, prefix: str) -> None:
    """Neither the app nor the client hears of it again; offered alone it is 400, twice 400."""
    mount = start(selecting)
    secret = as_subprotocol(minted(), prefix)
    _, fields = mount.page.open([secret, "chat", "wsguard.v1"])
    received = mount.upstream.wait_for(1)
    assert (fields["sec-websocket-protocol"], received.value("Sec-WebSocket-Protocol")) == ("chat", "chat")
    assert secret not in received.head.decode("latin-1") + json.dumps(mount.gateway.log)
    assert mount.reason(mount.page.refused([secret])) == (400, "subprotocol.only_credentials")
    both = mount.page.refused([secret, "chat"], bearer())
    assert mount.reason(both) == (400, "credential.repeated")
    bad = as_subprotocol("not.a.token", prefix)
    assert mount.reason(mount.page.refused([bad, "chat"])) == (401, "token.malformed")


def test_wrong_place_or_twice_on_the_wire(start: Start) -> None:
    """Another origin, host or query: refused in the log by its reason, and the ticket still opens its own place."""
    mount = start()
    sold = mount.page.buy(bearer())
    second = Visitor(mount.page.address, mount.page.context, mount.page.stack, "https://second.test")
    assert mount.reason(second.refused(sold["protocols"])) == (403, "ticket.origin")
    assert mount.reason(mount.program.refused(sold["protocols"])) == (403, "ticket.origin")
    for query in ("?ticket=x", "?%74icket=x", "?ticket=a&ticket=b"):
        outcome = mount.page.refused(sold["protocols"], path=f"/ws/chat{query}")
        assert mount.reason(outcome) == (400, "ticket.query")
    raw, _ = mount.page.open(sold["protocols"])
    assert mount.reason(mount.page.refused(sold["protocols"])) == (401, "ticket.used")
    assert closed(raw) == (3000, "ticket.replayed")
    assert mount.upstream.count() == 1
    raw, _ = mount.page.open(path="/open?ticket=x")
    assert mount.upstream.wait_for(2).request_line == b"GET /open?ticket=x HTTP/1.1"


@pytest.mark.slow
@pytest.mark.parametrize("replay_closes", [True, False])
def test_two_hundred_redeem_one_ticket(start: Start, replay_closes: bool) -> None:
    """Exactly one 101, 199 times 401; the one socket closes within a second, or lives where that is switched off."""
    mount = start(ticket=f"replay_closes = {str(replay_closes).lower()}")
    sold = mount.page.buy(bearer())
    answers = asyncio.run(race(mount.page, mount.page.request(sold["protocols"]), replay_closes=replay_closes))
    statuses = [status for status, _ in answers]
    print({status: statuses.count(status) for status in set(statuses)})
    assert (statuses.count(101), statuses.count(401)) == (1, 199)
    assert mount.upstream.count() == 1
    used = [line for line in mount.gateway.log if line.get("reason") == "ticket.used"]
    assert len(used) >= 1
    (end,) = [end for status, end in answers if status == 101]
    assert end == ((3000, "ticket.replayed") if replay_closes else None)


async def race(page: Visitor, request: bytes, *, replay_closes: bool) -> list[tuple[int, tuple[int, str] | None]]:
    """Send *request* on 200 connections that are open already; return each status, and how a socket ended within 1 s."""
    ready = asyncio.Barrier(200)

    async def come() -> tuple[int, tuple[int, str] | None]:
        reader, writer = await asyncio.open_connection(*page.address, ssl=page.context, server_hostname="app.test")
        try:
            await ready.wait()
            writer.write(request)
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)
            status = int(head.split(b" ")[1])
            if status != 101:
                return status, None
            try:
                frame = await asyncio.wait_for(reader.readexactly(4), 5 if replay_closes else 1)
            except TimeoutError:
                return status, None
            reason = await reader.readexactly(frame[1] - 2)
            return status, (int.from_bytes(frame[2:]), reason.decode())
        finally:
            writer.close()
            with contextlib.suppress(OSError, ssl.SSLError):
                await writer.wait_closed()

    return await asyncio.gather(*(come() for _ in range(200)))


def test_the_endpoints_on_the_wire(start: Start) -> None:
    """Framing, methods, sizes and CORS as HTTP has them; what is ours never reaches the app."""
    mount = start()
    page = mount.page
    ticket = "/.wsguard/ticket"
    preflight = page.ask(ticket, {"Access-Control-Request-Method": "POST"}, None, method="OPTIONS")
    assert (preflight.status, preflight.body) == (204, b"")
    assert "content-length" not in preflight.fields
    assert preflight.fields["access-control-allow-origin"] == "https://app.test"
    assert preflight.fields["vary"] == "Origin"
    assert "access-control-allow-credentials" not in preflight.fields
    head = page.ask(ticket, {}, None, method="HEAD")
    assert (head.status, head.body, head.fields["allow"]) == (405, b"", "POST, OPTIONS")
    long = b'{"path": "' + b"a" * 8192 + b'"}'
    assert page.ask(ticket, bearer(), long).status == 413
    huge = page.connect()
    huge.send(
        b"POST /.wsguard/ticket HTTP/1.1\r\nHost: app.test\r\nContent-Type: application/json\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n" + b"2000\r\n" + b"a" * 8192 + b"\r\n2000\r\n" + b"a" * 8192 + b"\r\n"
    )
    assert huge.reader.head().startswith(b"HTTP/1.1 413 ")
    assert page.ask(ticket, {**bearer(), "Content-Type": "text/plain"}, b"{}").status == 415
    sold = page.ask(ticket, bearer(), b'{"path": "/ws/chat"}')
    assert sold.status == 200
    assert sold.fields["cache-control"] == "no-store"
    assert sold.fields["access-control-allow-origin"] == "https://app.test"
    foreign = Visitor(page.address, page.context, page.stack, "https://evil.test")
    refused = foreign.ask(ticket, bearer(), b'{"path": "/ws/chat"}')
    assert (refused.status, "access-control-allow-origin" in refused.fields) == (403, False)
    assert page.ask(ticket, {"X-API-Key": "wsg_x"}, b'{"path": "/ws/chat"}').status == 401  # it sells none
    assert page.ask("/.wsguard/%74icket", bearer(), b'{"path": "/ws/chat"}').status == 404
    session = page.ask("/.wsguard/session?path=/ws/chat", bearer(), None, method="GET")
    assert set(session.json) == {"expires_at"}
    assert mount.upstream.count() == 0


def test_a_close_frame_is_a_whole_frame(start: Start) -> None:
    """What is read above byte by byte is what a client's reader sees."""
    mount = start()
    sold = mount.page.buy(bearer())
    raw, _ = mount.page.open(sold["protocols"])
    mount.page.refused(sold["protocols"])
    found = read_frame(raw.reader)
    assert found is not None
    assert (found.opcode, found.fin, found.masked, found.close_code) == (CLOSE, True, False, 3000)


@pytest.mark.parametrize(
    ("protocols", "lifetime", "scope", "answered", "code", "reason"),
    [
        (["chat"], -5, "chat", "chat", 3000, "token.expiry"),
        (["chat", "wsguard.v1"], 60, "read", "wsguard.v1", 3003, "authorization.scope"),
        ([], -5, "chat", None, 3000, "token.expiry"),
    ],
)
def test_a_script_is_told_why(
    start: Start, protocols: list[str], lifetime: float, scope: str, answered: str | None, code: int, reason: str
) -> None:
    """``refusal = "close"``: a socket that opens and closes at once with the code; the app hears nothing of it."""
    mount = start()
    raw, fields = mount.page.open(protocols, bearer(lifetime, scope=scope), path="/told/x")
    assert fields.get("sec-websocket-protocol") == answered
    found, request_id = closed(raw)
    assert (found, mount.gateway.reason_of(request_id)) == (code, reason)
    assert raw.frame() is None
    foreign = Visitor(mount.page.address, mount.page.context, mount.page.stack, "https://evil.test")
    assert mount.reason(foreign.refused(protocols, bearer(), path="/told/x")) == (403, "origin.not_allowed")
    assert mount.upstream.count() == 0


def test_a_refusal_echoes_no_secret(start: Start) -> None:
    """Also where the secret stands first and nothing else could be answered."""
    mount = start()
    for prefix in ("base64url.bearer.authorization.k8s.io.", "wsguard.bearer."):
        secret = as_subprotocol("not.a.token", prefix)
        raw, fields = mount.page.open([secret, "chat"], path="/told/x")
        assert fields["sec-websocket-protocol"] == "chat"
        assert closed(raw)[0] == 3000
