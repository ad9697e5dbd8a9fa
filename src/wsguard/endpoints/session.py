"""``GET /.wsguard/session?path=…``: a page learns why its socket failed; a script sees only 1006 (BROWSERS.md §0.9)."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from wsguard.endpoints.desk import answer, customer_of
from wsguard.endpoints.messages import answered, refused
from wsguard.engine.limits import address_key
from wsguard.engine.policy import lacks
from wsguard.vocabulary import reasons
from wsguard.vocabulary.decision import Refusal

if TYPE_CHECKING:
    from wsguard.endpoints.desk import Desk
    from wsguard.endpoints.messages import EndpointRequest, EndpointResponse
    from wsguard.vocabulary.handshake import Client


async def answer_session(desk: Desk, request: EndpointRequest) -> EndpointResponse:
    """Answer one request to the endpoint: 200 and the end of the credential, or the status that a ticket would get."""

    async def serve(asked: EndpointRequest) -> EndpointResponse:
        query = asked.handshake.target.partition(b"?")[2].decode("ascii", "replace")
        try:
            parameters = parse_qsl(query, keep_blank_values=True, max_num_fields=1)
        except ValueError:
            parameters = []
        if [name for name, _ in parameters] != ["path"] or "?" in parameters[0][1]:
            return refused(Refusal(reasons.TICKET_BODY, "path"))
        over = _asks_too_often(desk, asked.client)
        if over is not None:
            return refused(over)
        customer = await customer_of(desk, asked, parameters[0][1], desk.judges_at, marker_suffices=True)
        if isinstance(customer, Refusal):
            return refused(customer)
        lacking = lacks(customer.context.policy, customer.identity)
        if lacking is not None:
            return refused(lacking, customer.identity)
        expires_at = customer.identity.expires_at
        return answered({"expires_at": None if expires_at is None else int(expires_at)})

    return await answer(desk, request, "GET", desk.judges_at, serve)


def _asks_too_often(desk: Desk, client: Client) -> Refusal | None:
    # As often as handshakes: else whoever guesses credentials would guess here (B-FRAME-08).
    if client.peer.address is None:
        return None
    key = ("session", address_key(client.peer.address))
    wait = desk.rates.take(key, desk.limits.attempts_address, desk.clock())
    return None if wait is None else Refusal(reasons.LIMITS_ADDRESS, headers=(("Retry-After", str(wait)),))
