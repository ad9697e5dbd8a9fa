"""Pages through the gateway: streamed, re-framed, kept alive with care, and delivered over HTTPS."""

from __future__ import annotations

import contextlib
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.credentials import Place, bearer
from tests.gateway.conftest import StartGateway
from tests.gateway.gateway_process import GatewayProcess
from tests.gateway.raw_client import RawClient
from tests.gateway.recording_upstream import Received, RecordingUpstream

StartUpstream = Callable[..., RecordingUpstream]
Script = Callable[[Received], None]


def answering(*answers: bytes) -> Script:
    """Answer the requests of one connection in turn, then close."""

    def script(received: Received) -> None:
        received.sock.settimeout(20)
        for answer in answers:
            received.sock.sendall(answer)
            head = received.reader.head()
            if not head:
                return
            received.head = head

    return script


def request(method: str = "GET", path: str = "/", fields: str = "", body: bytes = b"", version: str = "1.1") -> bytes:
    """A page request's bytes."""
    return f"{method} {path} HTTP/{version}\r\nHost: app.test\r\n{fields}\r\n".encode() + body


def read_response(client: RawClient) -> tuple[bytes, bytes]:
    """Return head and body of one response, by its framing."""
    head = client.reader.head()
    lower = head.lower()
    if b"transfer-encoding: chunked" in lower:
        body = b""
        while True:
            size = b""
            while not size.endswith(b"\r\n"):
                size += client.reader.exactly(1) or pytest.fail("cut short")
            length = int(size, 16)
            body += client.reader.exactly(length + 2)[:-2] if length else (client.reader.exactly(2) or b"")[:0]  # type: ignore[index]
            if not length:
                return head, body
    if b"content-length: " in lower:
        length = int(lower.split(b"content-length: ")[1].split(b"\r\n")[0])
        return head, client.reader.exactly(length) or b""
    return head, client.reader.everything()


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def test_a_page_and_its_connection_are_kept(
    engine: str, start_gateway: StartGateway, start_upstream: StartUpstream, client_context: ssl.SSLContext
) -> None:
    """Several pages on one connection of the client, and one upstream; pipelined ones are answered in order."""
    upstream = start_upstream(answering(OK, OK, OK, OK))
    gateway = start_gateway(upstream.url, tls_engine=engine)
    with RawClient(gateway.address, client_context) as client:
        for _ in range(2):
            client.send(request())
            assert read_response(client)[1] == b"ok"
        client.send(request(path="/a") + request(path="/b"))
        assert [read_response(client)[1] for _ in range(2)] == [b"ok", b"ok"]
    assert upstream.count() == 1


def test_a_dead_kept_connection_costs_a_safe_request_nothing(
    start_gateway: StartGateway, start_upstream: StartUpstream, client_context: ssl.SSLContext
) -> None:
    """The upstream may close a kept connection at any moment: GET is sent once more, POST never meets a kept one."""
    upstream = start_upstream(answering(OK))
    gateway = start_gateway(upstream.url)
    with RawClient(gateway.address, client_context) as client:
        for _ in range(3):
            client.send(request())
            assert read_response(client)[0].startswith(b"HTTP/1.1 200")
        seen = upstream.count()
        client.send(request("POST", fields="Content-Length: 3\r\n", body=b"abc"))
        assert read_response(client)[0].startswith(b"HTTP/1.1 200")
        assert upstream.count() == seen + 1


def test_an_unsafe_request_is_never_sent_twice(
    start_gateway: StartGateway, start_upstream: StartUpstream, client_context: ssl.SSLContext
) -> None:
    """An upstream that dies over a POST is 502: nobody knows whether it was carried out."""
    upstream = start_upstream(lambda received: None)
    gateway = start_gateway(upstream.url)
    with RawClient(gateway.address, client_context) as client:
        assert client.status(request("POST", fields="Content-Length: 3\r\n", body=b"abc")) == 502
    assert upstream.count() == 1


@pytest.mark.parametrize(
    ("answer", "method", "body"),
    [
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nX-Trailer: 1\r\n\r\n",
            "GET",
            b"abcde",
        ),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", "HEAD", b""),
        (b"HTTP/1.1 204 No Content\r\n\r\n", "GET", b""),
        (b"HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n", "GET", b""),
        (b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "GET", b"ok"),
    ],
)
def test_framing_is_written_anew(
    start_gateway: StartGateway,
    start_upstream: StartUpstream,
    client_context: ssl.SSLContext,
    answer: bytes,
    method: str,
    body: bytes,
) -> None:
    """Whatever the upstream's framing, the client's is ours, and the connection can go on."""
    gateway = start_gateway(start_upstream(answering(answer, answer)).url)
    with RawClient(gateway.address, client_context) as client:
        for _ in range(2):
            client.send(request(method))
            head = client.reader.head()
            if head.startswith(b"HTTP/1.1 103"):
                head = client.reader.head()
            client.reader.data[:0] = head
            if body:
                assert read_response(client)[1] == body
            else:
                client.reader.head()
            assert b"x-trailer" not in head.lower()


def test_http_1_0_is_served_and_closed(
    start_gateway: StartGateway, start_upstream: StartUpstream, client_context: ssl.SSLContext
) -> None:
    """nginx speaks it to upstreams by default: never chunked, closed unless keep-alive is asked for."""
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    gateway = start_gateway(start_upstream(answering(chunked, OK)).url)
    with RawClient(gateway.address, client_context) as client:
        client.send(request(version="1.0"))
        data = client.reader.everything()
    assert b"chunked" not in data
    assert data.endswith(b"\r\n\r\nabc")
    with RawClient(gateway.address, client_context) as client:
        client.send(request(version="1.0", fields="Connection: keep-alive\r\n"))
        assert b"Connection: keep-alive" in read_response(client)[0]


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nzz\r\n",
    ],
)
def test_a_body_cut_short_is_seen_as_cut_short(
    start_gateway: StartGateway, start_upstream: StartUpstream, client_context: ssl.SSLContext, answer: bytes
) -> None:
    """No last chunk, no missing bytes made up, and the connection ends."""
    gateway = start_gateway(start_upstream(lambda received: received.sock.sendall(answer)).url)
    with RawClient(gateway.address, client_context) as client:
        client.send(request())
        data = client.reader.everything()
    assert data.startswith(b"HTTP/1.1 200 ")
    assert data.endswith((b"half", b"half\r\n", b"\r\n\r\n"))
    assert b"\r\n0\r\n" not in data


def test_uploads_are_streamed_and_reframed(
    engine: str, start_gateway: StartGateway, start_upstream: StartUpstream, client_context: ssl.SSLContext
) -> None:
    """Chunks and lengths arrive whole; interim answers pass; nothing is kept in memory."""

    def script(received: Received) -> None:
        received.sock.settimeout(20)
        received.sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        if received.value("Transfer-Encoding") == "chunked":
            while not received.rest.endswith(b"0\r\n\r\n"):
                received.rest += received.sock.recv(65536)
        else:
            length = int(received.value("Content-Length") or 0)
            received.rest += received.reader.exactly(length - len(received.rest)) or b""
        received.sock.sendall(OK)
        received.done.wait(20)

    upstream = start_upstream(script)
    gateway = start_gateway(upstream.url, tls_engine=engine)
    before = gateway.memory()
    body = b"x" * 8_000_000
    with RawClient(gateway.address, client_context) as client:
        client.send(request("PUT", fields=f"Content-Length: {len(body)}\r\nExpect: 100-continue\r\n"))
        assert client.reader.head().startswith(b"HTTP/1.1 100 ")
        client.send(body)
        assert read_response(client)[1] == b"ok"
    with RawClient(gateway.address, client_context) as client:
        client.send(
            request("POST", fields="Transfer-Encoding: chunked\r\n")
            + b"3;ext=1\r\nabc\r\n2\r\nde\r\n0\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n"
        )
        assert client.reader.head().startswith(b"HTTP/1.1 100 ")
        assert read_response(client)[1] == b"ok"
    assert upstream.received[0].value("Content-Length") == str(len(body))
    assert b"6.6.6.6" not in upstream.received[1].rest
    assert (
        upstream.received[1].rest.replace(b"5\r\nabcde\r\n", b"3\r\nabc\r\n2\r\nde\r\n")
        == b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    )
    assert gateway.memory() - before < 4_000_000


@pytest.mark.parametrize(
    ("fields", "body", "status", "reason"),
    [
        ("Transfer-Encoding: chunked\r\n", b"zz\r\n", 400, "body.broken"),
        ("Content-Length: 10\r\n", b"half", 408, "body.slow"),
        ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", b"", 400, "syntax.grammar"),
    ],
)
def test_a_broken_or_slow_upload_is_no_upload(
    start_gateway: StartGateway,
    start_upstream: StartUpstream,
    client_context: ssl.SSLContext,
    fields: str,
    body: bytes,
    status: int,
    reason: str,
) -> None:
    """The upstream's connection is cut, so that it never takes half a body for a whole one."""
    ended = threading.Event()

    def script(received: Received) -> None:
        received.sock.settimeout(20)
        try:
            while received.sock.recv(65536):
                pass
        except ConnectionError:
            pass
        ended.set()

    upstream = start_upstream(script)
    gateway = start_gateway(upstream.url, limits={"body_timeout": "1s"})
    with RawClient(gateway.address, client_context) as client:
        assert client.status(request("POST", fields=fields, body=body)) == status
    assert gateway.wait_for("handshake.refused", status=status)["reason"] == reason
    assert upstream.count() == 0 or ended.wait(20)


def test_a_long_upload_is_no_slow_upstream(
    start_gateway: StartGateway, start_upstream: StartUpstream, client_context: ssl.SSLContext
) -> None:
    """The response's clock starts when the body has been sent; then it runs: 504."""
    answered = threading.Event()

    def script(received: Received) -> None:
        received.sock.settimeout(20)
        received.reader.exactly(10)
        answered.wait(20)

    gateway = start_gateway(start_upstream(script).url, limits={"upstream_response": "600ms"})
    with RawClient(gateway.address, client_context) as client:
        client.send(request("POST", fields="Content-Length: 10\r\n"))
        for _ in range(5):
            client.sock.settimeout(0.2)
            with pytest.raises(TimeoutError):
                client.sock.recv(1)
            client.send(b"xx")
        client.sock.settimeout(20)
        assert client.reader.head().startswith(b"HTTP/1.1 504 ")
    answered.set()
    assert gateway.wait_for("handshake.refused")["reason"] == "upstream.slow"


def test_events_are_streamed_at_once_and_end_with_the_client(
    start_gateway: StartGateway, start_upstream: StartUpstream, client_context: ssl.SSLContext
) -> None:
    """Server-sent events: each arrives when it is sent; a client that goes takes the upstream's connection with it."""
    go, gone = threading.Event(), threading.Event()

    def script(received: Received) -> None:
        received.sock.settimeout(20)
        received.sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
        go.wait(20)
        received.sock.sendall(b"data: 2\n\n")
        received.sock.recv(1)
        gone.set()

    gateway = start_gateway(start_upstream(script).url)
    client = RawClient(gateway.address, client_context)
    client.send(request())
    assert b"text/event-stream" in client.reader.head()
    assert client.reader.exactly(len(b"9\r\ndata: 1\n\n\r\n")) == b"9\r\ndata: 1\n\n\r\n"
    go.set()
    assert client.reader.exactly(len(b"9\r\ndata: 2\n\n\r\n")) == b"9\r\ndata: 2\n\n\r\n"
    client.close()
    assert gone.wait(20)


def test_what_strangers_claim_does_not_reach_the_app(
    start_gateway: StartGateway, start_upstream: StartUpstream, client_context: ssl.SSLContext
) -> None:
    """B-PROXY-04, -05, -06 on the wire, for pages: one function cleans pages and upgrades."""
    upstream = start_upstream(answering(OK))
    gateway = start_gateway(upstream.url)
    claims = "X-Forwarded-For: 6.6.6.6\r\nX_Forwarded_Proto: http\r\nForwarded: for=6.6.6.6\r\nX.WSGuard.Subject: admin\r\nConnection: keep-alive, X-Forwarded-Host, Origin\r\nOrigin: https://evil.test\r\n"
    with RawClient(gateway.address, client_context) as client:
        assert client.status(request(fields=claims)) == 200
    received = upstream.wait_for(1)
    assert received.value("X-Forwarded-For") == "127.0.0.1"
    assert received.value("X-Forwarded-Host") == "app.test"
    assert received.value("X-Forwarded-Proto") == "https"
    assert received.value("Origin") == "https://evil.test"
    assert received.value("Connection") is None
    assert "6.6.6.6" not in received.head.decode()
    assert "admin" not in received.head.decode()


def test_pages_are_delivered_over_https_for_good(
    start_gateway: StartGateway, start_upstream: StartUpstream, client_context: ssl.SSLContext
) -> None:
    """HSTS on every answer, ours too; the app's cookies become Secure; not on local names."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nSet-Cookie: a=b\r\nX-WSGuard-Subject: forged\r\n\r\nok"
    gateway = start_gateway(
        start_upstream(answering(answer)).url, hosts=["app.example", "app.test"], origins=["https://app.example"]
    )
    with RawClient(gateway.address, client_context, server_name=None) as client:
        client.send(request().replace(b"app.test", b"app.example"))
        head = read_response(client)[0]
        assert b"Strict-Transport-Security: max-age=15552000\r\n" in head
        assert b"Set-Cookie: a=b; Secure\r\n" in head
        assert b"X-WSGuard" not in head
    with RawClient(gateway.address, client_context, server_name=None) as client:
        client.send(request("TRACE").replace(b"app.test", b"app.example"))
        assert b"Strict-Transport-Security" in read_response(client)[0]
    with RawClient(gateway.address, client_context) as client:
        client.send(request())
        assert b"Strict-Transport-Security" not in read_response(client)[0]


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
def test_a_slow_reader_gets_every_byte_of_a_large_page(
    engine: str,
    framing: str,
    start_gateway: StartGateway,
    start_upstream: StartUpstream,
    client_context: ssl.SSLContext,
) -> None:
    """A client slower than the app: nothing hangs, no tail is lost, and memory stays bounded meanwhile."""
    size, piece = 6_000_000, b"z" * 50_000
    stuck = threading.Event()

    def script(received: Received) -> None:
        fields = {"length": f"Content-Length: {size}\r\n", "chunked": "Transfer-Encoding: chunked\r\n", "close": ""}[
            framing
        ]
        received.sock.sendall(f"HTTP/1.1 200 OK\r\n{fields}\r\n".encode())
        received.sock.settimeout(0.3)
        sent = 0
        while sent < size:
            data = piece if framing != "chunked" else b"%x\r\n%b\r\n" % (len(piece), piece)
            while data:
                try:
                    data = data[received.sock.send(data) :]
                except TimeoutError:
                    stuck.set()
            sent += len(piece)
        stuck.set()
        received.sock.sendall(b"0\r\n\r\n" if framing == "chunked" else b"")

    gateway = start_gateway(start_upstream(script).url, tls_engine=engine)
    before = gateway.memory()
    with RawClient(gateway.address, client_context, receive_buffer=4096) as client:
        client.send(request())
        assert stuck.wait(20)
        assert gateway.memory() - before < 3_000_000
        _, body = read_response(client)
    assert body == b"z" * size


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n", "upstream.unexpected_101"),
        (b"nonsense\r\n\r\n", "upstream.malformed"),
        (b"HTTP/1.1 200 O\x01K\r\nContent-Length: 0\r\n\r\n", "upstream.malformed"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000 + b"\r\n\r\n", "upstream.malformed"),
        (b"", "upstream.unreachable"),
    ],
)
def test_a_broken_answer_is_502(
    start_gateway: StartGateway,
    start_upstream: StartUpstream,
    client_context: ssl.SSLContext,
    answer: bytes,
    reason: str,
) -> None:
    """One status, one log line, whatever the upstream says."""
    gateway = start_gateway(start_upstream(lambda received: received.sock.sendall(answer)).url)
    with RawClient(gateway.address, client_context) as client:
        assert client.status(request()) == 502
    assert gateway.wait_for("handshake.refused")["reason"] == reason


def test_an_upstream_over_tls_is_verified(
    start_gateway: StartGateway, certificates: object, client_context: ssl.SSLContext, start_upstream: StartUpstream
) -> None:
    """An https upstream with an unknown certificate is 502 `upstream.tls`; with its CA named it serves."""
    inner = start_gateway(start_upstream(answering(OK)).url, hosts=["app.test"])
    url = f"https://127.0.0.1:{inner.address[1]}"
    outer = start_gateway(url)
    with RawClient(outer.address, client_context) as client:
        assert client.status(request()) == 502
    assert outer.wait_for("handshake.refused")["reason"] == "upstream.tls"
    trusted = start_gateway(url, upstream_ca=str(getattr(certificates, "authority")))  # noqa: B009 - one attribute of a fixture
    with RawClient(trusted.address, client_context) as client:
        assert client.status(request()) == 200


def test_a_unix_socket_upstream(start_gateway: StartGateway, client_context: ssl.SSLContext, tmp_path: object) -> None:
    """`unix:PATH` works like a port."""
    import socket

    path = f"{tmp_path}/app.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        gateway = start_gateway(f"unix:{path}")
        with RawClient(gateway.address, client_context) as client:
            client.send(request())
            accepted, _ = listener.accept()
            with accepted:
                assert b"GET / HTTP/1.1" in accepted.recv(65536)
                accepted.sendall(OK)
                assert read_response(client)[1] == b"ok"


def asking_gateway(start_gateway: StartGateway, folder: Path, upstream: str) -> GatewayProcess:
    """A gateway that sells tickets, and gives a body a second."""
    Place(folder)
    return start_gateway(
        upstream,
        hosts=["app.test"],
        public_url="https://app.test",
        jwt={"https://id.test": {"audience": ["https://app.test"], "jwks": "file:jwks.json"}},
        ticket={"sold_for": ["bearer"]},
        auth=["ticket", "bearer"],
        limits={"body_timeout": "1s"},
    )


@pytest.mark.slow
def test_a_body_for_an_endpoint_comes_in_time_or_not_at_all(
    start_gateway: StartGateway,
    start_upstream: Callable[..., RecordingUpstream],
    client_context: ssl.SSLContext,
    tmp_path: Path,
) -> None:
    """A byte now and then does not hold a connection for ever; who waits for 100 Continue gets it (RFC 9110 §10.1.1)."""
    gateway = asking_gateway(start_gateway, tmp_path, start_upstream().url)
    body = b'{"path": "/ws"}'
    lines = ["POST /.wsguard/ticket HTTP/1.1", "Host: app.test", "Origin: https://app.test"]
    lines += ["Content-Type: application/json", f"Content-Length: {len(body)}", "Expect: 100-continue"]
    lines += [f"{name}: {value}" for name, value in bearer().items()]
    head = "\r\n".join([*lines, "", ""]).encode()
    whole = RawClient(gateway.address, client_context)
    whole.send(head)
    assert whole.reader.head() == b"HTTP/1.1 100 Continue\r\n\r\n"
    whole.send(body)
    assert whole.reader.head().startswith(b"HTTP/1.1 200 ")
    whole.close()

    slow = RawClient(gateway.address, client_context)
    slow.send(head)
    assert slow.reader.head() == b"HTTP/1.1 100 Continue\r\n\r\n"
    begun = time.monotonic()
    slow.sock.settimeout(0.2)
    for byte in body[:-1] * 3:
        with contextlib.suppress(OSError):
            slow.send(bytes([byte]))
            if slow.reader.head().startswith(b"HTTP/1.1 408 "):
                break
    assert 0.8 < time.monotonic() - begun < 5
    slow.close()
