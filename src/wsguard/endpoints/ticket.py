"""
``POST /.wsguard/ticket``: an explicit credential, or a cookie with the marker field, buys a ticket for one path.

The answer's ``url`` is made from ``public_url``, never from Host; its ``protocols`` are what a page offers besides its
own. What a ticket is stands in `wsguard.engine.tickets`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wsguard.endpoints.desk import Customer, answer, customer_of
from wsguard.endpoints.messages import answered, json_members, refused
from wsguard.engine.checks.subprotocols import COMPANION
from wsguard.engine.limits import address_key
from wsguard.engine.policy import lacks
from wsguard.engine.tickets import TicketRecord, handle_digest, new_secret, new_ticket
from wsguard.vocabulary import reasons
from wsguard.vocabulary.decision import Refusal

if TYPE_CHECKING:
    from wsguard.endpoints.desk import Desk
    from wsguard.endpoints.messages import EndpointRequest, EndpointResponse
    from wsguard.engine.tickets import Ticket
    from wsguard.vocabulary.handshake import Client
    from wsguard.vocabulary.identity import Identity

RECONNECT_SECONDS = 10
_MEMBERS = {"path"}


async def answer_ticket(desk: Desk, request: EndpointRequest) -> EndpointResponse:
    """Answer one request to the endpoint."""

    async def serve(asked: EndpointRequest) -> EndpointResponse:
        members = json_members(asked)
        if isinstance(members, Refusal):
            return refused(members)
        path = members.get("path")
        if set(members) != _MEMBERS or not isinstance(path, str) or "?" in path:
            return refused(Refusal(reasons.TICKET_BODY))
        over = _asks_too_much(desk, asked.client)
        if over is not None:
            return refused(over)
        customer = await customer_of(desk, asked, path, desk.sellers_at)
        if isinstance(customer, Refusal):
            return refused(customer)
        return await sell(desk, customer, asked.client, path)

    return await answer(desk, request, "POST", desk.sellers_at, serve)


async def sell(desk: Desk, customer: Customer, client: Client, path: str) -> EndpointResponse:
    """Sell a ticket for *path* to *customer*, who has been judged; refuse by rate, route, or a store that is down."""
    route, identity, options = customer.context.route, customer.identity, desk.ticket
    if route is None or not route.takes_tickets or customer.context.host is None or options is None:
        return refused(Refusal(reasons.TICKET_ROUTE, path))
    address = client.peer.address
    if options.bind_address and address is None:
        return refused(Refusal(reasons.TICKET_ADDRESS, "not known", setting="trusted_proxies"))
    lacking = lacks(route.policy, identity) or _too_many(desk, options, identity, client)
    if lacking is not None:
        return refused(lacking, identity)
    now = desk.wall_clock()
    handle = new_secret(desk.randomness)
    ticket, key = new_ticket(desk.tickets.store_name, desk.randomness)
    lifetime = options.lifetime
    if identity.expires_at is not None:
        lifetime = min(lifetime, identity.expires_at - now)
    record = TicketRecord(
        subject=identity.subject,
        issuer=identity.issuer,
        method=identity.method,
        route=route.path,
        host=customer.context.host.name,
        handle=handle_digest(handle),
        expires_at=now + lifetime,
        origin=customer.origin,
        address=address_key(address) if options.bind_address and address is not None else None,
        sold_by=customer.sold_by,
        scopes=tuple(sorted(identity.scopes)),
        groups=tuple(sorted(identity.groups)),
        credential_id=identity.credential_id,
        sid=identity.sid,
        identity_expires_at=identity.expires_at,
        issued_at=identity.issued_at,
    )
    try:
        await desk.tickets.keep(key, record, now=now)
    except Exception as error:  # noqa: BLE001 - fail closed: whatever the store raises refuses (B-STORE-03)
        return refused(Refusal(reasons.STORE_UNAVAILABLE, type(error).__name__))
    members: dict[str, Any] = {
        "ticket": ticket,
        "expires_in": int(lifetime),
        "url": _websocket_url(desk.public_url, path),
        "protocols": [COMPANION, ticket],
        "session": handle,
        **session_times(identity, now),
        "reconnect_window": RECONNECT_SECONDS,
    }
    return answered(members, event="ticket.sold", values={"path": path, "route": route.path, **named(identity)})


def session_times(identity: Identity, now: float) -> dict[str, int | None]:
    """Return until when the session lives, and after how many seconds to renew it; null where it has no end."""
    if identity.expires_at is None:
        return {"session_expires_at": None, "renew_after": None}
    left = max(0.0, identity.expires_at - now)
    return {"session_expires_at": int(identity.expires_at), "renew_after": int(left * 2 / 3)}


def named(identity: Identity) -> dict[str, str | None]:
    """Return what a log line says of an identity (RULES §10)."""
    return {
        "issuer": identity.issuer,
        "subject": identity.subject,
        "method": identity.method,
        "credential_id": identity.credential_id,
        "sid": identity.sid,
    }


def _asks_too_much(desk: Desk, client: Client) -> Refusal | None:
    # Before anybody is looked at: whoever guesses is counted too (B-FRAME-08).
    if desk.ticket is None or client.peer.address is None:
        return None
    key = ("asked", address_key(client.peer.address))
    return _over(desk.rates.take(key, desk.ticket.rate_address, desk.clock()))


def _too_many(desk: Desk, options: Ticket, identity: Identity, client: Client) -> Refusal | None:
    now = desk.clock()
    waits = [desk.rates.take(("identity", identity.issuer, identity.subject), options.rate, now)]
    if client.peer.address is not None:
        waits.append(desk.rates.take(("address", address_key(client.peer.address)), options.rate_address, now))
    return _over(max((seconds for seconds in waits if seconds is not None), default=None))


def _over(wait: int | None) -> Refusal | None:
    return None if wait is None else Refusal(reasons.LIMITS_TICKETS, headers=(("Retry-After", str(wait)),))


def _websocket_url(public_url: str, path: str) -> str:
    return "wss" + public_url.removeprefix("https").rstrip("/") + path
