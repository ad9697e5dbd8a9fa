"""
What is done for a request on the admin socket.

``POST /revocations``, ``POST /tickets``, ``GET /sessions``, ``POST /sessions/close``; and among the workers of one
gateway ``POST /revocations/heard`` and ``POST /renewals``, and what their parent orders for its user. Bodies and
answers are JSON; a body with unknown, empty or wrong members does nothing (400).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

import msgspec
from msgspec import UNSET, Meta, UnsetType

from wsguard.engine.revocations import RevocationSyntaxError
from wsguard.vocabulary.errors import StoreError
from wsguard.vocabulary.identity import LATEST_TIME, Identity

if TYPE_CHECKING:
    from wsguard.endpoints.messages import EndpointResponse

APP_ISSUER = "app"


@dataclass(frozen=True, slots=True)
class AdminRequest:
    """One request: its method, path and body, and the user at the other end."""

    method: str
    path: str
    body: bytes
    uid: int


@dataclass(frozen=True, slots=True)
class AdminAnswer:
    """What is answered: a status, JSON, and more *fields*."""

    status: int
    body: bytes
    fields: tuple[tuple[str, str], ...] = ()


_Text = Annotated[str, Meta(min_length=1)]


class TicketOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """
    What ``POST /tickets`` takes: whom the app vouches for, and the page that will open the socket.

    *expires_at* is in Unix seconds; without *origin* the ticket opens only a handshake without one. A member that is
    left out is not null: who sends that has forgotten something.
    """

    subject: _Text
    path: _Text
    host: _Text
    issuer: _Text = APP_ISSUER
    sid: _Text | UnsetType = UNSET
    origin: _Text | UnsetType = UNSET
    expires_at: Annotated[float, Meta(ge=0, le=LATEST_TIME)] | UnsetType = UNSET
    scopes: list[_Text] = []
    groups: list[_Text] = []

    def identity(self, now: float) -> Identity:
        """Return whom the ticket is for; *now* is Unix seconds."""
        return Identity(
            self.subject,
            self.issuer,
            "app",
            scopes=frozenset(self.scopes),
            groups=frozenset(self.groups),
            sid=None if self.sid is UNSET else self.sid,
            expires_at=None if self.expires_at is UNSET else self.expires_at,
            issued_at=now,
        )


@dataclass(frozen=True, slots=True)
class Revoked:
    """How many sockets were *closed*, in how many *processes* that answered."""

    closed: int
    processes: int


class ForwardedRequest(msgspec.Struct, frozen=True):
    """A request to an endpoint that came to a worker which does not hold the session: as it was received."""

    method: str
    target: bytes
    fields: list[tuple[bytes, bytes]]
    body: bytes
    http_version: Literal["1.0", "1.1", "2"]
    address: str | None
    secure: bool | None
    through_proxy: bool
    server_name: str | None


class Administered(Protocol):
    """What the admin socket commands: a guard, or all guards of several workers."""

    async def revoke_for(self, uid: int, members: dict[str, Any]) -> Revoked:
        """Revoke for user *uid* what *members* name. Raises RevocationSyntaxError, StoreError."""
        ...

    async def revoke_heard(self, members: dict[str, Any]) -> int:
        """Heed what another worker has revoked; return how many sockets were closed here."""
        ...

    async def session_list(self) -> list[dict[str, Any]]:
        """Describe the live sessions; nothing of it is secret."""
        ...

    async def close_session(self, uid: int, public_id: str) -> bool:
        """Close one live session; return whether there was one."""
        ...

    async def renew_here(self, digest: bytes, request: ForwardedRequest) -> EndpointResponse | None:
        """Answer a renewal of the session whose handle has this *digest*; None where it does not live here."""
        ...

    async def sell_for_app(self, order: TicketOrder) -> EndpointResponse:
        """Sell a ticket to whom the app vouches for."""
        ...


async def answer_admin(guard: Administered, request: AdminRequest) -> AdminAnswer:
    """Do what *request* asks of *guard*, and say what came of it."""
    known = _COMMANDS.get(request.path)
    if known is None:
        return _error(404, f"one of {', '.join(_COMMANDS)}")
    method, command = known
    if request.method != method:
        return _error(405, f"{method} {request.path}", (("Allow", method),))
    try:
        return await command(guard, request)
    except (msgspec.DecodeError, msgspec.ValidationError, RevocationSyntaxError) as error:
        return _error(400, str(error))
    except StoreError as error:
        return _error(503, str(error))


async def _revoke(guard: Administered, request: AdminRequest) -> AdminAnswer:
    members = msgspec.json.decode(request.body, type=dict[str, Any])
    revoked = await guard.revoke_for(request.uid, members)
    return _json(200, {"closed": revoked.closed, "processes": revoked.processes})


class _OrderedRevocation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    members: dict[str, Any]
    uid: int


async def _revoke_for_parent(guard: Administered, request: AdminRequest) -> AdminAnswer:
    """The parent of several workers says which user asked it."""
    wanted = msgspec.json.decode(request.body, type=_OrderedRevocation)
    revoked = await guard.revoke_for(wanted.uid, wanted.members)
    return _json(200, {"closed": revoked.closed, "processes": revoked.processes})


async def _hear(guard: Administered, request: AdminRequest) -> AdminAnswer:
    members = msgspec.json.decode(request.body, type=dict[str, Any])
    return _json(200, {"closed": await guard.revoke_heard(members)})


class _Renewal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    digest: bytes
    request: ForwardedRequest


async def _renew(guard: Administered, request: AdminRequest) -> AdminAnswer:
    wanted = msgspec.json.decode(request.body, type=_Renewal)
    response = await guard.renew_here(wanted.digest, wanted.request)
    if response is None:
        return _error(404, "no session has this handle here")
    return _json(200, {"status": response.status, "fields": response.fields, "body": response.body})


async def _list(guard: Administered, request: AdminRequest) -> AdminAnswer:
    del request
    return _json(200, {"sessions": await guard.session_list()})


class _Close(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    session: str


async def _close(guard: Administered, request: AdminRequest) -> AdminAnswer:
    wanted = msgspec.json.decode(request.body, type=_Close)
    return await _close_for(guard, request.uid, wanted.session)


class _OrderedClose(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    session: str
    uid: int


async def _close_for_parent(guard: Administered, request: AdminRequest) -> AdminAnswer:
    wanted = msgspec.json.decode(request.body, type=_OrderedClose)
    return await _close_for(guard, wanted.uid, wanted.session)


async def _close_for(guard: Administered, uid: int, session: str) -> AdminAnswer:
    if not await guard.close_session(uid, session):
        return _error(404, "no live session has this id")
    return _json(200, {"closed": 1})


async def _sell(guard: Administered, request: AdminRequest) -> AdminAnswer:
    order = msgspec.json.decode(request.body, type=TicketOrder)
    response = await guard.sell_for_app(order)
    return AdminAnswer(response.status, response.body)


Command = Callable[[Administered, AdminRequest], Awaitable[AdminAnswer]]
_COMMANDS: dict[str, tuple[str, Command]] = {
    "/revocations": ("POST", _revoke),
    "/revocations/ordered": ("POST", _revoke_for_parent),
    "/revocations/heard": ("POST", _hear),
    "/renewals": ("POST", _renew),
    "/tickets": ("POST", _sell),
    "/sessions": ("GET", _list),
    "/sessions/close": ("POST", _close),
    "/sessions/close/ordered": ("POST", _close_for_parent),
}


def _json(status: int, members: dict[str, Any]) -> AdminAnswer:
    return AdminAnswer(status, msgspec.json.encode(members))


def _error(status: int, why: str, fields: tuple[tuple[str, str], ...] = ()) -> AdminAnswer:
    answer = _json(status, {"status": status, "error": HTTPStatus(status).phrase, "why": why})
    return AdminAnswer(answer.status, answer.body, fields)
