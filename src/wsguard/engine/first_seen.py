"""
When a cookie was first seen: nobody says when the app issued it, and a revocation means what was issued before it.

Only what the app has vouched for is remembered, so that no flood of invented cookies makes this forget real ones.
"""

from __future__ import annotations

from collections import OrderedDict


class FirstSeen:
    """Remembers when each of at most *most* credentials was first seen; the one unused for longest is forgotten."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._seen: OrderedDict[bytes, float] = OrderedDict()

    def when(self, digest: bytes, now: float) -> float:
        """Return when the credential of this *digest* was first seen, in Unix seconds; *now* if it never was."""
        since = self._seen.setdefault(digest, now)
        self._seen.move_to_end(digest)
        if len(self._seen) > self._most:
            self._seen.popitem(last=False)
        return since
