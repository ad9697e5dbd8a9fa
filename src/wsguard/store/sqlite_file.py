"""
The file of the SQLite store: how it is made, and what must be true of it before anybody believes what it says.

It is made whole under another name and then linked to its own, so that workers that start at one time find the same
file, and none finds half of one.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import tempfile
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from wsguard.vocabulary.errors import ConfigurationError, StoreError

if TYPE_CHECKING:
    from wsguard.engine.ports import Randomness

_KEY = "store"
_NAME_BYTES = 4
_APPLICATION = 0x57534764  # "WSGd": file(1) and we tell by it whose file this is
_VERSION = 2
_JOURNAL_PAGES = 4_000
"""
After so many pages, of 4 KiB, the journal is written into the file: SQLite's default is 1,000. Tickets are found by
hashes, so nearly every page of the index is written each time, however many tickets have come.
"""
_BROKEN = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR})  # the last: no such table
# The totals are kept by triggers: they change in the same transaction as the rows, whoever changes them. A file's owner
# may look into it; its user_version says when to change this text.
_SCHEMA = """
    PRAGMA journal_mode = WAL;
    BEGIN;
    CREATE TABLE store (name TEXT NOT NULL);
    CREATE TABLE entries (
        number INTEGER PRIMARY KEY, space TEXT NOT NULL, key BLOB NOT NULL, value BLOB NOT NULL, mark BLOB,
        expires_at REAL NOT NULL, UNIQUE (space, key)
    );
    CREATE INDEX entries_by_end ON entries (expires_at);
    CREATE TABLE records (
        number INTEGER PRIMARY KEY AUTOINCREMENT, stream TEXT NOT NULL, value BLOB NOT NULL, expires_at REAL NOT NULL,
        key BLOB, rank REAL NOT NULL
    );
    CREATE INDEX records_by_stream ON records (stream, number);
    CREATE INDEX records_by_end ON records (expires_at);
    CREATE INDEX records_by_key ON records (stream, key) WHERE key IS NOT NULL;
    CREATE TABLE totals (entries INTEGER NOT NULL, entry_bytes INTEGER NOT NULL,
                         records INTEGER NOT NULL, record_bytes INTEGER NOT NULL);
    INSERT INTO totals VALUES (0, 0, 0, 0);
    CREATE TRIGGER entry_inserted AFTER INSERT ON entries BEGIN
        UPDATE totals SET entries = entries + 1, entry_bytes = entry_bytes + length(NEW.value);
    END;
    CREATE TRIGGER entry_replaced AFTER UPDATE OF value ON entries BEGIN
        UPDATE totals SET entry_bytes = entry_bytes + length(NEW.value) - length(OLD.value);
    END;
    CREATE TRIGGER entry_deleted AFTER DELETE ON entries BEGIN
        UPDATE totals SET entries = entries - 1, entry_bytes = entry_bytes - length(OLD.value);
    END;
    CREATE TRIGGER record_replaced BEFORE INSERT ON records WHEN NEW.key IS NOT NULL BEGIN
        DELETE FROM records WHERE stream = NEW.stream AND key = NEW.key AND rank <= NEW.rank;
    END;
    CREATE TRIGGER record_inserted AFTER INSERT ON records BEGIN
        UPDATE totals SET records = records + 1, record_bytes = record_bytes + length(NEW.value);
    END;
    CREATE TRIGGER record_deleted AFTER DELETE ON records BEGIN
        UPDATE totals SET records = records - 1, record_bytes = record_bytes - length(OLD.value);
    END;
"""


def prepare(path: Path, randomness: Randomness, busy_seconds: float) -> str:
    """
    Make the store at *path* if there is none, look whether it can be used, and return its name.

    Raises ConfigurationError for what the operator must change, StoreError for what may pass by itself (a lock).
    """
    try:
        check_folder(path)
        if not os.path.lexists(path):
            _check_leftovers(path)
            _create(path, randomness(_NAME_BYTES).hex())
        with closing(connect(path, busy_seconds)) as connection:
            return read_name(connection, path)
    except sqlite3.Error as error:
        if primary_code(error) in _BROKEN:
            raise _unfit(path, f"no store of wsguard: {error}", "move it away; a new one is made then") from None
        raise StoreError(f"{path}: {error}") from error
    except OSError as error:
        raise _unfit(path, str(error.strerror), "a file in a folder of a local disk that this user may write") from None


def connect(path: Path, busy_seconds: float) -> sqlite3.Connection:
    """
    Open the file at *path*, which is there. Raises ConfigurationError for a file that others could change or read.

    The connection is the calling thread's own and commits every statement outside of a transaction by itself.
    """
    _check_file(path)
    connection = sqlite3.connect(
        f"file:{quote(os.fsencode(path))}?mode=rw", uri=True, timeout=busy_seconds, isolation_level=None
    )
    try:
        connection.execute("PRAGMA synchronous = NORMAL")  # a crash of ours loses nothing; a power cut the last moment
        connection.execute(f"PRAGMA wal_autocheckpoint = {_JOURNAL_PAGES}")
        connection.execute("PRAGMA trusted_schema = OFF")
    except BaseException:
        connection.close()
        raise
    return connection


def read_name(connection: sqlite3.Connection, path: Path) -> str:
    """Return the store's name. Raises ConfigurationError for another program's file, or another version's."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application != _APPLICATION:
        raise _unfit(path, "no store of wsguard", "a file that wsguard made; name one that is not there yet")
    if version != _VERSION:
        raise _unfit(path, f"a store of version {version}", f"version {_VERSION}; move it away, or run its wsguard")
    if connection.execute("PRAGMA journal_mode").fetchone() != ("wal",):
        raise _unfit(path, "not in WAL mode", "a local disk, and a file that no other program has changed")
    row = connection.execute("SELECT name FROM store").fetchone()
    if row is None:
        raise _unfit(path, "a store without a name", "one that wsguard made; move it away, a new one is made then")
    return str(row[0])


def primary_code(error: sqlite3.Error) -> int:
    """Return which of SQLite's errors it is, without the details; 0 for one of the Python module's own."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def identity_of(path: Path) -> tuple[int, int]:
    """Return what tells this file from another one under the same path. Raises OSError."""
    status = os.lstat(path)
    return status.st_dev, status.st_ino


def _create(path: Path, name: str) -> None:
    descriptor, made = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # mode 0600
    os.close(descriptor)
    try:
        with closing(sqlite3.connect(made, isolation_level=None)) as connection:
            connection.executescript(_SCHEMA)
            connection.execute("INSERT INTO store VALUES (?)", (name,))
            connection.execute(f"PRAGMA application_id = {_APPLICATION}")
            connection.execute(f"PRAGMA user_version = {_VERSION}")
            connection.execute("COMMIT")
        try:
            os.link(made, path)
        except FileExistsError:
            return  # another worker was first: its store is everybody's
    finally:
        for leftover in (made, f"{made}-wal", f"{made}-shm"):
            Path(leftover).unlink(missing_ok=True)


def check_folder(path: Path) -> None:
    """Refuse a folder for the file at *path* that is not there, or that others may write. Raises ConfigurationError."""
    folder = path.parent
    if not folder.is_dir():
        raise _unfit(folder, "no folder", "a folder that is there: make it first, mode 0700")
    if folder.stat().st_mode & stat.S_IWOTH:
        raise _unfit(folder, "a folder that everybody may write", f"a folder of its own, or chmod o-w {folder}")


def _check_leftovers(path: Path) -> None:
    """Refuse the journal of a file that was deleted: SQLite would write what stands there into the new one."""
    journal = Path(f"{path}-wal")
    # In this order: a worker that is making the store right now makes the file first.
    if os.path.lexists(journal) and not os.path.lexists(path):
        raise _unfit(journal, f"left over from a {path.name} that is gone", "that file back, or none: delete it too")


def _check_file(path: Path) -> None:
    status = os.lstat(path)
    if stat.S_ISLNK(status.st_mode):
        raise _unfit(path, "a symbolic link", f"the file itself: {os.path.realpath(path)}")
    if not stat.S_ISREG(status.st_mode):
        raise _unfit(path, "no file", "a file, or a path where none is yet")
    if status.st_uid != os.geteuid():
        raise _unfit(path, f"a file of user {status.st_uid}", f"one of the user who runs wsguard ({os.geteuid()})")
    if status.st_mode & 0o077:
        raise _unfit(
            path, f"mode {stat.S_IMODE(status.st_mode):04o}", f"0600, for it says who is let in: chmod 600 {path}"
        )


def _unfit(path: Path, found: str, expected: str) -> ConfigurationError:
    return ConfigurationError(_KEY, f"{path} ({found})", expected)
