"""
Caps by the client's address: connections that are not admitted yet, open sockets, attempts a minute.

One client is one bucket: an IPv4-mapped address is its IPv4 address, IPv6 counts by /64 (B-PROXY-09). Loopback is not
exempt: a page in the operator's own browser comes from there (B-FRAME-08). The table of addresses is bounded.
"""

from __future__ import annotations

import ipaddress
import math
from collections import OrderedDict
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Hashable

    from wsguard.engine.ports import Clock
    from wsguard.vocabulary.bounds import Limits

_MINUTE = 60.0
_EVICTION_LOOKS = 32


@dataclass(slots=True)
class _Bucket:
    tokens: float
    stamp: float
    waiting: int = 0
    open: int = 0


@lru_cache(4096)
def address_key(address: str) -> str:
    """Return what *address* is counted as. What is no IP address (a Unix socket's peer) counts as itself."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(parsed) >> 64 << 64, 64)))


class Place:
    """
    The place of one connection in the counts: first among those that wait, once admitted among the open ones.

    Made by `AddressLimits.enter`; `release` gives it back, however the connection ended, and counts once.
    """

    __slots__ = ("_limits", "_state", "key")

    def __init__(self, limits: AddressLimits, key: str) -> None:
        self.key = key
        self._limits = limits
        self._state: Literal["waiting", "open", "released"] = "waiting"

    def admit(self) -> bool:
        """Move to the open ones; False when the address has too many of them. An admitted one stays admitted."""
        if self._state == "waiting":
            if not self._limits.count_open(self.key):
                return False
            self._limits.uncount_waiting(self.key)
            self._state = "open"
        return True

    def release(self) -> None:
        """Give the place back."""
        if self._state == "waiting":
            self._limits.uncount_waiting(self.key)
        elif self._state == "open":
            self._limits.uncount_open(self.key)
        self._state = "released"


class AddressLimits:
    """Counts for one process."""

    def __init__(self, limits: Limits, clock: Clock) -> None:
        self._limits = limits
        self._clock = clock
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()
        self._waiting = 0

    def enter(self, key: str) -> Place | None:
        """Count a new connection that is not admitted yet; None when it must be closed at once."""
        if self._waiting >= self._limits.preauth:
            return None
        bucket = self._bucket(key)
        if bucket is None or bucket.waiting >= self._limits.preauth_address:
            return None
        bucket.waiting += 1
        self._waiting += 1
        return Place(self, key)

    def attempt(self, key: str) -> int | None:
        """Count one handshake; return the seconds to wait (Retry-After) when the address is over its rate."""
        bucket = self._bucket(key)
        if bucket is None:
            return math.ceil(_MINUTE)
        rate = self._limits.attempts_address / _MINUTE
        now = self._clock()
        bucket.tokens = min(float(self._limits.attempts_address), bucket.tokens + (now - bucket.stamp) * rate)
        bucket.stamp = now
        if bucket.tokens < 1:
            return math.ceil((1 - bucket.tokens) / rate)
        bucket.tokens -= 1
        return None

    def uncount_waiting(self, key: str) -> None:
        """A place was given up or admitted."""
        self._waiting -= 1
        self._buckets[key].waiting -= 1

    def count_open(self, key: str) -> bool:
        """Count an admitted connection; False over the cap."""
        bucket = self._buckets[key]
        if bucket.open >= self._limits.open_address:
            return False
        bucket.open += 1
        return True

    def uncount_open(self, key: str) -> None:
        """An admitted connection has ended."""
        self._buckets[key].open -= 1

    def _bucket(self, key: str) -> _Bucket | None:
        bucket = self._buckets.get(key)
        if bucket is not None:
            self._buckets.move_to_end(key)
            return bucket
        if len(self._buckets) >= self._limits.addresses and not self._evict():
            return None
        bucket = _Bucket(float(self._limits.attempts_address), self._clock())
        self._buckets[key] = bucket
        return bucket

    def _evict(self) -> bool:
        # The longest unseen address without a connection goes; a table full of live ones lets nobody new in.
        for key in list(islice(self._buckets, _EVICTION_LOOKS)):
            bucket = self._buckets[key]
            if not bucket.waiting and not bucket.open:
                del self._buckets[key]
                return True
        return False


class RateLimits:
    """Token buckets by key, as many as *bound*; the longest unused goes first."""

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._buckets: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()

    def take(self, key: Hashable, a_minute: int, now: float) -> int | None:
        """Count one use of *key*; return the seconds to wait (Retry-After) when it is over *a_minute*."""
        tokens, stamp = self._buckets.get(key, (float(a_minute), now))
        rate = a_minute / _MINUTE
        tokens = min(float(a_minute), tokens + max(0.0, now - stamp) * rate)
        over = tokens < 1
        self._buckets[key] = (tokens if over else tokens - 1, now)
        self._buckets.move_to_end(key)
        if len(self._buckets) > self._bound:
            self._buckets.popitem(last=False)
        return math.ceil((1 - tokens) / rate) if over else None
