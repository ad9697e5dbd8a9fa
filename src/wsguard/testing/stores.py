"""
What every store must do, as a suite over any of them: `check_store`.

A store's *now* is the caller's, so nothing here waits for time to pass; the times are those of today, because a store
that lives elsewhere may also count by its own clock.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from wsguard.engine.ports import Store, Taken
from wsguard.engine.store_keys import hashed_key
from wsguard.vocabulary.errors import StoreError

OpenStore = Callable[[], Store | Awaitable[Store]]
"""Opens the store under test: anew for each rule, and once more where several have it open."""

_RULE_SECONDS = 30.0
_AT_ONCE = 200
_APPENDS_AT_ONCE = 40
"""Fewer, because a store may write each to the disk before it answers."""
_STEPS = 12
"""How many turns of the loop a command gets before it is cancelled: 0, 1, 2 … below this."""
_LIFETIME = 60.0
_SPACE, _STREAM = "check.values", "check.stream"
_MARK = b"taken by the first"


@dataclass(frozen=True)
class StoreResult:
    """How a store did by one rule: *failure* says what was seen instead, or is None."""

    rule: str
    failure: str | None = None


class _Broken(Exception):
    """What the rule saw."""


class _Bench:
    """One rule's stores, its own keys and streams, and the time."""

    def __init__(self, rule: str, open_store: OpenStore) -> None:
        self._rule = rule
        self._open_store = open_store
        self._opened: list[Store] = []
        self.now = float(int(time.time()))
        self._begun = time.time_ns()  # a shared store still holds what an earlier run has left

    async def open(self) -> Store:
        made = self._open_store()
        store = await made if isinstance(made, Awaitable) else made
        self._opened.append(store)
        return store

    async def close_all(self) -> None:
        while self._opened:
            await self._opened.pop().aclose()

    def key(self, name: object = "") -> bytes:
        return hashed_key(self._rule, str(self._begun), str(name))

    def stream(self, name: str = "") -> str:
        return f"{_STREAM}.{self.key(name).hex()[:16]}"

    async def put(self, store: Store, key: bytes, value: bytes = b"value", lifetime: float = _LIFETIME) -> None:
        await store.put(_SPACE, key, value, expires_at=self.now + lifetime, now=self.now)

    async def take(self, store: Store, key: bytes, mark: bytes = _MARK, later: float = 0) -> Taken:
        return await store.take(_SPACE, key, mark=mark, now=self.now + later)

    async def peek(self, store: Store, key: bytes, later: float = 0) -> Taken:
        return await store.peek(_SPACE, key, now=self.now + later)

    async def append(
        self, store: Store, value: bytes, stream: str = "", lifetime: float = _LIFETIME, **keyed: Any
    ) -> int:
        return await store.append(self.stream(stream), value, expires_at=self.now + lifetime, now=self.now, **keyed)

    async def read(
        self, store: Store, after: int = 0, stream: str = "", later: float = 0
    ) -> Sequence[tuple[int, bytes]]:
        found = await store.read(self.stream(stream), after=after, now=self.now + later)
        return [(number, value) for number, value in found]


async def check_store(open_store: OpenStore) -> list[StoreResult]:
    """
    Try every rule on the store that *open_store* opens; it is right when no result has a ``failure``.

    *open_store* is called several times. Where the store says that it is shared, each call must open the same one: two
    instances at a time have to see each other. It is closed here. Rules for shared stores are left out for others.
    """
    probe = _Bench("probe", open_store)
    shared = (await probe.open()).is_shared
    await probe.close_all()
    rules = _RULES + (_SHARED_RULES if shared else _LONE_RULES)
    return [await _try(rule, open_store) for rule in rules]


async def _try(rule: Callable[[_Bench], Coroutine[Any, Any, None]], open_store: OpenStore) -> StoreResult:
    name = rule.__name__.removeprefix("_")
    bench = _Bench(name, open_store)
    try:
        async with asyncio.timeout(_RULE_SECONDS):
            try:
                await rule(bench)
            finally:
                await bench.close_all()
    except _Broken as broken:
        return StoreResult(name, str(broken))
    except TimeoutError:
        return StoreResult(name, f"not done in {_RULE_SECONDS:.0f} s")
    except Exception as error:  # noqa: BLE001 - whatever a store raises where it must not is the result
        return StoreResult(name, f"raised {type(error).__name__}: {error}")
    return StoreResult(name)


def _expect(found: object, wanted: object, what: str) -> None:
    if found != wanted:
        raise _Broken(f"{what}: {found!r}, expected {wanted!r}")


async def _name_is_eight_hexadecimal_digits(bench: _Bench) -> None:
    store = await bench.open()
    if re.fullmatch(r"[0-9a-f]{8}", store.name) is None:
        raise _Broken(f"name: {store.name!r}")


async def _value_is_taken_once(bench: _Bench) -> None:
    store, key = await bench.open(), bench.key()
    _expect(await bench.take(store, key), Taken(), "take of what was never put")
    await bench.put(store, key, b"\x00 a record \xff")
    _expect(await bench.take(store, key), Taken(b"\x00 a record \xff"), "the first take")
    _expect(await bench.take(store, key, b"another mark"), Taken(mark=_MARK), "the second take")
    _expect(await bench.take(store, key), Taken(mark=_MARK), "the third take, after another mark was offered")


async def _peek_takes_nothing(bench: _Bench) -> None:
    store, key = await bench.open(), bench.key()
    _expect(await bench.peek(store, key), Taken(), "peek at what was never put")
    await bench.put(store, key)
    for turn in ("first", "second"):
        _expect(await bench.peek(store, key), Taken(b"value"), f"the {turn} peek")
    await bench.take(store, key)
    _expect(await bench.peek(store, key), Taken(mark=_MARK), "peek after the take")


async def _empty_is_not_absent(bench: _Bench) -> None:
    store, key = await bench.open(), bench.key()
    await bench.put(store, key, b"")
    _expect(await bench.peek(store, key), Taken(b""), "peek at an empty value")
    _expect(await bench.take(store, key, b""), Taken(b""), "take of an empty value")
    _expect(await bench.take(store, key), Taken(mark=b""), "take after an empty mark")


async def _mark_is_told_till_the_expiry(bench: _Bench) -> None:
    store, key = await bench.open(), bench.key()
    await bench.put(store, key)
    await bench.take(store, key)
    _expect(await bench.take(store, key, later=_LIFETIME - 1), Taken(mark=_MARK), "take a second before the expiry")
    _expect(await bench.peek(store, key, later=_LIFETIME), Taken(), "peek at the second of the expiry")
    _expect(await bench.take(store, key, later=_LIFETIME), Taken(), "take at the second of the expiry")


async def _value_is_there_till_the_expiry(bench: _Bench) -> None:
    store, key, other = await bench.open(), bench.key(), bench.key("other")
    await bench.put(store, key)
    await bench.put(store, other)
    _expect(await bench.take(store, other, later=_LIFETIME), Taken(), "take at the second of the expiry")
    _expect(await bench.take(store, key, later=_LIFETIME - 1), Taken(b"value"), "take a second before the expiry")
    await bench.put(store, bench.key("late"), lifetime=0)
    _expect(await bench.take(store, bench.key("late")), Taken(), "take of what had expired when it was put")


async def _places_are_apart(bench: _Bench) -> None:
    store, key = await bench.open(), bench.key()
    keys = [key, key[:-1], key + b"\x00", b"\x00" + key, key.hex().encode(), key.swapcase()]
    for number, each in enumerate(dict.fromkeys(keys)):
        await bench.put(store, each, b"%d" % number)
    await store.put("check.other", key, b"other space", expires_at=bench.now + _LIFETIME, now=bench.now)
    for number, each in enumerate(dict.fromkeys(keys)):
        _expect(await bench.take(store, each), Taken(b"%d" % number), f"take of key {number}")
    found = await store.take("check.other", key, mark=_MARK, now=bench.now)
    _expect(found, Taken(b"other space"), "take of the same key in another space")


async def _put_replaces(bench: _Bench) -> None:
    store, key = await bench.open(), bench.key()
    await bench.put(store, key, b"first", lifetime=_LIFETIME * 2)
    await bench.put(store, key, b"second")
    _expect(await bench.peek(store, key, later=_LIFETIME), Taken(), "the replaced value after the new one's expiry")
    _expect(await bench.take(store, key), Taken(b"second"), "take of the replaced value")
    await bench.put(store, key, b"third", lifetime=_LIFETIME * 2)
    _expect(await bench.take(store, key, later=_LIFETIME), Taken(b"third"), "take of what replaced a mark")


async def _exactly_one_of_many_takes(bench: _Bench) -> None:
    store, key = await bench.open(), bench.key()
    await bench.put(store, key)
    marks = [b"mark %d" % number for number in range(_AT_ONCE)]
    found = await asyncio.gather(*(bench.take(store, key, mark) for mark in marks))
    _expect_one_winner(found, marks)


def _expect_one_winner(found: Sequence[Taken], marks: Sequence[bytes]) -> None:
    winners = [position for position, taken in enumerate(found) if taken.value is not None]
    _expect(len(winners), 1, f"how many of {len(found)} takes at once got the value")
    losers = {taken.mark for taken in found if taken.value is None}
    _expect(losers, {marks[winners[0]]}, "the marks that the others were told")


async def _stream_is_ordered_and_complete(bench: _Bench) -> None:
    store = await bench.open()
    _expect(await bench.read(store), [], "read of a stream that nobody has appended to")
    numbers = [await bench.append(store, b"%d" % position) for position in range(5)]
    if numbers[0] < 1 or any(later <= earlier for earlier, later in pairwise(numbers)):
        raise _Broken(f"numbers from 1 on that grow: {numbers}")
    written = [(number, b"%d" % position) for position, number in enumerate(numbers)]
    _expect(await bench.read(store), written, "read from the start")
    _expect(await bench.read(store, after=numbers[2]), written[3:], "read behind the third")
    _expect(await bench.read(store, after=numbers[4]), [], "read behind the last")
    await bench.append(store, b"elsewhere", "other")
    _expect(await bench.read(store, after=numbers[4]), [], "read after an append to another stream")
    at_once = [b"at once %d" % position for position in range(_APPENDS_AT_ONCE)]
    got = await asyncio.gather(*(bench.append(store, value) for value in at_once))
    expected = sorted(zip(got, at_once, strict=True))
    _expect(await bench.read(store, after=numbers[4]), expected, f"read after {_APPENDS_AT_ONCE} appends at once")


async def _record_is_there_till_the_expiry(bench: _Bench) -> None:
    store = await bench.open()
    first = await bench.append(store, b"short")
    second = await bench.append(store, b"long", lifetime=_LIFETIME * 2)
    both = [(first, b"short"), (second, b"long")]
    _expect(await bench.read(store, later=_LIFETIME - 1), both, "read a second before the first's expiry")
    _expect(await bench.read(store, later=_LIFETIME), both[1:], "read at the second of the first's expiry")
    _expect(await bench.read(store, later=_LIFETIME * 2), [], "read when all have expired")
    bench.now += _LIFETIME * 3  # what has expired may be gone by now; its number is not given again
    third = await bench.append(store, b"new")
    if third <= second:
        raise _Broken(f"numbers never go back: {third} after {second}")


async def _record_of_a_key_is_replaced(bench: _Bench) -> None:
    store, key, other = await bench.open(), bench.key(), bench.key("other")
    lone = await bench.append(store, b"without a key")
    first = await bench.append(store, b"first", key=key, rank=5)
    apart = [
        (lone, b"without a key"),
        (await bench.append(store, b"of another key", key=other, rank=1), b"of another key"),
    ]
    await bench.append(store, b"elsewhere", "other", key=key, rank=9)
    for value, rank in ((b"same rank", 5), (b"higher rank", 6.5)):
        number = await bench.append(store, value, key=key, rank=rank)
        _expect(await bench.read(store, after=first), [*apart[1:], (number, value)], f"read behind the first, {value}")
        _expect(await bench.read(store), [*apart, (number, value)], f"read from the start, {value}")
    _expect(await bench.append(store, b"lower rank", key=key, rank=6), number, "the number of one of a lower rank")
    _expect(await bench.read(store), [*apart, (number, b"higher rank")], "read after one of a lower rank")
    bench.now += _LIFETIME
    late = await bench.append(store, b"after its expiry", key=key, rank=1)
    _expect(await bench.read(store), [(late, b"after its expiry")], "read of one that follows an expired one")


async def _cancelled_command_is_nobody_elses(bench: _Bench) -> None:
    """B-STORE-04: the next caller gets his own answer, and the command was done wholly or not at all."""
    store = await bench.open()
    for steps in range(_STEPS):
        key, other = bench.key(("cancelled", steps)), bench.key(("next", steps))
        await bench.put(store, key, b"of the cancelled")
        await bench.put(store, other, b"of the next")
        await _cancel_after(steps, bench.take(store, key))
        _expect(await bench.take(store, other), Taken(b"of the next"), f"the next take, cancelled after {steps} steps")
        found = await bench.take(store, key, b"later")
        if found not in (Taken(b"of the cancelled"), Taken(mark=_MARK)):
            raise _Broken(f"a take cancelled after {steps} steps left {found!r}")
        expected = Taken(mark=b"later" if found.value is not None else _MARK)
        _expect(await bench.take(store, key), expected, "the mark of a take that was cancelled")
        await _cancel_after(steps, bench.put(store, bench.key(("put", steps)), b"whole"))
        found = await bench.peek(store, bench.key(("put", steps)))
        if found not in (Taken(), Taken(b"whole")):
            raise _Broken(f"a put cancelled after {steps} steps left {found!r}")
        stream = f"cancelled {steps}"
        await _cancel_after(steps, bench.append(store, b"maybe", stream))
        number = await bench.append(store, b"surely", stream)
        values = [value for _, value in await bench.read(store, stream=stream)]
        if values not in ([b"surely"], [b"maybe", b"surely"]):
            raise _Broken(f"an append cancelled after {steps} steps left {values!r}")
        await _cancel_after(steps, bench.read(store, stream=stream))
        _expect(await bench.read(store, number, stream), [], "the next read")


async def _cancel_after(steps: int, command: Coroutine[Any, Any, object]) -> None:
    task = asyncio.ensure_future(command)
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait((task,))
    if not task.cancelled():
        task.result()


async def _closed_store_raises(bench: _Bench) -> None:
    store = await bench.open()
    await bench.put(store, bench.key())
    await store.aclose()
    await store.aclose()
    key = bench.key()
    commands: dict[str, Callable[[], Coroutine[Any, Any, object]]] = {
        "put": lambda: bench.put(store, key),
        "peek": lambda: bench.peek(store, key),
        "take": lambda: bench.take(store, key),
        "append": lambda: bench.append(store, b"value"),
        "read": lambda: bench.read(store),
    }
    for what, command in commands.items():
        try:
            await command()
        except StoreError:
            continue
        raise _Broken(f"{what} of a closed store did not raise")


async def _instances_are_apart(bench: _Bench) -> None:
    first, second = await bench.open(), await bench.open()
    if first.name == second.name:
        raise _Broken(f"two stores that do not share have one name: {first.name}")
    await bench.put(first, bench.key())
    _expect(await bench.take(second, bench.key()), Taken(), "take from the other store")


async def _instances_share(bench: _Bench) -> None:
    first, second = await bench.open(), await bench.open()
    _expect(first.name, second.name, "the names of two that share")
    await bench.put(first, bench.key())
    _expect(await bench.peek(second, bench.key()), Taken(b"value"), "peek by the other")
    _expect(await bench.take(second, bench.key()), Taken(b"value"), "take by the other")
    _expect(await bench.take(first, bench.key()), Taken(mark=_MARK), "take after the other's")
    numbers = [await bench.append(store, b"record") for store in (first, second, first)]
    _expect(sorted(numbers), numbers, "the numbers of two that append in turn")
    for store in (first, second):
        _expect([number for number, _ in await bench.read(store)], numbers, "what each reads")


async def _exactly_one_of_all_instances_takes(bench: _Bench) -> None:
    stores = await bench.open(), await bench.open()
    await bench.put(stores[0], bench.key())
    marks = [b"mark %d" % number for number in range(_AT_ONCE)]
    takes = (bench.take(stores[number % 2], bench.key(), mark) for number, mark in enumerate(marks))
    _expect_one_winner(await asyncio.gather(*takes), marks)


async def _appends_of_all_instances_are_ordered(bench: _Bench) -> None:
    stores = await bench.open(), await bench.open()
    values = [b"%d" % position for position in range(_APPENDS_AT_ONCE)]
    numbers = await asyncio.gather(*(bench.append(stores[place % 2], value) for place, value in enumerate(values)))
    _expect(len(set(numbers)), len(values), "how many different numbers")
    for store in stores:
        _expect(await bench.read(store), sorted(zip(numbers, values, strict=True)), "what each reads")


async def _reopened_store_remembers(bench: _Bench) -> None:
    store = await bench.open()
    name, key, spent = store.name, bench.key(), bench.key("spent")
    await bench.put(store, key)
    await bench.put(store, spent)
    await bench.take(store, spent)
    number = await bench.append(store, b"record")
    await bench.close_all()
    store = await bench.open()
    _expect(store.name, name, "the name after opening again")
    _expect(await bench.take(store, spent), Taken(mark=_MARK), "the mark after opening again")
    _expect(await bench.take(store, key), Taken(b"value"), "the value after opening again")
    _expect(await bench.read(store), [(number, b"record")], "the stream after opening again")
    if await bench.append(store, b"record") <= number:
        raise _Broken("numbers go back after opening again")


_RULES = (
    _name_is_eight_hexadecimal_digits,
    _value_is_taken_once,
    _peek_takes_nothing,
    _empty_is_not_absent,
    _mark_is_told_till_the_expiry,
    _value_is_there_till_the_expiry,
    _places_are_apart,
    _put_replaces,
    _exactly_one_of_many_takes,
    _stream_is_ordered_and_complete,
    _record_is_there_till_the_expiry,
    _record_of_a_key_is_replaced,
    _cancelled_command_is_nobody_elses,
    _closed_store_raises,
)
_SHARED_RULES = (
    _instances_share,
    _exactly_one_of_all_instances_takes,
    _appends_of_all_instances_are_ordered,
    _reopened_store_remembers,
)
_LONE_RULES = (_instances_are_apart,)
