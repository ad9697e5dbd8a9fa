"""What a check says (`Passed` or `Refusal`) and what the policy decides (`Accept` or `Refuse`)."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from wsguard.vocabulary.handshake import Client
    from wsguard.vocabulary.identity import Identity
    from wsguard.vocabulary.reasons import Reason


class OriginProof(enum.Enum):
    """What the origin check has shown. Carriage judges credentials by it; the last two are never proof of a page."""

    LISTED = "listed"
    SAME_ORIGIN = "same_origin"
    ABSENT = "absent"
    UNLISTED = "unlisted"


# A Struct, as each handshake makes some: a frozen dataclass sets its members one by one through object.__setattr__.
class Passed(msgspec.Struct, frozen=True):
    """
    A check found nothing. Whatever else it established stands here, for the checks behind it.

    *source* names the list that allowed the origin, where it is none that was written out. *unless_explicit* is a
    refusal that counts unless a credential in an explicit header decides (RULES §1).
    """

    origin: OriginProof | None = None
    subprotocols: Subprotocols | None = None
    source: str = ""
    unless_explicit: Refusal | None = None


# A check that has nothing to tell says this one.
PASSED = Passed()


@dataclass(frozen=True, slots=True)
class Refusal:
    """
    A check refuses. *setting* names the setting that would allow it; it may quote what the peer sent.

    *identity* is who was refused, where a credential has said so: for the log.
    """

    reason: Reason
    detail: str = ""
    setting: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    identity: Identity | None = None


Verdict = Passed | Refusal


@dataclass(frozen=True, slots=True)
class Subprotocols:
    """What the client offered, parted: *forwarded* is what app or upstream sees, *removed* is shown to nobody."""

    forwarded: tuple[str, ...] = ()
    removed: tuple[str, ...] = field(default=(), repr=False)
    companion_offered: bool = False


NO_SUBPROTOCOLS = Subprotocols()


@dataclass(frozen=True, slots=True)
class Redemption:
    """
    A ticket that fits and is still to be taken from the store, last of all: its *key* there.

    *handle* is the digest of the renewal handle that was told when it was sold, *sold_by* the ambient authenticator
    whose cookie bought it, if one did.
    """

    key: bytes
    handle: bytes
    sold_by: str | None = None


class Recheck(Protocol):
    """How an ambient credential is judged again while its socket lives; it holds the credential, in this process."""

    @property
    def interval(self) -> float:
        """Seconds between two looks."""
        ...

    async def again(self, now: float) -> Identity | Refusal:
        """Say whose it is at *now* (Unix seconds), or why it is refused. Any exception means that nobody could say."""
        ...


@dataclass(frozen=True, slots=True)
class SocketLimits:
    """What a live socket is held to: *messages_per_second* (count), *idle* and *max_lifetime* (seconds); None: not."""

    messages_per_second: int | None = None
    idle: float | None = None
    max_lifetime: float | None = None


class RouteTerms(msgspec.Struct, frozen=True):
    """
    What everything that a route lets in is held to: the same for each, so made once.

    *route* is its path. *max_message* bounds a message in bytes where one is written, *limits* are what a live socket
    is held to, *compression* lets permessage-deflate stay in the offer. *upstream_host* and *upstream_origin* are
    ``preserve``, ``upstream`` or a value to send instead. *close_codes* are what stands for codes of ours.
    """

    route: str
    max_message: int | None = None
    limits: SocketLimits | None = None
    compression: bool = False
    upstream_host: str = "preserve"
    upstream_origin: str = "preserve"
    close_codes: Mapping[int, int] = msgspec.field(default_factory=dict[int, int])


class Accept(msgspec.Struct, frozen=True):
    """
    The request may go on, on the *terms* of the route whose policy decided.

    *client* is whom it comes from as judged, *origin* what its Origin has proven and *source* the list that allowed it;
    *subprotocols* tells forwarding which are taken out. *in_header* tells that an explicit credential in a header field
    decided; *consumed* is that field, in lower case, which an upstream does not see. *drop_cookies* keeps the cookies
    of an unlisted origin's handshake from the app.
    """

    terms: RouteTerms
    client: Client
    origin: OriginProof | None = None
    source: str = ""
    subprotocols: Subprotocols = NO_SUBPROTOCOLS
    drop_cookies: bool = False
    identity: Identity | None = None
    redemption: Redemption | None = None
    recheck: Recheck | None = None
    in_header: bool = False
    consumed: bytes | None = None


@dataclass(frozen=True, slots=True)
class Refuse:
    """
    The request is refused with *reason*'s status. Only the status and a request id reach the client.

    *close_code* stands where the policy tells a browser's script why by a socket that is opened and closed at once
    (``refusal = "close"``); None everywhere else. *identity* is who was refused, where that is known.
    """

    reason: Reason
    detail: str = ""
    setting: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    close_code: int | None = None
    identity: Identity | None = None

    @property
    def status(self) -> int:
        """The HTTP status that answers."""
        return self.reason.status


Decision = Accept | Refuse
