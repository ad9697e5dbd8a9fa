"""
The desk: what the endpoints share. It finds out who asks, from which page, about which path.

An explicit credential buys by itself. A cookie, which browsers attach unasked, buys only with a listed Origin and the
field ``X-WSGuard: 1``, which a foreign page cannot send without a preflight that it fails (B-TICKET-04).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from wsguard.endpoints.messages import EndpointRequest, EndpointResponse, preflight, refused, with_cors
from wsguard.engine.authentication import authenticate
from wsguard.engine.limits import RateLimits
from wsguard.engine.policy import Context, judge_place
from wsguard.vocabulary import reasons
from wsguard.vocabulary.decision import OriginProof, Refusal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from wsguard.engine.ports import Authenticator, Clock, Randomness, Store, WallClock
    from wsguard.engine.revocations import Revocations
    from wsguard.engine.routes import RouteTable
    from wsguard.engine.sessions import SessionRegistry
    from wsguard.engine.tickets import Ticket
    from wsguard.vocabulary.bounds import Limits
    from wsguard.vocabulary.identity import Identity

_PROVEN = frozenset({OriginProof.LISTED, OriginProof.SAME_ORIGIN})
_MARKER = b"x-wsguard"


@dataclass
class Desk:
    """Routes, store, sessions and who sells; *sellers* stand in the order of ``sold_for``."""

    table: RouteTable
    limits: Limits
    store: Store
    ticket: Ticket
    sellers: Mapping[str, Authenticator]
    sessions: SessionRegistry
    revocations: Revocations
    public_url: str
    request_headers: list[str]
    clock: Clock
    wall_clock: WallClock
    randomness: Randomness
    rates: RateLimits = field(init=False)

    def __post_init__(self) -> None:
        """Make the counters."""
        self.rates = RateLimits(self.limits.addresses)

    @property
    def takes_cookies(self) -> bool:
        """Tell whether a cookie may buy: then pages may send credentials across origins."""
        return any(one.carriage == "ambient" for one in self.sellers.values())

    def is_revoked(self, identity: Identity) -> bool:
        """Tell whether a revocation means *identity*."""
        return self.revocations.revokes(identity)


@dataclass(frozen=True, slots=True)
class Customer:
    """Who asks, at which place. *sold_by* names the ambient authenticator whose cookie decided, if one did."""

    identity: Identity
    context: Context
    origin: str | None
    sold_by: str | None


Serve = Callable[[EndpointRequest], Awaitable[EndpointResponse]]


async def answer(desk: Desk, request: EndpointRequest, method: str, serve: Serve) -> EndpointResponse:
    """
    Answer *request* to an endpoint that takes *method*: its preflight, a wrong method, or what *serve* says.

    A page of an origin that may buy tickets somewhere may read the answer, and no other page (RULES §13).
    """
    handshake = request.handshake
    origin = handshake.fields.first(b"origin")
    readable = origin if origin is not None and await _is_listed(desk, request) else None
    if handshake.method == "OPTIONS" and b"access-control-request-method" in handshake.fields:
        if readable is None:
            return with_cors(refused(Refusal(reasons.ORIGIN_NOT_ALLOWED)), None, credentials=False)
        return preflight(readable, methods=method, headers=desk.request_headers, credentials=desk.takes_cookies)
    if handshake.method != method:
        response = refused(Refusal(reasons.ENDPOINT_METHOD, headers=(("Allow", f"{method}, OPTIONS"),)))
    else:
        response = await serve(request)
    return with_cors(response, readable, credentials=desk.takes_cookies)


async def _is_listed(desk: Desk, request: EndpointRequest) -> bool:
    """Tell whether the Origin may connect to any route that takes tickets."""
    for route in desk.table.routes:
        if not route.takes_tickets:
            continue
        stem = route.path.removesuffix("/*") or "/"
        place = await judge_place(
            request.handshake, stem, desk.table, limits=desk.limits, client=request.client, now=desk.wall_clock()
        )
        if isinstance(place, Context) and place.origin in _PROVEN:
            return True
    return False


async def customer_of(
    desk: Desk, request: EndpointRequest, path: str, *, marker_suffices: bool = False
) -> Customer | Refusal:
    """
    Return who asks about *path*, or why nobody is served.

    With *marker_suffices* a cookie needs no Origin where ``Sec-Fetch-Site`` is ``same-origin`` or absent.
    """
    handshake = request.handshake
    now = desk.wall_clock()
    place = await judge_place(handshake, path, desk.table, limits=desk.limits, client=request.client, now=now)
    if isinstance(place, Refusal):
        return place
    sent = handshake.fields.first(b"origin")
    origin = None if sent is None else sent.decode("ascii")
    explicit = [one for one in desk.sellers.values() if one.carriage == "explicit"]
    found = await authenticate(handshake, place, explicit)
    sold_by = None
    if isinstance(found, Refusal) and found.reason is reasons.CREDENTIAL_MISSING:
        for seller in desk.sellers.values():
            if seller.carriage == "ambient":
                answer = await authenticate(handshake, place, [seller])
                if not isinstance(answer, Refusal) or answer.reason is not reasons.CREDENTIAL_MISSING:
                    found, sold_by = answer, seller.name
                    break
        if sold_by is not None and not _shows_itself(request, place, marker_suffices=marker_suffices):
            return Refusal(reasons.TICKET_HEADER, setting="X-WSGuard: 1, from a page of a listed origin")
    if isinstance(found, Refusal):
        return found
    if desk.is_revoked(found):
        return Refusal(reasons.SESSION_REVOKED)
    return Customer(found, place, origin, sold_by)


def _shows_itself(request: EndpointRequest, place: Context, *, marker_suffices: bool) -> bool:
    fields = request.handshake.fields
    if fields.values(_MARKER) != [b"1"]:
        return False
    if place.origin is OriginProof.LISTED:
        return True
    return marker_suffices and place.origin is None and fields.first(b"sec-fetch-site") in (None, b"same-origin")
