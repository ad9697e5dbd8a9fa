"""A list at a URL that is polled: the last good one counts, and before there was one nobody is allowed."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wsguard.identity.open_list import Candidate, Entries, OpenList
from wsguard.vocabulary.errors import ConfigurationError, OutboundError

if TYPE_CHECKING:
    from wsguard.identity.outbound import Outbound, OutboundAnswer
    from wsguard.vocabulary.bounds import Limits

Pause = Callable[[float], Awaitable[None]]
_OK, _NOT_MODIFIED = 200, 304
_FIRST_RETRY = 1.0
_ENTITY_TAG = re.compile(rb'(?:W/)?"[\x21\x23-\x7e]*"')  # RFC 9110 §8.8.3; obs-text is not sent back


@dataclass(frozen=True, slots=True)
class _Poll:
    """The poll of one loop. *answered* is set once its first call has ended, well or not."""

    task: asyncio.Task[None]
    answered: asyncio.Event


class PolledList(OpenList[Candidate]):
    """
    The entries at *url*, fetched every *interval* seconds by a task of the running loop.

    A call that fails is tried again after 1 s, 2 s, 4 s and so on up to the interval. The answer's ETag is sent back,
    so that an unchanged list costs a 304 (RFC 9110 §13.1.2).
    """

    def __init__(
        self,
        url: str,
        entries: Entries[Candidate],
        *,
        interval: float,
        outbound: Outbound,
        limits: Limits,
        pause: Pause = asyncio.sleep,
    ) -> None:
        self.name = entries.name
        self._url = url
        self._entries = entries
        self._interval = interval
        self._outbound = outbound
        self._limits = limits
        self._pause = pause
        self._etag: str | None = None
        self._failures = 0
        self._polls: dict[asyncio.AbstractEventLoop, _Poll] = {}

    async def allows(self, candidate: Candidate) -> bool:
        """Tell whether *candidate* is on the last good list. The first who ask wait for the first answer."""
        if self._entries.lists is None:
            await self._first_answer()
        return self._entries.allow(candidate)

    def start(self) -> None:
        """Poll on the running loop, if no task of it does yet. What was had on a former loop counts on."""
        loop = asyncio.get_running_loop()
        poll = self._polls.get(loop)
        if poll is None or poll.task.done():
            for gone in [other for other in self._polls if other.is_closed()]:
                del self._polls[gone]
            answered = asyncio.Event()
            self._polls[loop] = _Poll(loop.create_task(self._run(answered)), answered)

    def stop(self) -> None:
        """End the polls, on whichever loop they run."""
        polls, self._polls = self._polls, {}
        for loop, poll in polls.items():
            if not loop.is_closed():
                loop.call_soon_threadsafe(poll.task.cancel)

    async def _first_answer(self) -> None:
        self.start()
        answered = self._polls[asyncio.get_running_loop()].answered
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._limits.list_timeout):
                await answered.wait()

    async def _run(self, answered: asyncio.Event) -> None:
        try:
            while True:
                delay = await self._poll_once()
                answered.set()
                await self._pause(delay)
        finally:
            answered.set()
            # Where the list was stopped and started at once, the connection is the new task's.
            poll = self._polls.get(asyncio.get_running_loop())
            if poll is None or poll.answered is answered:
                await self._outbound.aclose()

    async def _poll_once(self) -> float:
        """Fetch the list once and return how many seconds to wait for the next time."""
        try:
            await self._refresh()
        except OutboundError as error:
            why = error.why
        except ConfigurationError as error:
            why = f"found {error.found}, expected {error.expected}"
        except Exception as error:  # noqa: BLE001 - whatever is wrong with an answer, the last good list counts
            why = type(error).__name__
        else:
            self._failures = 0
            return self._interval
        self._entries.failed(why)
        # The exponent is bounded before the float is: a list can be away for years.
        delay = _FIRST_RETRY * 2.0 ** min(self._failures, 32)
        self._failures += 1
        return min(delay, self._interval)

    async def _refresh(self) -> None:
        sent = self._etag
        answer = await self._outbound.fetch(
            "GET",
            self._url,
            headers={} if sent is None else {"If-None-Match": sent},
            deadline=self._limits.list_timeout,
            max_body=self._limits.list_bytes,
            listed=(self._url,),
        )
        if answer.status == _NOT_MODIFIED and sent is not None:
            self._entries.succeeded()
        elif answer.status == _OK:
            await self._take(answer)
        else:
            raise ConfigurationError(self._entries.key, f"status {answer.status}", "200 and the list")

    async def _take(self, answer: OutboundAnswer) -> None:
        # In a thread: a hundred thousand entries take long enough to be felt by every socket.
        understood = await asyncio.to_thread(self._entries.understood, answer.body)
        self._entries.keep(understood)
        etag = answer.fields.first(b"etag") or b""
        self._etag = etag.decode("ascii") if _ENTITY_TAG.fullmatch(etag) else None
