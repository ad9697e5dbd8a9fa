"""Who the client is, where a server may have rewritten it: uvicorn believes loopback peers in X-Forwarded-* by default."""

from __future__ import annotations

import contextlib
import socket
import ssl

import pytest

from tests.asgi.conftest import StartServer
from tests.asgi.server_process import SERVERS, Certificates, ServerName, ServerProcess
from tests.asgi.tls_proxy import CLIENT, TLSProxy
from tests.gateway.raw_client import RawClient, Reader, handshake

pytestmark = pytest.mark.slow

LISTED = {"WSGUARD_TEST_PROXIES": "127.0.0.1"}


def plain_head(server: ServerProcess, request: bytes) -> tuple[int, bytes]:
    """Status and head that answer *request*, sent in the clear."""
    with contextlib.closing(socket.create_connection(server.address, timeout=20)) as sock:
        sock.sendall(request)
        head = Reader(sock).head()
        return int(head.split(b" ")[1]), head


PAGE = "GET /page HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n{}\r\n"


def test_stranger_cannot_claim_https(start_server: StartServer) -> None:
    """B-TLS-03: where uvicorn rewrites the scheme from what anybody sends, https is still not believed: 403."""
    server = start_server("uvicorn", tls=False, proxy_headers=True)
    claims = {
        "X-Forwarded-Proto: https\r\nX-Forwarded-For: 203.0.113.9\r\n": "--no-proxy-headers",
        "X-Forwarded-Proto: https\r\n": "trusted_proxies=",
        "X-Forwarded-Proto: https\r\nX-Forwarded-For: 127.0.0.1\r\n": None,  # that hint was told a moment ago
        "X-Forwarded-Proto: wss\r\nForwarded: for=203.0.113.9;proto=https\r\n": None,
        "X_Forwarded_Proto: https\r\n": None,
        "": None,
    }
    for claim, hint in claims.items():
        mark = len(server.output())
        status, _ = plain_head(server, handshake(extra=claim))
        assert status == 403
        line = server.wait_for("handshake.refused", after=mark)
        assert " reason=transport.insecure " in line
        assert hint is None or hint in line
        assert plain_head(server, PAGE.format(claim).encode())[0] == 403
    assert server.record.reached() == 0


def test_a_listed_proxy_must_reach_the_guard_unread(start_server: StartServer) -> None:
    """With a list the guard reads the fields itself; a server that has read them before is named in the log."""
    server = start_server("uvicorn", tls=False, proxy_headers=True, environment=LISTED)
    extra = "X-Forwarded-Proto: https\r\nX-Forwarded-For: 203.0.113.9\r\n"
    assert plain_head(server, handshake(extra=extra))[0] == 403
    assert "--no-proxy-headers" in server.wait_for("handshake.refused")
    assert server.record.reached() == 0


@pytest.mark.parametrize("name", SERVERS)
def test_a_listed_proxy_is_believed(
    start_server: StartServer, certificates: Certificates, context: ssl.SSLContext, name: ServerName
) -> None:
    """Behind a TLS-terminating proxy on the list a socket opens, and the app sees the client, not the proxy."""
    server = start_server(name, tls=False, environment=LISTED)
    with TLSProxy(certificates, server.address) as proxy:
        client = RawClient(proxy.address, context)
        client.open()
        called = server.record.wait_for("called")
        assert (called["scheme"], called["client"]) == ("wss", [CLIENT, 0])
        fields = dict(called["headers"])
        assert (fields["x-forwarded-for"], fields["x-forwarded-proto"]) == (CLIENT, "https")
        client.close()
        refused = RawClient(proxy.address, context)
        assert refused.status(handshake(origin="https://evil.test")) == 403
        assert f" peer={CLIENT} " in server.wait_for("reason=origin.not_allowed")
        refused.close()
    for claim in ("", "X-Forwarded-Proto: http\r\n", "X-Forwarded-For: 203.0.113.9\r\n"):
        assert plain_head(server, handshake(extra=claim))[0] == 403
    assert server.record.reached() == 1
