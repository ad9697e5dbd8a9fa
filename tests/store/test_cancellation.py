"""A caller who is cancelled in the middle of a command: his answer is nobody else's, and nothing is done by half."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Coroutine, Generator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.store.opening import END, NOW, SECONDS, SPACE, Hanging, in_thread, run, sqlite_store
from wsguard.engine.ports import Taken
from wsguard.store.local import SQLiteStore
from wsguard.vocabulary.errors import StoreError

Command = Callable[[SQLiteStore], Coroutine[Any, Any, Any]]
STREAM = "revocations"


async def put(store: SQLiteStore, key: bytes = b"put", value: bytes = b"whole") -> None:
    await store.put(SPACE, key, value, expires_at=END, now=NOW)


async def peek(store: SQLiteStore, key: bytes = b"kept") -> Taken:
    return await store.peek(SPACE, key, now=NOW)


async def take(store: SQLiteStore, key: bytes = b"kept", mark: bytes = b"cancelled") -> Taken:
    return await store.take(SPACE, key, mark=mark, now=NOW)


async def append(store: SQLiteStore, value: bytes = b"cancelled") -> int:
    return await store.append(STREAM, value, expires_at=END, now=NOW)


async def read(store: SQLiteStore) -> list[tuple[int, bytes]]:
    return list(await store.read(STREAM, after=0, now=NOW))


COMMANDS: list[Command] = [put, peek, take, append, read]


async def cancel(task: asyncio.Task[Any]) -> None:
    task.cancel()
    await asyncio.wait((task,))
    assert task.cancelled()


async def begin(store: SQLiteStore, command: Command) -> asyncio.Task[Any]:
    """Let *command* go up to where it waits for its answer."""
    task = asyncio.ensure_future(command(store))
    await asyncio.sleep(0)
    assert not task.done()
    return task


@contextmanager
def watched(store: SQLiteStore) -> Generator[tuple[threading.Event, threading.Event]]:
    """Tell when the thread begins a command, and when it has ended one."""
    begun, ended = threading.Event(), threading.Event()
    thread: Any = store._thread
    perform = thread._perform

    def told(jobs: Any) -> None:
        begun.set()
        try:
            perform(jobs)
        finally:
            ended.set()

    thread._perform = told
    try:
        yield begun, ended
    finally:
        thread._perform = perform


class Before:
    """The thread is busy with another command; this one's turn never comes."""

    done = False

    async def cancelled(self, store: SQLiteStore, path: Path, command: Command) -> None:
        hanging = Hanging(store)
        await hanging.started()
        await cancel(await begin(store, command))
        hanging.go_on()
        await hanging.task


class Within:
    """The thread is in the middle of one of its statements."""

    done = True

    async def cancelled(self, store: SQLiteStore, path: Path, command: Command) -> None:
        reached, go_on = threading.Event(), threading.Event()

        def stop() -> int:
            reached.set()
            go_on.wait()
            return 0

        # It is called within each statement.
        await in_thread(store, lambda connection: connection.set_progress_handler(stop, 1))
        task = await begin(store, command)
        await asyncio.to_thread(reached.wait)
        await cancel(task)
        go_on.set()
        await in_thread(store, lambda connection: connection.set_progress_handler(None, 1))


class Locked:
    """The thread waits in it for another connection's lock."""

    done = True

    async def cancelled(self, store: SQLiteStore, path: Path, command: Command) -> None:
        with closing(sqlite3.connect(path, isolation_level=None)) as other, watched(store) as (begun, ended):
            other.execute("BEGIN IMMEDIATE")
            task = await begin(store, command)
            await asyncio.to_thread(begun.wait)
            await cancel(task)
            assert not ended.is_set()
            other.execute("ROLLBACK")


class After:
    """The thread has done it; the answer is on its way to the loop."""

    done = True

    async def cancelled(self, store: SQLiteStore, path: Path, command: Command) -> None:
        with watched(store) as (_, ended):
            task = await begin(store, command)
            assert ended.wait(SECONDS)  # and not a turn of the loop, which would bring the answer
            await cancel(task)


async def check_rest(store: SQLiteStore, command: Command, *, done: bool) -> None:
    """The next ones get their own answers; what was cancelled is there whole, or not at all."""
    answers = await asyncio.gather(
        peek(store, b"other"), take(store, b"other", b"next"), append(store, b"next"), peek(store, b"other")
    )
    assert answers[0] == Taken(b"other's")
    assert answers[1] == Taken(b"other's")
    assert answers[3] == Taken(mark=b"next")
    assert await peek(store, b"put") == (Taken(b"whole") if command is put and done else Taken())
    assert await peek(store) == (Taken(mark=b"cancelled") if command is take and done else Taken(b"kept"))
    values = [value for _, value in await read(store)]
    assert values == ([b"cancelled", b"next"] if command is append and done else [b"next"])


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.__name__)
@pytest.mark.parametrize("moment", [Before(), Within(), After()], ids=lambda moment: type(moment).__name__)
def test_cancelled_command(moment: Before | Within | After, command: Command, tmp_path: Path) -> None:
    """B-STORE-04: cancelled before its turn, within a statement, or with its answer under way (CVE-2023-28858)."""

    async def scenario() -> None:
        store = sqlite_store(tmp_path)
        await put(store, b"kept", b"kept")
        await put(store, b"other", b"other's")
        await moment.cancelled(store, tmp_path / "wsguard.db", command)
        await check_rest(store, command, done=moment.done)
        await store.aclose()

    run(scenario)


@pytest.mark.parametrize("command", [put, take, append], ids=lambda command: command.__name__)
def test_cancelled_while_it_waits_for_a_lock(command: Command, tmp_path: Path) -> None:
    """It is done when the lock is free, and its answer is dropped."""

    async def scenario() -> None:
        store = sqlite_store(tmp_path)
        await put(store, b"kept", b"kept")
        await put(store, b"other", b"other's")
        await Locked().cancelled(store, tmp_path / "wsguard.db", command)
        await check_rest(store, command, done=True)
        await store.aclose()

    run(scenario)


def test_cancelled_at_every_turn_of_the_loop(tmp_path: Path) -> None:
    """However far it has come: 40 takes, each cancelled a turn later, until one ends before it is cancelled."""

    async def scenario() -> None:
        store = sqlite_store(tmp_path)
        ended = 0
        for turns in range(40):
            key, other = b"key %d" % turns, b"other %d" % turns
            await put(store, key, key)
            await put(store, other, other)
            task = asyncio.ensure_future(take(store, key))
            following = asyncio.ensure_future(take(store, other))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait((task,))
            if not task.cancelled():
                assert task.result() == Taken(key)
                ended += 1
            assert await following == Taken(other)
            assert await take(store, key, b"later") in (Taken(key), Taken(mark=b"cancelled"))
        await store.aclose()
        print(f"{ended} of 40 ended before they were cancelled")

    run(scenario)


def test_errors_of_the_cancelled_are_nobody_elses(tmp_path: Path) -> None:
    """Nor does anything complain later that nobody looked at them."""

    async def scenario() -> None:
        store = sqlite_store(tmp_path)
        await put(store)
        (tmp_path / "wsguard.db").rename(tmp_path / "aside.db")
        with watched(store) as (_, ended):
            task = await begin(store, take)
            assert ended.wait(SECONDS)
            await cancel(task)
        (tmp_path / "aside.db").rename(tmp_path / "wsguard.db")
        assert await peek(store, b"put") == Taken(b"whole")
        await store.aclose()
        with pytest.raises(StoreError, match="closed"):
            await peek(store)

    run(scenario)
