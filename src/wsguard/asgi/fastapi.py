"""
The identity of a guarded socket or page as FastAPI dependencies.

They need a route whose policy names authenticators. Where nobody was asked who it is, they refuse: a dependency that
says "whoever" is worse than none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException, WebSocketException
from starlette.requests import HTTPConnection

from wsguard.asgi.middleware import identity as identity_of
from wsguard.vocabulary import close_codes
from wsguard.vocabulary.identity import Identity

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


async def identity(connection: HTTPConnection) -> Identity:
    """
    Return who opened this socket or asks for this page: ``Annotated[Identity, Depends(identity)]``.

    Refuses with 401 (a socket: before the accept) where the route asks nobody. Raises UnguardedScopeError where no
    guard stands before the app.
    """
    found = identity_of(connection.scope)
    if found is None:
        raise _refusal(connection, 401, close_codes.CREDENTIAL)
    return found


def require_scope(*scopes: str) -> Callable[[HTTPConnection], Awaitable[Identity]]:
    """
    Return a dependency that gives the Identity only where it holds all *scopes*; else 403 (RFC 6750 §3.1).

    ``Annotated[Identity, Depends(require_scope("chat:write"))]``
    """

    async def scoped_identity(connection: HTTPConnection) -> Identity:
        found = await identity(connection)
        if not found.scopes.issuperset(scopes):
            raise _refusal(connection, 403, close_codes.POLICY)
        return found

    return scoped_identity


def _refusal(connection: HTTPConnection, status: int, code: int) -> Exception:
    if connection.scope["type"] == "websocket":
        return WebSocketException(code)
    return HTTPException(status)
