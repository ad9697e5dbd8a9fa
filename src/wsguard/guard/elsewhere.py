"""What a worker asks of its siblings: to answer a renewal of a session that they hold, and to heed a revocation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from wsguard.admin.requests import ForwardedRequest
from wsguard.endpoints.messages import EndpointResponse
from wsguard.vocabulary import reasons
from wsguard.vocabulary.decision import Refusal

if TYPE_CHECKING:
    from wsguard.admin.neighbours import Neighbours
    from wsguard.endpoints.messages import EndpointRequest
    from wsguard.engine.revocations import Revocation

_OK = 200


class Elsewhere:
    """The sessions of the other workers, reached through *neighbours*."""

    def __init__(self, neighbours: Neighbours) -> None:
        self._neighbours = neighbours

    async def renewed(self, digest: bytes, request: EndpointRequest) -> EndpointResponse | Refusal | None:
        """
        Let whoever holds the session with this handle's *digest* answer *request*; None where nobody does.

        A Refusal (503) where a worker that may hold it is silent: to say that nobody does would end what may live.
        """
        wanted = msgspec.to_builtins({"digest": digest, "request": _forwarded(request)})
        asked = await self._neighbours.ask_all("POST", "/renewals", wanted)
        for answer in asked.answers:
            if answer.status == _OK:
                try:
                    told = msgspec.convert(answer.members, _Renewed)
                except msgspec.ValidationError:
                    continue
                return EndpointResponse(told.status, told.fields, told.body)
        if asked.silent:
            return Refusal(reasons.STORE_UNAVAILABLE, f"{asked.silent} workers do not answer")
        return None

    async def revoked(self, revocation: Revocation) -> tuple[int, int]:
        """Tell all of *revocation*; return how many sockets they closed, and how many workers answered in time."""
        answers = (await self._neighbours.ask_all("POST", "/revocations/heard", revocation.members)).answers
        return sum(int(answer.members.get("closed", 0)) for answer in answers), len(answers)


class _Renewed(msgspec.Struct, frozen=True):
    status: int
    fields: list[tuple[bytes, bytes]]
    body: bytes


def _forwarded(request: EndpointRequest) -> ForwardedRequest:
    handshake, client = request.handshake, request.client
    return ForwardedRequest(
        method=handshake.method or "POST",
        target=handshake.target,
        fields=list(handshake.fields.raw),
        body=request.body,
        http_version=handshake.http_version,
        address=client.peer.address,
        secure=client.secure,
        through_proxy=client.through_proxy,
        server_name=None if handshake.tls is None else handshake.tls.server_name,
    )
