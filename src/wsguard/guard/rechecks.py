"""
Cookies of live sockets, judged again every so often: a socket outlives the check that admitted it.

One timer for all, as for the ends of credentials, and a bounded number of looks at one time: ten thousand sockets that
were opened in one second must not become ten thousand questions to the app in another.
"""

from __future__ import annotations

import asyncio
import heapq
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from wsguard.engine.ports import Clock
    from wsguard.engine.sessions import Session, SessionRegistry

_SPARE = 1024


@dataclass(eq=False, slots=True)
class Watched:
    """A live *session*, and when (clock) its cookie was last known to be right."""

    session: Session
    confirmed_at: float


class Rechecks:
    """
    Looks again at sessions that have a `Recheck`, at most *most* at one time.

    *judge* looks at one, and closes it or says when it was confirmed; whatever it raises counts as no answer.
    """

    def __init__(
        self, sessions: SessionRegistry, clock: Clock, judge: Callable[[Watched], Awaitable[None]], most: int
    ) -> None:
        self._sessions = sessions
        self._clock = clock
        self._judge = judge
        self._most = most
        self._heap: list[tuple[float, int, Watched]] = []
        self._numbers = count()
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._running: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Look again at what was watched before `stop`, or by a loop that is closed. Cheap where somebody looks."""
        if self._heap and self._nobody_looks():
            self._arm()

    def watch(self, session: Session) -> None:
        """Look after *session* until it has ended. Called on the loop that its socket lives on."""
        if session.recheck is not None:
            if len(self._heap) > 2 * len(self._sessions) + _SPARE:
                self._heap = [entry for entry in self._heap if self._lives(entry[2])]
                heapq.heapify(self._heap)
            self._put(Watched(session, self._clock()), session.recheck.interval)

    def stop(self) -> None:
        """Look no more, until `start`."""
        self._disarm()
        for task in self._running:
            if not task.get_loop().is_closed():
                task.cancel()
        self._running.clear()

    def _nobody_looks(self) -> bool:
        loop = self._loop
        return loop is None or loop.is_closed() or (self._timer is None and len(self._running) < self._most)

    def _disarm(self) -> None:
        if self._timer is not None and self._loop is not None and not self._loop.is_closed():
            self._timer.cancel()
        self._timer = None

    def _put(self, watched: Watched, interval: float) -> None:
        heapq.heappush(self._heap, (self._clock() + interval, next(self._numbers), watched))
        if self._heap[0][2] is watched or self._nobody_looks():
            self._arm()

    def _arm(self) -> None:
        self._disarm()
        loop = self._loop = asyncio.get_running_loop()
        self._running = {task for task in self._running if not task.get_loop().is_closed()}
        if self._heap and len(self._running) < self._most:
            wait = max(0.0, self._heap[0][0] - self._clock())
            self._timer = loop.call_later(wait, self._look)

    def _look(self) -> None:
        self._timer = None
        now = self._clock()
        while self._heap and self._heap[0][0] <= now and len(self._running) < self._most:
            watched = heapq.heappop(self._heap)[2]
            if self._lives(watched):
                task = asyncio.get_running_loop().create_task(self._again(watched))
                self._running.add(task)
                task.add_done_callback(self._ended)
        self._arm()

    async def _again(self, watched: Watched) -> None:
        await self._judge(watched)
        recheck = watched.session.recheck
        if recheck is not None and self._lives(watched):
            self._put(watched, recheck.interval)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            self._arm()

    def _lives(self, watched: Watched) -> bool:
        session = watched.session
        return session.public_id in self._sessions and session.closing is None
