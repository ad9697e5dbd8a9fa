"""
The desk: what the endpoints share. It finds out who asks, from which page, about which path.

An explicit credential buys by itself. A cookie, which browsers attach unasked, buys only with a listed Origin and the
field ``X-WSGuard: 1``, which a foreign page cannot send without a preflight that it fails (B-TICKET-04).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from wsguard.endpoints.messages import EndpointRequest, EndpointResponse, preflight, refused, with_cors
from wsguard.engine.authentication import authenticate, challenged
from wsguard.engine.carriage import in_header
from wsguard.engine.limits import RateLimits
from wsguard.engine.policy import Context, judge_place
from wsguard.vocabulary import reasons
from wsguard.vocabulary.decision import OriginProof, Refusal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from wsguard.engine.ports import Authenticator, Clock, Randomness, WallClock
    from wsguard.engine.revocations import Revocations
    from wsguard.engine.routes import Route, RouteTable
    from wsguard.engine.sessions import SessionRegistry
    from wsguard.engine.tickets import SoldTickets, Ticket
    from wsguard.vocabulary.bounds import Limits
    from wsguard.vocabulary.identity import Identity

_PROVEN = frozenset({OriginProof.LISTED, OriginProof.SAME_ORIGIN})
_MARKER = b"x-wsguard"


@dataclass
class Desk:
    """
    Routes, tickets, sessions and who sells; *sellers* stand in the order of ``sold_for``.

    *ticket* is None where none are sold: then only the other endpoints answer.
    """

    table: RouteTable
    limits: Limits
    tickets: SoldTickets
    ticket: Ticket | None
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

    def sellers_at(self, route: Route) -> Sequence[Authenticator]:
        """Return whose credentials buy a ticket for *route*."""
        return tuple(self.sellers.values()) if route.takes_tickets else ()

    def renewers_at(self, route: Route) -> Sequence[Authenticator]:
        """Return whose credentials renew a socket of *route*: what sold its ticket, or the header that opened it."""
        sellers = self.sellers_at(route)
        return (*sellers, *(one for one in route.authenticators if in_header(one) and one not in sellers))

    def judges_at(self, route: Route) -> Sequence[Authenticator]:
        """Return whose credentials tell how *route* answers: its sellers, or what HTTP can carry of its ``auth``."""
        return self.sellers_at(route) if route.takes_tickets else route.authenticators

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
Askers = Callable[["Route"], "Sequence[Authenticator]"]


async def answer(desk: Desk, request: EndpointRequest, method: str, askers: Askers, serve: Serve) -> EndpointResponse:
    """
    Answer *request* to an endpoint that takes *method*: its preflight, a wrong method, or what *serve* says.

    A page of an origin that may connect to a route where *askers* are heard may read the answer, and no other page; it
    may send cookies where one of them reads such (RULES §13).
    """
    handshake = request.handshake
    origin = handshake.fields.first(b"origin")
    routes = [route for route in desk.table.routes if askers(route)]
    cookies = any(one.carriage == "ambient" for route in routes for one in askers(route))
    misplaced, is_listed = await _look(desk, request, routes or desk.table.routes)
    if misplaced is not None:
        return with_cors(refused(misplaced), None, credentials=False)
    readable = origin if is_listed and routes else None
    if handshake.method == "OPTIONS" and b"access-control-request-method" in handshake.fields:
        if readable is None:
            return with_cors(refused(Refusal(reasons.ORIGIN_NOT_ALLOWED)), None, credentials=False)
        return preflight(readable, methods=method, headers=desk.request_headers, credentials=cookies)
    if handshake.method != method:
        response = refused(Refusal(reasons.ENDPOINT_METHOD, headers=(("Allow", f"{method}, OPTIONS"),)))
    else:
        response = await serve(request)
    return with_cors(response, readable, credentials=cookies)


async def _look(desk: Desk, request: EndpointRequest, routes: Sequence[Route]) -> tuple[Refusal | None, bool]:
    """Return why none of *routes* serves a page here (no TLS, a foreign Host), and whether its Origin may connect."""
    first: Refusal | None = None
    is_served = False
    for route in routes:
        place = await judge_place(
            request.handshake, route, desk.table, limits=desk.limits, client=request.client, now=desk.wall_clock()
        )
        if isinstance(place, Context):
            is_served = True
            if place.origin in _PROVEN:
                return None, True
        elif place.reason.code.startswith("origin."):
            is_served = True  # that comes last: everything before it has passed
        else:
            first = first or place
    return None if is_served else first, False


async def customer_of(
    desk: Desk, request: EndpointRequest, path: str, askers: Askers, *, marker_suffices: bool = False
) -> Customer | Refusal:
    """
    Return who asks about *path* by a credential of one of *askers*, or why nobody is served.

    With *marker_suffices* a cookie needs no Origin where ``Sec-Fetch-Site`` is ``same-origin`` or absent.
    """
    handshake = request.handshake
    now = desk.wall_clock()
    place = await judge_place(handshake, path, desk.table, limits=desk.limits, client=request.client, now=now)
    if isinstance(place, Refusal):
        return place
    sent = handshake.fields.first(b"origin")
    origin = None if sent is None else sent.decode("ascii")
    heard = () if place.route is None else askers(place.route)
    if not heard:
        return Refusal(reasons.TICKET_ROUTE, path)
    explicit = [one for one in heard if one.carriage == "explicit"]
    found = await authenticate(handshake, place, explicit)
    sold_by = None
    if isinstance(found, Refusal) and found.reason is reasons.CREDENTIAL_MISSING:
        for one in heard:
            if one.carriage == "ambient":
                answer = await authenticate(handshake, place, [one])
                if not isinstance(answer, Refusal) or answer.reason is not reasons.CREDENTIAL_MISSING:
                    found, sold_by = answer, one.name
                    break
        if sold_by is not None and not _shows_itself(request, place, marker_suffices=marker_suffices):
            return Refusal(reasons.TICKET_HEADER, setting="X-WSGuard: 1, from a page of a listed origin")
    if isinstance(found, Refusal):
        return found
    if desk.is_revoked(found):
        return challenged(Refusal(reasons.SESSION_REVOKED, identity=found))
    return Customer(found, place, origin, sold_by)


def _shows_itself(request: EndpointRequest, place: Context, *, marker_suffices: bool) -> bool:
    fields = request.handshake.fields
    if fields.values(_MARKER) != [b"1"]:
        return False
    if place.origin is OriginProof.LISTED:
        return True
    return marker_suffices and place.origin is None and fields.first(b"sec-fetch-site") in (None, b"same-origin")
