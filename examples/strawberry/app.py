"""
GraphQL with subscriptions in Strawberry, over `graphql-transport-ws`. Queries over HTTP are judged like the socket.

Run it here, with a certificate for localhost:

    uvicorn app:app --port 8443 --ssl-certfile cert.pem --ssl-keyfile key.pem --no-proxy-headers

APP_ORIGINS: the pages that may connect, separated by blanks. APP_TRUSTED_PROXIES: the proxies in front, if there are.
"""

import os
from collections.abc import AsyncGenerator
from itertools import count

import strawberry
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount
from starlette.websockets import WebSocket
from strawberry.asgi import GraphQL
from strawberry.subscriptions import GRAPHQL_TRANSPORT_WS_PROTOCOL
from strawberry.types import Info

from wsguard import Policy
from wsguard.asgi import WebSocketGuard

ORIGINS = os.environ.get("APP_ORIGINS", "https://localhost:8443").split()
PROXIES = os.environ.get("APP_TRUSTED_PROXIES", "").split()

Context = dict[str, int]
visitors = count(1)


@strawberry.type
class Query:
    """What can be asked, over HTTP or the socket."""

    @strawberry.field
    def room(self) -> str:
        """Return the room's name."""
        return "lobby"


@strawberry.type
class Subscription:
    """What can be heard, over the socket."""

    @strawberry.subscription
    async def countdown(self, info: Info[Context, None], start: int) -> AsyncGenerator[str, None]:
        """Count down from *start* (at most 10)."""
        for number in range(min(start, 10), 0, -1):
            yield f"visitor {info.context['visitor']}: {number}"


class Endpoint(GraphQL[Context, None]):
    """The endpoint; it knows which visitor a socket is."""

    async def get_context(self, request: Request | WebSocket, response: Response | WebSocket) -> Context:
        """Count sockets; a page is nobody's visit."""
        return {"visitor": next(visitors) if isinstance(request, WebSocket) else 0}


endpoint = Endpoint(
    strawberry.Schema(query=Query, subscription=Subscription),
    graphql_ide=None,
    subscription_protocols=[GRAPHQL_TRANSPORT_WS_PROTOCOL],
    allowed_origins=ORIGINS,  # Strawberry has a check of its own: the same list
)
policy = Policy(origins=ORIGINS, http="same-policy", max_message=100_000)
app = Starlette(
    routes=[Mount("/graphql", endpoint)],
    middleware=[Middleware(WebSocketGuard, policy=policy, trusted_proxies=PROXIES)],
)
