"""Programs as the pages start them: a subprocess, its output read line by line, an end within a deadline."""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from pathlib import Path

from tests.leaks import Sink, saw

DEADLINE = 20.0
WSGUARD = str(Path(sys.executable).with_name("wsguard"))


class Running:
    """One running program; *errors* is what it wrote to stderr, once it has ended."""

    def __init__(self, command: list[str], folder: Path) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by stop()
        self.process = subprocess.Popen(
            command, cwd=folder, stdout=subprocess.PIPE, stderr=self._errors, stdin=subprocess.DEVNULL
        )
        self.errors = ""
        self._seen = b""

    def wait_for(self, text: str) -> str:
        """Return the first line of its output that holds *text*."""
        assert self.process.stdout is not None
        end = time.monotonic() + DEADLINE
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            while not (found := [line for line in self._seen.split(b"\n")[:-1] if text.encode() in line]):
                read = b""
                if selector.select(max(0.0, end - time.monotonic())):
                    read = os.read(self.process.stdout.fileno(), 65536)
                if not read:
                    self.stop()
                    raise AssertionError(f"no {text!r} within {DEADLINE} s: {self._seen!r}\n{self.errors}")
                self._seen += read
        return found[0].decode()

    def stop(self) -> int:
        """SIGTERM if it still runs, and its exit code. A second call changes nothing."""
        if self._errors.closed:
            return self.process.wait()
        self.process.terminate()
        try:
            return self.process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        finally:
            assert self.process.stdout is not None
            self.process.stdout.close()
            self._errors.seek(0)
            self.errors = self._errors.read().decode("utf-8", "replace")
            self._errors.close()
            saw(Sink.STDOUT, self._seen, "a program of the docs")
            saw(Sink.STDERR, self.errors, "a program of the docs")


@contextlib.contextmanager
def running(command: list[str], folder: Path) -> Generator[Running]:
    """Run *command* in *folder*, and end it in any case."""
    program = Running(command, folder)
    try:
        yield program
    finally:
        program.stop()


def free_port() -> int:
    """A port of 127.0.0.1 that nobody has right now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def wait_for_port(port: int, has_ended: Callable[[], bool] = lambda: False) -> None:
    """Wait until somebody listens on *port* of 127.0.0.1; give up where whoever should do so *has_ended*."""
    end = time.monotonic() + DEADLINE
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            assert not has_ended(), "it has ended"
            assert time.monotonic() < end, f"nobody listens on {port}"
            time.sleep(0.02)  # a stranger's app gives no other sign that it listens
        else:
            return
