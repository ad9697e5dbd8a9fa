"""The parent of workers: it starts them, brings back those that die, ends them, and serves the admin socket."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import tempfile
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wsguard.supervisor.place import WorkerPlace

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from socket import socket

    from wsguard.observe.decision_log import DecisionLog

_CONFIGURATION = 2
_FIRST_DELAY, _LONGEST_DELAY = 0.1, 30.0
_STEADY_SECONDS = 10.0
"""A worker that has lived that long comes back at once; one that dies earlier, each time later."""


@dataclass(frozen=True)
class Workforce:
    """
    What is to run: *count* processes of *command*, which listen on the reserved *sockets*.

    *stop_seconds* is how long they have for their end. *administer* serves the admin socket for the workers whose
    sockets are in the folder that it is given, and returns what ends it.
    """

    command: Sequence[str]
    count: int
    sockets: Sequence[socket]
    stop_seconds: float
    log: DecisionLog
    administer: Callable[[str], Callable[[], None]]


def supervise(force: Workforce) -> int:
    """Run the workers until SIGTERM or SIGINT; return the exit code."""
    # For its mode: nobody else may reach a worker's socket. Short, because such a path has at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="wsguard-") as folder:
        return asyncio.run(_Supervisor(force, folder).run())


class _Supervisor:
    def __init__(self, force: Workforce, folder: str) -> None:
        self._force = force
        self._folder = folder
        self._processes: dict[int, asyncio.subprocess.Process] = {}
        self._stopping = asyncio.Event()
        self._code = 0

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        # A worker holds the other end; when this process is gone, however it ended, they notice.
        ours, theirs = os.pipe()
        end_administration = self._force.administer(self._folder)
        self._force.log.event("supervisor.started", pid=os.getpid(), workers=self._force.count)
        try:
            keeping = [asyncio.create_task(self._keep(index, ours)) for index in range(self._force.count)]
            await self._stopping.wait()
            await self._stop(keeping)
        finally:
            end_administration()
            os.close(ours)
            os.close(theirs)
        self._force.log.event("supervisor.stopped", pid=os.getpid())
        return self._code

    async def _keep(self, index: int, parent: int) -> None:
        """Start worker *index*, and start it anew whenever it has ended, until the end of all."""
        delay = _FIRST_DELAY
        while not self._stopping.is_set():
            began = time.monotonic()
            code = await self._run_one(index, parent)
            if self._stopping.is_set():
                return
            lived = time.monotonic() - began
            if code == _CONFIGURATION and lived < _STEADY_SECONDS and delay == _FIRST_DELAY:
                self._code = code  # what it has told on stderr it would tell for ever
                self._stopping.set()
                return
            delay = _FIRST_DELAY if lived >= _STEADY_SECONDS else min(2 * delay, _LONGEST_DELAY)
            self._force.log.event("worker.restarting", worker=index, after=delay)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), delay)

    async def _run_one(self, index: int, parent: int) -> int:
        listen = [(str(sock.getsockname()[0]), int(sock.getsockname()[1])) for sock in self._force.sockets]
        place = WorkerPlace(index, self._folder, listen, parent)
        process = await asyncio.create_subprocess_exec(
            *self._force.command,
            env={**os.environ, **place.environment()},
            pass_fds=(parent,),
            stdin=asyncio.subprocess.DEVNULL,
            start_new_session=True,  # a Ctrl-C is for the parent, which then ends them
        )
        self._processes[index] = process
        self._force.log.event("worker.started", worker=index, pid=process.pid)
        if self._stopping.is_set():
            process.terminate()
        code = await process.wait()
        self._processes.pop(index, None)
        self._force.log.event("worker.ended", worker=index, pid=process.pid, code=code)
        return code

    async def _stop(self, keeping: Sequence[asyncio.Task[None]]) -> None:
        for process in list(self._processes.values()):
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        _, late = await asyncio.wait(keeping, timeout=self._force.stop_seconds)
        for process in list(self._processes.values()):
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        if late:
            self._code = self._code or 1
            await asyncio.wait(late)
