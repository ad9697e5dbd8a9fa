"""Both stores against a model of a few lines, through sequences that nobody would write down."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from tests.store.opening import NOW, memory_store, sqlite_store
from wsguard.engine.ports import Store, Taken
from wsguard.vocabulary.bounds import Limits
from wsguard.vocabulary.errors import StoreFull

T = TypeVar("T")
LIMITS = Limits(store_values=16, store_bytes=64 * 1024, store_value=16 * 1024)
SPACES = st.sampled_from(["a", "b"])
KEYS = st.integers(0, 11).map(lambda number: b"key%d" % number)
VALUES = st.sampled_from([b"", b"value", b"\x00" * 100, b"v" * 16 * 1024])
SECONDS = st.integers(0, 20)


class AgainstModel(RuleBasedStateMachine):
    """Values: place → (value, mark, expiry). Records: (number, stream, value, expiry, key, rank)."""

    def open(self) -> Store:
        raise NotImplementedError  # each kind of store has a class of its own below

    @initialize()
    def begin(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.stores = [self.open()]
        self.now = NOW
        self.values: dict[tuple[str, bytes], tuple[bytes, bytes | None, float]] = {}
        self.records: list[tuple[int, str, bytes, float, bytes | None, int]] = []
        self.number = 0

    def teardown(self) -> None:
        if hasattr(self, "loop"):
            for store in self.stores:
                self.do(store.aclose())
            self.loop.close()

    def do(self, command: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(command)

    def store(self, which: int) -> Store:
        return self.stores[which % len(self.stores)]

    @rule(seconds=SECONDS)
    def wait(self, seconds: int) -> None:
        self.now += seconds
        self.values = {place: value for place, value in self.values.items() if value[2] > self.now}
        self.records = [record for record in self.records if record[3] > self.now]

    @rule(which=st.integers(0, 1), space=SPACES, key=KEYS, value=VALUES, lifetime=SECONDS)
    def put(self, which: int, space: str, key: bytes, value: bytes, lifetime: int) -> None:
        others = [kept[0] for place, kept in self.values.items() if place != (space, key)]
        fits = len(others) < LIMITS.store_values and sum(map(len, others)) + len(value) <= LIMITS.store_bytes
        try:
            self.do(self.store(which).put(space, key, value, expires_at=self.now + lifetime, now=self.now))
        except StoreFull:
            assert not fits
            return
        assert fits
        self.values.pop((space, key), None)
        if lifetime:
            self.values[space, key] = (value, None, self.now + lifetime)

    @rule(which=st.integers(0, 1), space=SPACES, key=KEYS)
    def peek(self, which: int, space: str, key: bytes) -> None:
        assert self.do(self.store(which).peek(space, key, now=self.now)) == self.expected(space, key)

    @rule(which=st.integers(0, 1), space=SPACES, key=KEYS, mark=st.binary(max_size=3))
    def take(self, which: int, space: str, key: bytes, mark: bytes) -> None:
        expected = self.expected(space, key)
        assert self.do(self.store(which).take(space, key, mark=mark, now=self.now)) == expected
        if expected.value is not None:
            self.values[space, key] = (expected.value, mark, self.values[space, key][2])

    def expected(self, space: str, key: bytes) -> Taken:
        value, mark, _ = self.values.get((space, key), (None, None, 0.0))
        return Taken(value) if mark is None else Taken(None, mark)

    @rule(
        which=st.integers(0, 1),
        stream=SPACES,
        value=VALUES,
        lifetime=SECONDS,
        key=st.none() | st.sampled_from([b"x", b"y"]),
        rank=st.integers(0, 3),
    )
    def append(self, which: int, stream: str, value: bytes, lifetime: int, key: bytes | None, rank: int) -> None:
        before = [record for record in self.records if key is not None and (record[1], record[4]) == (stream, key)]
        kept = [record[2] for record in self.records if record not in before]
        fits = len(kept) < LIMITS.store_values and sum(map(len, kept)) + len(value) <= LIMITS.store_bytes
        try:
            command = self.store(which).append(
                stream, value, expires_at=self.now + lifetime, now=self.now, key=key, rank=rank
            )
            number = self.do(command)
        except StoreFull:
            assert not fits
            return
        if any(record[5] > rank for record in before):
            assert [number] == [record[0] for record in before]
            return
        assert fits
        assert number > self.number
        self.number = number
        self.records = [record for record in self.records if record not in before]
        if lifetime:
            self.records.append((number, stream, value, self.now + lifetime, key, rank))

    @rule(which=st.integers(0, 1), stream=SPACES, back=st.integers(0, 20))
    def read(self, which: int, stream: str, back: int) -> None:
        after = self.number - back
        expected = [(each[0], each[2]) for each in self.records if each[1] == stream and each[0] > after]
        assert list(self.do(self.store(which).read(stream, after=after, now=self.now))) == expected


class AgainstMemory(AgainstModel):
    def open(self) -> Store:
        return memory_store(LIMITS)


class AgainstSQLite(AgainstModel):
    """The same, where two have the file open and either may be opened again at any time."""

    def open(self) -> Store:
        return sqlite_store(self.folder, LIMITS)

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="wsguard-store-"))
        super().begin()
        self.stores.append(self.open())

    def teardown(self) -> None:
        super().teardown()
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder)

    @rule(which=st.integers(0, 1))
    def reopen(self, which: int) -> None:
        self.do(self.stores[which].aclose())
        self.stores[which] = self.open()


AgainstMemory.TestCase.settings = settings(max_examples=100, stateful_step_count=60)
AgainstSQLite.TestCase.settings = settings(max_examples=20, stateful_step_count=40)
TestMemory = AgainstMemory.TestCase
TestSQLite = AgainstSQLite.TestCase
