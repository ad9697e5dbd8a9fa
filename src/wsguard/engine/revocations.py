"""
Revocations: a credential that is valid by itself opens nothing more, and its sockets close (B-STORE-01).

One names subject, issuer, sid or credential id, all of which must match, and a time: what was issued later is not
meant. They are looked up by the most telling name, so that thousands of them cost a handshake nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from wsguard.vocabulary.bounds import DEFAULTS
from wsguard.vocabulary.errors import StoreFull

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from wsguard.vocabulary.identity import Identity

_NAMES = ("sid", "credential_id", "subject", "issuer")  # the most telling first
_MEMBERS = frozenset({*_NAMES, "issued_before"})


class RevocationSyntaxError(ValueError):
    """What was asked for is no revocation: nothing is revoked, and nothing closed."""


@dataclass(frozen=True, slots=True)
class Revocation:
    """
    One revocation. *issued_before* is in Unix seconds: what was issued in that second or earlier is meant.

    A token's ``iat`` is a whole second. Where both times have fractions, both are of clocks of ours, and these count:
    whoever is thrown out everywhere and logs in anew at once is let in.
    """

    issued_before: float
    subject: str | None = None
    issuer: str | None = None
    sid: str | None = None
    credential_id: str | None = None

    @classmethod
    def read(cls, members: Mapping[str, Any], now: float) -> Revocation:
        """
        Read what a caller asks for; *now* is the default of ``issued_before``.

        Raises RevocationSyntaxError for unknown names, empty values and null, other types, and for one that names
        nobody: a name that its caller could not fill must not revoke everybody whom the other names mean.
        """
        unknown = sorted(set(members) - _MEMBERS)
        if unknown:
            raise RevocationSyntaxError(f"unknown: {', '.join(unknown)}; there are {', '.join(sorted(_MEMBERS))}")
        given = {name: members[name] for name in _NAMES if name in members}
        for name, value in given.items():
            if not isinstance(value, str) or not value:
                raise RevocationSyntaxError(f"{name} is a text that is not empty")
        if not given:
            raise RevocationSyntaxError(f"at least one of {', '.join(_NAMES)}")
        before: Any = members.get("issued_before", now)
        if isinstance(before, bool) or not isinstance(before, int | float) or not 0 <= before < 1e11:  # noqa: PLR2004
            raise RevocationSyntaxError("issued_before is a number of Unix seconds")
        return cls(float(before), **given)

    def matches(self, identity: Identity) -> bool:
        """Tell whether *identity* is meant. One whose time of issue nobody knows is older than any."""
        for name in _NAMES:
            wanted = getattr(self, name)
            if wanted is not None and getattr(identity, name) != wanted:
                return False
        issued_at, before = identity.issued_at, self.issued_before
        if issued_at is None:
            return True
        if issued_at % 1 and before % 1:
            return issued_at <= before
        return int(issued_at) <= int(before)

    @property
    def names(self) -> tuple[str | None, ...]:
        """What it names, in one order; None where it names nothing of that kind."""
        return tuple(getattr(self, name) for name in _NAMES)

    @property
    def members(self) -> dict[str, Any]:
        """What `read` reads: the names that it has, and ``issued_before``."""
        named = {name: getattr(self, name) for name in _NAMES if getattr(self, name) is not None}
        return {**named, "issued_before": self.issued_before}

    def encode(self) -> bytes:
        """Return it as a record of the store."""
        return msgspec.json.encode(self.members)

    @classmethod
    def decode(cls, record: bytes) -> Revocation:
        """Read a record of the store. Raises RevocationSyntaxError for one that is none."""
        try:
            members = msgspec.json.decode(record, type=dict[str, Any])
        except msgspec.DecodeError as error:
            raise RevocationSyntaxError(str(error)) from None
        return cls.read(members, 0.0)


class Revocations:
    """
    All revocations of a guard, found by name, at most *most* of them.

    One is needed for *age* seconds: by then whatever was issued before it has ended.
    """

    def __init__(
        self,
        found: Iterable[Revocation] = (),
        *,
        most: int = DEFAULTS.revocations,
        age: float = DEFAULTS.revocation_age,
    ) -> None:
        self._most = most
        self._age = age
        self._count = 0
        self._earliest = math.inf
        self._by_name: dict[tuple[str, str], list[Revocation]] = {}
        for revocation in found:
            self.add(revocation)

    def add(self, revocation: Revocation, now: float = 0.0, *, heard: bool = False) -> None:
        """
        Remember *revocation*; one that means no more than another of the same names is not kept beside it.

        Where there is room for no more, those that nobody needs at *now* (Unix seconds) are forgotten. Raises StoreFull
        where that makes none: one that is needed is never forgotten, it would let in. What was *heard* from the common
        store has its room there, and is always remembered: else nobody could be let in any more.
        """
        name = next(name for name in _NAMES if getattr(revocation, name) is not None)
        key = (name, getattr(revocation, name))
        beside = self._by_name.get(key, [])
        same = [other for other in beside if other.names == revocation.names]
        if any(other.issued_before >= revocation.issued_before for other in same):
            return
        if not same and self._count >= self._most:
            self._forget(now)
            beside = self._by_name.get(key, [])
        if not same and self._count >= self._most and not heard:
            raise StoreFull(f"{self._count} revocations are remembered, and limits.revocations allows no more")
        self._by_name[key] = [*(other for other in beside if other not in same), revocation]
        self._count += 1 - len(same)
        self._earliest = min(self._earliest, revocation.issued_before)

    def _forget(self, now: float) -> None:
        begin = now - self._age
        if self._earliest > begin:
            return
        left: dict[tuple[str, str], list[Revocation]] = {}
        for key, revocations in self._by_name.items():
            needed = [one for one in revocations if one.issued_before > begin]
            if needed:
                left[key] = needed
        self._by_name = left
        self._count = sum(map(len, left.values()))
        self._earliest = min((one.issued_before for some in left.values() for one in some), default=math.inf)

    def revokes(self, identity: Identity) -> bool:
        """Tell whether *identity* is revoked."""
        for name in _NAMES:
            value = getattr(identity, name)
            if value is not None and any(one.matches(identity) for one in self._by_name.get((name, value), ())):
                return True
        return False
