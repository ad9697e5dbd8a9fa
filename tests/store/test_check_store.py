"""Both stores keep every rule of `check_store`, and the suite finds a store that breaks one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.store.opening import memory_store, sqlite_store
from wsguard.engine.ports import Store, Taken
from wsguard.store.local import SQLiteStore
from wsguard.store.memory import MemoryStore
from wsguard.testing import StoreResult, check_store
from wsguard.vocabulary.bounds import DEFAULTS
from wsguard.vocabulary.errors import StoreFull


def failures(results: list[StoreResult]) -> dict[str, str]:
    return {result.rule: result.failure for result in results if result.failure is not None}


def test_memory_keeps_every_rule() -> None:
    results = asyncio.run(check_store(memory_store))
    assert failures(results) == {}
    assert len(results) == 15


def test_sqlite_keeps_every_rule_and_those_of_shared_stores(tmp_path: Path) -> None:
    results = asyncio.run(check_store(lambda: sqlite_store(tmp_path)))
    assert failures(results) == {}
    assert len(results) == 18


def test_a_store_may_be_opened_by_a_coroutine() -> None:
    """Stores that connect first are opened so."""

    async def opened() -> Store:
        await asyncio.sleep(0)
        return memory_store()

    assert failures(asyncio.run(check_store(opened))) == {}


class TakesTwice(MemoryStore):
    async def take(self, space: str, key: bytes, *, mark: bytes, now: float) -> Taken:
        return await self.peek(space, key, now=now)


class TakesAfterLooking(MemoryStore):
    """Looks, waits, takes: what a store does that does not take atomically."""

    async def take(self, space: str, key: bytes, *, mark: bytes, now: float) -> Taken:
        found = await self.peek(space, key, now=now)
        await asyncio.sleep(0)
        await super().take(space, key, mark=mark, now=now)
        return found


class ForgetsTheMark(MemoryStore):
    async def take(self, space: str, key: bytes, *, mark: bytes, now: float) -> Taken:
        return Taken((await super().take(space, key, mark=mark, now=now)).value)


class TellsTheLastMark(MemoryStore):
    async def take(self, space: str, key: bytes, *, mark: bytes, now: float) -> Taken:
        found = await super().take(space, key, mark=mark, now=now)
        return found if found.mark is None else Taken(mark=mark)


class ExpiresLate(MemoryStore):
    async def put(self, space: str, key: bytes, value: bytes, *, expires_at: float, now: float) -> None:
        await super().put(space, key, value, expires_at=expires_at + 1, now=now)


class ExpiresEarly(MemoryStore):
    async def put(self, space: str, key: bytes, value: bytes, *, expires_at: float, now: float) -> None:
        await super().put(space, key, value, expires_at=expires_at - 1, now=now)


class IgnoresSpaces(MemoryStore):
    async def put(self, space: str, key: bytes, value: bytes, *, expires_at: float, now: float) -> None:
        await super().put("one", key, value, expires_at=expires_at, now=now)

    async def take(self, space: str, key: bytes, *, mark: bytes, now: float) -> Taken:
        return await super().take("one", key, mark=mark, now=now)

    async def peek(self, space: str, key: bytes, *, now: float) -> Taken:
        return await super().peek("one", key, now=now)


class EmptyIsAbsent(MemoryStore):
    async def peek(self, space: str, key: bytes, *, now: float) -> Taken:
        found = await super().peek(space, key, now=now)
        return Taken(found.value or None, found.mark or None)


class OneStream(MemoryStore):
    async def append(self, stream: str, value: bytes, **options: Any) -> int:
        return await super().append("one", value, **options)

    async def read(self, stream: str, *, after: int, now: float) -> Sequence[tuple[int, bytes]]:
        return await super().read("one", after=after, now=now)


class KeepsEveryRecord(MemoryStore):
    async def append(self, stream: str, value: bytes, **options: Any) -> int:
        options.pop("key", None)
        return await super().append(stream, value, **options)


class LooksAtNoRank(MemoryStore):
    async def append(self, stream: str, value: bytes, **options: Any) -> int:
        options.pop("rank", None)
        return await super().append(stream, value, **options)


class ReadsBackwards(MemoryStore):
    async def read(self, stream: str, *, after: int, now: float) -> Sequence[tuple[int, bytes]]:
        return list(reversed(await super().read(stream, after=after, now=now)))


class NeverCloses(MemoryStore):
    async def aclose(self) -> None:
        pass


class SameName(MemoryStore):
    @property
    def name(self) -> str:
        return "0000beef"


class BadName(MemoryStore):
    @property
    def name(self) -> str:
        return "Store:1"


class SaysItIsShared(MemoryStore):
    @property
    def is_shared(self) -> bool:
        return True


class Raises(MemoryStore):
    async def put(self, space: str, key: bytes, value: bytes, *, expires_at: float, now: float) -> None:
        raise StoreFull("always")


class OneConnection(MemoryStore):
    """A client whose answers come in order on one connection; a cancelled caller's is left there (CVE-2023-28858)."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._answers: list[Taken] = []

    async def take(self, space: str, key: bytes, *, mark: bytes, now: float) -> Taken:
        self._answers.append(await super().take(space, key, mark=mark, now=now))
        await asyncio.sleep(0)
        return self._answers.pop(0)


@pytest.mark.parametrize(
    ("kind", "rule"),
    [
        (TakesTwice, "value_is_taken_once"),
        (TakesAfterLooking, "exactly_one_of_many_takes"),
        (ForgetsTheMark, "value_is_taken_once"),
        (TellsTheLastMark, "value_is_taken_once"),
        (ExpiresLate, "value_is_there_till_the_expiry"),
        (ExpiresEarly, "mark_is_told_till_the_expiry"),
        (IgnoresSpaces, "places_are_apart"),
        (EmptyIsAbsent, "empty_is_not_absent"),
        (OneStream, "stream_is_ordered_and_complete"),
        (ReadsBackwards, "stream_is_ordered_and_complete"),
        (KeepsEveryRecord, "record_of_a_key_is_replaced"),
        (LooksAtNoRank, "record_of_a_key_is_replaced"),
        (NeverCloses, "closed_store_raises"),
        (SameName, "instances_are_apart"),
        (BadName, "name_is_eight_hexadecimal_digits"),
        (SaysItIsShared, "instances_share"),
        (SaysItIsShared, "exactly_one_of_all_instances_takes"),
        (SaysItIsShared, "reopened_store_remembers"),
        (Raises, "put_replaces"),
        (OneConnection, "cancelled_command_is_nobody_elses"),
    ],
)
def test_a_store_that_breaks_a_rule_is_found(kind: type[MemoryStore], rule: str) -> None:
    """A suite that everything passes protects nobody."""
    found = failures(asyncio.run(check_store(lambda: kind(DEFAULTS, lambda count: b"\xab" * count))))
    assert rule in found


class ForgetsNumbers(SQLiteStore):
    """Counts its records anew in each process."""

    async def append(self, stream: str, value: bytes, **options: Any) -> int:
        await super().append(stream, value, **options)
        self._count = getattr(self, "_count", 0) + 1
        return self._count


def test_numbers_that_go_back_are_found(tmp_path: Path) -> None:
    """A reader that has gone past them would never see such a record."""
    found = failures(
        asyncio.run(check_store(lambda: ForgetsNumbers(tmp_path / "x.db", DEFAULTS, lambda count: b"\xab" * count)))
    )
    assert {"instances_share", "appends_of_all_instances_are_ordered"} <= found.keys()


def test_a_store_that_hangs_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rule has an end even where the store has none."""

    class Hangs(MemoryStore):
        async def read(self, stream: str, *, after: int, now: float) -> Sequence[tuple[int, bytes]]:
            await asyncio.Event().wait()
            return []

    monkeypatch.setattr("wsguard.testing.stores._RULE_SECONDS", 0.2)
    found = failures(asyncio.run(check_store(lambda: Hangs(DEFAULTS, lambda count: b"\xab" * count))))
    assert found["stream_is_ordered_and_complete"] == "not done in 0 s"
