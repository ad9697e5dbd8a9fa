"""A file whose content is read again when it changes: a bad change does not count, the last good content does."""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from wsguard.engine.ports import Clock

Content = TypeVar("Content")
Version = tuple[int, int, int]

_LOOK_SECONDS = 1.0


class WatchedFile(Generic[Content]):
    """
    What *understand* makes of the bytes of *path*, looked at when somebody asks, at most once a second.

    Reading happens in a thread, for at most *patience* seconds of the asker's time; *longest* bytes are read. *why* is
    why the last look brought nothing, *good_at* (clock) when the content was last known to be right. Raises OSError
    and what *understand* raises when the file cannot be used at construction; later such an error stands in *why*.
    """

    def __init__(
        self, path: str | Path, understand: Callable[[bytes], Content], *, longest: int, patience: float, clock: Clock
    ) -> None:
        self._path = Path(path)
        self._understand = understand
        self._longest = longest
        self._patience = patience
        self._clock = clock
        self._task: asyncio.Task[None] | None = None
        self.why = ""
        self.good_at = self._looked = clock()
        self._version, self.mode, self.content = self._read()

    async def look(self, *, oldest: float) -> None:
        """Look at the file if nobody has for a second; wait for another's look only where the content is *oldest*."""
        now = self._clock()
        task = self._looking()
        if task is None and now - self._looked >= _LOOK_SECONDS:
            self._looked = now
            task = self._task = asyncio.create_task(self._look())
        elif now - self.good_at < oldest:
            return
        if task is not None:
            # Not awaited itself: an asker who leaves must not end it, and a hanging disk must not hold him.
            await asyncio.wait((task,), timeout=self._patience)

    def _looking(self) -> asyncio.Task[None] | None:
        task = self._task
        return None if task is None or task.done() or task.get_loop() is not asyncio.get_running_loop() else task

    async def _look(self) -> None:
        started = self._clock()
        try:
            found = await asyncio.to_thread(self._changed)
        except OSError as error:
            self.why = error.strerror or type(error).__name__
        except ValueError as error:
            self.why = str(error)
        except Exception as error:  # noqa: BLE001 - whatever else is wrong with it, the last good content counts
            self.why = type(error).__name__
        else:
            self.why, self.good_at = "", started
            if found is not None:
                self._version, self.mode, self.content = found

    def _changed(self) -> tuple[Version, int, Content] | None:
        """Return what stands in the file now: None if that is what counts already."""
        return None if _version_of(self._path.stat()) == self._version else self._read()

    def _read(self) -> tuple[Version, int, Content]:
        # O_NONBLOCK: a FIFO in the file's place would hold the thread for ever.
        descriptor = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor, not a path
            state = os.fstat(descriptor)
            if not stat.S_ISREG(state.st_mode):
                raise ValueError("no regular file")
            data = file.read(self._longest + 1)
        if len(data) > self._longest:
            raise ValueError(f"more than {self._longest} bytes")
        return _version_of(state), stat.S_IMODE(state.st_mode), self._understand(data)


def _version_of(state: os.stat_result) -> Version:
    """Tell one state of a file from another: time of change (ns), bytes, inode."""
    return state.st_mtime_ns, state.st_size, state.st_ino
