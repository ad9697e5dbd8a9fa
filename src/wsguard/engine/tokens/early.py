"""
Tokens of an issuer whose clock is ahead: when they came first stands for when they were issued.

What lives now was issued by now, whatever its ``iat`` says, or a revocation would pass it over. And it stays older than
that revocation when its ``iat`` is past: who was thrown out would come back with the same token, a minute later.

That is what this process knows. To one that has never seen it, another worker or this one after a restart, such a token
is new for as long as its issuer's clock is ahead.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wsguard.engine.tokens.jws import UnverifiedToken


class EarlyTokens:
    """
    Remembers when each of at most *most* tokens came that were ahead of their time; the first of them goes first.

    Only tokens that verify are asked about, so that nobody but an issuer makes this forget. By what was signed, not by
    the signature: ECDSA has two for the same.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._came: dict[bytes, float] = {}

    def issued_at(self, token: UnverifiedToken, now: float) -> float:
        """Return when *token*, which has an ``iat``, was issued at the latest (Unix seconds)."""
        claimed = float(token.claims["iat"]) // 1  # whole seconds: a revocation means all of its own
        if claimed <= now and not self._came:
            return claimed
        digest = hashlib.sha256(token.signing_input).digest()
        came = self._came.get(digest)
        if came is None:
            if claimed <= now:
                return claimed
            came = self._came[digest] = now
            if len(self._came) > self._most:
                del self._came[next(iter(self._came))]
        return came
