"""The two mounts as their users start them: `wsguard gateway` before an app, `wsguard run` around one."""

from __future__ import annotations

import contextlib
import json
import os
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.asgi.server_process import Certificates, free_port
from tests.credentials import Visitor
from tests.docs.running import wait_for_port
from tests.gateway.recording_upstream import Received, RecordingUpstream, echo
from tests.leaks import Sink, saw

DEADLINE = 20.0
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


class Mount:
    """One running mount; *log* holds every JSON line so far."""

    def __init__(
        self, command: list[str], folder: Path, port: int, visitor: Visitor, reached: Callable[[], int]
    ) -> None:
        self.visitor = visitor
        self.log: list[dict[str, Any]] = []
        self._changed = threading.Condition()
        self._printed: list[bytes] = []
        self._reached = reached
        self._errors = (folder / "mount.stderr").open("w+b")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "wsguard", *command],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(folder)},
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            wait_for_port(port, lambda: self.process.poll() is not None)
        except AssertionError:
            self.stop()
            raise AssertionError(f"it has not started: {self.stderr()}") from None

    @property
    def program(self) -> Visitor:
        """Somebody who comes without an Origin."""
        return replace(self.visitor, origin=None)

    def events(self, event: str, after: int = 0) -> list[dict[str, Any]]:
        """The lines of this event behind index *after*."""
        with self._changed:
            return [line for line in self.log[after:] if line["event"] == event]

    def wait_for(self, event: str, after: int = 0, **values: Any) -> dict[str, Any]:
        """Return the first line behind index *after* with this event and these values, waiting for it."""
        end = time.monotonic() + DEADLINE
        with self._changed:
            while True:
                for line in self.log[after:]:
                    if line["event"] == event and all(line.get(key) == value for key, value in values.items()):
                        return line
                assert time.monotonic() < end, f"no {event} {values} in {self.log[after:]}\n{self.stderr()}"
                self._changed.wait(0.2)

    def reason_of(self, request_id: str) -> str:
        """The logged reason of one refusal."""
        return str(self.wait_for("handshake.refused", request_id=request_id)["reason"])

    def reached(self) -> int:
        """How many handshakes the app has been asked for."""
        return self._reached()

    def stderr(self) -> str:
        """What it has written there."""
        return Path(self._errors.name).read_text("utf-8", "replace")

    def stderr_faults(self) -> list[str]:
        """What tells of a fault there."""
        return [
            line for line in self.stderr().splitlines() if "Traceback" in line or "Error" in line or "never" in line
        ]

    def stop(self) -> int:
        """SIGTERM, its end, and its exit code. A second call changes nothing."""
        if self.process.poll() is None:
            self.process.terminate()
        code = self.process.wait(DEADLINE)
        if self._errors.closed:
            return code
        self._reader.join(DEADLINE)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._errors.close()
        saw(Sink.STDOUT, b"".join(self._printed), "a mount")
        saw(Sink.JSON_LOG, b"".join(line for line in self._printed if line.startswith(b"{")), "a mount")
        saw(Sink.STDERR, self.stderr(), "a mount")
        return code

    def _read(self) -> None:
        assert self.process.stdout is not None
        for raw in self.process.stdout:
            self._printed.append(raw)
            with contextlib.suppress(ValueError), self._changed:
                self.log.append(json.loads(raw))
                self._changed.notify_all()


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
