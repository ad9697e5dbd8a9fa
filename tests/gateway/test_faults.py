"""A fault of ours is told: the client gets 503, the log one line, stderr the traceback, and the others notice nothing."""

from __future__ import annotations

import ssl
import sys
from collections.abc import Callable
from pathlib import Path

from tests.gateway.conftest import Certificates
from tests.gateway.gateway_process import GatewayProcess
from tests.gateway.raw_client import RawClient, handshake
from tests.gateway.recording_upstream import RecordingUpstream

PROGRAM = """
import wsguard.gateway.connection as connection

async def broken(*_):
    raise ZeroDivisionError("planted")

connection.serve_page = broken
from wsguard.cli import main
main()
"""


def test_a_fault_of_ours_fails_closed(
    certificates: Certificates,
    client_context: ssl.SSLContext,
    start_upstream: Callable[..., RecordingUpstream],
    tmp_path: Path,
) -> None:
    """Planted in the page proxy: pages are 503, handshakes go on."""
    upstream = start_upstream()
    file = tmp_path / "wsguard.toml"
    file.write_text(
        f'listen = ["127.0.0.1:0"]\nupstream = "{upstream.url}"\norigins = ["https://app.test"]\n'
        f'cert = "{certificates.cert}"\nkey = "{certificates.key}"\n'
    )
    gateway = GatewayProcess(file, program=[sys.executable, "-c", PROGRAM])
    try:
        with RawClient(gateway.address, client_context) as client:
            assert client.status(b"GET / HTTP/1.1\r\nHost: app.test\r\n\r\n") == 503
        assert gateway.wait_for("handshake.refused")["reason"] == "gateway.fault"
        with RawClient(gateway.address, client_context) as client:
            client.open(handshake())
    finally:
        assert gateway.stop() == 0
    assert "ZeroDivisionError: planted" in gateway.stderr()
    assert upstream.count() == 1
