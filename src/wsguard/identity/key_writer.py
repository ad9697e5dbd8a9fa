"""
Changes to the key file: each is made under a lock and written whole, so that none is lost and nobody reads half of one.

The lock is on the file itself (flock). A rename puts another file in its place, so whoever got the lock looks whether
it still is the one that stands there. Comments in the file do not survive.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from wsguard.engine.authenticators.api_key import KeyEntry, key_hash, new_key
from wsguard.identity.key_file import NAME, NAME_EXPECTED, SCOPE, SCOPE_EXPECTED, bytes_of, parse_keys, read_bytes
from wsguard.vocabulary.errors import ConfigurationError, nearest_name

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Sequence

    from wsguard.engine.ports import Randomness
    from wsguard.vocabulary.bounds import Limits

LONGEST_LIFE = 100 * 365 * 86400
_LOCK_SECONDS = 10.0
_BARE = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_HEADER = "# API keys of wsguard, by their hashes. `wsguard keys` writes this file anew: comments do not survive.\n"


def read_keys(path: Path, limits: Limits) -> tuple[KeyEntry, ...]:
    """Return what stands in the key file at *path*. Raises ConfigurationError."""
    try:
        return parse_keys(read_bytes(path, limits), path, limits)
    except OSError as error:
        raise _unusable(path, error) from None


def add_key(
    path: Path,
    name: str,
    *,
    scopes: Sequence[str] = (),
    lifetime: float | None = None,
    now: float,
    randomness: Randomness,
    limits: Limits,
) -> tuple[str, KeyEntry]:
    """
    Make a key, write its hash into the file at *path*, which is made if it is missing, and return key and entry.

    *lifetime* is in seconds, *now* in Unix seconds. The key is nowhere else. Raises ConfigurationError for a name that
    is taken or none, a scope that is none, and a file that cannot be used.
    """
    if not NAME.fullmatch(name):
        raise ConfigurationError("NAME", repr(name), NAME_EXPECTED)
    for scope in scopes:
        if not SCOPE.fullmatch(scope):
            raise ConfigurationError("--scope", repr(scope), SCOPE_EXPECTED)
    if lifetime is not None and not 1 <= lifetime <= LONGEST_LIFE:
        raise ConfigurationError(
            "--expires", f"{lifetime:g} s", 'between "1s" and "36500d"; without it there is no end'
        )
    key = new_key(randomness)
    with _locked(path, create=True) as (target, descriptor):
        entries = parse_keys(bytes_of(descriptor, path, limits), path, limits)
        if any(entry.name == name for entry in entries):
            way_out = f"another name, or first `wsguard keys revoke {name}`"
            raise ConfigurationError("NAME", f"{name!r}, which {path} has already", way_out)
        added = int(now)  # whole seconds, as a person reads them in the file
        expires = None if lifetime is None else added + int(lifetime)
        entry = KeyEntry(name, key_hash(key.encode("ascii")), frozenset(scopes), added, expires)
        _write(target, descriptor, [*entries, entry], limits)
    return key, entry


def revoke_key(path: Path, name: str, *, limits: Limits) -> KeyEntry:
    """Take the key *name* out of the file at *path*; return what it was. Raises ConfigurationError if unknown."""
    with _locked(path, create=False) as (target, descriptor):
        entries = parse_keys(bytes_of(descriptor, path, limits), path, limits)
        found = next((entry for entry in entries if entry.name == name), None)
        if found is None:
            names = [entry.name for entry in entries]
            expected = f"a key of {path}, which `wsguard keys list` shows"
            raise ConfigurationError("NAME", repr(name), expected, nearest_name(name, names))
        _write(target, descriptor, [entry for entry in entries if entry is not found], limits)
    return found


def render_keys(entries: Iterable[KeyEntry]) -> str:
    """Write *entries* as a key file."""
    parts = [_HEADER]
    for entry in entries:
        table = entry.name if _BARE.fullmatch(entry.name) else json.dumps(entry.name)
        scopes = ", ".join(json.dumps(scope) for scope in sorted(entry.scopes))
        lines = [
            f"[{table}]",
            f'hash = "{entry.hash.hex()}"',
            f"scopes = [{scopes}]",
            f"added = {as_time(entry.added)}",
        ]
        if entry.expires is not None:
            lines.append(f"expires = {as_time(entry.expires)}")
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def as_time(seconds: float) -> str:
    """Write Unix seconds as RFC 3339 has them, which is how TOML has them."""
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


@contextlib.contextmanager
def _locked(path: Path, *, create: bool) -> Generator[tuple[Path, int]]:
    """Open and lock the file at *path*, for its file's real place (a link stays a link) and its descriptor."""
    try:
        target = Path(os.path.realpath(path))  # Path.resolve raises RuntimeError for a loop of links
        descriptor = _lock(target, create=create)
    except OSError as error:
        raise _unusable(path, error) from None
    try:
        yield target, descriptor
    except OSError as error:
        raise _unusable(path, error) from None
    finally:
        os.close(descriptor)


def _lock(target: Path, *, create: bool) -> int:
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        flags = os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | (os.O_CREAT if create else 0)
        descriptor = os.open(target, flags, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(descriptor, target):
                return descriptor
        except BlockingIOError:
            if time.monotonic() > deadline:
                os.close(descriptor)
                found = f"locked by another process for {_LOCK_SECONDS:g} s"
                raise ConfigurationError(str(target), found, "a file that nobody else changes") from None
            time.sleep(0.01)  # flock() either waits without an end or not at all
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _is_at(descriptor: int, target: Path) -> bool:
    """Tell whether the file that is open still is the one at *target*."""
    try:
        return os.path.samestat(os.fstat(descriptor), target.stat())
    except FileNotFoundError:
        return False


def _write(target: Path, descriptor: int, entries: Sequence[KeyEntry], limits: Limits) -> None:
    data = render_keys(entries).encode("ascii")
    parse_keys(data, target, limits)  # what a guard would refuse must not come into its file
    if len(data) > limits.key_file_bytes:
        raise ConfigurationError(str(target), f"more than {limits.key_file_bytes} bytes", "fewer keys")
    old = os.fstat(descriptor)
    temporary, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)  # 0600
    try:
        with os.fdopen(temporary, "wb") as file:
            file.write(data)
            file.flush()
            created = os.fstat(file.fileno())
            if (created.st_uid, created.st_gid) != (old.st_uid, old.st_gid):
                os.fchown(file.fileno(), old.st_uid, old.st_gid)  # root's change leaves the file to the service's user
            os.fsync(file.fileno())
        Path(name).replace(target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            Path(name).unlink()
        raise
    folder = os.open(target.parent, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _unusable(path: Path, error: OSError) -> ConfigurationError:
    return ConfigurationError(
        str(path), error.strerror or type(error).__name__, "a key file that can be read and written"
    )
