"""From an accepted handshake to an open tunnel: only over a checked 101, and with nothing lost around it."""

from __future__ import annotations

import socket
import ssl
import struct
import threading
from collections.abc import Callable
from contextlib import suppress

import pytest

from tests.gateway.conftest import StartGateway
from tests.gateway.raw_client import KEY, RawClient, frame, handshake
from tests.gateway.recording_upstream import Received, RecordingUpstream, echo, hold, hold_before_101

StartUpstream = Callable[..., RecordingUpstream]
BINARY, CLOSE = 2, 8


def test_early_bytes_wait_for_101(
    engine: str, start_gateway: StartGateway, start_upstream: StartUpstream, client_context: ssl.SSLContext
) -> None:
    """B-HEAD-02: frames sent in the packet of the head reach the upstream whole, and only after its 101."""
    upstream = start_upstream(hold_before_101)
    gateway = start_gateway(upstream.url, tls_engine=engine)
    with RawClient(gateway.address, client_context) as client:
        client.send(handshake() + frame(BINARY, b"early") + frame(BINARY, b"x" * 30_000))
        received = upstream.wait_for(1)
        received.sock.settimeout(0.3)
        assert received.rest == b""
        with pytest.raises(TimeoutError):
            received.sock.recv(1)
        received.sock.settimeout(20)
        answer = received.switching_protocols() + frame(BINARY, b"at once", masked=False)
        received.sock.sendall(answer[:20])
        received.sock.sendall(answer[20:])
        assert client.reader.head().startswith(b"HTTP/1.1 101 ")
        first, second = received.frame(), received.frame()
        assert first is not None
        assert second is not None
        assert (first.payload, first.masked, second.payload) == (b"early", True, b"x" * 30_000)
        got = client.frame()
        assert got is not None
        assert got.payload == b"at once"


def test_more_early_bytes_than_the_bound_wait_in_the_kernel(
    start_gateway: StartGateway, start_upstream: StartUpstream, client_context: ssl.SSLContext
) -> None:
    """A client that floods before the 101 is not read on: nothing is lost, memory stays."""
    upstream = start_upstream(hold_before_101)
    gateway = start_gateway(upstream.url)
    payload = b"x" * 15_000_000
    with RawClient(gateway.address, client_context) as client:
        before = gateway.memory()
        data = handshake() + frame(BINARY, payload)
        client.sock.settimeout(1)
        sent = 0
        with suppress(TimeoutError):
            while sent < len(data):
                sent += client.sock.send(data[sent : sent + 16384])
        assert sent < len(data), "the flood was drained: the test shows nothing"
        assert gateway.memory() - before < 2_000_000
        received = upstream.wait_for(1)
        received.sock.sendall(received.switching_protocols())
        client.sock.settimeout(20)
        # OpenSSL wants the record that it could not send offered again as it was.
        sending = threading.Thread(target=client.send, args=(data[sent:],))
        sending.start()
        got = received.frame()
        sending.join(20)
        assert got is not None
        assert got.payload == payload


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (b"HTTP/1.1 426 Upgrade Required\r\nContent-Length: 4\r\nX-App: yes\r\n\r\nbody", 426),
        (b"HTTP/1.1 200 OK\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nContent-Length: 4\r\n\r\nbody", 200),
        (b"HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n", 403),
    ],
)
def test_refused_upgrade_is_no_tunnel(
    start_gateway: StartGateway,
    start_upstream: StartUpstream,
    client_context: ssl.SSLContext,
    answer: bytes,
    status: int,
) -> None:
    """B-UPSTREAM-01: the app's refusal reaches the client, body included; then both connections end, nothing goes on."""

    def script(received: Received) -> None:
        received.sock.settimeout(20)
        received.sock.sendall(answer)
        received.rest += received.sock.recv(65536)
        received.done.set()

    upstream = start_upstream(script)
    gateway = start_gateway(upstream.url)
    with RawClient(gateway.address, client_context) as client:
        client.send(handshake() + b"GET /internal HTTP/1.1\r\nHost: app.test\r\n\r\n")
        data = client.reader.everything()
    assert data.startswith(b"HTTP/1.1 %d " % status)
    assert b"body" in data
    assert data.lower().count(b"http/1.1") == 1
    received = upstream.wait_for(1)
    assert received.done.wait(20)
    assert received.rest == b""
    assert upstream.count() == 1
    gateway.wait_for("handshake.refused_by_app", status=status)


BAD_101 = [
    ("Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=", "upstream.bad_accept"),
    ("", "upstream.bad_accept"),
    ("{accept}\r\nSec-WebSocket-Protocol: other", "upstream.bad_subprotocol"),
    ("{accept}\r\nSec-WebSocket-Extensions: permessage-deflate", "upstream.bad_extension"),
    ("{accept}\r\nContent-Length: 3", "upstream.bad_upgrade"),
]


@pytest.mark.parametrize(("lines", "reason"), BAD_101)
def test_a_false_101_is_502(
    start_gateway: StartGateway, start_upstream: StartUpstream, client_context: ssl.SSLContext, lines: str, reason: str
) -> None:
    """B-UPSTREAM-02: an answer that is not to our handshake opens nothing, and one log line says why."""

    def script(received: Received) -> None:
        accept = next(line for line in received.switching_protocols().decode().split("\r\n") if "Accept" in line)
        body = lines.replace("{accept}", accept)
        head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        received.sock.sendall((head + body + "\r\n" * (1 if body else 0) + "\r\n").encode())
        received.done.wait(20)

    upstream = start_upstream(script)
    gateway = start_gateway(upstream.url)
    with RawClient(gateway.address, client_context) as client:
        assert client.status(handshake()) == 502
    assert gateway.wait_for("handshake.refused")["reason"] == reason


def reset(received: Received) -> None:
    received.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def garbage(received: Received) -> None:
    received.sock.sendall(b"SSH-2.0-OpenSSH_9\r\n\r\n")


@pytest.mark.parametrize(
    ("script", "status", "reason"),
    [
        (reset, 502, "upstream.unreachable"),
        (garbage, 502, "upstream.malformed"),
        (hold_before_101, 504, "upstream.slow"),
    ],
)
def test_a_broken_or_slow_upstream(
    start_gateway: StartGateway,
    start_upstream: StartUpstream,
    client_context: ssl.SSLContext,
    script: Callable[[Received], None],
    status: int,
    reason: str,
) -> None:
    """Down is 502, slow is 504, each with one log line."""
    gateway = start_gateway(start_upstream(script).url, limits={"upstream_upgrade": "300ms"})
    with RawClient(gateway.address, client_context) as client:
        assert client.status(handshake()) == status
    assert gateway.wait_for("handshake.refused")["reason"] == reason


def test_an_upstream_that_is_not_there(start_gateway: StartGateway, client_context: ssl.SSLContext) -> None:
    """The gateway starts before its app does, and says 502 until it is there."""
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    gateway = start_gateway(f"http://127.0.0.1:{port}")
    with RawClient(gateway.address, client_context) as client:
        assert client.status(handshake()) == 502


def test_tunnels_are_never_pooled(
    start_gateway: StartGateway, start_upstream: StartUpstream, client_context: ssl.SSLContext
) -> None:
    """B-UPSTREAM-03: an upgrade's connection is neither taken from the pages' pool nor returned to it."""

    def script(received: Received) -> None:
        while True:
            if received.value("Upgrade"):
                echo(received)
                return
            received.sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            head = received.reader.head()
            if not head:
                return
            received.head = head

    upstream = start_upstream(script)
    gateway = start_gateway(upstream.url)
    page = b"GET / HTTP/1.1\r\nHost: app.test\r\n\r\n"
    for _ in range(3):
        with RawClient(gateway.address, client_context) as client:
            assert client.status(page) == 200
        with RawClient(gateway.address, client_context) as client:
            client.open()
            client.send(frame(CLOSE, b"\x03\xe8"))
            assert client.frame() is not None
    # One kept connection for the pages, one of its own for each of the three tunnels.
    assert upstream.count() == 4


def test_half_dead_tunnel_is_reaped(
    start_gateway: StartGateway, start_upstream: StartUpstream, client_context: ssl.SSLContext
) -> None:
    """B-UPSTREAM-04: whichever side goes, the other is closed within a bound, and nothing is kept."""
    upstream = start_upstream(hold)
    gateway = start_gateway(upstream.url)
    descriptors = gateway.descriptors()
    gone = RawClient(gateway.address, client_context)
    gone.open()
    gone.reset()
    assert upstream.wait_for(1).sock.recv(1) == b""
    with RawClient(gateway.address, client_context) as client:
        client.open()
        upstream.wait_for(2).sock.shutdown(socket.SHUT_RDWR)
        got = client.frame()
        assert got is not None
        assert (got.opcode, got.close_code) == (CLOSE, 1014)
        assert client.frame() is None
    gateway.wait_for("session.closed", by="upstream", code=1014)
    gateway.wait_for("session.closed", by="client", code=1006)
    assert gateway.descriptors() <= descriptors + 1


def test_upgrade_answer_is_ours(
    start_gateway: StartGateway, start_upstream: StartUpstream, client_context: ssl.SSLContext
) -> None:
    """RULES §5: the 101 is built by us; the app's cookies become Secure, identity and hop-by-hop fields end here."""

    def script(received: Received) -> None:
        extra = (
            "Set-Cookie: a=b; HttpOnly",
            "X-WSGuard-Session: forged",
            "Keep-Alive: 5",
            "X-App: yes",
            "Sec-WebSocket-Protocol: chat",
        )
        received.sock.sendall(received.switching_protocols(*extra))
        received.done.wait(20)

    gateway = start_gateway(start_upstream(script).url)
    with RawClient(gateway.address, client_context) as client:
        head = client.open(
            handshake(extra="Sec-WebSocket-Protocol: chat, wsguard.v1, wsguard.ticket.SECRET\r\n")
        ).decode()
    lines = head.split("\r\n")
    assert "Set-Cookie: a=b; HttpOnly; Secure" in lines
    assert "X-App: yes" in lines
    assert "Sec-WebSocket-Protocol: chat" in lines
    assert "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in lines
    assert not [line for line in lines if line.lower().startswith(("x-wsguard", "keep-alive"))]
    assert "SECRET" not in head


@pytest.mark.parametrize(
    ("offer", "answered"),
    [("chat, wsguard.v1", "wsguard.v1"), ("chat", None), ("wsguard.v1, wsguard.bearer.X", "wsguard.v1")],
)
def test_the_companion_is_answered_where_the_app_selects_nothing(
    start_gateway: StartGateway,
    start_upstream: StartUpstream,
    client_context: ssl.SSLContext,
    offer: str,
    answered: str | None,
) -> None:
    """RULES §4: Chromium fails a socket that offered protocols and got none; nothing that was not offered is answered."""
    upstream = start_upstream(hold)
    gateway = start_gateway(upstream.url)
    with RawClient(gateway.address, client_context) as client:
        head = client.open(handshake(extra=f"Sec-WebSocket-Protocol: {offer}\r\n")).decode()
    lines = [line for line in head.split("\r\n") if line.startswith("Sec-WebSocket-Protocol")]
    assert lines == ([] if answered is None else [f"Sec-WebSocket-Protocol: {answered}"])
    seen = upstream.wait_for(1).value("Sec-WebSocket-Protocol")
    assert seen == ("chat" if "chat" in offer else None)
    if answered is None:
        gateway.wait_for("subprotocol.none_selected")


def test_what_is_matched_is_what_is_forwarded(
    start_gateway: StartGateway, start_upstream: StartUpstream, client_context: ssl.SSLContext
) -> None:
    """B-HEAD-05: the target goes on as the raw bytes that were judged, and the client's key with it."""
    upstream = start_upstream(hold)
    gateway = start_gateway(upstream.url)
    path = "/ws/%7Euser/a;b?x=%2F..%2F&y=%00"
    with RawClient(gateway.address, client_context) as client:
        client.open(handshake(path=path))
    received = upstream.wait_for(1)
    assert received.request_line == f"GET {path} HTTP/1.1".encode()
    assert received.value("Sec-WebSocket-Key") == KEY
    assert received.value("Origin") == "https://app.test"
    assert received.value("X-Forwarded-Proto") == "https"
    line = gateway.wait_for("session.opened")
    assert line["path"] == "/ws/%7Euser/a;b"


def test_half_and_pipelined_upgrades_on_the_wire(
    start_gateway: StartGateway, start_upstream: StartUpstream, client_context: ssl.SSLContext
) -> None:
    """B-HEAD-03: a handshake behind an unfinished exchange is 400 and the end; behind a finished one it may follow."""

    def script(received: Received) -> None:
        if received.value("Upgrade"):
            hold(received)
        else:
            received.sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")

    upstream = start_upstream(script)
    gateway = start_gateway(upstream.url)
    page = b"GET / HTTP/1.1\r\nHost: app.test\r\n\r\n"
    with RawClient(gateway.address, client_context) as client:
        client.send(page + handshake())
        data = client.reader.everything()
    assert data.startswith(b"HTTP/1.1 200 ")
    assert b"HTTP/1.1 400 " in data
    gateway.wait_for("handshake.refused", reason="syntax.pipelined")
    with RawClient(gateway.address, client_context) as client:
        client.send(page)
        assert client.reader.head().startswith(b"HTTP/1.1 200 ")
        assert client.reader.exactly(2) == b"ok"
        client.open()


def test_every_way_in_runs_the_checks(
    start_gateway: StartGateway, start_upstream: StartUpstream, client_context: ssl.SSLContext
) -> None:
    """B-ORIGIN-10: every route, first or later request of a connection, odd forms of an upgrade: the same refusal."""
    upstream = start_upstream(hold)
    gateway = start_gateway(
        upstream.url,
        routes=[
            {"path": "/a/*"},
            {"path": "/open/*", "http": "open"},
            {"path": "/plain/*", "http": "plain"},
            {"path": "/same/*", "http": "same-policy"},
        ],
    )
    evil = "https://evil.test"
    for path in ("/a/ws", "/open/ws", "/plain/ws", "/same/ws"):
        with RawClient(gateway.address, client_context) as client:
            assert client.status(handshake(origin=evil, path=path)) == 403
        lone = f"GET {path} HTTP/1.1\r\nHost: app.test\r\nOrigin: {evil}\r\nSec-WebSocket-Version: 13\r\n\r\n"
        with RawClient(gateway.address, client_context) as client:
            assert client.status(lone.encode()) == 400
    with RawClient(gateway.address, client_context) as client:
        assert client.status(handshake(path="/nowhere")) == 404
    assert upstream.count() == 0
