"""The end of processes that are nobody's children any more: the kernel tells of it by a pidfd (pidfd_open(2))."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Generator, Iterable
from contextlib import contextmanager

DEADLINE = 20.0


class WatchedProcesses:
    """Processes that lived when the watch began; a pid that is given out again is not taken for one of them."""

    def __init__(self, descriptors: dict[int, int]) -> None:
        self._descriptors = descriptors

    def survivors(self) -> list[int]:
        """Wait for the end of all of them, and return the pids of those that have not ended within the deadline."""
        end = time.monotonic() + DEADLINE
        left = dict(self._descriptors)
        while left:
            ended, _, _ = select.select(list(left.values()), [], [], max(0.0, end - time.monotonic()))
            if not ended:
                break
            left = {pid: descriptor for pid, descriptor in left.items() if descriptor not in ended}
        return list(left)


@contextmanager
def watched(pids: Iterable[int]) -> Generator[WatchedProcesses]:
    """Watch *pids*, which must be alive now: ProcessLookupError otherwise."""
    descriptors: dict[int, int] = {}
    try:
        for pid in pids:
            descriptors[pid] = os.pidfd_open(pid)
        yield WatchedProcesses(descriptors)
    finally:
        for descriptor in descriptors.values():
            os.close(descriptor)
