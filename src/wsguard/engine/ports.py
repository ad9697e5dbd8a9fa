"""What the engine asks of the world. Mounts and tests bring implementations; the engine never imports one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Clock = Callable[[], float]
    """Seconds that only grow; the start is arbitrary."""

    Randomness = Callable[[int], bytes]
    """That many bytes nobody can guess."""


class OriginSource(Protocol):
    """A list of allowed origins that is looked up, not written: awaited before the checks run, which never wait."""

    @property
    def name(self) -> str:
        """How the decision log calls this source."""
        ...

    async def entries(self) -> Sequence[str]:
        """Return the entries as they are written in a configuration. Any exception refuses (503)."""
        ...
