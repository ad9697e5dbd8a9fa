"""
What the processes that share a store tell one another: revocations, and tickets that were presented a second time.

A revocation that another process took, or this one before a restart, counts before anybody is let in, and reaches live
sockets within a poll (B-STORE-02). While nobody can say what was revoked, no identity counts: that is what a store
that is down means (B-STORE-03).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from wsguard.engine.revocations import Revocation, RevocationSyntaxError
from wsguard.engine.store_keys import hashed_key
from wsguard.vocabulary.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

    from wsguard.engine.ports import Clock, Store, WallClock
    from wsguard.observe.decision_log import DecisionLog
    from wsguard.vocabulary.bounds import Limits

_REVOCATIONS, _REPLAYS = "revocations", "replays"
_REPLAY_SECONDS = 60.0
"""Longer than a handshake and its decision: then the socket of a replayed ticket stands, or never will."""
_MOST_TELLING = 64


class SharedNews:
    """
    Reads the streams of a *store* that is shared, from their beginning and then every ``limits.store_poll`` seconds.

    *on_revocation* and *on_replay* hear each record once; this process's own come back to it and change nothing.
    """

    def __init__(
        self,
        store: Store,
        *,
        limits: Limits,
        clock: Clock,
        wall_clock: WallClock,
        log: DecisionLog,
        on_revocation: Callable[[Revocation], None],
        on_replay: Callable[[bytes], None],
    ) -> None:
        self._store = store
        self._limits = limits
        self._clock = clock
        self._wall_clock = wall_clock
        self._log = log
        self._on_revocation = on_revocation
        self._on_replay = on_replay
        self._after = {_REVOCATIONS: 0, _REPLAYS: 0}
        self._read_at: float | None = None
        self._reading: asyncio.Task[None] | None = None
        self._polling: asyncio.Task[None] | None = None
        self._telling: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Poll on the running loop, if nobody does yet."""
        polling = self._polling
        if polling is None or polling.done() or polling.get_loop() is not asyncio.get_running_loop():
            self._polling = asyncio.create_task(self._poll())

    def stop(self) -> None:
        """Poll no more."""
        for task in (self._polling, self._reading, *self._telling):
            if task is not None and not task.get_loop().is_closed():
                task.cancel()
        self._polling = self._reading = None

    async def current(self) -> None:
        """
        Wait for the first read, and make sure that the last one is not too long ago.

        Raises StoreError where nobody can say what was revoked: then no identity counts.
        """
        if self._read_at is not None and self._clock() - self._read_at <= self._limits.store_patience:
            return
        reading = self._reading
        if reading is None or reading.done() or reading.get_loop() is not asyncio.get_running_loop():
            reading = self._reading = asyncio.create_task(self._read())
        await asyncio.wait((reading,))  # not awaited itself: an asker who leaves ends it for nobody
        if reading.cancelled():
            raise StoreError("the read of revocations was ended from outside")
        reading.result()

    async def tell_revocation(self, revocation: Revocation) -> None:
        """Keep *revocation* for the other processes and over restarts. Raises StoreError."""
        now = self._wall_clock()
        await self._store.append(
            _REVOCATIONS,
            revocation.encode(),
            expires_at=now + self._limits.revocation_age,
            now=now,
            # One that names the same and means all that was issued later, too, is enough.
            key=hashed_key(*revocation.names),
            rank=revocation.issued_before,
        )

    def tell_replay(self, mark: bytes) -> None:
        """Tell the other processes of the session *mark*, whose ticket came a second time."""
        if len(self._telling) < _MOST_TELLING:
            task = asyncio.create_task(self._append_replay(mark))
            self._telling.add(task)
            task.add_done_callback(self._telling.discard)

    async def _append_replay(self, mark: bytes) -> None:
        now = self._wall_clock()
        try:
            await self._store.append(_REPLAYS, mark, expires_at=now + _REPLAY_SECONDS, now=now)
        except StoreError as error:
            self._log.hint("store.unavailable", f"a replay could not be told to other processes: {error}")

    async def _poll(self) -> None:
        while True:
            try:
                await self._read()
            except Exception as error:  # noqa: BLE001 - whatever the store raises: it may be back at the next look
                self._log.hint("store.unavailable", f"revocations cannot be read ({type(error).__name__}): {error}")
            await asyncio.sleep(self._limits.store_poll)

    async def _read(self) -> None:
        began = self._clock()
        for number, record in await self._store.read(
            _REVOCATIONS, after=self._after[_REVOCATIONS], now=self._wall_clock()
        ):
            try:
                revocation = Revocation.decode(record)
            except RevocationSyntaxError as error:
                # Another version's, perhaps: what it means nobody knows, so nobody is let in while it is unread.
                raise StoreError(f"revocation {number} cannot be read: {error}") from None
            self._on_revocation(revocation)
            self._after[_REVOCATIONS] = number
        for number, mark in await self._store.read(_REPLAYS, after=self._after[_REPLAYS], now=self._wall_clock()):
            self._on_replay(mark)
            self._after[_REPLAYS] = number
        self._read_at = began
