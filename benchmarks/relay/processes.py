"""Servers as child processes on a core of their own: started, awaited, their CPU read, ended by pid."""

import asyncio
import contextlib
import os
import re
import signal
from collections import deque
from collections.abc import AsyncGenerator, Generator
from pathlib import Path

from benchmarks.relay.errors import BenchmarkError

_START_DEADLINE = 20.0
_STOP_DEADLINE = 10.0


@contextlib.contextmanager
def on_core(core: int) -> Generator[None]:
    """What is started inside inherits the core (sched_setaffinity(2))."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Server:
    """A running proxy, with all processes and threads below it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._last_lines: deque[str] = deque(maxlen=20)
        self._reader: asyncio.Task[None] | None = None

    async def wait_for_line(self, pattern: str) -> None:
        """Read its output until a line matches; afterwards go on reading, or a full pipe would block the server."""
        found: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._reader = asyncio.create_task(self._read(re.compile(pattern), found))
        try:
            async with asyncio.timeout(_START_DEADLINE):
                await found
        except TimeoutError:
            raise BenchmarkError(f"no line like {pattern!r} in {_START_DEADLINE:.0f} s: {self.output()}") from None

    def cpu_seconds(self) -> float:
        """Time on the CPU, user and system, of every thread (/proc/PID/task/TID/schedstat, nanoseconds)."""
        return sum(_task_nanoseconds(pid) for pid in _tree(self._process.pid)) / 1e9

    def output(self) -> str:
        return "\n".join(self._last_lines)

    async def stop(self) -> None:
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(_STOP_DEADLINE):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        if self._reader is not None:
            await self._reader

    async def _read(self, pattern: re.Pattern[str], found: asyncio.Future[None]) -> None:
        stream = self._process.stdout
        assert stream is not None
        async for raw in stream:
            line = raw.decode(errors="replace").rstrip()
            self._last_lines.append(line)
            if pattern.search(line) and not found.done():
                found.set_result(None)
        if not found.done():
            found.set_exception(BenchmarkError(f"it ended before it was ready: {self.output()}"))


@contextlib.asynccontextmanager
async def serve(command: list[str], ready: str, core: int) -> AsyncGenerator[Server]:
    """Run `command` on `core`; the block begins when a line of its output matches `ready`."""
    with on_core(core):
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
    server = Server(process)
    try:
        await server.wait_for_line(ready)
        yield server
    finally:
        await server.stop()


def _tree(pid: int) -> list[int]:
    pids = [pid]
    for current in pids:  # grows while it is walked
        for children in Path(f"/proc/{current}/task").glob("*/children"):
            pids.extend(int(child) for child in children.read_text().split())
    return pids


def _task_nanoseconds(pid: int) -> int:
    return sum(int(task.read_text().split()[0]) for task in Path(f"/proc/{pid}/task").glob("*/schedstat"))
