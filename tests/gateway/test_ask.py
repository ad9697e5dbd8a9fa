"""The app's own login through the gateway, not a line of the app changed: who opens a socket, and until when."""

from __future__ import annotations

import base64
import json
import secrets
import ssl
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.credentials import Visitor, closed, echoes, fields_of
from tests.gateway.conftest import Certificates
from tests.gateway.gateway_process import GatewayProcess
from tests.gateway.recording_upstream import Received, RecordingUpstream, echo
from tests.leaks import LEDGER, Kind, Sink, secret

CONFIGURATION = """
listen = ["127.0.0.1:0"]
cert = "{cert}"
key = "{key}"
upstream = "{upstream}"
origins = ["https://app.test"]
hosts = ["app.test"]

[ask]
url = "{upstream}/api/me"
cookies = ["session-*"]
subject = "user.name"
scopes = "user.may"
cache = "0s"
recheck = "1s"

[ticket]
sold_for = ["ask"]

[[route]]
path = "/ws/*"
auth = ["ask"]
require = {{ scopes = ["chat"] }}

[[route]]
path = "/ticket/*"
auth = ["ticket"]

[[route]]
path = "/basic/*"
auth = ["basic"]

[[route]]
path = "/*"
auth = ["ask"]
http = "open"
"""
LOGIN = secret(Kind.COOKIE, secrets.token_urlsafe(24))
PASSWORD = secret(Kind.PASSWORD, secrets.token_urlsafe(24))
BASIC = "Basic " + secret(Kind.PASSWORD, base64.b64encode(f"alice:{PASSWORD}".encode()).decode())
# The app is to get what is its own.
for own in (LOGIN, PASSWORD, BASIC):
    LEDGER.let_through(Sink.UPSTREAM, own)


def login(name: str) -> dict[str, str]:
    """The cookies of somebody who has logged in, or of somebody who says so."""
    return {"Cookie": f"theme=dark; session-8888={name}.{LOGIN}"}


COOKIE = login("alice")


class App:
    """An app with logins, which answers `/api/me`, pages, and echoes sockets. Nothing in it knows of a gateway."""

    def __init__(self) -> None:
        self.logins = {"alice": ["chat"], "bob": ["read"]}
        self.upstream = RecordingUpstream(self.serve)

    def serve(self, received: Received) -> None:
        if received.first("Upgrade") is not None:
            echo(received)
        elif received.request_line.startswith(b"GET /api/me "):
            self.answer(received, *self.who(received))
        else:
            self.answer(received, 200, {"page": True})

    def who(self, received: Received) -> tuple[int, object]:
        name = (received.value("Cookie") or "").partition("session-8888=")[2].removesuffix(f".{LOGIN}")
        if received.value("Authorization") == BASIC:
            name = "alice"
        if name in self.logins:
            return 200, {"user": {"name": name, "may": self.logins[name]}}
        return 403, {}

    def answer(self, received: Received, status: int, members: object) -> None:
        body = json.dumps(members).encode()
        head = f"HTTP/1.1 {status} Answer\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        received.sock.sendall(head.encode() + body)

    def handshakes(self) -> list[Received]:
        return [one for one in self.upstream.received if one.first("Upgrade") is not None]

    def asked(self) -> list[Received]:
        return [one for one in self.upstream.received if one.request_line.startswith(b"GET /api/me ")]


class Mount:
    """A gateway before that app, and a page of it."""

    def __init__(self, app: App, gateway: GatewayProcess, page: Visitor) -> None:
        self.app, self.gateway, self.page = app, gateway, page

    def refused(self, fields: dict[str, str], path: str = "/ws/chat", **more: object) -> tuple[int, str | None]:
        status, request_id = self.page.refused(None, fields, path=path, **more)
        return status, self.gateway.reason_of(request_id)


@pytest.fixture
def mount(certificates: Certificates, client_context: ssl.SSLContext, tmp_path: Path) -> Iterator[Mount]:
    with ExitStack() as stack:
        app = App()
        stack.callback(app.upstream.close)
        file = tmp_path / "wsguard.toml"
        text = CONFIGURATION.format(cert=certificates.cert, key=certificates.key, upstream=app.upstream.url)
        file.write_text(text)
        gateway = GatewayProcess(file)
        yield Mount(app, gateway, Visitor(gateway.address, client_context, stack))
        assert gateway.stop() == 0
        assert gateway.stderr() == ""
        assert "session-8888" not in json.dumps(gateway.log)


@pytest.mark.slow
def test_a_login_opens_sockets_and_its_end_closes_them(mount: Mount) -> None:
    """The app's cookie opens; the app hears who it is; once the app says no, the socket is closed within a recheck."""
    raw, fields = mount.page.open(None, COOKIE)
    assert echoes(raw, "hello")
    assert "x-wsguard-session" not in fields  # ambient: no handle, its recheck decides
    (handshake,) = mount.app.handshakes()
    assert handshake.value("X-WSGuard-Subject") == "alice"
    assert handshake.value("X-WSGuard-Method") == "ask"
    assert handshake.value("Cookie") == COOKIE["Cookie"]
    asked = mount.app.asked()[0]
    assert (asked.value("Host"), asked.value("Cookie")) == ("app.test", f"session-8888=alice.{LOGIN}")
    assert asked.value("Origin") is None
    del mount.app.logins["alice"]
    assert closed(raw) == (3000, "session ended")
    line = mount.gateway.wait_for("session.closed")
    assert (line["code"], line["by"], line["reason"]) == (3000, "wsguard", "credential.refused")
    assert (line["subject"], line["issuer"], line["method"]) == ("alice", "app", "ask")
    assert mount.refused(COOKIE) == (401, "credential.refused")


@pytest.mark.slow
def test_what_it_may_no_longer_do_closes_too(mount: Mount) -> None:
    raw, _ = mount.page.open(None, COOKIE)
    mount.app.logins["alice"] = ["read"]
    assert closed(raw) == (3003, "not allowed")


def test_who_does_not_get_in(mount: Mount) -> None:
    """Foreign pages, nobody, strangers, two cookies, and one without the scope: the app sees no handshake of them."""
    foreign = Visitor(mount.page.address, mount.page.context, mount.page.stack, "https://evil.test")
    status, request_id = foreign.refused(None, COOKIE)
    assert (status, mount.gateway.reason_of(request_id)) == (403, "origin.not_allowed")
    assert mount.app.asked() == []
    assert mount.refused({}) == (401, "credential.missing")
    assert mount.refused(login("mallory")) == (401, "credential.refused")
    assert mount.refused({"Cookie": f"session-8888=alice.{LOGIN}; session-8888=bob.{LOGIN}"}) == (
        400,
        "credential.repeated",
    )
    assert mount.refused(login("bob")) == (403, "authorization.scope")
    assert mount.app.handshakes() == []


def test_pages_are_open_where_the_app_guards_them(mount: Mount) -> None:
    """``http = "open"``: the app shows its login; its sockets need it all the same."""
    assert mount.page.ask("/login", {}, method="GET").status == 200
    assert mount.app.asked() == []
    assert mount.refused({}, "/kernels") == (401, "credential.missing")
    # Under the route that says nothing of http, its fallback transports are judged like its sockets.
    assert mount.page.ask("/ws/poll", {}, method="GET").status == 401
    assert mount.page.ask("/ws/poll", COOKIE, method="GET").status == 200


def test_basic_is_asked_of_the_app_and_not_forwarded(mount: Mount) -> None:
    """A password is verified by the app's own answer, and stays out of the handshake that follows."""
    fields = {"Authorization": BASIC}
    mount.page.open(None, fields, path="/basic/x")
    (handshake,) = mount.app.handshakes()
    assert (handshake.value("Authorization"), handshake.value("X-WSGuard-Subject")) == (None, "alice")
    assert mount.refused({"Authorization": "Basic eDp5"}, "/basic/x") == (401, "credential.refused")
    raw = mount.page.connect()
    raw.send(mount.page.request(path="/basic/x"))
    assert 'Basic realm="wsguard"' in fields_of(raw.reader.head().decode())["www-authenticate"]


@pytest.mark.slow
def test_a_cookie_buys_a_ticket_that_needs_the_cookie_again(mount: Mount) -> None:
    """With X-WSGuard: 1 and a listed Origin; redeemed only beside a cookie of the same user; and closed with its login."""
    body = json.dumps({"path": "/ticket/x"}).encode()
    assert mount.page.ask("/.wsguard/ticket", COOKIE, body).status == 403
    sold = mount.page.buy({**COOKIE, "X-WSGuard": "1"}, "/ticket/x")
    assert sold["session_expires_at"] is None
    for fields in ({}, login("bob"), login("mallory")):
        status, request_id = mount.page.refused(sold["protocols"], fields, path="/ticket/x")
        assert (status, mount.gateway.reason_of(request_id)) == (403, "ticket.identity"), fields
    raw, _ = mount.page.open(sold["protocols"], COOKIE, path="/ticket/x")
    assert echoes(raw, "hello")
    del mount.app.logins["alice"]
    assert closed(raw) == (3000, "session ended")


def test_an_app_that_is_down_refuses_and_is_back_at_once(mount: Mount) -> None:
    """503 for the sockets that need its word; nobody is let in on an old one."""

    def broken(received: Received) -> None:
        if b"/api/me" in received.request_line:
            mount.app.answer(received, 500, {})
        else:
            mount.app.serve(received)

    mount.app.upstream.script = broken
    assert mount.refused(COOKIE) == (503, "credential.unavailable")
    mount.app.upstream.script = mount.app.serve
    raw, _ = mount.page.open(None, COOKIE)
    assert echoes(raw, "hello")
