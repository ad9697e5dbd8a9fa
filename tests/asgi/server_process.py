"""An ASGI server as its users run it: a subprocess with TLS on a loopback port, its output read line by line."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import trustme

from tests.leaks import Sink, saw

ServerName = Literal["uvicorn", "hypercorn", "granian", "daphne"]
SERVERS: tuple[ServerName, ...] = ("uvicorn", "hypercorn", "granian")
DEADLINE = 20.0


@dataclass(frozen=True)
class Files:
    """PEM files of the server's certificate."""

    cert: Path
    key: Path


@dataclass(frozen=True)
class Certificates(Files):
    """A server's certificate, and the throw-away authority that signed it."""

    authority: Path

    @classmethod
    def issue(cls, folder: Path, *names: str) -> Certificates:
        """Write a new authority and a certificate for *names* to *folder*."""
        authority = trustme.CA()
        leaf = authority.issue_cert(*(names or ("app.test", "localhost", "127.0.0.1")))
        files = cls(folder / "cert.pem", folder / "key.pem", folder / "authority.pem")
        files.cert.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
        files.key.write_bytes(leaf.private_key_pem.bytes())
        files.authority.write_bytes(authority.cert_pem.bytes())
        return files


class Record:
    """What the app under test was given: the lines of `tests.asgi.apps.recording`, read as they come."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()
        self._read = 0
        self._events: list[dict[str, Any]] = []

    def events(self, event: str, **values: Any) -> list[dict[str, Any]]:
        """All lines of this event with these values so far."""
        with self.path.open("rb") as file:
            file.seek(self._read)
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]
        self._read += len(whole)
        self._events += [json.loads(line) for line in whole.splitlines()]
        return [
            line
            for line in self._events
            if line["event"] == event and all(line.get(key) == value for key, value in values.items())
        ]

    def wait_for(self, event: str, **values: Any) -> dict[str, Any]:
        """The first line of this event with these values, waited for."""
        end = time.monotonic() + DEADLINE
        while time.monotonic() < end:
            found = self.events(event, **values)
            if found:
                return found[0]
            time.sleep(0.005)  # a file sends no event
        raise AssertionError(f"no {event} {values} in {self._events[-20:]}")

    def reached(self) -> int:
        """How many scopes the app has been called with."""
        return len(self.events("called"))


class ServerProcess:
    """
    One running server with *app* (``module:name``), which is found in *folder*.

    *tls* None serves in the clear. stdout and stderr go to one file; `wait_for` reads it. *proxy_headers* leaves
    uvicorn its default of believing loopback peers in X-Forwarded-*.
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
        proxy_headers: bool = False,
    ) -> None:
        self.name: ServerName = name
        self.port = free_port()
        self._output = output or folder / f"{name}-{self.port}.log"
        self.record = Record(self._output.with_suffix(".record"))
        self._file = self._output.open("w+b")
        self.process = subprocess.Popen(
            [sys.executable, "-m", *command(name, app, self.port, tls, proxy_headers=proxy_headers), *options],
            cwd=folder,
            stdout=self._file,
            stderr=subprocess.STDOUT,
            env={
                **os.environ,
                "PYTHONUNBUFFERED": "1",
                "PYTHONPATH": str(folder),
                "WSGUARD_TEST_RECORD": str(self.record.path),
                **(environment or {}),
            },
        )
        self._await_port()

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        return ("127.0.0.1", self.port)

    def output(self) -> str:
        """All that it has written so far."""
        return self._output.read_text("utf-8", "replace")

    def reason_of(self, request_id: str) -> str | None:
        """The logged reason of one refusal."""
        line = self.wait_for(f"request_id={request_id}")
        found = re.search(r" reason=(\S+)", line)
        return None if found is None else found[1]

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
        saw(Sink.SERVER_OUTPUT, self.output(), self.name)

    def _await_port(self) -> None:
        end = time.monotonic() + DEADLINE
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise AssertionError(f"{self.name} has ended:\n{self.output()}")
            with contextlib.suppress(OSError), socket.create_connection(self.address, timeout=1):
                return
            time.sleep(0.02)  # a foreign server sends no event
        raise AssertionError(f"{self.name} does not listen:\n{self.output()}")


def command(name: ServerName, app: str, port: int, tls: Files | None, *, proxy_headers: bool = False) -> list[str]:
    """The server's own words for an app, a loopback port and a certificate."""
    if name == "uvicorn":
        secure = [] if tls is None else ["--ssl-certfile", str(tls.cert), "--ssl-keyfile", str(tls.key)]
        secure += [] if proxy_headers else ["--no-proxy-headers"]
        return ["uvicorn", app, "--host", "127.0.0.1", "--port", str(port), *secure]
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
