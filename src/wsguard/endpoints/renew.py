"""``POST /.wsguard/renew``: a fresh credential lengthens the life of a live socket, in place; it never shortens one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsguard.endpoints.desk import answer, customer_of
from wsguard.endpoints.messages import answered, json_members, refused
from wsguard.endpoints.ticket import named, session_times
from wsguard.engine.policy import lacks
from wsguard.engine.tickets import handle_digest
from wsguard.vocabulary import close_codes, reasons
from wsguard.vocabulary.decision import Refusal

if TYPE_CHECKING:
    from wsguard.endpoints.desk import Customer, Desk
    from wsguard.endpoints.messages import EndpointRequest, EndpointResponse
    from wsguard.engine.sessions import Session
    from wsguard.vocabulary.identity import Identity

RENEWALS_A_MINUTE = 10
_UNKNOWN = Refusal(reasons.SESSION_UNKNOWN)


async def answer_renew(desk: Desk, request: EndpointRequest, unknown: Refusal = _UNKNOWN) -> EndpointResponse:
    """Answer one request to the endpoint; *unknown* is said where no session here has the handle."""

    async def serve(asked: EndpointRequest) -> EndpointResponse:
        members = json_members(asked)
        if isinstance(members, Refusal):
            return refused(members)
        handle = members.get("session")
        if set(members) != {"session"} or not isinstance(handle, str):
            return refused(Refusal(reasons.TICKET_BODY, "session"))
        session = desk.sessions.of_handle(handle_digest(handle))
        if session is None:
            return refused(unknown)
        if session.closing is not None:
            return refused(_UNKNOWN)
        wait = desk.rates.take(("renewal", session.public_id), RENEWALS_A_MINUTE, desk.clock())
        if wait is not None:
            return refused(Refusal(reasons.LIMITS_RENEWALS, headers=(("Retry-After", str(wait)),)))
        customer = await customer_of(desk, asked, session.path, desk.renewers_at)
        if isinstance(customer, Refusal):
            return refused(customer)
        if session.closing is not None or session.public_id not in desk.sessions:
            return refused(_UNKNOWN)  # it has ended meanwhile
        return _renewed(desk, session, customer)

    return await answer(desk, request, "POST", desk.renewers_at, serve)


def _renewed(desk: Desk, session: Session, customer: Customer) -> EndpointResponse:
    fresh, held = customer.identity, session.identity
    if held is None or (fresh.subject, fresh.issuer) != (held.subject, held.issuer):
        return refused(Refusal(reasons.SESSION_IDENTITY), fresh)
    if customer.origin != session.origin or customer.sold_by != session.sold_by:
        return refused(Refusal(reasons.SESSION_IDENTITY, "another origin or kind of credential"), fresh)
    route = customer.context.route
    lacking = None if route is None else lacks(route.policy, fresh)
    if lacking is not None:
        # The claims of today no longer open this route: the socket that yesterday's opened ends.
        session.close(close_codes.POLICY, close_codes.TEXTS[close_codes.POLICY], cause=lacking.reason.code)
        return refused(lacking, fresh)
    if customer.context.recheck is not None and not _ends_before(fresh, held):
        # From now on it is this cookie that is asked about: the former would set its own end again, or is rotated away.
        session.renew(fresh)
        session.recheck = customer.context.recheck
    elif _ends_before(held, fresh):
        session.renew(fresh)
    kept = session.identity or fresh
    times = session_times(kept, desk.wall_clock())
    return answered(times, event="session.renewed", values={"session": session.public_id, **named(kept)})


def _ends_before(one: Identity, other: Identity) -> bool:
    return one.expires_at is not None and (other.expires_at is None or one.expires_at < other.expires_at)
