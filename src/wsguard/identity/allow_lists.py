"""
Allow-lists that are kept elsewhere: in a watched file, at a polled URL, or in an app's own function.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from wsguard.engine.ports import KeptList

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from wsguard.engine.ports import Clock
    from wsguard.observe.decision_log import DecisionLog
    from wsguard.vocabulary.bounds import Limits

Candidate = TypeVar("Candidate")


@dataclass(frozen=True)
class FileList(KeptList):
    path: str | Path


@dataclass(frozen=True)
class URLList(KeptList):
    url: str
    interval: float | None = None
    ca: str | Path | None = None


class OpenList(Generic[Candidate]):
    name: str

    async def allows(self, candidate: Candidate) -> bool:
        raise NotImplementedError

    def start(self) -> None: ...

    def stop(self) -> None: ...


def open_list(
    key: str,
    written: object,
    *,
    read: Callable[[Sequence[str]], Callable[[Candidate], bool]],
    limits: Limits,
    clock: Clock,
    log: DecisionLog,
) -> OpenList[Candidate]:
    raise NotImplementedError
