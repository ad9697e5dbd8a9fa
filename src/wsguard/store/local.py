"""
The store of one machine: an SQLite file that its workers share and that outlives a restart.

One thread of the store's own has the connection; what waits for it is done in one transaction. A caller who is
cancelled or out of time leaves a command that is done wholly or, where its turn had not come, never; its answer is
nobody's (B-STORE-04). After an error the next command starts with a new connection, so the store is back once the
cause is gone.
"""

from __future__ import annotations

import math
import sqlite3
from contextlib import contextmanager, nullcontext, suppress
from enum import Enum, auto
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from wsguard.engine.ports import Taken
from wsguard.store.accepted import check_end, check_key, check_name, check_place, check_value
from wsguard.store.one_thread import Job, OneThread
from wsguard.store.sqlite_file import connect, identity_of, prepare, primary_code, read_name
from wsguard.vocabulary.errors import StoreError, StoreFull

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from wsguard.engine.ports import Randomness
    from wsguard.vocabulary.bounds import Limits

_BUSY_SHARE = 0.75
"""How much of a command's time may go by waiting for another process's lock: what it then says is more telling."""
_EVERY, _AT_ONCE = 8, 16
"""Each 8th command that adds deletes 16 of the expired: more than are added, in pages that are written together."""
_HARMLESS = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_FULL})
"""Errors that a rollback mends; after any other one the connection is not trusted any more."""


class _How(Enum):
    """How a command is done: alone, or as a part of a transaction; synced to the disk before it is answered, or not."""

    READ = auto()
    WRITE = auto()
    WRITE_DURABLY = auto()


class _Command(NamedTuple):
    """
    What the thread does for a caller.

    It writes by its last statement alone, so that it is whole also where it is a transaction by itself: each statement
    lets go of the interpreter's lock, and costs more by that than by what it does.
    """

    how: _How
    do: Callable[[sqlite3.Connection], object]


class _Kind(NamedTuple):
    """A table's statements: entries are the values, records stand in streams."""

    delete_expired: str
    used: str


_ENTRIES = _Kind(
    delete_expired="""
        DELETE FROM entries WHERE number IN (
            SELECT number FROM entries WHERE expires_at <= ? ORDER BY expires_at LIMIT ?)
    """,
    used="""
        SELECT entries, entry_bytes, (SELECT length(value) FROM entries WHERE space = ? AND key = ?) FROM totals
    """,
)
_RECORDS = _Kind(
    delete_expired="""
        DELETE FROM records WHERE number IN (
            SELECT number FROM records WHERE expires_at <= ? ORDER BY expires_at LIMIT ?)
    """,
    used="""
        SELECT records, record_bytes, (
            SELECT length(value) FROM records WHERE stream = ? AND key = ? AND rank <= ?) FROM totals
    """,
)
_FIND = "SELECT value, mark FROM entries WHERE space = ? AND key = ? AND expires_at > ?"
_PUT = """
    INSERT INTO entries (space, key, value, expires_at)
    SELECT ?, ?, ?, ? FROM totals WHERE entries < ? AND entry_bytes <= ?
    ON CONFLICT DO UPDATE SET value = excluded.value, mark = NULL, expires_at = excluded.expires_at
"""
_LOOKS = 3
"""So often is a value looked for that another process changes under our hands."""

_TAKE = """
    UPDATE entries SET mark = ? WHERE space = ? AND key = ? AND mark IS NULL AND expires_at > ? RETURNING value
"""
_APPEND = "INSERT INTO records (stream, value, expires_at, key, rank) VALUES (?, ?, ?, ?, ?)"
_ABOVE = "SELECT number FROM records WHERE stream = ? AND key = ? AND rank > ? AND expires_at > ?"
_LAST_NUMBER = "SELECT ifnull(max(seq), 0) FROM sqlite_sequence"
_READ = "SELECT number, value FROM records WHERE stream = ? AND number > ? AND expires_at > ? ORDER BY number"


class SQLiteStore:
    """
    Keeps state in the file *path*, within *limits*; *randomness* makes its name when the file is made.

    The folder must be there, and not be everybody's to write; the file belongs to this user and has mode 0600. Raises
    ConfigurationError where it cannot be used, StoreError where it is locked.

    It may be used from several loops. After a fork only one that was not used before works in the child.
    """

    def __init__(self, path: str | Path, limits: Limits, randomness: Randomness) -> None:
        self._path = Path(path).absolute()
        self._limits = limits
        self._busy_seconds = limits.store_command * _BUSY_SHARE
        self._name = prepare(self._path, randomness, self._busy_seconds)
        # Started by the first command, so that a server may fork before.
        self._thread = OneThread[_Command](
            "wsguard-store",
            self._perform,
            self._drop,
            most_waiting=limits.store_pending,
            seconds=limits.store_command,
        )
        # The thread's own; nobody else touches them.
        self._connection: sqlite3.Connection | None = None
        self._opened: tuple[int, int] | None = None
        self._added = 0
        self._last_number = 0

    def __repr__(self) -> str:
        """Name the file."""
        return f"SQLiteStore({self._name}, {str(self._path)!r})"

    @property
    def name(self) -> str:
        """Eight hexadecimal digits that stand in the file."""
        return self._name

    @property
    def is_shared(self) -> bool:
        """Every process of this machine that opens the file sees the same."""
        return True

    async def put(self, space: str, key: bytes, value: bytes, *, expires_at: float, now: float) -> None:
        """Keep *value*; see `wsguard.engine.ports.Store`."""
        check_place(space, key)
        limits = self._limits
        check_value(value, limits.store_value)
        check_end(expires_at)

        def command(connection: sqlite3.Connection) -> None:
            self._delete_some(connection, _ENTRIES, now)
            row = (space, key, value, expires_at)
            if connection.execute(_PUT, (*row, limits.store_values, limits.store_bytes - len(value))).rowcount == 0:
                self._make_room(connection, _ENTRIES, len(value), now, (space, key))
                connection.execute(_PUT, (*row, math.inf, math.inf))

        await self._thread.run(_Command(_How.WRITE, command))

    async def peek(self, space: str, key: bytes, *, now: float) -> Taken:
        """Look, and take nothing; see `wsguard.engine.ports.Store`."""
        check_place(space, key)

        def command(connection: sqlite3.Connection) -> Taken:
            return _found(connection, space, key, now)

        return await self._thread.run(_Command(_How.READ, command))

    async def take(self, space: str, key: bytes, *, mark: bytes, now: float) -> Taken:
        """Take the value, once; see `wsguard.engine.ports.Store`."""
        check_place(space, key)
        check_value(mark, self._limits.store_value)

        def command(connection: sqlite3.Connection) -> Taken:
            for _ in range(_LOOKS):
                taken = connection.execute(_TAKE, (mark, space, key, now)).fetchall()  # all: the statement ends by that
                if taken:
                    return Taken(taken[0][0])
                found = _found(connection, space, key, now)
                if found.value is None:
                    return found
                # Another process has put it anew between the two statements; only the first of them takes.
            raise StoreError("others change this value all the time")

        return await self._thread.run(_Command(_How.WRITE, command))

    async def append(
        self, stream: str, value: bytes, *, expires_at: float, now: float, key: bytes | None = None, rank: float = 0
    ) -> int:
        """Append a record; see `wsguard.engine.ports.Store`."""
        check_name(stream)
        check_value(value, self._limits.store_value)
        check_end(expires_at)
        if key is not None:
            check_key(key)

        def command(connection: sqlite3.Connection) -> int:
            above = None if key is None else connection.execute(_ABOVE, (stream, key, rank, now)).fetchone()
            if above is not None:
                return above[0]
            self._delete_some(connection, _RECORDS, now)
            self._make_room(connection, _RECORDS, len(value), now, (stream, key, rank))
            number = connection.execute(_APPEND, (stream, value, expires_at, key, rank)).lastrowid
            if number is None:
                raise StoreError("the record got no number")
            self._last_number = number
            return number

        return await self._thread.run(_Command(_How.WRITE_DURABLY, command))

    async def read(self, stream: str, *, after: int, now: float) -> Sequence[tuple[int, bytes]]:
        """Return the records behind *after*; see `wsguard.engine.ports.Store`."""
        check_name(stream)

        def command(connection: sqlite3.Connection) -> list[tuple[int, bytes]]:
            found = connection.execute(_READ, (stream, after, now)).fetchall()
            if found:
                self._last_number = max(self._last_number, found[-1][0])
            return found

        return await self._thread.run(_Command(_How.READ, command))

    async def aclose(self) -> None:
        """Close the file and end the thread; what waits for it raises StoreError."""
        await self._thread.close()

    # From here on everything runs in the thread.

    def _perform(self, jobs: Sequence[Job[_Command]]) -> None:
        """Do *jobs* in their order; writes that follow one another are one transaction."""
        if len(jobs) == 1:
            self._try(_do_alone, jobs)
            return
        for reads, group in groupby(jobs, key=_is_read):
            if reads:
                for job in group:
                    self._try(_do_alone, [job])
            else:
                together = list(group)
                self._try(_do_alone if len(together) == 1 else _do_together, together)

    def _try(
        self, do: Callable[[sqlite3.Connection, Sequence[Job[_Command]]], None], jobs: Sequence[Job[_Command]]
    ) -> None:
        try:
            do(self._connected(), jobs)
        except StoreError as error:
            _fail(jobs, error)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the store's, and nobody is let in
            connection = self._connection
            harmless = isinstance(error, sqlite3.Error) and primary_code(error) in _HARMLESS
            if not harmless or (connection is not None and connection.in_transaction):
                self._drop()
            _fail(jobs, error, f"{self._path}: {error}")

    def _connected(self) -> sqlite3.Connection:
        """Return a connection to the file that stands at the path now; one that was deleted has no say any more."""
        opened = identity_of(self._path)
        if self._connection is not None:
            if opened == self._opened:
                return self._connection
            self._drop()
        connection = connect(self._path, self._busy_seconds)
        try:
            name, self._opened = read_name(connection, self._path), opened
            if name != self._name:
                raise StoreError(f"{self._path}: another store stands there now; restart to use it")
            if connection.execute(_LAST_NUMBER).fetchone()[0] < self._last_number:
                # Whoever reads a stream has gone past what would be appended: a revocation would not be heard.
                raise StoreError(f"{self._path}: an older copy stands there now; restart to use it")
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return connection

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()

    def _delete_some(self, connection: sqlite3.Connection, kind: _Kind, now: float) -> None:
        self._added += 1
        if self._added % _EVERY == 0:
            _delete_expired(connection, kind, now)

    def _make_room(
        self, connection: sqlite3.Connection, kind: _Kind, size: int, now: float, place: tuple[object, ...]
    ) -> None:
        while True:
            count, total, replaced = connection.execute(kind.used, place).fetchone()
            if replaced is None:
                count, replaced = count + 1, 0
            total += size - replaced
            if count <= self._limits.store_values and total <= self._limits.store_bytes:
                return
            if not _delete_expired(connection, kind, now):
                raise StoreFull(f"{count} values, {total} bytes: see limits.store_values and store_bytes")


def _is_read(job: Job[_Command]) -> bool:
    return job.command.how is _How.READ


def _do_alone(connection: sqlite3.Connection, jobs: Sequence[Job[_Command]]) -> None:
    """Do one command, each of whose statements is a transaction."""
    (job,) = jobs
    if job.command.how is _How.WRITE_DURABLY:
        with _synced(connection):
            job.succeed(job.command.do(connection))
    else:
        job.succeed(job.command.do(connection))


def _do_together(connection: sqlite3.Connection, jobs: Sequence[Job[_Command]]) -> None:
    """Do several in one transaction: what it costs is shared, and so is what hinders it."""
    results: list[tuple[Job[_Command], object]] = []
    with _synced(connection) if any(job.command.how is _How.WRITE_DURABLY for job in jobs) else nullcontext():
        connection.execute("BEGIN IMMEDIATE")
        try:
            for job in jobs:
                try:
                    results.append((job, job.command.do(connection)))
                except StoreError as error:  # it has written nothing
                    _fail([job], error)
            connection.execute("COMMIT")
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
    for job, result in results:  # not before it is committed
        job.succeed(result)


def _fail(jobs: Sequence[Job[_Command]], cause: Exception, text: str | None = None) -> None:
    """Give each caller an error of his own: they are raised on several stacks."""
    kind = type(cause) if isinstance(cause, StoreError) else StoreError
    for job in jobs:
        error = kind(str(cause) if text is None else text)
        error.__cause__ = cause
        job.fail(error)


@contextmanager
def _synced(connection: sqlite3.Connection) -> Generator[None]:
    """Let what is committed meanwhile outlive a power cut."""
    connection.execute("PRAGMA synchronous = FULL")
    try:
        yield
    finally:
        connection.execute("PRAGMA synchronous = NORMAL")


def _found(connection: sqlite3.Connection, space: str, key: bytes, now: float) -> Taken:
    row = connection.execute(_FIND, (space, key, now)).fetchone()
    if row is None:
        return Taken()
    value, mark = row
    return Taken(value) if mark is None else Taken(None, mark)


def _delete_expired(connection: sqlite3.Connection, kind: _Kind, now: float) -> int:
    return connection.execute(kind.delete_expired, (now, _AT_ONCE)).rowcount
