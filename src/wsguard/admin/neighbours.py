"""The other workers of one gateway or app, asked over the sockets in their common folder."""

from __future__ import annotations

import asyncio
import contextlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from pathlib import Path

WITHIN_SECONDS = 1.0
"""How long a worker has for its answer."""
_MAX_ANSWER = 256 * 1024 * 1024
_AT_ONCE = 64
"""So many questions of one worker are under way; others wait their turn, within the same time."""


@dataclass(frozen=True, slots=True)
class NeighbourAnswer:
    """What one worker answered."""

    status: int
    members: dict[str, Any]


@dataclass(frozen=True, slots=True)
class NeighbourAnswers:
    """What all workers that live answered in time, and how many were *silent*: nobody knows what these would say."""

    answers: list[NeighbourAnswer]
    silent: int


class Neighbours:
    """The workers whose sockets are in *folder*, but for the one at *own*."""

    def __init__(self, folder: Path, own: Path | None = None) -> None:
        self._folder = folder
        self._own = own
        self._under_way = asyncio.Semaphore(_AT_ONCE)

    async def ask_all(self, method: str, target: str, members: dict[str, Any] | None = None) -> NeighbourAnswers:
        """Ask all of them at once, for `WITHIN_SECONDS`."""
        asking = [self._ask(path, method, target, members, WITHIN_SECONDS) for path in self._paths()]
        answers = await asyncio.gather(*asking, return_exceptions=True)
        found = [answer for answer in answers if isinstance(answer, NeighbourAnswer)]
        return NeighbourAnswers(found, sum(isinstance(answer, _Silent) for answer in answers))

    async def ask_first(
        self, method: str, target: str, members: dict[str, Any] | None = None, *, within: float = WITHIN_SECONDS
    ) -> NeighbourAnswer | None:
        """Ask one after the other, each for *within* seconds, until one answers."""
        for path in self._paths():
            with contextlib.suppress(_Silent):
                answer = await self._ask(path, method, target, members, within)
                if answer is not None:
                    return answer
        return None

    async def _ask(
        self, path: str, method: str, target: str, members: dict[str, Any] | None, within: float
    ) -> NeighbourAnswer | None:
        """Return the answer of the worker at *path*, or None of a dead one. Raises _Silent where nobody can say."""
        try:
            async with asyncio.timeout(within), self._under_way:
                return await _asked(path, method, target, members)
        except (ConnectionRefusedError, FileNotFoundError):
            return None  # dead, or not there yet: no session lives in it
        except (OSError, TimeoutError, ValueError, IndexError, msgspec.DecodeError):
            raise _Silent from None

    def _paths(self) -> list[str]:
        # os.scandir: the folder is of this process tree alone, in memory or on a local disk, and small.
        own = None if self._own is None else self._own.name
        try:
            with os.scandir(self._folder) as entries:
                return sorted(one.path for one in entries if one.name.endswith(".sock") and one.name != own)
        except OSError:
            return []  # the parent is gone, and this worker is about to be


class _Silent(Exception):
    """A worker that may well live did not answer in time, or not to the end."""


async def _asked(path: str, method: str, target: str, members: dict[str, Any] | None) -> NeighbourAnswer:
    body = b"" if members is None else msgspec.json.encode(members)
    head = f"{method} {target} HTTP/1.1\r\nHost: worker\r\nContent-Length: {len(body)}\r\n\r\n"
    reader, writer = await asyncio.open_unix_connection(path, limit=_MAX_ANSWER)
    try:
        writer.write(head.encode("ascii") + body)
        answer = await reader.read()
    finally:
        writer.close()
    start, _, content = answer.partition(b"\r\n\r\n")
    return NeighbourAnswer(int(start.split(b" ", 2)[1]), msgspec.json.decode(content, type=dict[str, Any]))
