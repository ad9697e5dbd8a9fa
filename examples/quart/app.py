"""
A broadcast room in Quart: what one page says, every page hears. Nobody logs in; foreign pages stay out.

Run it here, with a certificate for localhost:

    hypercorn app:app --bind localhost:8443 --certfile cert.pem --keyfile key.pem

APP_ORIGINS: the pages that may connect, separated by blanks. APP_TRUSTED_PROXIES: the proxies in front, if there are.
"""

import json
import os
from asyncio import Queue, create_task
from itertools import count

from quart import Quart, websocket

from wsguard import Policy
from wsguard.asgi import WebSocketGuard

ORIGINS = os.environ.get("APP_ORIGINS", "https://localhost:8443").split()
PROXIES = os.environ.get("APP_TRUSTED_PROXIES", "").split()

app = Quart(__name__)
visitors = count(1)
room: set[Queue[str]] = set()


@app.websocket("/ws")
async def broadcast() -> None:
    """Tell the visitor its number; from then on it hears what anybody says."""
    number = next(visitors)
    await websocket.accept()
    await websocket.send_json({"visitor": number})
    heard: Queue[str] = Queue(maxsize=100)
    room.add(heard)
    speaking = create_task(send_all(heard))
    try:
        while True:
            line = json.dumps({"visitor": number, "says": await websocket.receive()})
            for other in room:
                if not other.full():  # who does not read misses something; the others do not wait for it
                    other.put_nowait(line)
    finally:
        room.discard(heard)
        speaking.cancel()


async def send_all(heard: Queue[str]) -> None:
    """Send this visitor what it hears."""
    while True:
        await websocket.send(await heard.get())


# Around the ASGI app, not a `before_websocket`: what is refused never comes to Quart.
guarded = WebSocketGuard(app.asgi_app, policy=Policy(origins=ORIGINS, max_message=4096), trusted_proxies=PROXIES)
app.asgi_app = guarded
