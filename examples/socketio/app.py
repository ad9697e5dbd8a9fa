"""
A broadcast room in python-socketio. Its polling transport is judged like its socket.

Run it here, with a certificate for localhost:

    uvicorn app:app --port 8443 --ssl-certfile cert.pem --ssl-keyfile key.pem --no-proxy-headers

APP_ORIGINS: the pages that may connect, separated by blanks. APP_TRUSTED_PROXIES: the proxies in front, if there are.
"""

import os
from itertools import count

import socketio

from wsguard import Policy
from wsguard.asgi import WebSocketGuard

ORIGINS = os.environ.get("APP_ORIGINS", "https://localhost:8443").split()
PROXIES = os.environ.get("APP_TRUSTED_PROXIES", "").split()

# The same list for python-socketio: it has a check of its own, and answers the CORS fields of polling by it.
sio = socketio.AsyncServer(async_mode="asgi", cors_allowed_origins=ORIGINS)
visitors = count(1)
numbers: dict[str, int] = {}


@sio.event
async def connect(sid: str, _environ: dict[str, object]) -> None:
    """Tell the visitor its number."""
    numbers[sid] = next(visitors)
    await sio.emit("welcome", {"visitor": numbers[sid]}, to=sid)


@sio.event
async def say(sid: str, text: str) -> None:
    """Tell everybody."""
    await sio.emit("said", {"visitor": numbers[sid], "says": text})


@sio.event
async def disconnect(sid: str, _reason: str) -> None:
    """Forget the visitor."""
    numbers.pop(sid, None)


app = WebSocketGuard(
    socketio.ASGIApp(sio),
    routes={"/socket.io/*": Policy(origins=ORIGINS, http="same-policy", max_message=100_000)},
    trusted_proxies=PROXIES,
)
