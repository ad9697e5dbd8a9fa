"""
A thread that does one command after the other for callers on event loops.

Each caller waits for a future of his own, so no answer can reach another one (B-STORE-04). A command whose caller has
gone before its turn is left out; one that has begun is done to its end, and its answer is dropped.
"""

from __future__ import annotations

import asyncio
import os
import threading
from contextlib import suppress
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from wsguard.vocabulary.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
_CLOSED = "the store is closed"


class _Job(Generic[T]):
    __slots__ = ("command", "future", "is_last", "loop")

    def __init__(self, command: Callable[[], T], *, is_last: bool = False) -> None:
        self.command = command
        self.is_last = is_last
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[T] = self.loop.create_future()

    def answer(self, result: T | None, error: BaseException | None) -> None:
        """Tell the caller, from the thread."""
        with suppress(RuntimeError):  # his loop is closed: nobody waits any more
            self.loop.call_soon_threadsafe(self._settle, result, error)

    def expire(self, seconds: float) -> None:
        """Tell the caller that his time is over."""
        self._settle(None, StoreError(f"no answer in {seconds:g} s"))

    def _settle(self, result: T | None, error: BaseException | None) -> None:
        if self.future.done():
            return
        if error is not None:
            self.future.set_exception(error)
        else:
            self.future.set_result(cast("T", result))


class OneThread:
    """A thread called *name*, for which at most *most_waiting* commands wait, each of them at most *seconds*."""

    def __init__(self, name: str, *, most_waiting: int, seconds: float) -> None:
        self._name = name
        self._most_waiting = most_waiting
        self._seconds = seconds
        self._jobs: SimpleQueue[_Job[Any]] = SimpleQueue()
        self._lock = threading.Lock()
        self._pid: int | None = None
        self._is_closed = False
        self._has_ended = False

    async def run(self, command: Callable[[], T]) -> T:
        """Return what *command* returns in the thread. Raises StoreError, or what it raises."""
        job = _Job(command)
        with self._lock:
            if self._is_closed:
                raise StoreError(_CLOSED)
            self._start()
            if self._jobs.qsize() >= self._most_waiting:
                raise StoreError(f"{self._most_waiting} commands wait already (limits.store_pending)")
            self._jobs.put(job)
        return await self._answer(job)

    async def close(self, command: Callable[[], None]) -> None:
        """Do *command* as the last one, whoever is cancelled, and end the thread. What still waits gets StoreError."""
        with self._lock:
            job = _Job(command, is_last=not self._is_closed)
            self._is_closed = True
            if self._pid != os.getpid() or self._has_ended:
                return  # never started, or it is the parent's
            self._jobs.put(job)
        await self._answer(job)

    async def _answer(self, job: _Job[T]) -> T:
        timer = job.loop.call_later(self._seconds, job.expire, self._seconds)
        try:
            return await job.future
        finally:
            timer.cancel()

    def _start(self) -> None:
        if self._pid is None:
            try:
                # A daemon: a process that forgets to close must still end, and SQLite mends what was under way.
                threading.Thread(target=self._work, name=self._name, daemon=True).start()
            except RuntimeError as error:
                raise StoreError(str(error)) from error
            self._pid = os.getpid()
        elif self._pid != os.getpid():
            raise StoreError("the store was used before a fork: open it in the process that uses it")

    def _work(self) -> None:
        while not self._do(self._jobs.get()):
            pass
        with self._lock:
            self._has_ended = True
        while not self._jobs.empty():
            self._jobs.get().answer(None, None)  # they only wait for the end

    def _do(self, job: _Job[Any]) -> bool:
        """Do one command; return whether it was the last."""
        if not job.is_last:
            if job.future.done():
                return False
            if self._is_closed:
                job.answer(None, StoreError(_CLOSED))
                return False
        try:
            result = job.command()
        except BaseException as error:  # noqa: BLE001 - it is the caller's
            job.answer(None, error)
        else:
            job.answer(result, None)
        return job.is_last
