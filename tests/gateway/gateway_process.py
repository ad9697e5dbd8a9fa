"""The gateway as its users run it: a subprocess on real sockets, its log read line by line."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from tests.leaks import Sink, saw

DEADLINE = 20.0


class GatewayProcess:
    """One running ``wsguard gateway --config FILE``; *log* holds every JSON line so far."""

    def __init__(
        self, config: Path, environment: dict[str, str] | None = None, program: list[str] | None = None
    ) -> None:
        command = program or [sys.executable, "-m", "wsguard"]
        self._errors = (config.parent / f"{config.stem}.stderr").open("w+b")
        self.process = subprocess.Popen(
            [*command, "gateway", "--config", str(config), "--log-format", "json"],
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, **(environment or {})},
        )
        self._printed: list[bytes] = []
        self.log: list[dict[str, Any]] = []
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.start_line = self.wait_for("gateway.listening")
        self.addresses = [_address(text) for text in self.start_line["on"]]

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens first."""
        return self.addresses[0]

    @property
    def pid(self) -> int:
        """Its process."""
        return self.process.pid

    def wait_for(self, event: str, *, after: int = 0, **values: Any) -> dict[str, Any]:
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

    def count(self, event: str) -> int:
        """How many lines of this event there are so far."""
        with self._changed:
            return sum(1 for line in self.log if line["event"] == event)

    def mark(self) -> int:
        """The index of the next line."""
        with self._changed:
            return len(self.log)

    def reason_of(self, request_id: str) -> str | None:
        """The logged reason of one refusal."""
        return str(self.wait_for("handshake.refused", request_id=request_id)["reason"])

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(DEADLINE)
        self._reader.join(DEADLINE)
        assert self.process.stdout is not None
        self.process.stdout.close()
        if self._errors.closed:
            return code  # it was stopped before
        self._errors.close()
        saw(Sink.STDOUT, b"".join(self._printed), "wsguard gateway")
        saw(Sink.JSON_LOG, b"".join(line for line in self._printed if line.startswith(b"{")), "wsguard gateway")
        saw(Sink.STDERR, self.stderr(), "wsguard gateway")
        return code

    def stderr(self) -> str:
        """What it has written there."""
        return Path(self._errors.name).read_text("utf-8", "replace")

    def memory(self) -> int:
        """VmRSS in bytes."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("no VmRSS")

    def descriptors(self) -> int:
        """How many files it has open."""
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    def _read(self) -> None:
        assert self.process.stdout is not None
        for raw in self.process.stdout:
            self._printed.append(raw)
            with contextlib.suppress(ValueError), self._changed:
                self.log.append(json.loads(raw))
                self._changed.notify_all()


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)
