"""
The store of one process: a restart forgets it, and no other worker sees it.

Nothing here awaits, so a cancelled caller has done its command wholly or not at all (B-STORE-04).
"""

from __future__ import annotations

import heapq
import os
import threading
from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from wsguard.engine.ports import Taken
from wsguard.store.accepted import check_end, check_key, check_name, check_place, check_value
from wsguard.vocabulary.errors import StoreError, StoreFull

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wsguard.engine.ports import Randomness
    from wsguard.vocabulary.bounds import Limits

K = TypeVar("K")
_NAME_BYTES = 4
_AT_ONCE = 8
"""How many of the expired one command forgets: more than it adds, and never a long pause."""
_SLACK = 64


@dataclass(slots=True, eq=False)
class _Slot(Generic[K]):
    key: K
    value: bytes | None
    expires_at: float
    size: int
    mark: bytes | None = None


class _Shelf(Generic[K]):
    """
    Slots by key, at most *most* of them and *most_bytes* in all.

    A heap knows which expire first, so that nobody ever looks at all. What is replaced stays in the heap until its
    time comes, or until such leftovers are half of it.
    """

    def __init__(self, most: int, most_bytes: int) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._slots: dict[K, _Slot[K]] = {}
        self._ends: list[tuple[float, int, _Slot[K]]] = []
        self._serial = 0
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._slots)

    def __contains__(self, key: K) -> bool:
        return key in self._slots

    def get(self, key: K, now: float) -> _Slot[K] | None:
        slot = self._slots.get(key)
        return slot if slot is not None and slot.expires_at > now else None

    def put(self, slot: _Slot[K], now: float, *, replacing: K | None = None) -> None:
        """
        Put *slot* in the place of what its key had, or the key *replacing*.

        Raises StoreFull where what has not expired leaves no room.
        """
        old = slot.key if replacing is None else replacing
        self._forget_expired(now, _AT_ONCE)
        while not self._has_room_for(slot, old):
            if not self._forget_expired(now, _AT_ONCE):
                raise StoreFull(f"{len(self)} values, {self._bytes} bytes: see limits.store_values and store_bytes")
        replaced = self._slots.pop(old, None)
        self._bytes += slot.size - (0 if replaced is None else replaced.size)
        self._slots[slot.key] = slot
        self._serial += 1
        heapq.heappush(self._ends, (slot.expires_at, self._serial, slot))
        if len(self._ends) > 2 * len(self._slots) + _SLACK:
            self._ends = [end for end in self._ends if self._slots.get(end[2].key) is end[2]]
            heapq.heapify(self._ends)

    def _has_room_for(self, slot: _Slot[K], old: K) -> bool:
        replaced = self._slots.get(old)
        freed = 0 if replaced is None else replaced.size
        count = len(self._slots) + (replaced is None)
        return count <= self._most and self._bytes - freed + slot.size <= self._most_bytes

    def _forget_expired(self, now: float, most: int) -> int:
        forgotten = 0
        while forgotten < most and self._ends and self._ends[0][0] <= now:
            slot = heapq.heappop(self._ends)[2]
            if self._slots.get(slot.key) is slot:
                del self._slots[slot.key]
                self._bytes -= slot.size
                forgotten += 1
        return forgotten


class _Stream:
    """
    The numbers of one stream, in order, and the number and rank of each record that has a key.

    Those whose record is gone are dropped when they are half of them.
    """

    __slots__ = ("_longest", "keyed", "numbers")

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.keyed: dict[bytes, tuple[int, float]] = {}
        self._longest = _SLACK

    def append(self, number: int, records: _Shelf[int]) -> None:
        self.numbers.append(number)
        if len(self.numbers) > self._longest:
            self.numbers = [number for number in self.numbers if number in records]
            self.keyed = {key: kept for key, kept in self.keyed.items() if kept[0] in records}
            self._longest = 2 * len(self.numbers) + _SLACK


class MemoryStore:
    """
    Keeps state in this process, within *limits*; *randomness* makes its name.

    It may be used from several loops and threads. After a fork the child's is another store: it has another name and
    none of the values, because a value that both had could be taken twice.
    """

    def __init__(self, limits: Limits, randomness: Randomness) -> None:
        self._limits = limits
        self._randomness = randomness
        self._closed = False
        self._records: _Shelf[int] = _Shelf(limits.store_values, limits.store_bytes)
        self._streams: dict[str, _Stream] = {}
        self._number = 0
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()  # the parent's may have been held at the fork, for ever
        self._name = self._randomness(_NAME_BYTES).hex()
        self._values: _Shelf[tuple[str, bytes]] = _Shelf(self._limits.store_values, self._limits.store_bytes)

    def __repr__(self) -> str:
        """Say how much it holds."""
        return f"MemoryStore({self._name}, {len(self._values)} values, {len(self._records)} records)"

    @property
    def name(self) -> str:
        """Eight hexadecimal digits, new for every process."""
        if os.getpid() != self._pid:
            self._begin()
        return self._name

    @property
    def is_shared(self) -> bool:
        """No other process sees it."""
        return False

    async def put(self, space: str, key: bytes, value: bytes, *, expires_at: float, now: float) -> None:
        """Keep *value*; see `wsguard.engine.ports.Store`."""
        check_place(space, key)
        check_value(value, self._limits.store_value)
        check_end(expires_at)
        with self._opened():
            self._values.put(_Slot((space, key), value, expires_at, len(value)), now)

    async def peek(self, space: str, key: bytes, *, now: float) -> Taken:
        """Look, and take nothing; see `wsguard.engine.ports.Store`."""
        check_place(space, key)
        with self._opened():
            slot = self._values.get((space, key), now)
            return Taken() if slot is None else Taken(slot.value, slot.mark)

    async def take(self, space: str, key: bytes, *, mark: bytes, now: float) -> Taken:
        """Take the value, once; see `wsguard.engine.ports.Store`."""
        check_place(space, key)
        check_value(mark, self._limits.store_value)
        with self._opened():
            slot = self._values.get((space, key), now)
            if slot is None:
                return Taken()
            found = Taken(slot.value, slot.mark)
            if slot.value is not None:
                slot.value, slot.mark = None, mark
            return found

    async def append(
        self, stream: str, value: bytes, *, expires_at: float, now: float, key: bytes | None = None, rank: float = 0
    ) -> int:
        """Append a record; see `wsguard.engine.ports.Store`."""
        check_name(stream)
        check_value(value, self._limits.store_value)
        check_end(expires_at)
        if key is not None:
            check_key(key)
        with self._opened():
            known = self._streams.setdefault(stream, _Stream())
            replaced, its_rank = (0, 0.0) if key is None else known.keyed.get(key, (0, 0.0))
            if self._records.get(replaced, now) is None:
                replaced = 0
            elif its_rank > rank:
                return replaced
            number = self._number + 1
            self._records.put(_Slot(number, value, expires_at, len(value)), now, replacing=replaced)
            self._number = number
            known.append(number, self._records)
            if key is not None:
                known.keyed[key] = (number, rank)
            return number

    async def read(self, stream: str, *, after: int, now: float) -> Sequence[tuple[int, bytes]]:
        """Return the records behind *after*; see `wsguard.engine.ports.Store`."""
        check_name(stream)
        with self._opened():
            known = self._streams.get(stream)
            numbers = [] if known is None else known.numbers
            found: list[tuple[int, bytes]] = []
            for position in range(bisect_right(numbers, after), len(numbers)):
                slot = self._records.get(numbers[position], now)
                if slot is not None and slot.value is not None:
                    found.append((slot.key, slot.value))
            return found

    async def aclose(self) -> None:
        """Forget everything."""
        with self._lock:
            self._closed = True
            self._values = _Shelf(self._limits.store_values, self._limits.store_bytes)
            self._records = _Shelf(self._limits.store_values, self._limits.store_bytes)
            self._streams.clear()

    def _opened(self) -> threading.Lock:
        if self._closed:
            raise StoreError("the store is closed")
        if os.getpid() != self._pid:
            self._begin()
        return self._lock
