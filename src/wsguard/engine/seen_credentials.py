"""
What stands for a cookie or password that the app has vouched for: a keyed hash, and when it was first seen.

The hash names it in logs and in revocations, and says nothing to who has no key. Processes that share a store share the
key, so that a ticket which one of them has sold names the same subject at another. Nobody says when the app issued a
cookie, and a revocation means what was issued before it: the time is when this process first saw it.
"""

from __future__ import annotations

import hashlib
import hmac
from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wsguard.engine.forwarding import RawFields
    from wsguard.engine.ports import Randomness, Store

_STREAM = "credential-key"
_KEY_BYTES = 32
_KEY_SECONDS = 10 * 366 * 86400.0


class SeenCredentials:
    """
    Names credentials, and remembers when each of at most *most* was first seen; the one unused for longest goes.

    Only what the app has vouched for is remembered, so that no flood of invented cookies makes this forget real ones.
    """

    def __init__(self, store: Store, randomness: Randomness, most: int) -> None:
        self._store = store
        self._randomness = randomness
        self._most = most
        self._key: bytes | None = None if store.is_shared else randomness(_KEY_BYTES)
        self._seen: OrderedDict[bytes, float] = OrderedDict()

    async def digest(self, credential: RawFields, now: float) -> bytes:
        """Return the keyed hash of *credential*, the fields that hold it. Raises StoreError."""
        key = self._key
        if key is None:
            key = self._key = await self._shared_key(now)
        digest = hmac.new(key, digestmod=hashlib.sha256)
        for name, value in credential:
            digest.update(b"%d:%b%d:%b" % (len(name), name, len(value), value))
        return digest.digest()

    def when(self, digest: bytes, now: float) -> float:
        """Return when the credential of this *digest* was first seen, in Unix seconds; *now* if it never was."""
        since = self._seen.setdefault(digest, now)
        self._seen.move_to_end(digest)
        if len(self._seen) > self._most:
            self._seen.popitem(last=False)
        return since

    async def _shared_key(self, now: float) -> bytes:
        # Of several that begin at one time each appends one, and all take the first.
        found = await self._store.read(_STREAM, after=0, now=now)
        if not found:
            ours = self._randomness(_KEY_BYTES)
            await self._store.append(_STREAM, ours, expires_at=now + _KEY_SECONDS, now=now)
            found = await self._store.read(_STREAM, after=0, now=now)
        return found[0][1]
