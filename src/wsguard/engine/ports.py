"""What the engine asks of the world. Mounts and tests bring implementations; the engine never imports one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol, TypeVar

from wsguard.vocabulary.host import Host
from wsguard.vocabulary.origin import Origin

if TYPE_CHECKING:
    from collections.abc import Callable

    from wsguard.engine.policy import Context
    from wsguard.vocabulary.decision import Refusal
    from wsguard.vocabulary.handshake import Handshake
    from wsguard.vocabulary.identity import Identity

    Clock = Callable[[], float]
    """Seconds that only grow; the start is arbitrary."""

    WallClock = Callable[[], float]
    """Unix seconds."""

    Randomness = Callable[[int], bytes]
    """That many bytes nobody can guess."""

Carriage = Literal["ambient", "explicit"]
"""Who attaches a credential: the browser by itself (cookie, HTTP authentication), or a script on purpose."""

Candidate_contra = TypeVar("Candidate_contra", contravariant=True)


class KeptList:
    """A list of entries that is kept elsewhere, in a file or at a URL; `wsguard.identity.allow_lists` has them."""


class AllowList(Protocol[Candidate_contra]):
    """A list that is looked up, not written: awaited before the checks run, which never wait."""

    @property
    def name(self) -> str:
        """How the decision log calls this list."""
        ...

    async def allows(self, candidate: Candidate_contra) -> bool:
        """Tell whether *candidate* is on the list. Any exception refuses (503)."""
        ...


OriginList = AllowList[Origin]
HostList = AllowList[Host]


class Authenticator(Protocol):
    """
    Turns a credential in the handshake into an Identity, or says "not mine", or refuses.

    A policy names it in ``auth``; one that no policy names is never asked.
    """

    @property
    def name(self) -> str:
        """What a policy's ``auth`` calls it: lower case, digits and ``_``."""
        ...

    @property
    def carriage(self) -> Carriage:
        """Whether browsers attach its credential by themselves. An ambient one never decides alone."""
        ...

    async def authenticate(self, handshake: Handshake, context: Context) -> Identity | Refusal | None:
        """
        Say who sent *handshake*: an Identity, or None where it holds no credential of this kind.

        A credential that is there and does not verify is a Refusal, never None: a bad one must not fall through to
        the next kind. Any exception refuses (503).
        """
        ...
