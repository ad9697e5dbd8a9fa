"""A program of wsguard's as its users run it: a subprocess whose JSON log is read line by line."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

from tests.leaks import Sink, saw

DEADLINE = 20.0


class LoggingProcess:
    """
    One running *command*; *log* holds every JSON line so far.

    What it writes to stderr goes into the file *errors*; what it printed is looked through for secrets in the end, under
    the name *called*.
    """

    def __init__(
        self,
        command: list[str],
        *,
        errors: Path,
        called: str,
        folder: Path | None = None,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.log: list[dict[str, Any]] = []
        self._called = called
        self._changed = threading.Condition()
        self._printed: list[bytes] = []
        self._errors = errors.open("w+b")
        self.process = subprocess.Popen(
            command,
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, **(environment or {})},
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Its process."""
        return self.process.pid

    def wait_for(self, event: str, after: int = 0, **values: Any) -> dict[str, Any]:
        """Return the first line behind index *after* with this event and these values, waiting for it."""
        end = time.monotonic() + DEADLINE
        with self._changed:
            while True:
                for line in self.log[after:]:
                    if line["event"] == event and all(line.get(key) == value for key, value in values.items()):
                        return line
                left = end - time.monotonic()
                if left <= 0 or (self.process.poll() is not None and not self._reader.is_alive()):
                    raise AssertionError(f"no {event} {values} in {self.log[after:]}\n{self.stderr()}")
                self._changed.wait(min(left, 0.2))

    def events(self, event: str, after: int = 0) -> list[dict[str, Any]]:
        """The lines of this event behind index *after*."""
        with self._changed:
            return [line for line in self.log[after:] if line["event"] == event]

    def count(self, event: str) -> int:
        """How many lines of this event there are so far."""
        return len(self.events(event))

    def mark(self) -> int:
        """The index of the next line."""
        with self._changed:
            return len(self.log)

    def reason_of(self, request_id: str) -> str:
        """The logged reason of one refusal."""
        return str(self.wait_for("handshake.refused", request_id=request_id)["reason"])

    def stderr(self) -> str:
        """What it has written there."""
        return Path(self._errors.name).read_text("utf-8", "replace")

    def stop(self) -> int:
        """SIGTERM, its end, and its exit code. A second call changes nothing."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(DEADLINE)
        if self._errors.closed:
            return code
        self._reader.join(DEADLINE)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._errors.close()
        saw(Sink.STDOUT, b"".join(self._printed), self._called)
        saw(Sink.JSON_LOG, b"".join(line for line in self._printed if line.startswith(b"{")), self._called)
        saw(Sink.STDERR, self.stderr(), self._called)
        return code

    def _read(self) -> None:
        assert self.process.stdout is not None
        for raw in self.process.stdout:
            self._printed.append(raw)
            with contextlib.suppress(ValueError), self._changed:
                self.log.append(json.loads(raw))
                self._changed.notify_all()
