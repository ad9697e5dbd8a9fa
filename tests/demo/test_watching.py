"""`wsguard demo` as a person starts it: it says where it is, is safe to run beside a browser, and ends on Ctrl-C."""

from __future__ import annotations

import os
import random
import signal
import socket
import ssl
import subprocess
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest

from tests.processes import watched
from wsguard.demo.errors import DemoError
from wsguard.demo.loopback import listeners, loopback_addresses
from wsguard.dev_ca import DevelopmentAuthority

if TYPE_CHECKING:
    from collections.abc import Generator

DEADLINE = 20
HANDSHAKE = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


@pytest.fixture
def home() -> Generator[Path]:
    """An empty HOME with a short path, as the name of a Unix socket has 107 bytes at most."""
    with TemporaryDirectory() as folder:
        yield Path(folder)


class RunningDemo:
    """The demo as a process of its own; names under .localhost are resolved by hand, as Python's resolver cannot."""

    def __init__(self, process: subprocess.Popen[str], port: int, said: list[str], home: Path) -> None:
        self.process = process
        self.port = port
        self.said = said
        authority = DevelopmentAuthority.open(home / "wsguard" / "dev-ca")
        self._context = ssl.create_default_context(cafile=str(authority.certificate_path))

    def get(
        self,
        name: str,
        path: str = "/",
        *,
        port: int = 0,
        address: str = "127.0.0.1",
        fields: dict[str, str] | None = None,
    ) -> str:
        """Ask `https://NAME:PORT` at *address* and return the whole answer."""
        port = port or self.port
        head = {"Host": f"{name}:{port}", "Connection": "close", **(fields or {})}
        lines = "".join(f"{field}: {value}\r\n" for field, value in head.items())
        with (
            socket.create_connection((address, port), DEADLINE) as raw,
            self._context.wrap_socket(raw, server_hostname=name) as connection,
        ):
            connection.sendall(f"GET {path} HTTP/1.1\r\n{lines}\r\n".encode())
            return b"".join(iter(lambda: connection.recv(65536), b"")).decode()

    def knock(self, name: str, path: str, origin: str) -> str:
        """Open a handshake and return the status line of a refusal."""
        return self.get(name, path, fields={"Origin": origin, **HANDSHAKE}).partition("\r\n")[0]


@contextmanager
def running_demo(home: Path) -> Generator[RunningDemo]:
    port = free_pair()
    process = start("--no-browser", "--port", str(port), home=home)
    assert process.stdout is not None
    said: list[str] = []
    try:
        while not (said and "Ctrl-C" in said[-1]):
            line = process.stdout.readline()
            assert line, f"it ended: {process.communicate()}"
            said.append(line)
        yield RunningDemo(process, port, said, home)
    finally:
        process.terminate()
        process.communicate(timeout=DEADLINE)


def free_pair() -> int:
    """Return a port that is free together with the next one."""
    while True:
        port = random.randrange(20_000, 32_000)  # below those that the kernel gives to the tests beside this one
        with suppress(DemoError):
            for listener in (*listeners(port), *listeners(port + 1)):
                listener.close()
            return port


def start(*arguments: str, home: Path) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if name not in {"DISPLAY", "WAYLAND_DISPLAY"}}
    return subprocess.Popen(
        [sys.executable, "-m", "wsguard", "demo", *arguments],
        env=environment | {"HOME": str(home), "XDG_DATA_HOME": str(home), "TMPDIR": str(home), "COLUMNS": "200"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_it_says_where_it_is_answers_on_both_addresses_and_ends_on_ctrl_c(home: Path) -> None:
    with running_demo(home) as demo:
        text = "".join(demo.said)
        assert f"https://localhost:{demo.port}" in text
        assert f"ssh -L {demo.port}:127.0.0.1:{demo.port} -L {demo.port + 1}:127.0.0.1:{demo.port + 1} " in text
        assert f"https://evil.guarded.localhost:{demo.port}" in text
        for address in loopback_addresses():
            assert "cross-site WebSocket hijacking" in demo.get("localhost", address=address)
            assert "__Host-session=" in demo.get("open.localhost", address=address)
            assert "__Host-session=" in demo.get("guarded.localhost", port=demo.port + 1, address=address)
        demo.process.send_signal(signal.SIGINT)
        _, errors = demo.process.communicate(timeout=DEADLINE)
        assert (demo.process.returncode, errors) == (0, "")


def test_a_killed_demo_leaves_no_gateway_behind(home: Path) -> None:
    with running_demo(home) as demo:
        pid = demo.process.pid
        (gateway,) = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()
        with watched([int(gateway)]) as orphan:
            demo.process.kill()
            demo.process.communicate(timeout=DEADLINE)
            assert orphan.survivors() == []


def test_strangers_get_nothing(home: Path) -> None:
    with running_demo(home) as demo:
        own = f"https://localhost:{demo.port}"
        assert demo.get("localhost", fields={"Host": f"rebound.example:{demo.port}"}).startswith("HTTP/1.1 421 ")
        assert demo.knock("localhost", "/feed", "https://stranger.example") == "HTTP/1.1 403 Forbidden"
        assert demo.knock("evil.localhost", "/loot/open", own) == "HTTP/1.1 403 Forbidden"
        assert demo.knock("guarded.localhost", "/handshake", own) == "HTTP/1.1 403 Forbidden"
        assert (
            demo.knock("open.localhost", "/chat", f"https://open.localhost:{demo.port}") == "HTTP/1.1 401 Unauthorized"
        )
        assert demo.get("localhost", "/../landing.py").startswith("HTTP/1.1 404 ")
        page = demo.get("localhost")
        assert "default-src 'none'; script-src 'self'; style-src 'self'" in page
        assert "unsafe" not in page


@pytest.mark.parametrize("which", [0, 1], ids=["its own port", "the gateway's port"])
def test_a_port_in_use_is_told(home: Path, which: int) -> None:
    port = free_pair()
    with socket.create_server(("127.0.0.1", port + which)):
        process = start("--no-browser", "--port", str(port), home=home)
        _, errors = process.communicate(timeout=DEADLINE)
    assert process.returncode == 1
    assert errors.startswith("wsguard demo: ")
    assert str(port + which) in errors
    assert "Traceback" not in errors


def test_self_tests_belong_to_the_check(home: Path) -> None:
    process = start("--without-guard", home=home)
    _, errors = process.communicate(timeout=DEADLINE)
    assert (process.returncode, errors) == (
        2,
        "wsguard demo: --without-guard and --logged-out are self-tests of --headless-check\n",
    )
