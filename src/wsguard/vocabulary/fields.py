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

    __slots__ = ("_index", "raw")

    def __init__(self, raw: Iterable[tuple[bytes, bytes]] = ()) -> None:
        self.raw: tuple[tuple[bytes, bytes], ...] = tuple(raw)
        index: dict[bytes, list[bytes]] = {}
        for name, value in self.raw:
            lower = name.lower()
            if lower in index:
                index[lower].append(value)
            else:
                index[lower] = [value]
        self._index = index

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        """Iterate over (name, value) as received."""
        return iter(self.raw)

    def __len__(self) -> int:
        """Count the field lines."""
        return len(self.raw)

    def __contains__(self, name: bytes) -> bool:
        """Tell whether the lower-case *name* is there."""
        return name in self._index

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
        return len(self._index) < len(self.raw)

    @property
    def names(self) -> KeysView[bytes]:
        """The lower-case names, each once, in order of first appearance."""
        return self._index.keys()

    def has_any(self, names: Iterable[bytes]) -> bool:
        """Tell whether any of the lower-case *names* is there."""
        return not self._index.keys().isdisjoint(names)

    def values(self, name: bytes) -> list[bytes]:
        """Return every value of the lower-case *name*, in order; empty if it is absent."""
        return self._index.get(name, [])

    def first(self, name: bytes) -> bytes | None:
        """Return the first value of *name*, or None. For fields that ``syntax`` has shown to be single."""
        values = self._index.get(name)
        return values[0] if values else None

    def list_members(self, name: bytes) -> list[bytes]:
        """Split every value of *name* at commas, blanks stripped, empty members dropped (RFC 9110 §5.6.1)."""
        members: list[bytes] = []
        for value in self._index.get(name, ()):
            members.extend(part.strip(b" \t") for part in value.split(b","))
        return [member for member in members if member]
