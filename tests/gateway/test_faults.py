"""A fault of ours is told: the client gets 503, the log one line, stderr the traceback, and the others notice nothing."""

from __future__ import annotations

import ssl
from collections.abc import Callable

from tests.gateway.conftest import StartGateway
from tests.gateway.raw_client import RawClient, handshake
from tests.gateway.recording_upstream import RecordingUpstream

FAULT = """
import wsguard.gateway.connection as connection

async def broken(*_):
    raise ZeroDivisionError("planted")

connection.serve_page = broken
"""


def test_a_fault_of_ours_fails_closed(
    client_context: ssl.SSLContext, start_upstream: Callable[..., RecordingUpstream], start_gateway: StartGateway
) -> None:
    """Planted in the page proxy: pages are 503, handshakes go on."""
    upstream = start_upstream()
    gateway = start_gateway(upstream.url, planted=FAULT)
    with RawClient(gateway.address, client_context) as client:
        assert client.status(b"GET / HTTP/1.1\r\nHost: app.test\r\n\r\n") == 503
    assert gateway.wait_for("handshake.refused")["reason"] == "gateway.fault"
    with RawClient(gateway.address, client_context) as client:
        client.open(handshake())
    assert gateway.stop() == 0
    assert "ZeroDivisionError: planted" in gateway.stderr()
    assert upstream.count() == 1
