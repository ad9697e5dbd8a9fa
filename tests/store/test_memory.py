"""The memory store stays within its bounds, and forgets what has expired without looking at the rest."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
import tracemalloc
from typing import Any

import pytest

from tests.store.opening import END, NOW, ROOT, SPACE, memory_store, run
from wsguard.engine.ports import Taken
from wsguard.engine.store_keys import hashed_key
from wsguard.vocabulary.bounds import DEFAULTS, Limits
from wsguard.vocabulary.errors import StoreError, StoreFull

VALUE = b"v" * 400


def test_a_hundred_thousand_values_are_its_bound() -> None:
    """Who may buy tickets cannot fill the memory; and when they have expired there is room at once."""

    async def scenario() -> None:
        store = memory_store()
        keys = [hashed_key(str(number)) for number in range(DEFAULTS.store_values)]
        for number, key in enumerate(keys):
            await store.put(SPACE, key, VALUE, expires_at=END + number % 7, now=NOW)
        with pytest.raises(StoreFull):
            await store.put(SPACE, b"one more", VALUE, expires_at=END, now=NOW)
        await store.put(SPACE, keys[0], VALUE, expires_at=END, now=NOW)  # in the place of one that is there
        assert (await store.take(SPACE, keys[1], mark=b"m", now=NOW)).value is not None
        with pytest.raises(StoreFull):  # a taken one keeps its place, for it tells a replay
            await store.put(SPACE, b"one more", VALUE, expires_at=END, now=NOW)
        await store.append("revocations", VALUE, expires_at=END, now=NOW)  # streams have room of their own
        began = time.process_time()
        for number in range(200):
            await store.put(SPACE, b"%d" % number, VALUE, expires_at=END + 99, now=END + 7)
        assert time.process_time() - began < 0.5  # looking at all of them 200 times takes seconds
        for number in range(200, len(keys) // 4):
            await store.put(SPACE, b"%d" % number, VALUE, expires_at=END + 99, now=END + 7)
        assert len(store._values) == len(keys) // 4

    run(scenario)


def test_a_value_costs_little_more_than_its_bytes() -> None:
    """So that the bound in values is one in memory."""

    async def scenario() -> None:
        store = memory_store()
        count = 10_000
        tracemalloc.start()
        for number in range(count):
            value = VALUE + number.to_bytes(4)
            await store.put(SPACE, hashed_key(str(number)), value, expires_at=END + number % 7, now=NOW)
        used = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        print(f"{used / count:.0f} bytes for a value of {len(VALUE) + 4}")
        assert used / count < 1000

    run(scenario)


def test_values_together_have_a_bound_in_bytes() -> None:
    """A few large ones fill it as well as many small ones."""

    async def scenario() -> None:
        store = memory_store(Limits(store_bytes=64 * 1024, store_value=16 * 1024))
        for number in range(4):
            await store.put(SPACE, b"%d" % number, b"v" * 16 * 1024, expires_at=END, now=NOW)
        with pytest.raises(StoreFull):
            await store.put(SPACE, b"more", b"v", expires_at=END, now=NOW)
        await store.put(SPACE, b"0", b"small", expires_at=END, now=NOW)
        await store.put(SPACE, b"more", b"v", expires_at=END, now=NOW)
        assert await store.peek(SPACE, b"1", now=NOW) == Taken(b"v" * 16 * 1024)

    run(scenario)


def test_one_key_put_again_and_again_takes_one_place() -> None:
    """What is replaced leaves nothing behind that grows."""

    async def scenario() -> None:
        store = memory_store()
        for number in range(10_000):
            await store.put(SPACE, b"key", VALUE, expires_at=END + number, now=NOW)
        assert len(store._values) == 1
        assert len(store._values._ends) < 100

    run(scenario)


def test_a_stream_forgets_what_has_expired() -> None:
    """Revocations come for years."""

    async def scenario() -> None:
        store = memory_store()
        for number in range(20_000):
            await store.append("revocations", VALUE, expires_at=NOW + number + 100, now=NOW + number)
        assert len(store._records) < 150
        assert len(store._streams["revocations"].numbers) < 400
        assert [number for number, _ in await store.read("revocations", after=0, now=NOW + 19_999)] == list(
            range(19_901, 20_001)
        )

    run(scenario)


def test_what_is_no_value_is_refused() -> None:
    """Keys are hashes of ours; what is longer is no key. A value without an end would stay for ever."""

    async def scenario() -> None:
        store = memory_store()
        good: dict[str, Any] = {"space": SPACE, "key": b"key", "value": b"value", "expires_at": END, "now": NOW}
        changes: list[dict[str, Any]] = [
            {"space": ""},
            {"space": "x" * 65},
            {"space": "é"},
            {"key": b""},
            {"key": b"x" * 65},
            {"value": b"x" * (DEFAULTS.store_value + 1)},
            {"expires_at": float("inf")},
            {"expires_at": float("nan")},
        ]
        for change in changes:
            with pytest.raises(StoreError):
                await store.put(**{**good, **change})
        with pytest.raises(StoreError):
            await store.take(SPACE, b"key", mark=b"x" * (DEFAULTS.store_value + 1), now=NOW)
        longest: dict[str, Any] = {"value": b"x" * DEFAULTS.store_value, "key": b"x" * 64, "space": "x" * 64}
        await store.put(**{**good, **longest})
        await store.put(**good)
        assert await store.take(SPACE, b"key", mark=b"m", now=float("nan")) == Taken()
        assert await store.take(SPACE, b"key", mark=b"m", now=NOW) == Taken(b"value")

    run(scenario)


def test_threads_take_once_too() -> None:
    """An app may run a loop in each of its threads."""
    store = memory_store()
    asyncio.run(store.put(SPACE, b"key", VALUE, expires_at=END, now=NOW))
    start = threading.Barrier(8)
    found: list[Taken] = []

    def take() -> None:
        start.wait()
        found.extend(asyncio.run(_take_often()))

    async def _take_often() -> list[Taken]:
        return [await store.take(SPACE, b"key", mark=b"m", now=NOW) for _ in range(50)]

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 400
    assert sum(taken.value is not None for taken in found) == 1


def test_a_fork_makes_two_stores() -> None:
    """A server that loads the app and then forks: one ticket would open a socket in every worker, under one name."""
    printed = subprocess.run(
        [sys.executable, "-m", "tests.store.forking_process", "memory", "used"],
        cwd=ROOT, capture_output=True, text=True, check=True, timeout=30,
    ).stdout  # fmt: skip
    child, parent = (json.loads(line) for line in printed.splitlines())
    assert child[1] != parent[1]
    assert (child[2], parent[2]) == (False, True)
    assert (child[3], parent[3]) == (1, 1)  # a revocation counts in both
