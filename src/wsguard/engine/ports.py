"""What the engine asks of the world. Mounts and tests bring implementations; the engine never imports one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TypeVar

from wsguard.vocabulary.host import Host
from wsguard.vocabulary.origin import Origin

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

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

    A policy names it in ``auth``; one that no policy names is never asked. An explicit one whose credential stands in a
    header field, which no browser's WebSocket can set, may say so by an attribute ``in_header = True``; then
    ``origin_required="unless-header-credential"`` holds for it.
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


class TokenVerifier(Protocol):
    """Verifies bearer tokens; it may have to fetch keys first."""

    async def verify(self, token: str, now: float) -> Identity | Refusal:
        """Say whose *token* it is at *now* (Unix seconds), or why it is refused. Any exception refuses (503)."""
        ...


@dataclass(frozen=True, slots=True)
class Taken:
    """
    What `Store.take` found: the *value* for the first who takes it, afterwards the *mark* that the first one left.

    Both are None where there is nothing under the key, or no longer.
    """

    value: bytes | None = None
    mark: bytes | None = None


class Store(Protocol):
    """
    Shared state behind one small interface: values that are taken once, and streams that everybody reads.

    Keys are hashes (`wsguard.engine.store_keys.hashed_key`, at most 64 bytes), values records of ours; nothing secret
    is put there. Times are Unix seconds, and what has expired at *now* is not there. Every method may raise StoreError,
    within a time of the store's own; whoever calls refuses then (503 ``store.unavailable``). A command whose caller was
    cancelled or got an error is done wholly or not at all, and nobody else gets its answer.

    `wsguard.testing.check_store` tries all of this on any store.
    """

    @property
    def name(self) -> str:
        """Eight hexadecimal digits that name this store, the same in every process that shares it."""
        ...

    @property
    def is_shared(self) -> bool:
        """Tell whether other processes see the same state."""
        ...

    async def put(self, space: str, key: bytes, value: bytes, *, expires_at: float, now: float) -> None:
        """
        Keep *value* under (*space*, *key*) until *expires_at*, in place of what is there, a mark too.

        Raises StoreFull where the store's bound is reached; then what was there stays.
        """
        ...

    async def peek(self, space: str, key: bytes, *, now: float) -> Taken:
        """Return what `take` would return, and take nothing."""
        ...

    async def take(self, space: str, key: bytes, *, mark: bytes, now: float) -> Taken:
        """
        Take the value of (*space*, *key*), atomically: exactly one of all who ask at once gets it.

        It leaves *mark* in its place until the value's expiry, which tells a replay from what never was.
        """
        ...

    async def append(
        self, stream: str, value: bytes, *, expires_at: float, now: float, key: bytes | None = None, rank: float = 0
    ) -> int:
        """
        Append *value* to *stream*, where it stays until *expires_at*, also if the machine loses its power.

        Return its number: above 0 and above every number before it, of this and of other processes, with gaps. Raises
        StoreFull as `put` does; the bound of the streams is their own, so that no flood of values keeps a record out.

        A record with a *key* takes the place of the one in this stream that has the key and no higher *rank*: whoever
        reads on hears of it, and nobody needs the other any more. Where there is one of a higher rank nothing is
        appended, and that one's number is returned.
        """
        ...

    async def read(self, stream: str, *, after: int, now: float) -> Sequence[tuple[int, bytes]]:
        """Return all that *stream* holds behind the number *after*, in order. Nothing shows up later before it."""
        ...

    async def aclose(self) -> None:
        """Let go of files and threads. A store that is closed raises."""
        ...
