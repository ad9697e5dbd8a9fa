"""The store for the tests of this folder."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from wsguard.store.memory import MemoryStore
from wsguard.vocabulary.bounds import DEFAULTS, Limits

ROOT = Path(__file__).parents[2]
NOW = 1_900_000_000.0
END = NOW + 60
SPACE = "tickets"
SECONDS = 30.0
"""How long a test waits for what must come."""


def memory_store(limits: Limits = DEFAULTS) -> MemoryStore:
    return MemoryStore(limits, secrets.token_bytes)


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run *scenario* on a loop of its own."""
    asyncio.run(asyncio.wait_for(scenario(), SECONDS))
