"""
The app itself sells tickets, to people whom it has logged in, and takes them for downloads and streamed answers.

Both are judged as the endpoint and the handshake are: Origin, Host, route, what the route requires, revocations.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from wsguard.endpoints.desk import Customer
from wsguard.endpoints.messages import refused
from wsguard.endpoints.ticket import sell
from wsguard.engine.authentication import challenged
from wsguard.engine.checks.origin import same_origin_as_host
from wsguard.engine.policy import judge_place, lacks
from wsguard.vocabulary import reasons
from wsguard.vocabulary.decision import Refusal

if TYPE_CHECKING:
    from wsguard.endpoints.desk import Desk
    from wsguard.endpoints.messages import EndpointResponse
    from wsguard.engine.authenticators.ticket import TicketAuthenticator
    from wsguard.engine.policy import Context
    from wsguard.vocabulary.decision import Redemption
    from wsguard.vocabulary.handshake import Client, Handshake
    from wsguard.vocabulary.identity import Identity

TICKET_FIELD = b"x-wsguard-ticket"


class JudgedPage(Protocol):
    """A page's request that a guard has let through: as it was judged, and who sent it."""

    @property
    def handshake(self) -> Handshake:
        """The request as it came."""
        ...

    @property
    def client(self) -> Client:
        """Who sent it."""
        ...


async def issue(desk: Desk, page: JudgedPage, identity: Identity, path: str) -> EndpointResponse:
    """Sell *identity*, whom the app vouches for, a ticket for *path*, for the page that asks."""
    handshake, now = page.handshake, desk.wall_clock()
    if identity.issued_at is None:
        # Issued now: what nobody knows the age of would be older than any revocation, after the next login too.
        identity = replace(identity, issued_at=now)
    if "?" in path:
        return refused(Refusal(reasons.TICKET_BODY))
    place = await judge_place(handshake, path, desk.table, limits=desk.limits, client=page.client, now=now)
    if isinstance(place, Refusal):
        return refused(place)
    if identity.expires_at is not None and identity.expires_at <= now:
        return refused(challenged(Refusal(reasons.CREDENTIAL_EXPIRED, identity=identity)))
    if desk.is_revoked(identity):
        return refused(challenged(Refusal(reasons.SESSION_REVOKED, identity=identity)))
    customer = Customer(identity, place, _origin_of(handshake, place), None)
    return await sell(desk, customer, page.client, path)


async def judge_presented(
    desk: Desk, page: JudgedPage, tickets: TicketAuthenticator
) -> tuple[Identity, Redemption] | Refusal:
    """Return who bought the ticket in the field ``X-WSGuard-Ticket``, and what is still to be taken from the store."""
    handshake, now = page.handshake, desk.wall_clock()
    sent = [value.decode("ascii", "replace") for value in handshake.fields.values(TICKET_FIELD)]
    if not sent:
        return challenged(Refusal(reasons.CREDENTIAL_MISSING))
    path = handshake.raw_path.decode("ascii")
    place = await judge_place(handshake, path, desk.table, limits=desk.limits, client=page.client, now=now)
    if isinstance(place, Refusal):
        return place
    identity = await tickets.judge(sent, _origin_of(handshake, place), handshake, place)
    if isinstance(identity, Refusal):
        return challenged(identity)
    if identity.expires_at is not None and identity.expires_at <= now:
        return challenged(Refusal(reasons.CREDENTIAL_EXPIRED, identity=identity))
    if desk.is_revoked(identity):
        return challenged(Refusal(reasons.SESSION_REVOKED, identity=identity))
    lacking = lacks(place.policy, identity)
    if lacking is not None:
        return replace(lacking, identity=identity)
    if place.redemption is None:
        return Refusal(reasons.POLICY_BAD_VERDICT, "a ticket without a redemption")
    return identity, place.redemption


def _origin_of(handshake: Handshake, place: Context) -> str | None:
    """
    Return the origin of the page that asks, which `judge_place` has judged if it was sent.

    Browsers send no Origin with a GET to their own site, but say so in ``Sec-Fetch-Site``, which no script can set.
    """
    sent = handshake.fields.first(b"origin")
    if sent is not None:
        return sent.decode("ascii")
    if handshake.fields.values(b"sec-fetch-site") == [b"same-origin"]:
        return str(same_origin_as_host(place.host))
    return None
