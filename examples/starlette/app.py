"""
A broadcast room in Starlette: what one page says, every page hears. Nobody logs in; foreign pages stay out.

Run it here, with a certificate for localhost:

    uvicorn app:app --port 8443 --ssl-certfile cert.pem --ssl-keyfile key.pem --no-proxy-headers

APP_ORIGINS: the pages that may connect, separated by blanks. APP_TRUSTED_PROXIES: the proxies in front, if there are.
"""

import json
import os
from itertools import count

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

from wsguard import Policy
from wsguard.asgi import WebSocketGuard

ORIGINS = os.environ.get("APP_ORIGINS", "https://localhost:8443").split()
PROXIES = os.environ.get("APP_TRUSTED_PROXIES", "").split()

visitors = count(1)
room: set[WebSocket] = set()


async def broadcast(socket: WebSocket) -> None:
    """Tell the visitor its number; from then on it hears what anybody says."""
    number = next(visitors)
    await socket.accept()
    await socket.send_json({"visitor": number})
    room.add(socket)
    try:
        async for text in socket.iter_text():
            line = json.dumps({"visitor": number, "says": text})
            for other in list(room):
                await other.send_text(line)
    finally:
        room.discard(socket)


app = Starlette(
    routes=[WebSocketRoute("/ws", broadcast)],
    middleware=[Middleware(WebSocketGuard, policy=Policy(origins=ORIGINS, max_message=4096), trusted_proxies=PROXIES)],
)
