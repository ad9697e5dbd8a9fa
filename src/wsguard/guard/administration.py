"""What the admin socket commands of a guard: revoke, list, close, sell a ticket to whom the app vouches for."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from msgspec import UNSET

from wsguard.endpoints.counter import issue
from wsguard.endpoints.messages import EndpointRequest, refused
from wsguard.endpoints.ticket import named
from wsguard.engine.revocations import Revocation
from wsguard.vocabulary import close_codes, reasons
from wsguard.vocabulary.decision import Refusal
from wsguard.vocabulary.fields import Fields
from wsguard.vocabulary.handshake import Client, Handshake, Peer, TLSFacts

if TYPE_CHECKING:
    from wsguard.admin.requests import ForwardedRequest, Revoked, TicketOrder
    from wsguard.endpoints.messages import EndpointResponse
    from wsguard.guard.guard import Guard


@dataclass(frozen=True, slots=True)
class _OrderedPage:
    handshake: Handshake
    client: Client


class Administration:
    """The `Administered` of one guard."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard

    async def revoke_for(self, uid: int, members: dict[str, Any]) -> Revoked:
        """Revoke what *members* name, for the user *uid*. Raises RevocationSyntaxError, StoreError."""
        return await self._guard.live.revoke(members, peer_uid=uid)

    async def revoke_heard(self, members: dict[str, Any]) -> int:
        """Heed what another worker has revoked, and kept in the store."""
        return self._guard.live.hear_revocation(Revocation.read(members, self._guard.wall_clock()))

    async def renew_here(self, digest: bytes, request: ForwardedRequest) -> EndpointResponse | None:
        """Answer a renewal that came to another worker, as if it had come here."""
        guard = self._guard
        if guard.sessions.of_handle(digest) is None:
            return None
        peer = Peer(request.address)
        tls = None if request.server_name is None else TLSFacts(request.server_name)
        handshake = Handshake(
            "page",
            request.method,
            request.target,
            Fields(request.fields),
            request.http_version,
            peer,
            request.secure,
            tls=tls,
        )
        client = Client(peer, request.secure, request.through_proxy)
        return await guard.answer_renewal(EndpointRequest(handshake, client, request.body))

    async def session_list(self) -> list[dict[str, Any]]:
        """Describe the live sessions, the oldest first."""
        guard = self._guard
        now = guard.clock()
        return [
            {
                "session": session.public_id,
                "pid": os.getpid(),
                "seconds": round(now - session.opened_at, 1),
                "origin": session.origin,
                "host": session.host,
                "path": session.path,
                "route": session.route,
                "peer": session.peer,
                "expires_at": session.expires_at,
                **(named(session.identity) if session.identity is not None else {}),
            }
            for session in guard.sessions
            if session.closing is None
        ]

    async def close_session(self, uid: int, public_id: str) -> bool:
        """Close one live session with 3000; what opened it may open another."""
        session = self._guard.sessions.of_id(public_id)
        if session is None or session.closing is not None:
            return False
        session.close(close_codes.CREDENTIAL, "closed", cause=reasons.SESSION_CLOSED.code)
        self._guard.log.event("session.closing", session=public_id, peer_uid=uid)
        return True

    async def sell_for_app(self, order: TicketOrder) -> EndpointResponse:
        """Sell a ticket for a page of ``order.origin``, judged as if that page had asked itself."""
        desk = self._guard.counter()
        if desk is None:
            return refused(Refusal(reasons.TICKET_ROUTE, order.path))
        fields = [(b"Host", order.host)] + ([] if order.origin is UNSET else [(b"Origin", order.origin)])
        raw = [(name, value.encode("utf-8", "replace")) for name, value in fields]
        client = Client(Peer(None), secure=True)
        handshake = Handshake("page", "POST", b"/.wsguard/ticket", Fields(raw), "1.1", Peer(None), secure=True)
        page, identity = _OrderedPage(handshake, client), order.identity(desk.wall_clock())
        unknown = await self._guard.live.revocations_unknown()
        response = await issue(desk, page, identity, order.path) if unknown is None else refused(unknown)
        self._guard.tell_answer(EndpointRequest(handshake, client, b""), response)
        return response
