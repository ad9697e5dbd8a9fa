"""
Live sockets: a `Session` is one accepted connection, and every end of it takes one door, `Session.close`.

Shutdown closes through it, as do the rules of the relay, expiry and revocation. The session does not know how a Close
frame is written: whoever carries the frames binds a closer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from wsguard.vocabulary.close_codes import may_be_sent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from wsguard.vocabulary.decision import OriginProof, Recheck
    from wsguard.vocabulary.handshake import Client
    from wsguard.vocabulary.identity import Identity

    Closer = Callable[[int, str], None]


class Session(msgspec.Struct, eq=False):
    """
    One accepted, live connection. *public_id* may stand in a log; *opened_at* is in the clock's seconds.

    *handle* is the digest of its renewal handle, which is a secret (RULES §8); None where it has none. *recheck* is how
    the cookie that opened it, or renewed it last, is judged again. *close_codes* are what its route sends in place of
    codes of ours.
    """

    public_id: str
    origin: str | None
    host: str
    route: str
    path: str
    peer: str
    opened_at: float
    client: Client | None = None
    proof: OriginProof | None = None
    source: str = ""
    identity: Identity | None = None
    handle: bytes | None = None
    sold_by: str | None = None
    recheck: Recheck | None = None
    close_codes: Mapping[int, int] = msgspec.field(default_factory=dict[int, int])
    closing: tuple[int, str] | None = None
    cause: str = ""
    _has_ended: bool = False
    _closer: Closer | None = None

    def __repr__(self) -> str:
        """Name it as the log does, and whose it is."""
        return f"{type(self).__name__}({self.public_id!r}, {self.path!r}, identity={self.identity!r})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Return what `repr` names: msgspec's own would tell all."""
        return [("public_id", self.public_id), ("path", self.path), ("identity", self.identity)]

    @property
    def expires_at(self) -> float | None:
        """Unix seconds at which the credential ends, or None where it has no end."""
        return None if self.identity is None else self.identity.expires_at

    def renew(self, identity: Identity) -> None:
        """Go on with a fresher credential of the same subject; whoever watches the expiry looks at it again."""
        self.identity = identity

    def bind(self, closer: Closer) -> None:
        """Tell how the connection is closed. A close that was asked for before is carried out now."""
        self._closer = closer
        if self.closing is not None and not self._has_ended:
            closer(*self.closing)

    def unbind(self) -> None:
        """Let go of who closes the connection: it has ended."""
        self._closer = None

    def close(self, code: int, reason: str, *, cause: str = "") -> None:
        """
        End the connection with a close *code* (RFC 6455 §7.4) and *reason*; only the first call counts.

        Where the route has a code of its own for *code*, that one is sent. *cause* is the stable code that the log
        tells instead of the reason that the peer is told.
        Raises ValueError for a code that may not stand in a Close frame.
        """
        if not may_be_sent(code):
            raise ValueError(f"{code} is no close code that may be sent: 1000, 1001 … or 3000 to 4999")
        if self.closing is not None:
            return
        self.closing = (self.close_codes.get(code, code), reason)
        self.cause = cause or reason
        closer = self._closer  # once: another thread may unbind it
        if closer is not None:
            closer(*self.closing)

    def note_end(self, code: int, reason: str) -> None:
        """Whoever carries the frames ends it already, or its peer has: from now on it is neither renewed nor closed."""
        if self.closing is None:
            self.closing = (code, reason)
            self._has_ended = True


class SessionRegistry:
    """The live sessions of one process."""

    def __init__(self) -> None:
        self._live: dict[str, Session] = {}
        self._by_handle: dict[bytes, Session] = {}

    def __len__(self) -> int:
        """Count the live sessions."""
        return len(self._live)

    def __contains__(self, public_id: str) -> bool:
        """Tell whether the session *public_id* is live."""
        return public_id in self._live

    def __iter__(self) -> Iterator[Session]:
        """Iterate over a copy, so that a close may remove while one looks."""
        return iter(list(self._live.values()))

    def add(self, session: Session) -> None:
        """Register *session* before its 101 goes out."""
        self._live[session.public_id] = session
        if session.handle is not None:
            self._by_handle[session.handle] = session

    def remove(self, session: Session) -> None:
        """Forget *session*; it has ended, and with it what its cookie was held for, and who carried its frames."""
        session.recheck = None
        session.unbind()
        self._live.pop(session.public_id, None)
        if session.handle is not None:
            self._by_handle.pop(session.handle, None)

    def of_handle(self, digest: bytes) -> Session | None:
        """Return the live session whose renewal handle has this *digest*."""
        return self._by_handle.get(digest)

    def of_id(self, public_id: str) -> Session | None:
        """Return the live session *public_id*."""
        return self._live.get(public_id)

    def close_all(self, code: int, reason: str) -> int:
        """Close every live session; return how many there were."""
        sessions = list(self._live.values())
        for session in sessions:
            session.close(code, reason)
        return len(sessions)
