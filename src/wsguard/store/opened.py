"""`open_store`: from what the operator wrote under ``store`` to the store itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsguard.store.local import SQLiteStore
from wsguard.store.memory import MemoryStore
from wsguard.vocabulary.errors import ConfigurationError, nearest_name

if TYPE_CHECKING:
    from pathlib import Path

    from wsguard.engine.ports import Randomness, Store
    from wsguard.vocabulary.bounds import Limits

_MEMORY, _SQLITE = "memory", "sqlite"
_FORMS = '"memory", or "sqlite:FILE" for several workers and over restarts'


def open_store(text: str, *, limits: Limits, randomness: Randomness, folder: Path) -> Store:
    """
    Open the store that *text* names: ``memory``, or ``sqlite:FILE`` with a path from *folder*.

    Raises ConfigurationError for anything else and for a file that cannot be used, StoreError for one that is locked.
    """
    if text == _MEMORY:
        return MemoryStore(limits, randomness)
    scheme, colon, path = text.partition(":")
    if scheme != _SQLITE or not colon or not path or path.startswith((":", "//")) or "\0" in path:
        raise ConfigurationError("store", repr(text), _FORMS, _nearest(scheme, path))
    return SQLiteStore(folder / path, limits, randomness)


def _nearest(scheme: str, path: str) -> str | None:
    kind = nearest_name(scheme.strip().lower(), (_MEMORY, _SQLITE, "sqlite3"))
    if kind is None:
        return None
    if kind == _MEMORY or path == ":memory:":
        return _MEMORY
    # SQLAlchemy writes sqlite:///relative and sqlite:////absolute.
    named = path.strip().removeprefix("///") if path.startswith("///") else path.strip().lstrip(":/")
    return f"{_SQLITE}:{named or 'wsguard.db'}"
