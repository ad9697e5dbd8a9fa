"""The admin socket of all workers: what is asked of the parent is asked of them, each over its own socket."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from wsguard.admin.neighbours import WITHIN_SECONDS, Neighbours
from wsguard.admin.requests import Revoked
from wsguard.endpoints.messages import EndpointResponse, refused
from wsguard.engine.revocations import RevocationSyntaxError
from wsguard.vocabulary import reasons
from wsguard.vocabulary.decision import Refusal
from wsguard.vocabulary.errors import StoreError

if TYPE_CHECKING:
    from wsguard.admin.requests import TicketOrder
    from wsguard.engine.ports import WallClock

# A worker that lives asks the others before it answers, and one of these may hang.
_REVOKED_WITHIN = WITHIN_SECONDS + 0.5


class Fleet:
    """The `Administered` that stands for the workers whose sockets are in *folder*."""

    def __init__(self, folder: str, wall_clock: WallClock) -> None:
        self._workers = Neighbours(Path(folder))
        self._wall_clock = wall_clock

    async def revoke_for(self, uid: int, members: dict[str, Any]) -> Revoked:
        """Let one worker revoke: it tells the others, and the log. Raises StoreError where none answers."""
        # The time is said once: where the first worker hangs, and the next is asked, it is the same revocation.
        order = {"issued_before": self._wall_clock(), **members}
        wanted = {"members": order, "uid": uid}
        answer = await self._workers.ask_first("POST", "/revocations/ordered", wanted, within=_REVOKED_WITHIN)
        if answer is None:
            raise StoreError("no worker answers")
        if answer.status == 400:  # noqa: PLR2004 - Bad Request
            raise RevocationSyntaxError(str(answer.members.get("why")))
        if answer.status != 200:  # noqa: PLR2004 - OK
            raise StoreError(str(answer.members.get("why") or answer.status))
        return Revoked(int(answer.members["closed"]), int(answer.members["processes"]))

    async def session_list(self) -> list[dict[str, Any]]:
        """Describe the live sessions of all."""
        asked = await self._workers.ask_all("GET", "/sessions")
        return [one for answer in asked.answers for one in answer.members.get("sessions", ())]

    async def close_session(self, uid: int, public_id: str) -> bool:
        """Close one live session, in whichever worker it lives."""
        wanted = {"session": public_id, "uid": uid}
        asked = await self._workers.ask_all("POST", "/sessions/close/ordered", wanted)
        return any(answer.status == 200 for answer in asked.answers)  # noqa: PLR2004 - OK

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
