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
    """

    __slots__ = ("_first", "_repeated", "raw")

    def __init__(self, raw: Iterable[tuple[bytes, bytes]] = ()) -> None:
        self.raw: tuple[tuple[bytes, bytes], ...] = tuple(raw)
        self._first: dict[bytes, bytes] = {name.lower(): value for name, value in self.raw}
        self._repeated: dict[bytes, list[bytes]] = {}
        if len(self._first) < len(self.raw):
            self._first = {}
            for name, value in self.raw:
                lower = name.lower()
                if lower in self._first:
                    self._repeated.setdefault(lower, [self._first[lower]]).append(value)
                else:
                    self._first[lower] = value

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
