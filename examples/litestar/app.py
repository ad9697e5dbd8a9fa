"""
A broadcast room in Litestar: what one page says, every page hears. Nobody logs in; foreign pages stay out.

Run it here, with a certificate for localhost:

    granian --interface asgi --port 8443 --ssl-certificate cert.pem --ssl-keyfile key.pem app:app

APP_ORIGINS: the pages that may connect, separated by blanks. APP_TRUSTED_PROXIES: the proxies in front, if there are.
"""

import json
import os
from itertools import count
from typing import Any

from litestar import Litestar, WebSocket, websocket
from litestar.exceptions import WebSocketDisconnect

from wsguard import Policy
from wsguard.asgi import WebSocketGuard

ORIGINS = os.environ.get("APP_ORIGINS", "https://localhost:8443").split()
PROXIES = os.environ.get("APP_TRUSTED_PROXIES", "").split()

Socket = WebSocket[Any, Any, Any]  # no user, no authentication, no state
visitors = count(1)
room: set[Socket] = set()


@websocket("/ws")
async def broadcast(socket: Socket) -> None:
    """Tell the visitor its number; from then on it hears what anybody says."""
    number = next(visitors)
    await socket.accept()
    await socket.send_json({"visitor": number})
    room.add(socket)
    try:
        while True:
            line = json.dumps({"visitor": number, "says": await socket.receive_text()})
            for other in list(room):
                await other.send_text(line)
    except WebSocketDisconnect:
        pass
    finally:
        room.discard(socket)


# Around the whole app: Litestar's own middleware runs behind its routing, where a 404 has already been answered.
app = WebSocketGuard(Litestar([broadcast]), policy=Policy(origins=ORIGINS, max_message=4096), trusted_proxies=PROXIES)
