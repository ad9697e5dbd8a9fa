"""The other workers of one gateway or app, asked over the sockets in their common folder."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from pathlib import Path

WITHIN_SECONDS = 1.0
"""How long a worker has for its answer: one that does not answer is dead, or comes back without its sockets."""
_MAX_ANSWER = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class NeighbourAnswer:
    """What one worker answered."""

    status: int
    members: dict[str, Any]


class Neighbours:
    """The workers whose sockets are in *folder*, but for the one at *own*."""

    def __init__(self, folder: Path, own: Path | None = None) -> None:
        self._folder = folder
        self._own = own

    async def ask_all(self, method: str, target: str, members: dict[str, Any] | None = None) -> list[NeighbourAnswer]:
        """Ask all of them at once; return the answers of those that gave one in time."""
        asking = [_asked(path, method, target, members) for path in self._paths()]
        answers = await asyncio.gather(*asking)
        return [answer for answer in answers if answer is not None]

    async def ask_first(
        self, method: str, target: str, members: dict[str, Any] | None = None
    ) -> NeighbourAnswer | None:
        """Ask one after the other until one answers."""
        for path in self._paths():
            answer = await _asked(path, method, target, members)
            if answer is not None:
                return answer
        return None

    def _paths(self) -> list[str]:
        # os.scandir: the folder is of this process tree alone, in memory or on a local disk, and small.
        own = None if self._own is None else self._own.name
        try:
            with os.scandir(self._folder) as entries:
                return sorted(one.path for one in entries if one.name.endswith(".sock") and one.name != own)
        except OSError:
            return []  # the parent is gone, and this worker is about to be


async def _asked(path: str, method: str, target: str, members: dict[str, Any] | None) -> NeighbourAnswer | None:
    body = b"" if members is None else msgspec.json.encode(members)
    head = f"{method} {target} HTTP/1.1\r\nHost: worker\r\nContent-Length: {len(body)}\r\n\r\n"
    try:
        async with asyncio.timeout(WITHIN_SECONDS):
            reader, writer = await asyncio.open_unix_connection(path, limit=_MAX_ANSWER)
            try:
                writer.write(head.encode("ascii") + body)
                answer = await reader.read()
            finally:
                writer.close()
        start, _, content = answer.partition(b"\r\n\r\n")
        return NeighbourAnswer(int(start.split(b" ", 2)[1]), msgspec.json.decode(content, type=dict[str, Any]))
    except (OSError, TimeoutError, ValueError, IndexError, msgspec.DecodeError):
        return None  # dead, or about to be
