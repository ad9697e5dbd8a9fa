"""
The ticket as an authenticator: it is looked at here, and taken only when everything else has been judged.

It opens the route, host and origin that it was bought for and nothing else. One that a cookie bought needs that cookie
again: a ticket of the attacker's own, planted in the victim's page, would log the victim in as the attacker.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from wsguard.engine.authentication import same_login
from wsguard.engine.limits import address_key
from wsguard.engine.tickets import PREFIX, TicketRecord, read_ticket
from wsguard.vocabulary import reasons
from wsguard.vocabulary.decision import Redemption, Refusal
from wsguard.vocabulary.identity import Identity

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from wsguard.engine.policy import Context
    from wsguard.engine.ports import Authenticator, Carriage, Taken
    from wsguard.engine.tickets import SoldTickets
    from wsguard.vocabulary.handshake import Handshake


class TicketAuthenticator:
    """
    Reads ``wsguard.ticket.…`` among the subprotocols.

    *sellers* are the authenticators that sell tickets, by name. *on_replay* is told the session that a used ticket has
    opened.
    """

    name: str = "ticket"
    carriage: Carriage = "explicit"

    def __init__(
        self, tickets: SoldTickets, sellers: Mapping[str, Authenticator], on_replay: Callable[[bytes], None]
    ) -> None:
        self._tickets = tickets
        self._sellers = sellers
        self._on_replay = on_replay

    async def authenticate(self, handshake: Handshake, context: Context) -> Identity | Refusal | None:
        """Return who bought the ticket; the context keeps what has to be taken from the store."""
        if not handshake.is_handshake:
            return None
        offered = [entry for entry in context.subprotocols.removed if entry.startswith(PREFIX)]
        if not offered:
            return None
        origin = handshake.fields.first(b"origin")
        return await self.judge(offered, None if origin is None else origin.decode("ascii"), handshake, context)

    async def judge(
        self, sent: Sequence[str], origin: str | None, handshake: Handshake, context: Context
    ) -> Identity | Refusal:
        """Return who bought the one ticket that was *sent*, by a page of *origin*, and is still to be taken."""
        if len(sent) > 1:
            return Refusal(reasons.CREDENTIAL_REPEATED, self.name)
        ticket = read_ticket(sent[0])
        if ticket is None:
            return Refusal(reasons.TICKET_MALFORMED)
        if ticket.store != self._tickets.store_name:
            return Refusal(reasons.STORE_NOT_SHARED, setting='store = "sqlite:…", the same for all processes')
        record = self._tickets.at_hand(ticket.key, now=context.now)
        refusal = None if record is None else await self._unfit(record, origin, handshake, context)
        if record is None or refusal is not None:
            # The store has the first word on a ticket that is refused: it may be used, or gone, and not just misplaced.
            try:
                found = await self._tickets.look(ticket.key, now=context.now)
            except Exception as error:  # noqa: BLE001 - fail closed: whatever the store raises refuses (B-STORE-03)
                return Refusal(reasons.STORE_UNAVAILABLE, type(error).__name__)
            if not isinstance(found, TicketRecord):
                return self._gone(found)
            if found != record:
                refusal = await self._unfit(found, origin, handshake, context)
            record = found
        if refusal is not None:
            return replace(refusal, identity=record.identity())
        context.redemption = Redemption(ticket.key, record.handle, record.sold_by)
        return record.identity()

    def _gone(self, found: Taken) -> Refusal:
        if found.mark is None:
            return Refusal(reasons.TICKET_UNKNOWN)
        self._on_replay(found.mark)
        return Refusal(reasons.TICKET_USED)

    async def _unfit(
        self, record: TicketRecord, origin: str | None, handshake: Handshake, context: Context
    ) -> Refusal | None:
        return _misplaced(record, origin, context) or await self._not_theirs(record, handshake, context)

    async def _not_theirs(self, record: TicketRecord, handshake: Handshake, context: Context) -> Refusal | None:
        if record.sold_by is None:
            return None
        seller = self._sellers.get(record.sold_by)
        if seller is None:
            return Refusal(reasons.TICKET_IDENTITY, f"{record.sold_by} sells none any more")
        answer = await seller.authenticate(handshake, context)
        if isinstance(answer, Refusal) and answer.reason.status >= 500:  # noqa: PLR2004 - nobody could be asked
            return answer
        if isinstance(answer, Identity) and same_login(answer, record.identity()):
            return None
        return Refusal(reasons.TICKET_IDENTITY, record.sold_by)


def _misplaced(record: TicketRecord, origin: str | None, context: Context) -> Refusal | None:
    if context.route is None or record.route != context.route.path:
        return Refusal(reasons.TICKET_ROUTE, record.route)
    if record.origin != origin:
        return Refusal(reasons.TICKET_ORIGIN, record.origin or "bought without an Origin")
    if context.host is None or record.host != context.host.name:
        return Refusal(reasons.TICKET_HOST, record.host)
    address = context.client.peer.address
    if record.address is not None and record.address != (None if address is None else address_key(address)):
        return Refusal(reasons.TICKET_ADDRESS)
    return None
