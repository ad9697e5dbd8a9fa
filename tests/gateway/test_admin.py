"""`wsguard sessions` against a gateway that runs: what a person sees, and what becomes of the sockets."""

from __future__ import annotations

import json
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.credentials import Place, Visitor, closed, echoes
from tests.gateway.conftest import Certificates
from tests.gateway.gateway_process import GatewayProcess
from tests.gateway.recording_upstream import RecordingUpstream, echo

pytestmark = pytest.mark.slow

CONFIGURATION = """
listen = ["127.0.0.1:0"]
cert = "{cert}"
key = "{key}"
upstream = "{upstream}"
origins = ["https://app.test"]
hosts = ["app.test"]
admin = "unix:run/admin.sock"
auth = ["ticket", "api_key"]
origin_required = "unless-header-credential"

[api_keys]
file = "keys.toml"

[ticket]
"""


class Mount:
    def __init__(self, folder: Path, keys: dict[str, str], gateway: GatewayProcess, program: Visitor) -> None:
        self.folder, self.keys, self.gateway, self.program = folder, keys, gateway, program

    def sessions(self, *words: str, code: int = 0) -> str:
        """Run the command as a person does, in the folder of the configuration."""
        command = [sys.executable, "-m", "wsguard", "sessions", *words, "--config", "wsguard.toml"]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr

    def listed(self) -> list[dict[str, Any]]:
        return json.loads(self.sessions("list", "--json"))


@pytest.fixture
def mount(certificates: Certificates, client_context: ssl.SSLContext, tmp_path: Path) -> Iterator[Mount]:
    with ExitStack() as stack:
        place = Place(tmp_path)
        keys = {name: place.add_key(name) for name in ("robot", "other")}
        upstream = RecordingUpstream(echo)
        stack.callback(upstream.close)
        file = tmp_path / "wsguard.toml"
        file.write_text(CONFIGURATION.format(cert=certificates.cert, key=certificates.key, upstream=upstream.url))
        gateway = GatewayProcess(file)
        yield Mount(tmp_path, keys, gateway, Visitor(gateway.address, client_context, stack, None))
        assert gateway.stop() == 0
        assert gateway.stderr() == ""
        assert not (tmp_path / "run" / "admin.sock").exists()


def test_sockets_are_listed_and_closed(mount: Mount) -> None:
    """By id one, by subject all; what is revoked opens nothing more, and every line of the log says who did it."""
    first, _ = mount.program.open(None, {"X-API-Key": mount.keys["robot"]})
    second, _ = mount.program.open(None, {"X-API-Key": mount.keys["robot"]})
    third, _ = mount.program.open(None, {"X-API-Key": mount.keys["other"]})
    found = mount.listed()
    assert [one["subject"] for one in found] == ["robot", "robot", "other"]
    assert "robot\tapi_key\t/*" in mount.sessions("list")
    assert mount.sessions("close", found[0]["session"]) == "closed: 1\n"
    assert closed(first) == (3000, "closed")
    assert mount.gateway.wait_for("session.closed", session=found[0]["session"])["reason"] == "session.closed"
    assert json.loads(mount.sessions("close", "--subject", "robot", "--json")) == {"closed": 1, "processes": 1}
    assert closed(second) == (3000, "revoked")
    assert mount.gateway.wait_for("session.revoked", subject="robot")["peer_uid"] is not None
    status, request_id = mount.program.refused(None, {"X-API-Key": mount.keys["robot"]})
    assert (status, mount.gateway.reason_of(request_id)) == (401, "session.revoked")
    assert echoes(third, "still there")
    assert [one["subject"] for one in mount.listed()] == ["other"]


def test_what_the_command_refuses(mount: Mount) -> None:
    """Nothing named, both, an id that nobody has, a gateway that is gone: in words, and nothing is closed."""
    third, _ = mount.program.open(None, {"X-API-Key": mount.keys["other"]})
    assert "an id, or --subject" in mount.sessions("close", code=2)
    assert "an id and names" in mount.sessions("close", "abc", "--subject", "x", code=2)
    assert "no live session has this id" in mount.sessions("close", "abc", code=1)
    assert echoes(third, "still there")
    mount.gateway.stop()
    assert "nobody serves there" in mount.sessions("list", code=1)


def test_two_gateways_do_not_share_a_socket(mount: Mount) -> None:
    """The second does not start: a command would reach one of them, and nobody knew which."""
    command = [sys.executable, "-m", "wsguard", "gateway", "--config", "wsguard.toml"]
    done = subprocess.run(command, cwd=mount.folder, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "another process serves" in done.stderr
