"""
What has ended is freed at once, and leaves nothing for the garbage collector.

A collection looks at every live object: with ten thousand sockets it took 0.8 s, in which nothing else happened, and
till then what had ended held its memory. It was found that half a million objects of 9,900 sockets waited for it.
"""

from __future__ import annotations

import gc
import signal
import socket
import ssl
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.gateway.conftest import StartGateway
from tests.gateway.gateway_process import GatewayProcess
from tests.gateway.raw_client import RawClient, frame, handshake
from tests.gateway.recording_upstream import Received, RecordingUpstream, echo
from tests.logging_process import DEADLINE
from wsguard.wire.frames import CLOSE, TEXT

COLLECTING = """
import gc, json, signal
gc.disable()

def tell(*_):
    gc.set_debug(gc.DEBUG_SAVEALL)
    gc.collect()
    gc.set_debug(0)
    kinds = {f"{type(one).__module__}.{type(one).__qualname__}" for one in gc.garbage}
    gc.garbage.clear()
    gc.collect()
    told = {"event": "garbage", "kinds": sorted(kinds), "frozen": gc.get_freeze_count(), "at": gc.get_threshold()}
    print(json.dumps(told), flush=True)

signal.signal(signal.SIGUSR2, tell)
"""
GOODBYE = frame(CLOSE, b"\x03\xe8")


def by_path(received: Received) -> None:
    path = received.request_line.split(b" ")[1]
    if path == b"/ws/refuse":
        received.sock.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
    elif path == b"/ws/leave":
        received.sock.sendall(received.switching_protocols() + frame(CLOSE, b"\x03\xe8", masked=False))
        received.frame()
    elif path == b"/ws/vanish":
        received.sock.sendall(received.switching_protocols())
        received.frame()
    elif path.startswith(b"/ws"):
        echo(received)
    else:
        received.sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


def client_closes(client: RawClient) -> None:
    client.open()
    client.send(frame(TEXT, b"hello"))
    assert client.frame() is not None
    client.send(GOODBYE)
    closed = client.frame()
    assert closed is not None
    assert closed.close_code == 1000


def client_vanishes(client: RawClient) -> None:
    client.open()
    client.reset()


def client_breaks_the_protocol(client: RawClient) -> None:
    client.open()
    client.send(frame(TEXT, b"unmasked", masked=False))
    closed = client.frame()
    assert closed is not None
    assert closed.close_code == 1002
    client.send(GOODBYE)


def app_closes(client: RawClient) -> None:
    client.open(handshake(path="/ws/leave"))
    closed = client.frame()
    assert closed is not None
    client.send(GOODBYE)


def app_vanishes(client: RawClient) -> None:
    client.open(handshake(path="/ws/vanish"))
    client.send(frame(TEXT, b"hello"))
    closed = client.frame()
    assert closed is not None
    assert closed.close_code == 1014
    client.send(GOODBYE)


def app_refuses(client: RawClient) -> None:
    assert client.status(handshake(path="/ws/refuse")) == 403


def handshake_is_refused(client: RawClient) -> None:
    assert client.status(handshake(origin="https://evil.test")) == 403


def pages(client: RawClient) -> None:
    for _ in range(2):
        assert client.status(b"GET / HTTP/1.1\r\nHost: app.test\r\n\r\n") == 200
        assert client.reader.exactly(2) == b"ok"


def nonsense(client: RawClient) -> None:
    assert client.status(b"\x00\r\n\r\n") == 400


WAYS: list[Callable[[RawClient], None]] = [
    client_closes,
    client_vanishes,
    client_breaks_the_protocol,
    app_closes,
    app_vanishes,
    app_refuses,
    handshake_is_refused,
    pages,
    nonsense,
]


def garbage(gateway: GatewayProcess) -> dict[str, Any]:
    """Let the gateway collect; return what *kinds* of objects it found, how much it keeps out, and how often it looks."""
    mark = gateway.mark()
    gateway.process.send_signal(signal.SIGUSR2)
    return gateway.wait_for("garbage", after=mark)


def quiet(gateway: GatewayProcess, descriptors: int) -> None:
    """Wait until every connection is closed; an idle one to the app may stay for another page."""
    end = time.monotonic() + DEADLINE
    while gateway.descriptors() > descriptors + 1:
        assert time.monotonic() < end, "connections are still open"
        time.sleep(0.02)  # between two looks, within the deadline: a descriptor that is closed sends no event


@pytest.mark.slow
def test_nothing_that_has_ended_waits_for_the_collector(
    client_context: ssl.SSLContext,
    start_upstream: Callable[..., RecordingUpstream],
    start_gateway: StartGateway,
) -> None:
    """However a socket, a page or a handshake ends. (With ``tls_engine = "stdlib"`` asyncio's own TLS is a cycle.)"""
    gateway = start_gateway(start_upstream(by_path).url, planted=COLLECTING)
    with RawClient(gateway.address, client_context) as client:
        client_closes(client)  # what is made at the first use
    quiet(gateway, descriptors := gateway.descriptors())
    at_start = garbage(gateway)
    assert at_start["frozen"] > 10_000
    assert at_start["at"] == [5_000, 10, 20]
    found: dict[str, list[str]] = {}
    for way in WAYS:
        for _ in range(3):
            with RawClient(gateway.address, client_context) as client:
                way(client)
        quiet(gateway, descriptors)
        found[way.__name__] = garbage(gateway)["kinds"]
    with socket.create_connection(gateway.address) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert b"TLS" in plain.recv(4096)
    quiet(gateway, descriptors)
    found["no TLS"] = garbage(gateway)["kinds"]
    assert {way: kinds for way, kinds in found.items() if kinds} == {}


@pytest.mark.slow
def test_asyncios_own_tls_holds_no_socket(
    client_context: ssl.SSLContext, start_upstream: Callable[..., RecordingUpstream], start_gateway: StartGateway
) -> None:
    """
    With ``tls_engine = "stdlib"`` a connection that was refused or held pages is a ring of asyncio's; of a socket only
    the plain transport below is one.

    The TLS above it holds a quarter of a megabyte. There the collector looks as often as Python lets it.
    """
    gateway = start_gateway(start_upstream(by_path).url, tls_engine="stdlib", planted=COLLECTING)
    with RawClient(gateway.address, client_context) as client:
        client_closes(client)
    quiet(gateway, descriptors := gateway.descriptors())
    at_start = garbage(gateway)
    assert (at_start["frozen"], at_start["at"]) == (0, list(gc.get_threshold()))
    found: dict[str, list[str]] = {}
    for way in (client_closes, client_vanishes, client_breaks_the_protocol, app_closes, app_vanishes):
        with RawClient(gateway.address, client_context) as client:
            way(client)
        quiet(gateway, descriptors)
        kinds = garbage(gateway)["kinds"]
        found[way.__name__] = [one for one in kinds if one.startswith(("wsguard.", "asyncio.sslproto.", "_ssl."))]
    assert {way: kinds for way, kinds in found.items() if kinds} == {}
