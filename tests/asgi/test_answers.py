"""What a client gets under each server: refusals with their status, refusals told by a close, and subprotocols."""

from __future__ import annotations

import re

import pytest

from tests.asgi.client import TEXT, Client, answer, close_frame, page, reason_of
from tests.gateway.raw_client import frame

pytestmark = pytest.mark.slow

SECRET = "wsguard.ticket.c2VjcmV0LW9mLWFsaWNl"


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "keys", "status", "reason"),
    [
        ("/pass/wait", {"origin": "https://evil.test"}, 403, "origin.not_allowed"),
        ("/pass/wait", {"origin": None}, 403, "origin.missing"),
        ("/pass/wait", {}, 401, "credential.missing"),
        ("/pass/wait", {"extra": "X-Pass: invalid\r\n"}, 401, "credential.invalid"),
        ("/pass/wait", {"extra": "X-Pass: alice;-1\r\n"}, 401, "credential.expired"),
        ("/pass/wait", {"extra": "X-Pass: forbidden\r\n"}, 403, "credential.ambient"),
        ("/broken/wait", {}, 503, "credential.unavailable"),
        ("/broken-list/wait", {}, 503, "policy.source_unavailable"),
        ("/.wsguard/ticket", {}, 404, "route.reserved"),
    ],
)
def test_a_refusal_keeps_its_status(client: Client, path: str, keys: dict[str, str], status: int, reason: str) -> None:
    """The client learns the status and a request id and nothing else, one log line says why, and the app never runs."""
    mark = len(client.server.output())
    got, head, request_id = client.refused(path, **keys)
    assert got == status
    assert re.fullmatch(r"[0-9a-f]{16}", request_id)
    lower = head.lower()
    assert "\r\ncontent-length: " in lower
    # granian 2.8 adds the fields of an acceptance to a refusal: the status is right all the same.
    adds = client.server.name == "granian"
    assert f"\r\nconnection: {'upgrade, ' if adds else ''}close\r\n" in lower
    assert ("\r\nsec-websocket-accept" in lower) == adds
    assert reason not in lower
    assert ("\r\nwww-authenticate: bearer" in lower) == (status == 401)
    line = client.server.wait_for(f"request_id={request_id}")
    assert f" status={status} reason={reason} " in line
    lines = [one for one in client.server.output()[mark:].splitlines() if request_id in one]
    assert len(lines) == 1
    assert client.events("called") == []


def test_the_text_of_a_refusal_is_whole(client: Client) -> None:
    """The body arrives complete, in one message (granian answers 403 to a second), and the connection ends."""
    raw = client.connect()
    raw.send(client.request("/pass/wait"))
    head = raw.reader.head().decode("latin-1").lower()
    body = raw.reader.everything()
    length = re.search(r"content-length: (\d+)", head)
    request_id = re.search(r"x-request-id: (\w+)", head)
    assert length is not None
    assert request_id is not None
    assert body == f"401 Unauthorized\nrequest id: {request_id[1]}\n".encode()
    assert len(body) == int(length[1])


@pytest.mark.parametrize(
    ("extra", "code", "reason"),
    [
        ("", 3000, "credential.missing"),
        ("X-Pass: invalid\r\n", 3000, "credential.invalid"),
        ("X-Pass: forbidden\r\n", 3003, "credential.ambient"),
    ],
)
@pytest.mark.parametrize("offer", ["", "Sec-WebSocket-Protocol: chat, wsguard.v1\r\n"], ids=["no offer", "offer"])
def test_a_browser_is_told_by_a_close_where_the_route_says_so(
    client: Client, extra: str, code: int, reason: str, offer: str
) -> None:
    """With `refusal="close"` a script reads 3000 or 3003 and the request id, and the app never runs all the same."""
    raw = client.connect()
    head = raw.open(client.request("/told/wait", extra=extra + offer)).decode("latin-1").lower()
    assert ("sec-websocket-protocol: wsguard.v1\r\n" in head) == bool(offer)
    close = close_frame(raw)
    assert close.close_code == code
    assert f" reason={reason} " in client.server.wait_for(f"request_id={reason_of(close)}")
    answer(raw, close)
    assert client.events("called") == []


@pytest.mark.parametrize(
    ("keys", "status"),
    [
        ({"origin": "https://evil.test", "extra": "X-Pass: invalid\r\n"}, 403),
        ({"origin": None}, 403),
        ({"origin": "null"}, 403),
        ({"extra": "Sec-WebSocket-Extensions: a;;\r\n"}, 400),
    ],
)
def test_no_close_is_told_before_the_origin_has_passed(client: Client, keys: dict[str, str], status: int) -> None:
    """A foreign page gets no opened socket to tell the refusals of a user's credentials apart by."""
    got, _, _ = client.refused("/told/wait", **keys)
    assert got == status


# --- subprotocols -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("offer", ["", "Sec-WebSocket-Protocol: chat\r\n"], ids=["no offer", "offer"])
def test_a_subprotocol_that_was_not_offered_is_not_answered(client: Client, offer: str) -> None:
    """An app that selects what nobody offered has a fault: 1011 and a log line, and no server raises over it."""
    raw = client.connect()
    head = raw.open(client.request("/plain/foreign", extra=offer)).lower()
    assert b"sec-websocket-protocol" not in head
    close = close_frame(raw)
    assert (close.close_code, reason_of(close)) == (1011, "internal error")
    answer(raw, close)
    session = client.wait_for("called")["session"]
    line = client.server.wait_for(f"session.closed session={session}")
    assert "code=1011 by=wsguard reason=" + "app.subprotocol" in line
    client.wait_for("returned")


@pytest.mark.parametrize(("path", "answered"), [("/plain/first", "chat"), ("/plain/wait", "wsguard.v1")])
def test_the_companion_is_answered_where_the_app_selects_none(client: Client, path: str, answered: str) -> None:
    """Chromium fails a socket whose offer is not answered; the companion is ours to answer and never shown to the app."""
    raw = client.connect()
    head = raw.open(client.request(path, extra="Sec-WebSocket-Protocol: chat, wsguard.v1\r\n")).decode().lower()
    assert f"sec-websocket-protocol: {answered}\r\n" in head
    assert client.wait_for("called")["subprotocols"] == ["chat"]


def test_a_secret_among_the_subprotocols_goes_nowhere(client: Client) -> None:
    """A credential offered as a subprotocol is neither answered nor seen by the app nor written by anybody."""
    raw = client.connect()
    offer = f"Sec-WebSocket-Protocol: {SECRET}, chat, wsguard.v1\r\n"
    head = raw.open(client.request("/plain/wait", extra=offer)).decode("latin-1")
    called = client.wait_for("called")
    assert called["subprotocols"] == ["chat"]
    assert [value for name, value in called["headers"] if name == "sec-websocket-protocol"] == ["chat"]
    refused = client.connect()
    refused.send(client.request("/pass/wait", extra=offer))
    seen = [head, refused.reader.everything().decode("latin-1"), client.server.output(), str(called)]
    assert all(text for text in seen)
    assert [text for text in seen if SECRET in text] == []


# --- what the app sees ------------------------------------------------------------------------------------------------


def test_the_app_sees_what_was_judged(client: Client) -> None:
    """No word of a client about itself as a proxy reaches the app; the Session is there, and the app's answer arrives."""
    raw = client.connect()
    head = raw.open(client.request("/pass/wait", extra="X-Pass: alice\r\nX-WSGuard-User: root\r\n")).lower()
    # granian 2.8 drops the fields that an app adds to its acceptance.
    assert (b"\r\nx-app: 1\r\n" in head) == (client.server.name != "granian")
    called = client.wait_for("called")
    fields = dict(called["headers"])
    assert (called["admission"], called["subject"], called["scheme"]) == ("ASGISession", "alice", "wss")
    assert fields["x-forwarded-proto"] == "https"
    assert fields["x-forwarded-host"] == "app.test"
    assert "x-wsguard-user" not in fields
    raw.send(frame(TEXT, b"hello"))
    echo = raw.frame()
    assert echo is not None
    assert echo.payload == b"hello"


@pytest.mark.parametrize(
    ("path", "status"), [("/pass/write", 403), ("/plain/nobody", 403)], ids=["scope missing", "nobody was asked"]
)
def test_a_dependency_refuses_before_the_accept(client: Client, path: str, status: int) -> None:
    """FastAPI's `identity` and `require_scope` refuse where the Identity is missing or holds too little."""
    raw = client.connect()
    assert raw.status(client.request(path, extra="X-Pass: alice\r\n")) == status
    assert client.events("called") == []


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/page/me", {"X-Pass": "alice"}, 200),
        ("/page/me", {}, 401),
        ("/page/write", {"X-Pass": "alice"}, 403),
        ("/page/me", {"X-Pass": "alice", "Origin": "https://evil.test"}, 200),
        ("/page/me", {"Origin": "https://evil.test"}, 403),
    ],
)
def test_a_page_of_a_route_with_credentials(client: Client, path: str, headers: dict[str, str], status: int) -> None:
    """A page under the policy is asked for its credential as a socket is; a foreign one without it is refused."""
    got, fields, body = page(client.address, client.context, "GET", path, headers)
    assert got == status
    assert (b"alice" in body) == (status == 200)
    assert fields["content-length"] == str(len(body))
