"""Stores for the tests of this folder, and other processes that use the same file."""

from __future__ import annotations

import asyncio
import json
import secrets
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from wsguard.store.local import SQLiteStore, _Command, _How
from wsguard.store.memory import MemoryStore
from wsguard.vocabulary.bounds import DEFAULTS, Limits

ROOT = Path(__file__).parents[2]
NOW = 1_900_000_000.0
END = NOW + 60
SPACE = "tickets"
SECONDS = 30.0
"""How long a test waits for what must come."""


def sqlite_store(folder: Path, limits: Limits = DEFAULTS) -> SQLiteStore:
    return SQLiteStore(folder / "wsguard.db", limits, secrets.token_bytes)


def memory_store(limits: Limits = DEFAULTS) -> MemoryStore:
    return MemoryStore(limits, secrets.token_bytes)


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run *scenario* on a loop of its own."""
    asyncio.run(asyncio.wait_for(scenario(), SECONDS))


async def in_thread(store: SQLiteStore, function: Callable[[sqlite3.Connection], object]) -> Any:
    """Return what *function* returns in the store's thread, given its connection."""
    return await store._thread.run(_Command(_How.READ, function))


class Hanging:
    """A command that keeps the store's thread busy till it is let go on."""

    def __init__(self, store: SQLiteStore) -> None:
        self._started, self._go_on = threading.Event(), threading.Event()
        self.task = asyncio.ensure_future(in_thread(store, self._wait))

    def _wait(self, _: sqlite3.Connection) -> None:
        self._started.set()
        self._go_on.wait()

    async def started(self) -> None:
        await asyncio.to_thread(self._started.wait)

    def go_on(self) -> None:
        self._go_on.set()


class Process:
    """A Python process that talks in lines; it ends with its input."""

    def __init__(self, module: str, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        self.pid = self._process.pid

    def say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")

    def hear(self) -> Any:
        """Return the next line it prints, which is JSON."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"{self._process.args} ended with {self._process.wait(SECONDS)}"
        return json.loads(line)

    def kill(self) -> None:
        """End it without a warning."""
        self._process.kill()
        self._process.wait(SECONDS)

    def end(self) -> None:
        """Let it end by itself."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._process.stdout:
            with suppress(BrokenPipeError):
                self._process.stdin.close()
            try:
                self._process.wait(SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()
                raise


@contextmanager
def process(module: str, *arguments: str) -> Generator[Process]:
    """Start ``python -m tests.store.MODULE`` for as long as the block runs."""
    started = Process(f"tests.store.{module}", *arguments)
    try:
        yield started
    finally:
        started.end()
