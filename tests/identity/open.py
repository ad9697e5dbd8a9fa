"""Opened lists for the tests of this folder: a clock that stands until it is moved, and a log that is kept."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from wsguard.engine.checks.host import HostRules
from wsguard.engine.checks.origin import OriginRules
from wsguard.identity.allow_lists import OpenList, open_list
from wsguard.observe.decision_log import DecisionLog, Line
from wsguard.vocabulary.bounds import DEFAULTS, Limits
from wsguard.vocabulary.host import Host
from wsguard.vocabulary.origin import Origin

DEADLINE = 20


class Kept(logging.Handler):
    """Keeps the lines."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[Line] = []

    def emit(self, record: logging.LogRecord) -> None:
        line: Any = record.msg
        self.lines.append(line)


@dataclass
class World:
    """What the lists are given."""

    limits: Limits = DEFAULTS
    now: float = 0
    kept: Kept = field(default_factory=Kept)

    def clock(self) -> float:
        return self.now

    def log(self) -> DecisionLog:
        logger = logging.Logger("test")  # noqa: LOG001 - of this test alone
        logger.addHandler(self.kept)
        return DecisionLog(logger, self.clock, self.limits.hints)

    @property
    def events(self) -> list[str]:
        return [line.name for line in self.kept.lines]

    @property
    def text(self) -> str:
        return "\n".join(str(line) for line in self.kept.lines)

    def origins(self, written: object) -> OpenList[Origin]:
        def read(entries: Sequence[str]) -> Callable[[Origin], bool]:
            return OriginRules.read(entries).lists

        return open_list("origins", written, read=read, limits=self.limits, clock=self.clock, log=self.log())

    def hosts(self, written: object) -> OpenList[Host]:
        def read(entries: Sequence[str]) -> Callable[[Host], bool]:
            return HostRules.read(entries).serves

        return open_list("hosts", written, read=read, limits=self.limits, clock=self.clock, log=self.log())


def origin(text: str) -> Origin:
    return Origin.parse(text.encode())


A, B = origin("https://a.test"), origin("https://b.test")


class Pauses:
    """Stands in for asyncio.sleep between two polls: it notes the seconds, and waits until the test says go on."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._paused = asyncio.Event()
        self._go = asyncio.Event()

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        self._paused.set()
        await self._go.wait()
        self._go.clear()

    async def reached(self) -> None:
        """Wait until a poll has ended."""
        async with asyncio.timeout(DEADLINE):
            await self._paused.wait()

    async def next(self) -> None:
        """Let one more poll run, and wait until it has ended."""
        await self.reached()
        self._paused.clear()
        self._go.set()
        await self.reached()


@contextmanager
def stopping(opened: OpenList[Any]) -> Generator[None]:
    try:
        yield
    finally:
        opened.stop()


async def gathered(asking: Sequence[Awaitable[bool]]) -> list[bool | BaseException]:
    async with asyncio.timeout(DEADLINE):
        return await asyncio.gather(*asking, return_exceptions=True)
