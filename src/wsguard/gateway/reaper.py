"""
Find connections that are over though their transport has not noticed.

uvloop stops watching a socket on POLLERR after one read, and aiofastnet's one read may find data in front of the error
(2026-11): the reset behind it is never read, and a socket whose reading is paused is not watched at all. Once a second
one system call asks the kernel about all of them; what it names twice in a row is aborted.
"""

from __future__ import annotations

import asyncio
import select
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_INTERVAL = 1.0


class Reaper:
    """Looks after every transport of one loop."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self._transports: dict[int, asyncio.Transport] = {}
        self._suspects: frozenset[asyncio.Transport] = frozenset()
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, transport: asyncio.Transport) -> None:
        """Look after *transport* until `forget`."""
        descriptor: int = transport.get_extra_info("socket").fileno()
        self._transports[descriptor] = transport
        self._poll.register(descriptor, 0)  # no event is asked for: errors and hang-ups are always told
        if self._timer is None:
            self._schedule()

    def forget(self, transport: asyncio.Transport) -> None:
        """Look no more after *transport*, whose descriptor may belong to another one by now."""
        for descriptor in [key for key in self._descriptors_of(transport) if self._transports.get(key) is transport]:
            del self._transports[descriptor]
            self._poll.unregister(descriptor)

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _descriptors_of(self, transport: asyncio.Transport) -> Iterable[int]:
        sock = transport.get_extra_info("socket")
        descriptor = -1 if sock is None else sock.fileno()
        if descriptor >= 0:
            return (descriptor,)
        return [key for key, value in self._transports.items() if value is transport]

    def _schedule(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(_INTERVAL, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._transports:
            self._schedule()
        named = frozenset(
            self._transports[descriptor] for descriptor, _ in self._poll.poll(0) if descriptor in self._transports
        )
        for transport in named & self._suspects:
            transport.abort()
        self._suspects = named - self._suspects
