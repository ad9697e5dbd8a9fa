"""
The errors of wsguard, one tree.

::

    WSGuardError
    ├── ConfigurationError        what the operator wrote cannot be served; names the key and the way out
    │   └── ConfigurationErrors   several of them, told at once
    ├── HeadViolation             bytes that are no acceptable HTTP/1.1 head (carries the Reason)
    ├── BodyViolation             a body whose framing is broken or cut short
    ├── FrameViolation            a WebSocket frame that RFC 6455 or a bound forbids (carries the close code)
    ├── HelloViolation            bytes that are no TLS ClientHello
    ├── ListUnavailable           an allow-list that is kept elsewhere cannot be had, so it allows nobody
    ├── OutboundError             an outgoing call that brought no answer (names the host and why)
    │   ├── OutboundRefused       our own door did not let it out, or was sent elsewhere by a redirect
    │   └── OutboundFailed        it went out, and nobody answered in time, in size and as HTTP
    ├── StoreError                a store that is down, locked or closed; whoever asks it refuses
    │   └── StoreFull             it holds as much as its bound allows
    ├── TicketRefused             a page's ticket that opens nothing (carries the answer's status and request id)
    ├── UnguardedScopeError       a request that no guard has judged, or of a type that none can judge
    └── UpstreamFailure           the upstream is unreachable, slow, or answers what it must not (carries the Reason)

An error names the thing, the value (never a secret) and the way out. What a peer is told is never an error's text.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from wsguard.vocabulary.reasons import Reason


EXIT_CONFIGURATION = 2
"""What a command exits with where flags or a file are wrong."""


class WSGuardError(Exception):
    """Root of every error that wsguard raises on purpose."""


class ConfigurationError(WSGuardError):
    """
    One thing in the configuration that cannot be served.

    *key* is the key or flag, *found* what stood there, *expected* what would be right; *nearest* is the valid
    name closest to a name that is not known.
    """

    def __init__(self, key: str, found: str, expected: str, nearest: str | None = None) -> None:
        self.key = key
        self.found = found
        self.expected = expected
        self.nearest = nearest
        super().__init__(str(self))

    def __str__(self) -> str:
        """Say key, found and expected in one line."""
        tail = f" (did you mean {self.nearest!r}?)" if self.nearest else ""
        return f"{self.key}: found {self.found}, expected {self.expected}{tail}"


class ConfigurationErrors(ConfigurationError):
    """All that is wrong with one configuration, told at once."""

    def __init__(self, errors: Sequence[ConfigurationError]) -> None:
        self.errors = tuple(errors)
        first = self.errors[0]
        super().__init__(first.key, first.found, first.expected, first.nearest)

    def __str__(self) -> str:
        """Say each error on a line of its own."""
        return "\n".join(str(error) for error in self.errors)


class HeadViolation(WSGuardError):
    """A request or response head that is not served. *reason* says why and which status answers it."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        self.reason = reason
        self.detail = detail
        super().__init__(f"{reason.code}: {detail or reason.meaning}")


class BodyViolation(WSGuardError):
    """A message body whose framing is broken (RFC 9112 §7.1) or that ended before it was whole."""


class FrameViolation(WSGuardError):
    """
    A frame that must not go on.

    *close_code* is what the peer that sent it is told (RFC 6455 §7.4), *reason* the stable code for the log, and
    *position* how many bytes of the scanned data stand before the bad frame and may still go on.
    """

    def __init__(self, close_code: int, reason: Reason, position: int = 0) -> None:
        self.close_code = close_code
        self.reason = reason
        self.position = position
        super().__init__(f"{close_code} {reason.code}")


class HelloViolation(WSGuardError):
    """The first bytes of a connection are no TLS ClientHello (RFC 8446 §4.1.2)."""


class ListUnavailable(WSGuardError):
    """
    A list of origins or hosts that is kept elsewhere cannot be had: what is asked of it is refused (503).

    *name* is how the decision log calls the list, *why* says what happened, without any secret.
    """

    def __init__(self, name: str, why: str) -> None:
        self.name = name
        self.why = why
        super().__init__(f"{name}: {why}")


class OutboundError(WSGuardError):
    """An outgoing call without an answer. *host* is whom it was for, *why* holds no secret and no query."""

    def __init__(self, host: str, why: str) -> None:
        self.host = host
        self.why = why
        super().__init__(f"{host}: {why}")


class OutboundRefused(OutboundError):
    """The call is not made, or not followed: no https, userinfo, an address that is not public, a redirect."""


class OutboundFailed(OutboundError):
    """The call was made in vain: unreachable, a wrong certificate, too slow, too large, encoded, no HTTP."""


class UnguardedScopeError(WSGuardError):
    """A scope of a type that nobody can judge, or one that no guard has let through."""


class TicketRefused(WSGuardError):
    """
    The ticket of a page opens nothing: answer with *status* and *headers*, and tell the *request_id* alone.

    *reason* is the stable code, for the app and its log.
    """

    def __init__(self, status: int, headers: Sequence[tuple[str, str]], request_id: str, reason: str) -> None:
        self.status = status
        self.headers = tuple(headers)
        self.request_id = request_id
        self.reason = reason
        super().__init__(f"{status} {reason} (request {request_id})")


class StoreError(WSGuardError):
    """The store is down, locked or closed. Whoever asks it refuses (503), and accepts nothing."""


class StoreFull(StoreError):
    """The store holds as many values as its bound allows."""


class UpstreamFailure(WSGuardError):
    """The upstream cannot serve this request. *reason* carries the status (502 or 504)."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        self.reason = reason
        self.detail = detail
        super().__init__(f"{reason.code}: {detail or reason.meaning}")


def nearest_name(name: str, valid: Iterable[str]) -> str | None:
    """Return the valid name closest to *name*, or None when none is close."""
    matches = difflib.get_close_matches(name, list(valid), n=1, cutoff=0.6)
    return matches[0] if matches else None


def check_text(key: str, entry: object) -> None:
    """Refuse an *entry* of the list under *key* that is no text. Raises ConfigurationError."""
    if not isinstance(entry, str):
        raise ConfigurationError(
            key, f"{entry!r} among its entries", "texts; a list that is kept elsewhere stands alone"
        )
