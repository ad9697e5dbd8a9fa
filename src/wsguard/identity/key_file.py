"""
The key file: a TOML file with the hashes of the API keys, one table a key; it is watched while it is used.

::

    [robot]
    hash = "64 hexadecimal digits: the SHA-256 of the key"
    scopes = ["chat"]
    added = 2026-11-25T08:00:00Z
    expires = 2027-02-23T08:00:00Z

What counts when the file changes under a guard that runs:

- a file that can be used counts within a second, whole;
- **no file**: no key opens anything (503); at the second look that misses it, half a second after the first, its keys
  are withdrawn, so that their sockets close. That look between is for editors that move a file away and write it anew;
- a file that is **bad** (half written, a wrong type, readable by others, not readable by us): the last good keys count,
  the log says why, and after ``limits.key_file_age`` seconds no key opens anything (503).
"""

from __future__ import annotations

import asyncio
import math
import os
import re
import stat
import tomllib
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from wsguard.engine.authenticators.api_key import PREFIX, KeyEntry, KeyTable
from wsguard.vocabulary.errors import ConfigurationError, ConfigurationErrors, nearest_name

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from wsguard.engine.ports import Clock
    from wsguard.observe.decision_log import DecisionLog
    from wsguard.vocabulary.bounds import Limits
    from wsguard.vocabulary.identity import Identity

    OnWithdrawn = Callable[[frozenset[str]], None]

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}", re.ASCII)
SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,128}", re.ASCII)  # RFC 6749 §3.3: it stands in quotes, no blank in it
NAME_EXPECTED = "a name of letters, digits, . _ @ and -, at most 64, a letter or digit first"
SCOPE_EXPECTED = "visible ASCII without blank, quote and backslash, like chat:write"
OTHERS = 0o077
_HASH = re.compile(r"[0-9a-f]{64}", re.ASCII)
_MEMBERS = ("hash", "scopes", "added", "expires")
WAY_OUT = "a key file; `wsguard keys add` makes one"
_LOOK_SECONDS = 0.5
_ASKED_LOOK_SECONDS = 1.0
_MISSES = 2


class KeyFile:
    """
    The keys of the file at *path*, watched; `APIKeyAuthenticator` asks it for them.

    While `start` holds, the file is read twice a second by a task of the running loop; without that, whoever asks has
    it read, at most once a second. Its bytes are compared, not its times: two changes within one tick of a clock are
    two. *on_withdrawn* is told, on the loop, the names of keys that are gone or allow less than before: their sockets
    are to be closed. A handshake under way meets `holds`, once its session is registered.

    Raises ConfigurationError for a file that cannot be used at construction.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        limits: Limits,
        clock: Clock,
        log: DecisionLog,
        on_withdrawn: OnWithdrawn | None = None,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._path = Path(path)
        self._limits = limits
        self._clock = clock
        self._log = log
        self._on_withdrawn = on_withdrawn
        self._pause = pause
        self._task: asyncio.Task[None] | None = None
        self._watches: dict[asyncio.AbstractEventLoop, asyncio.Task[None]] = {}
        self._why = ""
        self._missed = 0
        self._good_at = self._looked = clock()
        try:
            data = read_bytes(self._path, limits)
        except OSError as error:
            raise ConfigurationError(str(path), error.strerror or type(error).__name__, WAY_OUT) from None
        self._data: bytes | None = data
        self._table = KeyTable(parse_keys(data, self._path, limits))

    def __repr__(self) -> str:
        """Name the file."""
        return f"KeyFile({str(self._path)!r})"

    async def current(self) -> KeyTable | None:
        """Return the keys as they stood in the file at most a second ago, or None where nobody can say."""
        if self._clock() - self._looked >= _ASKED_LOOK_SECONDS and not self._is_looking():
            # Not awaited itself: an asker who leaves must not end it, and a hanging disk must not hold him.
            await asyncio.wait((self._begun(),), timeout=self._limits.list_timeout)
        return None if self._missed or self._is_too_old() else self._table

    def holds(self, identity: Identity) -> bool:
        """Tell whether *identity*, which a key of this file gave, is what that key would give now. Never waits."""
        return self._table.holds(identity)

    def start(self) -> None:
        """Watch the file on the running loop, if no task of it does yet. Called for every decision; cheap if so."""
        loop = asyncio.get_running_loop()
        watch = self._watches.get(loop)
        if watch is None or watch.done():
            for gone in [other for other in self._watches if other.is_closed()]:
                del self._watches[gone]
            self._watches[loop] = loop.create_task(self._watch())

    def stop(self) -> None:
        """End the watching, on whichever loop it goes on; `start` begins it anew."""
        tasks = [*self._watches.values(), *([] if self._task is None else [self._task])]
        self._watches, self._task = {}, None
        for task in tasks:
            loop = task.get_loop()
            if not loop.is_closed():
                loop.call_soon_threadsafe(task.cancel)

    async def _watch(self) -> None:
        while True:
            await self._pause(_LOOK_SECONDS)
            if not self._is_looking():
                await asyncio.wait((self._begun(),))

    def _is_too_old(self) -> bool:
        return self._clock() - self._good_at > self._limits.key_file_age

    def _is_looking(self) -> bool:
        task = self._task
        return task is not None and not task.done() and not task.get_loop().is_closed()

    def _begun(self) -> asyncio.Task[None]:
        self._looked = self._clock()
        self._task = asyncio.get_running_loop().create_task(self._look())
        return self._task

    async def _look(self) -> None:
        started = self._clock()
        try:
            found = await asyncio.to_thread(self._changed)
        except (FileNotFoundError, NotADirectoryError) as error:
            self._miss(error.strerror or type(error).__name__)
        except OSError as error:
            self._fail(error.strerror or type(error).__name__)
        except ConfigurationError as error:
            self._fail(str(error).replace("\n", "; "))
        except Exception as error:  # noqa: BLE001 - whatever else is wrong with it, the last good keys count
            self._fail(type(error).__name__)
        else:
            self._good_at = started
            self._succeed(found)

    def _changed(self) -> tuple[bytes, KeyTable] | None:
        """Return what stands in the file now: None if that is what counts already."""
        data = read_bytes(self._path, self._limits)
        return None if data == self._data else (data, KeyTable(parse_keys(data, self._path, self._limits)))

    def _succeed(self, found: tuple[bytes, KeyTable] | None) -> None:
        if self._why:
            self._log.event("keys.recovered", file=str(self._path))
        self._why, self._missed = "", 0
        if found is not None:
            self._replace(*found)

    def _fail(self, why: str) -> None:
        self._missed = 0
        self._tell(why)

    def _miss(self, why: str) -> None:
        self._missed += 1
        self._tell(why)
        if self._missed == _MISSES:
            self._good_at = -math.inf  # a file that comes back bad brings nothing back
            self._replace(None, KeyTable())

    def _tell(self, why: str) -> None:
        if why != self._why:
            age = self._limits.key_file_age
            kept = f"the last good keys count for {age:g} s at most"
            meanwhile = "no key opens anything meanwhile" if self._missed or self._is_too_old() else kept
            self._log.hint("keys.failed", f"{meanwhile}: {why}", file=str(self._path))
        self._why = why

    def _replace(self, data: bytes | None, table: KeyTable) -> None:
        older, self._table, self._data = self._table, table, data
        withdrawn = older.withdrawn(table)
        for name in sorted(withdrawn):
            self._log.event("key.revoked", credential_id=name)
        for name in sorted(table.withdrawn(older)):
            self._log.event("key.added", credential_id=name)
        if withdrawn and self._on_withdrawn is not None:
            self._on_withdrawn(withdrawn)


def read_bytes(path: Path, limits: Limits) -> bytes:
    """Return the bytes of the key file. Raises ConfigurationError for one that must not be used, and OSError."""
    # O_NONBLOCK: a FIFO in the file's place would hold the thread for ever.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return bytes_of(descriptor, path, limits)
    finally:
        os.close(descriptor)


def bytes_of(descriptor: int, path: Path, limits: Limits) -> bytes:
    """Return the bytes of the key file that is open as *descriptor*. Raises as `read_bytes` does."""
    state = os.fstat(descriptor)
    if not stat.S_ISREG(state.st_mode):
        raise ConfigurationError(str(path), "no regular file", WAY_OUT)
    if state.st_mode & OTHERS:
        # Who may write it makes keys; hashes of random keys are no secret, but nobody else needs them.
        found = f"mode {stat.S_IMODE(state.st_mode):04o}, which lets other users in"
        raise ConfigurationError(str(path), found, f"a file of one user: chmod 600 {path}")
    data = bytearray()
    while len(data) <= limits.key_file_bytes and (more := os.read(descriptor, limits.key_file_bytes + 1 - len(data))):
        data += more
    if len(data) > limits.key_file_bytes:
        found = f"more than {limits.key_file_bytes} bytes"
        raise ConfigurationError(str(path), found, "fewer, or a larger key_file_bytes in [limits]")
    return bytes(data)


def parse_keys(data: bytes, path: Path, limits: Limits) -> tuple[KeyEntry, ...]:
    """Read the tables of a key file. Raises ConfigurationErrors with all that is wrong, by table and member."""
    try:
        tables = tomllib.loads(data.decode("utf-8"))
    except UnicodeDecodeError:
        raise ConfigurationError(str(path), "bytes that are no UTF-8", WAY_OUT) from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        why = str(error) if isinstance(error, tomllib.TOMLDecodeError) else "nested too deeply"
        raise ConfigurationError(str(path), f"no TOML ({why})", WAY_OUT) from None
    if len(tables) > limits.api_keys:
        raise ConfigurationError(
            str(path), f"{len(tables)} keys", f"at most {limits.api_keys}, or a larger api_keys in [limits]"
        )
    errors: list[ConfigurationError] = []
    entries = [_read_entry(path, name, table, errors) for name, table in tables.items()]
    holders: dict[bytes, str] = {}
    for entry in entries:
        if entry is not None and holders.setdefault(entry.hash, entry.name) != entry.name:
            found = f"the hash of {holders[entry.hash]}"
            errors.append(ConfigurationError(f"{path}: {entry.name}.hash", found, "a key of its own for each name"))
    if errors:
        raise ConfigurationErrors(errors)
    return tuple(entry for entry in entries if entry is not None)


def _read_entry(path: Path, name: str, table: object, errors: list[ConfigurationError]) -> KeyEntry | None:
    """Read one table; None, and more *errors*, where something in it is wrong."""
    before = len(errors)
    if not NAME.fullmatch(name):
        errors.append(ConfigurationError(f"{path}: [{name!r}]", "no name of a key", NAME_EXPECTED))
        return None
    key = f"{path}: {name}"
    if not isinstance(table, dict):
        errors.append(ConfigurationError(key, type(table).__name__, f"a table: [{name}]"))
        return None
    members = cast("dict[str, Any]", table)
    for member, value in members.items():
        if member not in _MEMBERS:
            expected = f'["{name}.{member}"] in quotes' if isinstance(value, dict) else "one of " + ", ".join(_MEMBERS)
            nearest = nearest_name(member, _MEMBERS)
            errors.append(ConfigurationError(f"{key}.{member}", "an unknown member", expected, nearest))

    def wrong(member: str, expected: str) -> None:
        # What stands there is not shown: it might be the key itself.
        found = type(members[member]).__name__ if member in members else "nothing"
        errors.append(ConfigurationError(f"{key}.{member}", found, expected))

    digest: object = members.get("hash")
    if isinstance(digest, str) and digest.startswith(PREFIX):
        wrong("hash", "its SHA-256, not the key itself; this key has been seen, so make another one")
    elif not isinstance(digest, str) or not _HASH.fullmatch(digest):
        wrong("hash", "the key's SHA-256: 64 hexadecimal digits, lower case")
    scopes: object = members.get("scopes", [])
    if not isinstance(scopes, list) or not all(_is_scope(scope) for scope in cast("list[object]", scopes)):
        wrong("scopes", f'a list of texts like ["chat"], each {SCOPE_EXPECTED}')
    added, expires = _seconds(members.get("added")), _seconds(members.get("expires"))
    if added is None:
        wrong("added", "a date and time with its offset, like 2026-11-25T08:00:00Z")
    if expires is None and "expires" in members:
        wrong("expires", "a date and time with its offset, like 2027-02-23T08:00:00Z; without it the key has no end")
    if len(errors) > before:
        return None
    granted = frozenset(cast("list[str]", scopes))
    return KeyEntry(name, bytes.fromhex(cast("str", digest)), granted, cast("float", added), expires)


def _is_scope(value: object) -> bool:
    return isinstance(value, str) and SCOPE.fullmatch(value) is not None


def _seconds(value: object) -> float | None:
    """Return the Unix seconds of a date and time that knows its offset."""
    return value.timestamp() if isinstance(value, datetime) and value.tzinfo is not None else None
