"""The admin socket of all workers: what is asked of the parent is asked of them, each over its own socket."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from wsguard.admin.neighbours import Neighbours
from wsguard.admin.requests import Revoked
from wsguard.endpoints.messages import EndpointResponse, refused
from wsguard.engine.revocations import RevocationSyntaxError
from wsguard.vocabulary import reasons
from wsguard.vocabulary.decision import Refusal
from wsguard.vocabulary.errors import StoreError

if TYPE_CHECKING:
    from wsguard.admin.requests import TicketOrder
    from wsguard.observe.decision_log import DecisionLog


class Fleet:
    """The `Administered` that stands for the workers whose sockets are in *folder*."""

    def __init__(self, folder: str, log: DecisionLog) -> None:
        self._workers = Neighbours(Path(folder))
        self._log = log

    async def revoke_for(self, uid: int, members: dict[str, Any]) -> Revoked:
        """Let one worker revoke: it tells the others. Raises StoreError where none answers."""
        answer = await self._workers.ask_first("POST", "/revocations", members)
        if answer is None:
            raise StoreError("no worker answers")
        if answer.status == 400:  # noqa: PLR2004 - Bad Request
            raise RevocationSyntaxError(str(answer.members.get("why")))
        if answer.status != 200:  # noqa: PLR2004 - OK
            raise StoreError(str(answer.members.get("why") or answer.status))
        revoked = Revoked(int(answer.members["closed"]), int(answer.members["processes"]))
        self._log.event("session.revoked", **members, closed=revoked.closed, peer_uid=uid)
        return revoked

    async def session_list(self) -> list[dict[str, Any]]:
        """Describe the live sessions of all."""
        answers = await self._workers.ask_all("GET", "/sessions")
        return [one for answer in answers for one in answer.members.get("sessions", ())]

    async def close_session(self, uid: int, public_id: str) -> bool:
        """Close one live session, in whichever worker it lives."""
        self._log.event("session.closing", session=public_id, peer_uid=uid)
        answers = await self._workers.ask_all("POST", "/sessions/close", {"session": public_id})
        return any(answer.status == 200 for answer in answers)  # noqa: PLR2004 - OK

    async def sell_for_app(self, order: TicketOrder) -> EndpointResponse:
        """Let one worker sell; the ticket is good at all of them."""
        answer = await self._workers.ask_first("POST", "/tickets", msgspec.to_builtins(order))
        if answer is None:
            return refused(Refusal(reasons.STORE_UNAVAILABLE, "no worker answers"))
        return EndpointResponse(answer.status, body=msgspec.json.encode(answer.members))

    async def revoke_heard(self, members: dict[str, Any]) -> int:
        """Nobody tells the parent what was revoked."""
        del members
        return 0

    async def renew_here(self, digest: bytes, request: Any) -> EndpointResponse | None:
        """No session lives in the parent."""
        del digest, request
        return None
