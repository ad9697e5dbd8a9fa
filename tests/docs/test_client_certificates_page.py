"""docs/guides/client-certificates.md as its reader has it: the commands make a CA, the program gets in, and is revoked."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import trustme

from tests.docs.blocks import ROOT, blocks_of
from tests.docs.running import WSGUARD, free_port, running
from tests.gateway.recording_upstream import RecordingUpstream, echo

pytestmark = [pytest.mark.slow, pytest.mark.requires_program("openssl", "bash")]

PAGE = ROOT / "docs" / "guides" / "client-certificates.md"
SHELL = [block for block in blocks_of(PAGE) if block.language == "sh"]


def text_of(title: str, replacements: dict[str, str]) -> str:
    """The block of that title, with this machine's addresses in place of the page's."""
    (text,) = [block.text for block in blocks_of(PAGE) if block.title == title]
    for old, new in replacements.items():
        text = text.replace(old, new)
    return text


def in_shell(text: str, folder: Path) -> None:
    subprocess.run(["bash", "-euc", text], cwd=folder, check=True, capture_output=True, timeout=60)


def robot(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the page's program, which trusts the test's CA for the server."""
    environment = {**os.environ, "SSL_CERT_FILE": str(folder / "authority.pem")}
    command = [sys.executable, "robot.py"]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_the_page_from_the_ca_to_the_revocation(tmp_path: Path) -> None:
    authority = trustme.CA()
    leaf = authority.issue_cert("localhost")
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    leaf.cert_chain_pems[0].write_to_path(tmp_path / "app.pem")
    leaf.private_key_pem.write_to_path(tmp_path / "app.key")
    port, upstream = free_port(), RecordingUpstream(echo)
    addresses = {
        "app.example.com": "localhost",
        "0.0.0.0:443": f"127.0.0.1:{port}",
        "http://127.0.0.1:8888": upstream.url,
    }
    (tmp_path / "wsguard.toml").write_text(text_of("wsguard.toml", addresses))
    (tmp_path / "robot.py").write_text(text_of("robot.py", {"app.example.com": f"localhost:{port}"}))
    gateway = [WSGUARD, "gateway", "--config", "wsguard.toml"]
    make, revoke, later = SHELL
    for block in (make, revoke):
        in_shell(block.text, tmp_path)
    with running(gateway, tmp_path) as program:
        program.wait_for("gateway.listening")
        answered = robot(tmp_path)
        assert answered.stdout == "hello\n", answered.stderr
        assert "subject=robot.example.com" in program.wait_for("session.opened")
    assert upstream.wait_for(1).value("X-WSGuard-Method") == "client_certificate"
    in_shell(later.text, tmp_path)
    with running(gateway, tmp_path) as program:
        program.wait_for("gateway.listening")
        assert robot(tmp_path).returncode != 0
        assert "certificate revoked" in program.wait_for("listener.client_certificate")
    assert upstream.count() == 1
    upstream.close()
