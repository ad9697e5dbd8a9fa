"""
A thread that does commands for callers on event loops, in the order in which they came.

Each caller waits for a future of his own, so no answer can reach another one (B-STORE-04). A command whose caller has
gone before its turn is left out; one that has begun is done to its end, and its answer is dropped. What waits when the
thread looks is done together: under load a command then costs a fraction of what it costs alone.

A command that comes alone costs mostly the way to the thread and back, so that is kept short: `_Callers` says how.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections import deque
from contextlib import suppress
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from wsguard.vocabulary.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

C = TypeVar("C")
_TOGETHER = 64
"""How many commands are done together at most, so that the first of them does not wait for a crowd."""
_UNDONE = object()


class Job(Generic[C]):
    """A *command*, and what became of it: whoever does it calls `succeed` or `fail`."""

    __slots__ = ("_error", "_result", "callers", "command", "deadline", "future")

    def __init__(self, command: C, callers: _Callers) -> None:
        self.command = command
        self.callers = callers
        self.deadline = callers.loop.time() + callers.seconds
        self.future: asyncio.Future[Any] = callers.loop.create_future()
        self._result: Any = _UNDONE
        self._error: BaseException | None = None

    def succeed(self, result: object) -> None:
        """Note the answer."""
        self._result, self._error = result, None

    def fail(self, error: BaseException) -> None:
        """Note that there is none."""
        self._result, self._error = None, error

    def settle(self) -> None:
        """Tell the caller, on his loop, if he still waits."""
        if not self.future.done():
            if self._error is not None:
                self.future.set_exception(self._error)
            elif self._result is _UNDONE:
                self.future.set_exception(StoreError("the store did not do it"))
            else:
                self.future.set_result(self._result)
        self._result = self._error = None

    def expire(self) -> None:
        """Tell the caller that his time is over."""
        if not self.future.done():
            self.future.set_exception(StoreError(f"no answer in {self.callers.seconds:g} s"))


class _Callers:
    """
    Those who wait on one event loop, each at most *seconds*.

    One timer stands for all of them: their times end in the order in which they came. The thread wakes the loop by an
    eventfd of our own, and not by the loop's `call_soon_threadsafe`, wherever there is one: uvloop's holds the
    interpreter's lock while it wakes, so that the loop runs straight into it, and both threads change places twice.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        self.loop = loop
        self.seconds = seconds
        self._waiting: deque[Job[Any]] = deque()
        self._answered: deque[Job[Any]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._closing = threading.Lock()  # nobody may write to a descriptor whose number is another's by then
        self._event: int | None = None
        if hasattr(os, "eventfd"):
            # No descriptor is left, or the loop watches none (asyncio raises NotImplementedError): its own means do.
            with suppress(OSError, NotImplementedError):
                self._event = self._opened_event()

    def expect(self, job: Job[Any]) -> None:
        """See that *job*'s caller gets an answer in time."""
        waiting = self._waiting
        while waiting and waiting[0].future.done():
            waiting.popleft()
        waiting.append(job)
        if self._timer is None:
            self._timer = self.loop.call_at(job.deadline, self._expire)

    def close(self) -> None:
        """Let go of the descriptor, on this loop; whoever is answered later hears it by the loop's own means."""
        event = self._let_go()
        if event is not None:
            self.loop.remove_reader(event)
            os.close(event)
        self._settle()  # behind that: what was answered before has not been read, nobody else is woken for it

    def __del__(self) -> None:
        """A loop that was stopped and never closed has read nothing of what was asked of it."""
        self.forget()

    def forget(self) -> None:
        """Let go of the descriptor of a loop that is closed."""
        event = self._let_go()
        if event is not None:
            os.close(event)

    def _opened_event(self) -> int:
        event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        try:
            self.loop.add_reader(event, self._woken, event)
        except BaseException:
            os.close(event)
            raise
        return event

    def _let_go(self) -> int | None:
        with self._closing:
            event, self._event = self._event, None
        return event

    def _expire(self) -> None:
        self._timer = None
        while self._waiting:
            job = self._waiting[0]
            if not job.future.done():
                if job.deadline > self.loop.time():
                    self._timer = self.loop.call_at(job.deadline, self._expire)
                    return
                job.expire()
            self._waiting.popleft()

    def _woken(self, event: int) -> None:
        os.eventfd_read(event)
        self._settle()

    def _settle(self) -> None:
        answered = self._answered
        while answered:
            answered.popleft().settle()

    # From here on it runs in the thread.

    def answer(self, job: Job[Any]) -> None:
        """Keep *job*, which is done, for its caller; `wake` lets him look."""
        self._answered.append(job)

    def wake(self) -> None:
        """Let the loop look at what was answered."""
        with self._closing:
            if self._event is not None:
                os.eventfd_write(self._event, 1)
                return
        with suppress(RuntimeError):  # it is closed: nobody waits there any more
            self.loop.call_soon_threadsafe(self._settle)


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
        self._callers: dict[asyncio.AbstractEventLoop, _Callers] = {}
        self._closers: list[Job[None]] = []
        self._lock = threading.Lock()
        self._pid: int | None = None
        self._is_closed = False
        self._has_ended = False

    async def run(self, command: C) -> Any:
        """Return the answer to *command*. Raises StoreError, or the error it came to."""
        with self._lock:
            if self._is_closed:
                raise _closed()
            if self._pid != os.getpid():
                self._start()
            if self._jobs.qsize() >= self._most_waiting:
                raise StoreError(f"{self._most_waiting} commands wait already (limits.store_pending)")
            job = Job(command, self._callers_here())
            self._jobs.put(job)
        job.callers.expect(job)
        return await job.future

    async def close(self) -> None:
        """End the thread, also if cancelled, and wait for its end. What still waits gets StoreError."""
        with self._lock:
            is_first, self._is_closed = not self._is_closed, True
            if self._pid != os.getpid() or self._has_ended:
                return  # never started, or it is the parent's
            job = Job(None, self._callers_here())
            self._closers.append(job)
            if is_first:
                self._jobs.put(None)
        job.callers.expect(job)
        try:
            await job.future
        finally:
            self._let_go(job.callers)

    def _callers_here(self) -> _Callers:
        loop = asyncio.get_running_loop()
        callers = self._callers.get(loop)
        if callers is None:
            for other in [one for one in self._callers if one.is_closed()]:
                self._callers.pop(other).forget()
            callers = self._callers[loop] = _Callers(loop, self._seconds)
        return callers

    def _let_go(self, ours: _Callers) -> None:
        with self._lock:
            others = [callers for callers in self._callers.values() if callers is not ours]
            self._callers.clear()
        ours.close()
        for callers in others:
            if callers.loop.is_closed():
                callers.forget()
            else:
                with suppress(RuntimeError):  # closed meanwhile
                    callers.loop.call_soon_threadsafe(callers.close)

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
        # Where both share a core, the loop that wakes us goes on till it waits, as it would without us: sched(7).
        with suppress(AttributeError, OSError):
            if os.sched_getscheduler(0) == os.SCHED_OTHER:  # else it is what the operator has set
                os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
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
    for job in jobs:
        job.callers.answer(job)
    for callers in {job.callers for job in jobs}:
        callers.wake()
