"""The two mounts as their users start them: `wsguard gateway` before an app, `wsguard run` around one."""

from __future__ import annotations

import ssl
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from tests.asgi.server_process import Certificates, free_port
from tests.credentials import Visitor
from tests.docs.running import wait_for_port
from tests.gateway.recording_upstream import Received, RecordingUpstream, echo
from tests.logging_process import LoggingProcess

APP = """
import os

CALLED = os.open("called", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        raise NotImplementedError  # ASGI: an app says by raising that it knows no lifespan
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/html")]})
        await send({"type": "http.response.body", "body": b"a page"})
        return
    os.write(CALLED, b".")
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({**message, "type": "websocket.send"})
"""


def page_or_echo(received: Received) -> None:
    """The same app, behind the gateway."""
    if received.first("Upgrade") is not None:
        echo(received)
    else:
        fields = b"Content-Type: text/html\r\nContent-Length: 6\r\nConnection: close\r\n\r\n"
        received.sock.sendall(b"HTTP/1.1 200 OK\r\n" + fields + b"a page")


class Mount(LoggingProcess):
    """One running mount that listens."""

    def __init__(
        self, command: list[str], folder: Path, port: int, visitor: Visitor, reached: Callable[[], int]
    ) -> None:
        self.visitor = visitor
        self._reached = reached
        super().__init__(
            [sys.executable, "-m", "wsguard", *command],
            errors=folder / "mount.stderr",
            called="a mount",
            folder=folder,
            environment={"PYTHONUNBUFFERED": "1", "PYTHONPATH": str(folder)},
        )
        try:
            wait_for_port(port, lambda: self.process.poll() is not None)
        except AssertionError:
            self.stop()
            raise AssertionError(f"it has not started: {self.stderr()}") from None

    @property
    def program(self) -> Visitor:
        """Somebody who comes without an Origin."""
        return replace(self.visitor, origin=None)

    def reached(self) -> int:
        """How many handshakes the app has been asked for."""
        return self._reached()

    def stderr_faults(self) -> list[str]:
        """What tells of a fault there."""
        return [
            line for line in self.stderr().splitlines() if "Traceback" in line or "Error" in line or "never" in line
        ]


class StartMount:
    """Writes a mount's configuration, and starts it: whoever is let in hears an echo."""

    def __init__(self, kind: str, folder: Path, stack: ExitStack) -> None:
        self._kind, self._folder, self._stack = kind, folder, stack
        self._files = Certificates.issue(folder)
        self._context = ssl.create_default_context(cafile=self._files.authority)
        self._context.check_hostname = False

    def write(self, configuration: str, port: int) -> tuple[list[str], Callable[[], int]]:
        """
        Write what the mount needs and what the test adds, in which PORT is its port.

        Returns the command, and what tells how many handshakes the app has been asked for.
        """
        own = f'cert = "{self._files.cert}"\nkey = "{self._files.key}"\n'
        reached: Callable[[], int]
        if self._kind == "gateway":
            upstream = RecordingUpstream(page_or_echo)
            self._stack.callback(upstream.close)
            own += f'listen = ["127.0.0.1:{port}"]\nupstream = "{upstream.url}"\n'
            command, reached = ["gateway"], upstream.count
        else:
            (self._folder / "echoing.py").write_text(APP)
            called = self._folder / "called"
            own += f'listen = "127.0.0.1:{port}"\n'
            command, reached = ["run", "echoing:app"], lambda: called.stat().st_size
        (self._folder / "wsguard.toml").write_text((own + configuration).replace("PORT", str(port)))
        return [*command, "--config", "wsguard.toml", "--log-format", "json"], reached

    def __call__(self, configuration: str) -> Mount:
        """Start it; it is stopped in the end."""
        port = free_port()
        command, reached = self.write(configuration, port)
        visitor = Visitor(("127.0.0.1", port), self._context, self._stack)
        mount = Mount(command, self._folder, port, visitor, reached)
        self._stack.callback(mount.stop)
        return mount


@pytest.fixture(params=["gateway", "asgi"])
def start_mount(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StartMount]:
    with ExitStack() as stack:
        yield StartMount(str(request.param), tmp_path, stack)
