"""The header fields of one message, in the order and spelling they arrived in (RFC 9110 §5)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, KeysView


class Fields:
    """
    An immutable, ordered list of (name, value), both raw bytes.

    Names keep their spelling; look-ups take the lower-case name. A repeated field is kept as often as it came, so that
    nobody who looks can take "the last of two" for the only one.

    *joined_names* are the names as received, with a line feed between two: one look at it is one at all of them. A name
    that holds a line feed shows in their number.
    """

    __slots__ = ("_first", "_repeated", "joined_names", "raw")

    def __init__(self, raw: Iterable[tuple[bytes, bytes]] = ()) -> None:
        self.raw: tuple[tuple[bytes, bytes], ...] = tuple(raw)
        self._repeated: dict[bytes, list[bytes]] = {}
        first = dict(self.raw)
        are_distinct = len(first) == len(self.raw)
        self.joined_names = b"\n".join(first if are_distinct else [name for name, _ in self.raw])
        if not (are_distinct and self.joined_names.islower()):
            first = self._indexed()
        self._first: dict[bytes, bytes] = first

    def _indexed(self) -> dict[bytes, bytes]:
        first: dict[bytes, bytes] = {}
        for name, value in self.raw:
            lower = name.lower()
            if lower in first:
                self._repeated.setdefault(lower, [first[lower]]).append(value)
            else:
                first[lower] = value
        return first

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        """Iterate over (name, value) as received."""
        return iter(self.raw)

    def __len__(self) -> int:
        """Count the field lines."""
        return len(self.raw)

    def __contains__(self, name: bytes) -> bool:
        """Tell whether the lower-case *name* is there."""
        return name in self._first

    def __eq__(self, other: object) -> bool:
        """Compare as ordered lists."""
        return isinstance(other, Fields) and self.raw == other.raw

    def __hash__(self) -> int:
        """Hash as an ordered list."""
        return hash(self.raw)

    def __repr__(self) -> str:
        """Name the fields without their values, which may be secrets."""
        names = ", ".join(name.decode("latin-1") for name, _ in self.raw)
        return f"Fields({names})"

    @property
    def joined_values(self) -> bytes:
        """The values, one behind the other with nothing between: whatever stands in any of them stands here."""
        return b"".join([value for _, value in self.raw] if self._repeated else self._first.values())

    @property
    def has_repeated(self) -> bool:
        """Tell whether any field came more than once."""
        return bool(self._repeated)

    @property
    def names(self) -> KeysView[bytes]:
        """The lower-case names, each once, in order of first appearance."""
        return self._first.keys()

    def has_any(self, names: Iterable[bytes]) -> bool:
        """Tell whether any of the lower-case *names* is there."""
        return not self._first.keys().isdisjoint(names)

    def values(self, name: bytes) -> list[bytes]:
        """Return every value of the lower-case *name*, in order; empty if it is absent."""
        repeated = self._repeated.get(name)
        if repeated is not None:
            return repeated
        value = self._first.get(name)
        return [] if value is None else [value]

    def first(self, name: bytes) -> bytes | None:
        """Return the first value of *name*, or None. For fields that ``syntax`` has shown to be single."""
        return self._first.get(name)

    def list_members(self, name: bytes) -> list[bytes]:
        """Split every value of *name* at commas, blanks stripped, empty members dropped (RFC 9110 §5.6.1)."""
        members: list[bytes] = []
        for value in self.values(name):
            members.extend(part.strip(b" \t") for part in value.split(b","))
        return [member for member in members if member]
