"""A value that must not be seen: it never stands in a repr, a log or an error, and is compared in constant time."""

from __future__ import annotations

import hashlib
import hmac


class Secret:
    """Bytes that only `reveal` shows. Equal secrets compare equal, in a time that tells nothing (B-CARRY-06)."""

    __slots__ = ("_value",)

    def __init__(self, value: bytes | str) -> None:
        self._value = value.encode("utf-8") if isinstance(value, str) else bytes(value)

    def __repr__(self) -> str:
        """Say that there is one."""
        return "Secret(…)"

    def __eq__(self, other: object) -> bool:
        """Compare in constant time; with anything else but a Secret it is unequal."""
        return isinstance(other, Secret) and hmac.compare_digest(self._value, other._value)

    def __hash__(self) -> int:
        """Hash the digest."""
        return hash(self.digest())

    def reveal(self) -> bytes:
        """Return the value, for the one place that needs it."""
        return self._value

    def digest(self) -> bytes:
        """Return its SHA-256, under which it may be stored and looked up."""
        return hashlib.sha256(self._value).digest()
