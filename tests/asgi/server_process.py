"""An ASGI server as its users run it: a subprocess with TLS on a loopback port, its output read line by line."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

ServerName = Literal["uvicorn", "hypercorn", "granian", "daphne"]
SERVERS: tuple[ServerName, ...] = ("uvicorn", "hypercorn", "granian")
DEADLINE = 20.0


@dataclass(frozen=True)
class Files:
    """PEM files of the server's certificate."""

    cert: Path
    key: Path


class ServerProcess:
    """
    One running server with *app* (``module:name``), which is found in *folder*.

    *tls* None serves in the clear. stdout and stderr go to one file; `wait_for` reads it.
    """

    def __init__(
        self,
        name: ServerName,
        app: str,
        folder: Path,
        tls: Files | None,
        *,
        options: tuple[str, ...] = (),
        environment: dict[str, str] | None = None,
        output: Path | None = None,
    ) -> None:
        self.name = name
        self.port = free_port()
        self._output = output or folder / f"{name}-{self.port}.log"
        self._file = self._output.open("w+b")
        self.process = subprocess.Popen(
            [sys.executable, "-m", *command(name, app, self.port, tls), *options],
            cwd=folder,
            stdout=self._file,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(folder), **(environment or {})},
        )
        self._await_port()

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        return ("127.0.0.1", self.port)

    def output(self) -> str:
        """All that it has written so far."""
        return self._output.read_text("utf-8", "replace")

    def wait_for(self, text: str, *, after: int = 0) -> str:
        """Return the first line behind character *after* that holds *text*, waiting for it."""
        end = time.monotonic() + DEADLINE
        while time.monotonic() < end:
            for line in self.output()[after:].splitlines():
                if text in line:
                    return line
            time.sleep(0.01)  # a file sends no event
        raise AssertionError(f"no {text!r} in the output of {self.name}:\n{self.output()}")

    def stop(self) -> None:
        """End it: asked, and after a deadline killed."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(DEADLINE)
        self._file.close()

    def _await_port(self) -> None:
        end = time.monotonic() + DEADLINE
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise AssertionError(f"{self.name} has ended:\n{self.output()}")
            with contextlib.suppress(OSError), socket.create_connection(self.address, timeout=1):
                return
            time.sleep(0.02)  # a foreign server sends no event
        raise AssertionError(f"{self.name} does not listen:\n{self.output()}")


def command(name: ServerName, app: str, port: int, tls: Files | None) -> list[str]:
    """The server's own words for an app, a loopback port and a certificate."""
    if name == "uvicorn":
        secure = [] if tls is None else ["--ssl-certfile", str(tls.cert), "--ssl-keyfile", str(tls.key)]
        return ["uvicorn", app, "--host", "127.0.0.1", "--port", str(port), "--no-proxy-headers", *secure]
    if name == "hypercorn":
        secure = [] if tls is None else ["--certfile", str(tls.cert), "--keyfile", str(tls.key)]
        return ["hypercorn", app, "--bind", f"127.0.0.1:{port}", "--graceful-timeout", "1", *secure]
    if name == "granian":
        secure = [] if tls is None else ["--ssl-certificate", str(tls.cert), "--ssl-keyfile", str(tls.key)]
        return ["granian", "--interface", "asgi", "--host", "127.0.0.1", "--port", str(port), *secure, app]
    if tls is None:
        return ["daphne", "-b", "127.0.0.1", "-p", str(port), app]
    endpoint = f"ssl:{port}:interface=127.0.0.1:privateKey={tls.key}:certKey={tls.cert}"
    return ["daphne", "-e", endpoint, app]


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def trusting(context_file: Path) -> ssl.SSLContext:
    """A client context that trusts *context_file* and may name any server."""
    context = ssl.create_default_context(cafile=context_file)
    context.check_hostname = False
    return context
