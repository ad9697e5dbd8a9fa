"""The README's two commands, and right under them the real thing, twice, run as printed on this machine."""

from __future__ import annotations

import errno
import os
import shlex
import socket
import ssl
from pathlib import Path

import pytest

from tests.ci_rules import IN_CI
from tests.docs.blocks import ROOT, blocks_of, commands
from tests.docs.running import WSGUARD, running

TRY_IT = "wsguard gateway --upstream http://127.0.0.1:8888"
ON_A_SERVER = (
    "wsguard gateway --listen 0.0.0.0:443 --cert app.pem --key app.key"
    " --upstream http://127.0.0.1:8888 --origin https://app.example.com"
)
HANDSHAKE = (
    "GET /ws HTTP/1.1\r\nHost: {host}\r\nOrigin: {origin}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def test_the_readme_begins_with_the_two_commands_and_the_real_thing() -> None:
    lines = [line for block in blocks_of(ROOT / "README.md") for line in commands(block)]
    assert [line.partition("#")[0].strip() for line in lines[:4]] == ["make demo", "make test", TRY_IT, ON_A_SERVER]


def test_it_says_in_two_sentences_what_it_is() -> None:
    paragraph = (ROOT / "README.md").read_text(encoding="utf-8").split("\n\n")[1]
    assert paragraph.count(". ") + paragraph.count(".\n") + paragraph.endswith(".") == 2


@pytest.mark.slow
def test_the_line_to_try_it(place: Path) -> None:
    must_be_free("127.0.0.1", 8443)
    with running([WSGUARD, *shlex.split(TRY_IT)[1:]], place) as gateway:
        line = gateway.wait_for("gateway.listening")
        assert "127.0.0.1:8443" in line
        assert 'open=["https://localhost:8443"]' in line
        assert status(8443, "localhost:8443", "https://evil.example") == 403
        assert "reason=origin.not_allowed" in gateway.wait_for("handshake.refused")
        assert gateway.stop() == 0
        assert gateway.errors == ""


@pytest.mark.slow
def test_the_line_for_a_server(place: Path) -> None:
    must_be_free("0.0.0.0", 443)
    with running([WSGUARD, *shlex.split(ON_A_SERVER)[1:]], place) as gateway:
        assert "0.0.0.0:443" in gateway.wait_for("gateway.listening")
        assert status(443, "app.example.com", "https://evil.example") == 403
        assert "reason=origin.not_allowed" in gateway.wait_for("handshake.refused")
        assert gateway.stop() == 0
        assert gateway.errors == ""


def must_be_free(host: str, port: int) -> None:
    """End the test where this machine does not let us have the port: a skip by name on a laptop, a failure in CI."""
    try:
        socket.create_server((host, port)).close()
    except OSError as error:
        reason = f"{host}:{port}: {os.strerror(error.errno or errno.EIO)}"
        if IN_CI:
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)


def status(port: int, host: str, origin: str) -> int:
    """Send one handshake and return the status that answers it. The certificate is not what is tested here."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # the README names the files; what this test made of them proves nothing
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname=host.partition(":")[0]) as secure,
    ):
        secure.sendall(HANDSHAKE.format(host=host, origin=origin).encode())
        return int(secure.recv(65536).split(b" ", 2)[1])
