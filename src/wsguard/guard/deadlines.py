"""One timer for the ends of all credentials: a heap, of which only the earliest entry has a timer of the loop."""

from __future__ import annotations

import asyncio
import heapq
from itertools import count
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from wsguard.engine.ports import WallClock
    from wsguard.engine.sessions import Session, SessionRegistry

# The wall clock decides and may be set meanwhile: it is looked at again at least that often.
_LONGEST_WAIT = 60.0
_SPARE = 1024


class Deadlines:
    """Tells when the credential of a live session has expired. A renewed one is looked at again when its time comes."""

    def __init__(self, sessions: SessionRegistry, wall_clock: WallClock, on_expired: Callable[[Session], None]) -> None:
        self._sessions = sessions
        self._wall_clock = wall_clock
        self._on_expired = on_expired
        self._heap: list[tuple[float, int, Session]] = []
        self._numbers = count()
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        """Look again at what was watched before `stop`, or by a loop that is closed. Cheap where somebody looks."""
        if self._heap and self._nobody_looks():
            self._arm()

    def watch(self, session: Session) -> None:
        """Look after *session* until it has ended. Called on the loop that its socket lives on."""
        if session.expires_at is None:
            return
        if len(self._heap) > 2 * len(self._sessions) + _SPARE:
            self._forget_ended()
        heapq.heappush(self._heap, (session.expires_at, next(self._numbers), session))
        if self._heap[0][2] is session or self._nobody_looks():
            self._arm()

    def stop(self) -> None:
        """Look no more, until `start`."""
        self._disarm()

    def _nobody_looks(self) -> bool:
        return self._timer is None or self._loop is None or self._loop.is_closed()

    def _disarm(self) -> None:
        if self._timer is not None and self._loop is not None and not self._loop.is_closed():
            self._timer.cancel()
        self._timer = None

    def _arm(self) -> None:
        self._disarm()
        wait = min(max(0.0, self._heap[0][0] - self._wall_clock()), _LONGEST_WAIT)
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(wait, self._look)

    def _look(self) -> None:
        self._timer = None
        try:
            self._end_expired(self._wall_clock())
        finally:
            # A socket that raises where it is closed must not keep the others alive.
            if self._heap:
                self._arm()

    def _end_expired(self, now: float) -> None:
        while self._heap and self._heap[0][0] <= now:
            _, number, session = heapq.heappop(self._heap)
            if session.public_id not in self._sessions or session.expires_at is None:
                continue
            if session.expires_at <= now:
                self._on_expired(session)
            else:
                heapq.heappush(self._heap, (session.expires_at, number, session))

    def _forget_ended(self) -> None:
        self._heap = [entry for entry in self._heap if entry[2].public_id in self._sessions]
        heapq.heapify(self._heap)
