"""The real `wsguard gateway` in front of the guarded app: a subprocess, started, read and stopped."""

from __future__ import annotations

import asyncio
import ctypes
import json
import signal
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, cast

from wsguard.demo.errors import DemoError

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import AsyncGenerator, Callable, Mapping
    from pathlib import Path

START_DEADLINE = 20.0
STOP_DEADLINE = 5.0
LINE_BYTES = 64 * 1024
STDERR_KEPT = 4096
PR_SET_PDEATHSIG = 1


@asynccontextmanager
async def gateway(configuration: Path, on_decision: Callable[[Mapping[str, object]], None]) -> AsyncGenerator[Gateway]:
    """Run the gateway on *configuration*; each line of its decision log goes to *on_decision*."""
    running = await Gateway.start(configuration, on_decision)
    try:
        await running.wait_until_listening()
        yield running
    finally:
        await running.stop()


class Gateway:
    """A running gateway."""

    def __init__(self, process: Process, on_decision: Callable[[Mapping[str, object]], None]) -> None:
        self._process = process
        self._on_decision = on_decision
        self._listening = asyncio.Event()
        self._errors = b""
        self.ended = asyncio.gather(self._read_log(), self._read_errors(), process.wait())

    @classmethod
    async def start(cls, configuration: Path, on_decision: Callable[[Mapping[str, object]], None]) -> Gateway:
        """Start it in a session of its own: Ctrl-C is for the demo, which then stops it."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "wsguard", "gateway", "--config", str(configuration), "--log-format", "json"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=LINE_BYTES,
            start_new_session=True,
            preexec_fn=_end_with_parent if sys.platform == "linux" else None,
        )
        return cls(process, on_decision)

    async def wait_until_listening(self) -> None:
        """Return once it accepts connections; if it ends before, say why."""
        listening = asyncio.create_task(self._listening.wait())
        await asyncio.wait({listening, self.ended}, timeout=START_DEADLINE, return_when=asyncio.FIRST_COMPLETED)
        listening.cancel()
        if not self._listening.is_set():
            raise self.failure()

    def failure(self) -> DemoError:
        """Return what the gateway said last, as an error."""
        said = self._errors.decode(errors="replace").strip()
        return DemoError(f"the gateway ended or never listened: {said or 'it said nothing'}")

    async def stop(self) -> None:
        """Ask it to end, and wait."""
        if self._process.returncode is None:
            self._process.terminate()
        try:
            await asyncio.wait_for(asyncio.shield(self.ended), STOP_DEADLINE)
        except TimeoutError:
            self._process.kill()
            await self.ended

    async def _read_log(self) -> None:
        stream = cast("asyncio.StreamReader", self._process.stdout)
        while line := await stream.readline():
            event = _event(line)
            if event.get("event") == "gateway.listening":
                self._listening.set()
            elif event:
                self._on_decision(event)

    async def _read_errors(self) -> None:
        stream = cast("asyncio.StreamReader", self._process.stderr)
        while chunk := await stream.read(STDERR_KEPT):
            self._errors = (self._errors + chunk)[-STDERR_KEPT:]


def _end_with_parent() -> None:
    """Let the kernel end the gateway if the demo is killed and cannot (prctl(2)); runs in the child before exec."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _event(line: bytes) -> Mapping[str, object]:
    try:
        event = json.loads(line)
    except ValueError:
        return {}
    return cast("Mapping[str, object]", event) if isinstance(event, dict) else {}
