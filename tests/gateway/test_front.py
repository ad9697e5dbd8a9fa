"""What arrives before any head: TLS, garbage, floods, slow peers; and the caps by address at their defaults."""

from __future__ import annotations

import random
import socket
import ssl
import struct
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.gateway.conftest import StartGateway
from tests.gateway.raw_client import RawClient, frame, handshake
from tests.gateway.recording_upstream import RecordingUpstream, echo, hold

StartUpstream = Callable[..., RecordingUpstream]
PAGE = b"GET / HTTP/1.1\r\nHost: app.test\r\n\r\n"


def real_hello() -> bytes:
    """A ClientHello as OpenSSL writes it."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.create_default_context()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing, server_hostname="app.test").do_handshake()
    return outgoing.read()


def alive(address: tuple[str, int], context: ssl.SSLContext) -> None:
    """Demand that an honest client is served."""
    with RawClient(address, context) as client:
        client.open()
        client.send(frame(2, b"alive"))
        got = client.frame()
        assert got is not None
        assert got.payload == b"alive"


def test_strangers_leave_nothing_on_stderr(
    engine: str, start_gateway: StartGateway, start_upstream: StartUpstream, client_context: ssl.SSLContext
) -> None:
    """1,000 of connect-and-close, RST in the handshake, plain HTTP: stderr stays empty (the fixture looks), nothing leaks."""
    gateway = start_gateway(start_upstream(echo).url, tls_engine=engine)
    alive(gateway.address, client_context)
    descriptors = gateway.descriptors()
    hello = real_hello()
    for number in range(1000):
        with socket.create_connection(gateway.address) as sock:
            kind = number % 4
            if kind == 1:
                sock.sendall(hello)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            elif kind == 2:
                sock.sendall(PAGE)
            elif kind == 3:
                sock.sendall(hello[: number % len(hello)])
    alive(gateway.address, client_context)
    end = time.monotonic() + 20
    while gateway.descriptors() > descriptors + 2:
        assert time.monotonic() < end, "descriptors leak"
    assert gateway.count("handshake.refused") == 0


def test_http_on_the_tls_port_is_told_so(start_gateway: StartGateway, start_upstream: StartUpstream) -> None:
    """A person who types http:// reads what to write; nothing is served in the clear."""
    upstream = start_upstream()
    gateway = start_gateway(upstream.url)
    for request in (PAGE, handshake()):
        with socket.create_connection(gateway.address) as sock:
            sock.sendall(request)
            sock.settimeout(10)
            answer = b""
            while more := sock.recv(4096):
                answer += more
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b"use https:// or wss://" in answer
    assert upstream.count() == 0


def test_hostile_hellos_with_a_key_log_in_the_environment(
    start_gateway: StartGateway, start_upstream: StartUpstream, client_context: ssl.SSLContext, tmp_path: Path
) -> None:
    """aiofastnet 1.2.0 dies where a context has a callback: with SSLKEYLOGFILE set, the gateway lives, and logs no key."""
    log = tmp_path / "keys.log"
    gateway = start_gateway(start_upstream(echo).url, environment={"SSLKEYLOGFILE": str(log)})
    chance = random.Random(8446)
    hello = real_hello()
    for number in range(200):
        data = bytearray(hello)
        for _ in range(number % 16):
            data[chance.randrange(len(data))] = chance.randrange(256)
        with socket.create_connection(gateway.address) as sock:
            sock.sendall(bytes(data[: chance.randrange(1, len(data) + 1)] if number % 2 else data))
    alive(gateway.address, client_context)
    assert not log.exists()


def test_a_hello_byte_by_byte_is_a_hello(
    start_gateway: StartGateway, start_upstream: StartUpstream, client_context: ssl.SSLContext
) -> None:
    """B-TLS-01: `sni_and_host_agree` also where the ClientHello comes in pieces."""
    gateway = start_gateway(start_upstream(echo).url)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = client_context.wrap_bio(incoming, outgoing, server_hostname="other.test")
    with socket.create_connection(gateway.address) as sock:
        sock.settimeout(20)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                data = outgoing.read()
                for index in range(len(data)):
                    sock.sendall(data[index : index + 1])
                incoming.write(sock.recv(65536))
        tls.write(handshake())
        sock.sendall(outgoing.read())
        incoming.write(sock.recv(65536))
        answer = b""
        while b"\r\n\r\n" not in answer:
            try:
                answer += tls.read(65536)
            except ssl.SSLWantReadError:
                incoming.write(sock.recv(65536))
    assert answer.startswith(b"HTTP/1.1 421 ")
    assert gateway.wait_for("handshake.refused")["reason"] == "transport.sni_mismatch"


def test_old_tls_is_not_spoken(
    start_gateway: StartGateway, start_upstream: StartUpstream, client_context: ssl.SSLContext
) -> None:
    """TLS 1.2 and later, ALPN http/1.1."""
    gateway = start_gateway(start_upstream(echo).url)
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = client_context.verify_mode
        context.load_verify_locations(cadata=ssl.DER_cert_to_PEM_cert(client_context.get_ca_certs(binary_form=True)[0]))
        context.minimum_version = context.maximum_version = version
        context.set_alpn_protocols(["h2", "http/1.1"])
        with RawClient(gateway.address, context) as client:
            assert client.sock.selected_alpn_protocol() == "http/1.1"
            client.open()


@pytest.mark.parametrize("engine_name", ["aiofastnet", "stdlib"])
def test_a_head_cut_at_every_byte_is_served(
    engine_name: str, start_gateway: StartGateway, start_upstream: StartUpstream, client_context: ssl.SSLContext
) -> None:
    """However the packets are cut, a good handshake opens."""
    gateway = start_gateway(start_upstream(hold).url, tls_engine=engine_name)
    request = handshake()
    for cut in range(1, len(request), 1 if engine_name == "aiofastnet" else 7):
        with RawClient(gateway.address, client_context) as client:
            client.send(request[:cut])
            client.open(request[cut:])


def test_slow_peers_have_deadlines(
    start_gateway: StartGateway, start_upstream: StartUpstream, client_context: ssl.SSLContext
) -> None:
    """TLS and head have their seconds (10 each by default); then the connection is closed and counted, not logged each."""
    gateway = start_gateway(
        start_upstream(echo).url, limits={"tls_handshake": "1s", "head_timeout": "1s", "keep_alive": "1s"}
    )
    begin = time.monotonic()
    with ExitStack() as stack:
        silent = stack.enter_context(socket.create_connection(gateway.address))
        half = stack.enter_context(socket.create_connection(gateway.address))
        half.sendall(real_hello()[:100])
        slow = stack.enter_context(RawClient(gateway.address, client_context))
        slow.send(handshake()[:50])
        for sock in (silent, half):
            sock.settimeout(10)
            with suppress(ConnectionResetError):  # bytes that nobody read make the kernel say RST
                assert sock.recv(100) == b""
        assert slow.reader.everything() == b""
    assert 0.9 < time.monotonic() - begin < 6
    assert gateway.stop() == 0
    assert gateway.wait_for("connections.unfinished")["count"] == 3


@pytest.mark.slow
def test_the_caps_hold_at_their_defaults(
    start_gateway: StartGateway, start_upstream: StartUpstream, client_context: ssl.SSLContext
) -> None:
    """1,000 connections not admitted an address, 4,096 a process; other addresses are served; loopback is not exempt."""
    gateway = start_gateway(start_upstream(echo).url, limits={"tls_handshake": "60s"})
    with ExitStack() as stack:

        def connect(source: str) -> socket.socket:
            sock = socket.socket()
            stack.enter_context(sock)
            sock.settimeout(20)
            sock.bind((source, 0))
            sock.connect(gateway.address)
            return sock

        held = [connect("127.0.0.2") for _ in range(1000)]
        assert connect("127.0.0.2").recv(1) == b"", "number 1,001 of one address is closed at once"
        alive(gateway.address, client_context)
        held += [connect(f"127.0.0.{3 + number // 1000}") for number in range(3095)]
        with RawClient(gateway.address, client_context) as last:
            last.open()
        held.append(connect("127.0.0.9"))
        assert connect("127.0.0.10").recv(1) == b"", "number 4,097 of the process is closed at once"
        held[0].close()
        end = time.monotonic() + 20
        while True:
            try:
                alive(gateway.address, client_context)
                break
            except (OSError, ssl.SSLError):
                assert time.monotonic() < end
    assert gateway.wait_for("limits.preauth")["hint"]


def test_sockets_and_attempts_of_an_address_are_capped(
    start_gateway: StartGateway, start_upstream: StartUpstream, client_context: ssl.SSLContext
) -> None:
    """429 with Retry-After, for the address that is over it alone; a socket that ends makes room."""
    gateway = start_gateway(start_upstream(hold).url, limits={"open_address": 3, "attempts_address": 9})
    with ExitStack() as stack:
        opened = [stack.enter_context(RawClient(gateway.address, client_context)) for _ in range(3)]
        for client in opened:
            client.open()
        fourth = stack.enter_context(RawClient(gateway.address, client_context))
        fourth.send(handshake())
        head = fourth.reader.head()
        assert head.startswith(b"HTTP/1.1 429 ")
        assert b"\r\nRetry-After: " in head
        with RawClient(gateway.address, client_context, source="127.0.0.2") as other:
            other.open()
        opened[0].close()
        gateway.wait_for("session.closed", by="client")
        with RawClient(gateway.address, client_context) as client:
            client.open()
        statuses = []
        for _ in range(6):
            with RawClient(gateway.address, client_context) as client:
                statuses.append(client.status(handshake(origin="https://evil.test")))
        assert statuses == [403] * 6
        with RawClient(gateway.address, client_context) as client:
            assert client.status(handshake()) == 429
    assert gateway.wait_for("handshake.refused", reason="limits.address")


def test_both_loopback_addresses_by_default(
    start_gateway: StartGateway, start_upstream: StartUpstream, client_context: ssl.SSLContext
) -> None:
    """Chromium asks ::1 first, Firefox 127.0.0.1."""
    gateway = start_gateway(start_upstream(hold).url, listen=["localhost:0"])
    assert [address[0] for address in gateway.addresses] == ["127.0.0.1", "::1"]
    for address in gateway.addresses:
        with RawClient(address, client_context) as client:
            client.open()


def test_the_log_holds_no_secret_and_nothing_unescaped(
    start_gateway: StartGateway, start_upstream: StartUpstream, client_context: ssl.SSLContext
) -> None:
    """RULES §10: path without query, no subprotocols, no cookies; a stranger's text only escaped and cut."""
    gateway = start_gateway(start_upstream(hold).url)
    extra = "Cookie: session=SECRET1\r\nAuthorization: Bearer SECRET2\r\nSec-WebSocket-Protocol: wsguard.v1, wsguard.ticket.SECRET3\r\n"
    with RawClient(gateway.address, client_context) as client:
        client.open(handshake(path="/ws?token=SECRET4", extra=extra))
    gateway.wait_for("session.closed")
    with RawClient(gateway.address, client_context) as client:
        client.status(handshake(origin="https://" + "a" * 300 + ".test", path="/ws?token=SECRET5", extra=extra))
    line = gateway.wait_for("handshake.refused")
    assert len(line["origin"]) <= 256
    assert line["peer"].startswith("127.0.0.1:")
    text = str(gateway.log)
    assert "SECRET" not in text
    assert "session=" not in text
