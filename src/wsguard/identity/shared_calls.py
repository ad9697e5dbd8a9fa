"""Those who ask the same thing at one time share one call, and no number of different askers makes many at once."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

Answer = TypeVar("Answer")


class TooManyCalls(Exception):
    """As many different things as allowed are being asked already."""


class CallEnded(Exception):
    """The call was ended from outside: there is no answer."""


class SharedCalls(Generic[Answer]):
    """Calls under way, by key, at most *most* of them."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._pending: dict[bytes, asyncio.Task[Answer]] = {}

    def __len__(self) -> int:
        """Count the calls under way."""
        return len(self._pending)

    async def join(self, key: bytes, call: Callable[[], Coroutine[Any, Any, Answer]]) -> Answer:
        """
        Return what the call of *key* brings: the one under way, or a new one. An asker who leaves ends it for nobody.

        Raises what the call raises, TooManyCalls, and CallEnded.
        """
        loop = asyncio.get_running_loop()
        task = self._pending.get(key)
        if task is None or task.get_loop() is not loop:
            task = self._begun(loop, key, call)
        await asyncio.wait((task,))
        if task.cancelled():
            raise CallEnded
        return task.result()

    def stop(self) -> None:
        """End the calls of loops that still run."""
        for task in list(self._pending.values()):
            if not task.get_loop().is_closed():
                task.cancel()

    def _begun(
        self, loop: asyncio.AbstractEventLoop, key: bytes, call: Callable[[], Coroutine[Any, Any, Answer]]
    ) -> asyncio.Task[Answer]:
        for stale in [one for one, task in self._pending.items() if task.get_loop().is_closed()]:
            del self._pending[stale]
        if len(self._pending) >= self._most:
            raise TooManyCalls
        task = loop.create_task(call())
        self._pending[key] = task
        task.add_done_callback(functools.partial(self._ended, key))
        return task

    def _ended(self, key: bytes, task: asyncio.Task[Answer]) -> None:
        if self._pending.get(key) is task:
            del self._pending[key]
        if not task.cancelled():
            task.exception()  # seen, though every asker may have left
