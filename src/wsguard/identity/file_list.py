"""A list in a file that is watched: a change counts within a second, a bad change does not count."""

from __future__ import annotations

import asyncio
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from wsguard.identity.open_list import Candidate, Entries, OpenList, under
from wsguard.vocabulary.errors import ConfigurationError

if TYPE_CHECKING:
    from wsguard.engine.ports import Clock
    from wsguard.identity.open_list import Understood
    from wsguard.vocabulary.bounds import Limits

_LOOK_SECONDS = 1.0
_WAY_OUT = "a file that can be read: entries as text lines, or a JSON array of strings"


@dataclass(frozen=True, slots=True)
class Version:
    """What tells one state of a file from another: time of change (ns), bytes, inode."""

    changed: int
    size: int
    inode: int


class WatchedList(OpenList[Candidate]):
    """
    The entries of a file, looked at when somebody asks, at most once a second.

    Reading happens in a thread; who asks meanwhile is answered by the last good list. Raises ConfigurationError when
    the file cannot be used at construction.
    """

    def __init__(self, path: str | Path, entries: Entries[Candidate], *, limits: Limits, clock: Clock) -> None:
        self.name = entries.name
        self._path = Path(path)
        self._entries = entries
        self._limits = limits
        self._clock = clock
        self._task: asyncio.Task[None] | None = None
        self._looked = clock()
        try:
            self._version, data = self._read()
            entries.keep(entries.understood(data))
        except OSError as error:
            raise ConfigurationError(entries.key, f"{self.name} ({error.strerror})", _WAY_OUT) from None
        except ConfigurationError as error:
            raise under(entries.key, error, self.name) from None

    async def allows(self, candidate: Candidate) -> bool:
        """Tell whether *candidate* is on the list as it stood in the file at most a second ago."""
        now = self._clock()
        if now - self._looked >= _LOOK_SECONDS and not self._is_looking():
            self._looked = now
            self._task = asyncio.create_task(self._look())
            # Not awaited itself: an asker who leaves must not end it, and a hanging disk must not hold him.
            await asyncio.wait((self._task,), timeout=self._limits.list_timeout)
        return self._entries.allow(candidate)

    def _is_looking(self) -> bool:
        task = self._task
        return task is not None and not task.done() and not task.get_loop().is_closed()

    async def _look(self) -> None:
        try:
            found = await asyncio.to_thread(self._changed)
        except OSError as error:
            self._entries.failed(error.strerror or type(error).__name__)
        except ConfigurationError as error:
            self._entries.failed(f"found {error.found}, expected {error.expected}")
        except Exception as error:  # noqa: BLE001 - whatever else is wrong with it, the last good list counts
            self._entries.failed(type(error).__name__)
        else:
            self._version, understood = found
            self._entries.keep(understood)

    def _changed(self) -> tuple[Version, Understood[Candidate] | None]:
        """Return what stands in the file now: None if that is what counts already."""
        if _version_of(self._path.stat()) == self._version:
            return self._version, None
        version, data = self._read()
        return version, self._entries.understood(data)

    def _read(self) -> tuple[Version, bytes]:
        # O_NONBLOCK: a FIFO in the file's place would hold the thread for ever.
        descriptor = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor, not a path
            state = os.fstat(descriptor)
            if not stat.S_ISREG(state.st_mode):
                raise ConfigurationError(self._entries.key, "no regular file", _WAY_OUT)
            return _version_of(state), file.read(self._limits.list_bytes + 1)


def _version_of(state: os.stat_result) -> Version:
    return Version(state.st_mtime_ns, state.st_size, state.st_ino)
