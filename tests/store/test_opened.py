"""What the operator writes under ``store``."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest

from wsguard.store.local import SQLiteStore
from wsguard.store.memory import MemoryStore
from wsguard.store.opened import open_store
from wsguard.vocabulary.bounds import DEFAULTS
from wsguard.vocabulary.errors import ConfigurationError


def opened(text: str, folder: Path) -> object:
    return open_store(text, limits=DEFAULTS, randomness=secrets.token_bytes, folder=folder)


def test_each_form_opens_its_store(tmp_path: Path) -> None:
    """A relative file stands in the configuration's folder."""
    assert isinstance(opened("memory", tmp_path), MemoryStore)
    assert isinstance(opened("sqlite:own.db", tmp_path), SQLiteStore)
    assert isinstance(opened(f"sqlite:{tmp_path}/absolute.db", Path("/nowhere")), SQLiteStore)
    assert isinstance(opened("sqlite:odd ?#%41é:.db", tmp_path), SQLiteStore)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["absolute.db", "odd ?#%41é:.db", "own.db"]


@pytest.mark.parametrize(
    ("text", "nearest"),
    [
        ("", None),
        ("redis://localhost", None),
        ("Memory", "memory"),
        ("memory:", "memory"),
        ("memroy", "memory"),
        ("sqlite", "sqlite:wsguard.db"),
        ("sqlite:", "sqlite:wsguard.db"),
        ("SQLite:own.db", "sqlite:own.db"),
        ("sqlit:own.db", "sqlite:own.db"),
        ("sqlite::memory:", "memory"),
        ("sqlite://own.db", "sqlite:own.db"),
        ("sqlite:///own.db", "sqlite:own.db"),
        ("sqlite:////var/own.db", "sqlite:/var/own.db"),
        ("sqlite:a\0b", None),
    ],
)
def test_anything_else_names_the_nearest_form(text: str, nearest: str | None, tmp_path: Path) -> None:
    """A store that is not the one meant forgets or shares what it should not: nothing is guessed."""
    with pytest.raises(ConfigurationError) as raised:
        opened(text, tmp_path)
    assert raised.value.key == "store"
    if nearest is not None:
        assert raised.value.nearest == nearest
    assert list(tmp_path.iterdir()) == []
