"""
A thread that does commands for callers on event loops, in the order in which they came.

Each caller waits for a future of his own, so no answer can reach another one (B-STORE-04). A command whose caller has
gone before its turn is left out; one that has begun is done to its end, and its answer is dropped. What waits when the
thread looks is done together: under load a command then costs a fraction of what it costs alone.
"""

from __future__ import annotations

import asyncio
import os
import threading
from contextlib import suppress
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from wsguard.vocabulary.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

C = TypeVar("C")
_TOGETHER = 64
"""How many commands are done together at most, so that the first of them does not wait for a crowd."""


class Job(Generic[C]):
    """A *command*, and what became of it: whoever does it calls `succeed` or `fail`."""

    __slots__ = ("_error", "_result", "command", "future", "loop")

    def __init__(self, command: C) -> None:
        self.command = command
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Any] = self.loop.create_future()
        self._result: Any = None
        self._error: BaseException | None = StoreError("the store did not do it")

    def succeed(self, result: object) -> None:
        """Note the answer."""
        self._result, self._error = result, None

    def fail(self, error: BaseException) -> None:
        """Note that there is none."""
        self._result, self._error = None, error

    def settle(self) -> None:
        """Tell the caller, on his loop, if he still waits."""
        if self.future.done():
            return
        if self._error is not None:
            self.future.set_exception(self._error)
        else:
            self.future.set_result(self._result)

    def expire(self, seconds: float) -> None:
        """Tell the caller that his time is over."""
        if not self.future.done():
            self.future.set_exception(StoreError(f"no answer in {seconds:g} s"))


class OneThread(Generic[C]):
    """
    A thread called *name*. It hands what waits to *perform*, and calls *finish* when it ends.

    At most *most_waiting* commands wait, each of them at most *seconds*.
    """

    def __init__(
        self,
        name: str,
        perform: Callable[[Sequence[Job[C]]], None],
        finish: Callable[[], None],
        *,
        most_waiting: int,
        seconds: float,
    ) -> None:
        self._name = name
        self._perform = perform
        self._finish = finish
        self._most_waiting = most_waiting
        self._seconds = seconds
        self._jobs: SimpleQueue[Job[C] | None] = SimpleQueue()  # None is the end: nothing comes behind it
        self._closers: list[Job[None]] = []
        self._lock = threading.Lock()
        self._pid: int | None = None
        self._is_closed = False
        self._has_ended = False

    async def run(self, command: C) -> Any:
        """Return the answer to *command*. Raises StoreError, or the error it came to."""
        job = Job(command)
        with self._lock:
            if self._is_closed:
                raise _closed()
            if self._pid != os.getpid():
                self._start()
            if self._jobs.qsize() >= self._most_waiting:
                raise StoreError(f"{self._most_waiting} commands wait already (limits.store_pending)")
            self._jobs.put(job)
        return await self._answer(job)

    async def close(self) -> None:
        """End the thread, also if cancelled, and wait for its end. What still waits gets StoreError."""
        with self._lock:
            is_first, self._is_closed = not self._is_closed, True
            if self._pid != os.getpid() or self._has_ended:
                return  # never started, or it is the parent's
            job = Job(None)
            self._closers.append(job)
            if is_first:
                self._jobs.put(None)
        await self._answer(job)

    async def _answer(self, job: Job[Any]) -> Any:
        timer = job.loop.call_later(self._seconds, job.expire, self._seconds)
        try:
            return await job.future
        finally:
            timer.cancel()

    def _start(self) -> None:
        if self._pid is not None:
            raise StoreError("the store was used before a fork: open it in the process that uses it")
        try:
            # A daemon: a process that forgets to close must still end, and SQLite mends what was under way.
            threading.Thread(target=self._work, name=self._name, daemon=True).start()
        except RuntimeError as error:
            raise StoreError(str(error)) from error
        self._pid = os.getpid()

    # From here on everything runs in the thread.

    def _work(self) -> None:
        while self._do_what_waits():
            pass
        self._finish()
        with self._lock:
            self._has_ended = True
        for job in self._closers:
            job.succeed(None)
        _tell(self._closers)

    def _do_what_waits(self) -> bool:
        """Wait for commands and do them; return whether more may come."""
        jobs: list[Job[C]] = []
        job = self._jobs.get()
        while job is not None:
            if self._is_closed:
                job.fail(_closed())
                _tell([job])
            elif not job.future.done():
                jobs.append(job)
            if len(jobs) >= _TOGETHER or self._jobs.empty():
                break
            job = self._jobs.get()
        if jobs:
            self._perform(jobs)
            _tell(jobs)
        return job is not None


def _closed() -> StoreError:
    return StoreError("the store is closed")


def _tell(jobs: list[Job[Any]]) -> None:
    """Wake each loop once."""
    loops = {job.loop for job in jobs}
    for loop in loops:
        theirs = [job for job in jobs if job.loop is loop]
        with suppress(RuntimeError):  # it is closed: nobody waits there any more
            loop.call_soon_threadsafe(_settle_all, theirs)


def _settle_all(jobs: list[Job[Any]]) -> None:
    for job in jobs:
        job.settle()
