"""
Tickets: a browser's WebSocket cannot set headers, so an explicit credential buys one over HTTPS; it opens the socket.

A ticket is 256 random bits, good for one handshake and some seconds, and bound to who bought it, to the page's origin,
the host and the route. Only its hash is stored. It is taken from the store atomically, last of all that is judged, so
that a refused handshake does not spend it (B-TICKET-01, B-TICKET-06).
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from wsguard.vocabulary.errors import ConfigurationError, ConfigurationErrors
from wsguard.vocabulary.identity import Identity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wsguard.engine.ports import Randomness, Store, Taken

SPACE = "tickets"
PREFIX = "wsguard.ticket."
_SECRET_BYTES = 32
_TICKET = re.compile(re.escape(PREFIX) + r"([0-9a-f]{8})\.([A-Za-z0-9_-]{43})", re.ASCII)
_NOT_SOLD_FOR = ("ticket", "basic", "client_certificate")
_RANGES = {"lifetime": (5, 300), "rate": (1, 100_000), "rate_address": (1, 1_000_000)}


@dataclass(frozen=True)
class Ticket:
    """
    How tickets are sold.

    *sold_for*: the names of the authenticators whose credential buys one; none where only the app itself sells them, by
    `Guard.issue_ticket`. *lifetime*: seconds, 5 to 300. *rate* and
    *rate_address*: tickets a minute, an identity and an address. *replay_closes*: a second redemption closes the socket
    of the first. *bind_address*: the ticket opens only for the address that bought it.
    Raises ConfigurationError for a value outside its range and for what can buy none.
    """

    sold_for: Sequence[str] = ()
    lifetime: float = 30
    rate: int = 30
    rate_address: int = 300
    replay_closes: bool = True
    bind_address: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be sold."""
        if isinstance(self.sold_for, str):
            raise ConfigurationError("ticket.sold_for", repr(self.sold_for), 'a list of names like ["bearer"]')
        errors = [
            ConfigurationError("ticket.sold_for", repr(name), "a credential that a page can send by fetch")
            for name in self.sold_for
            if name in _NOT_SOLD_FOR
        ]
        for key, (lowest, highest) in _RANGES.items():
            value = getattr(self, key)
            if isinstance(value, bool) or not lowest <= value <= highest:
                errors.append(ConfigurationError(f"ticket.{key}", repr(value), f"between {lowest} and {highest}"))
        if errors:
            raise ConfigurationErrors(errors)


class TicketRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """
    What the store keeps of a ticket, under its hash.

    *sold_by* names the ambient authenticator that its buyer's cookie must satisfy again, or is None. *handle* is the
    digest of the renewal handle. *binding* is kept free for a key that the redeemer must prove.
    """

    subject: str
    issuer: str
    method: str
    route: str
    host: str
    handle: bytes
    expires_at: float
    origin: str | None = None
    address: str | None = None
    sold_by: str | None = None
    scopes: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    credential_id: str | None = None
    sid: str | None = None
    identity_expires_at: float | None = None
    issued_at: float | None = None
    binding: str | None = None

    def identity(self) -> Identity:
        """Return the identity that bought it."""
        return Identity(
            subject=self.subject,
            issuer=self.issuer,
            method=self.method,
            scopes=frozenset(self.scopes),
            groups=frozenset(self.groups),
            credential_id=self.credential_id,
            sid=self.sid,
            expires_at=self.identity_expires_at,
            issued_at=self.issued_at,
        )

    def encode(self) -> bytes:
        """Return it as bytes for the store."""
        return msgspec.msgpack.encode(self)

    @classmethod
    def decode(cls, data: bytes) -> TicketRecord:
        """Read what `encode` wrote. Raises msgspec.DecodeError for anything else."""
        return msgspec.msgpack.decode(data, type=cls)


class SoldTickets:
    """
    The tickets in *store*, under their keys.

    The *most_at_hand* that this process sold last are found without it: who they are for does not change, and whether
    one was redeemed is for `take` to say, which always asks the store.
    """

    def __init__(self, store: Store, most_at_hand: int) -> None:
        self._store = store
        self._most_at_hand = most_at_hand
        self._at_hand: dict[bytes, TicketRecord] = {}

    @property
    def store_name(self) -> str:
        """What a ticket names that this store made."""
        return self._store.name

    async def keep(self, key: bytes, record: TicketRecord, *, now: float) -> None:
        """Keep a ticket that is sold. Raises what the store raises; nothing is sold then."""
        await self._store.put(SPACE, key, record.encode(), expires_at=record.expires_at, now=now)
        at_hand = self._at_hand
        at_hand[key] = record
        # In the order in which they were sold, which is nearly that in which they expire.
        while at_hand and (len(at_hand) > self._most_at_hand or at_hand[next(iter(at_hand))].expires_at <= now):
            del at_hand[next(iter(at_hand))]

    def at_hand(self, key: bytes, *, now: float) -> TicketRecord | None:
        """Return a ticket that was sold here lately. It may have been redeemed elsewhere."""
        record = self._at_hand.get(key)
        return record if record is not None and record.expires_at > now else None

    async def look(self, key: bytes, *, now: float) -> TicketRecord | Taken:
        """Return a ticket that can be redeemed, else what is in its place. Raises what the store raises."""
        found = await self._store.peek(SPACE, key, now=now)
        return found if found.value is None else TicketRecord.decode(found.value)

    async def take(self, key: bytes, *, mark: bytes, now: float) -> Taken:
        """Redeem a ticket, atomically, and leave *mark* in its place. Raises what the store raises."""
        self._at_hand.pop(key, None)
        return await self._store.take(SPACE, key, mark=mark, now=now)


@dataclass(frozen=True, slots=True, repr=False)
class PresentedTicket:
    """A ticket as it travels: the *store* that made it, and its *key* there. The secret itself is not kept."""

    store: str
    key: bytes


def read_ticket(text: str) -> PresentedTicket | None:
    """Read ``wsguard.ticket.STORE.SECRET``; None for anything else."""
    match = _TICKET.fullmatch(text)
    return None if match is None else PresentedTicket(match[1], ticket_key(match[2]))


def new_ticket(store: str, randomness: Randomness) -> tuple[str, bytes]:
    """Return a new ticket of *store* as it travels (under 200 bytes), and its key there."""
    secret = new_secret(randomness)
    return f"{PREFIX}{store}.{secret}", ticket_key(secret)


def new_secret(randomness: Randomness) -> str:
    """Return 256 random bits as unpadded base64url."""
    return base64.urlsafe_b64encode(randomness(_SECRET_BYTES)).rstrip(b"=").decode("ascii")


def ticket_key(secret: str) -> bytes:
    """Return under which key a ticket is stored. 256 random bits need no slow hash."""
    return hashlib.sha256(b"wsguard.ticket:" + secret.encode("ascii")).digest()


def handle_digest(handle: str) -> bytes:
    """Return the digest of a renewal handle: what a session keeps of it."""
    return hashlib.sha256(b"wsguard.session:" + handle.encode("utf-8", "surrogatepass")).digest()
