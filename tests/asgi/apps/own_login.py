"""A FastAPI app that logs people in itself: it sells tickets for its socket and its download, and takes the latter."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Request, Response, WebSocket

import wsguard.fastapi
from wsguard import Guard, Identity, Policy, Ticket, TicketRefused
from wsguard.asgi import WebSocketGuard

PASSWORDS = {"alice": "correct horse"}

guard = Guard(
    routes={
        "/ws/*": Policy(origins=["https://app.test"], hosts=["app.test"], auth=["ticket"]),
        "/export": Policy(origins=["https://app.test"], hosts=["app.test"], auth=["ticket"], http="open"),
        "/*": Policy(origins=["https://app.test"], hosts=["app.test"], anonymous=True),
    },
    ticket=Ticket(),
    public_url="https://app.test",
)
app = FastAPI()
app.add_middleware(WebSocketGuard, guard=guard)


@app.post("/login")
async def login(request: Request) -> Response:
    told = await request.json()
    if PASSWORDS.get(told["user"]) != told["password"]:
        raise HTTPException(401)
    identity = Identity(told["user"], issuer="app", method="password", scopes=frozenset({"chat"}))
    answer = await guard.issue_ticket(request, identity, path=told["path"])
    return Response(answer.body, answer.status, media_type="application/json")


@app.get("/export")
async def export(request: Request) -> dict[str, str]:
    try:
        identity = await guard.redeem(request)
    except TicketRefused as refused:
        raise HTTPException(refused.status, headers=dict(refused.headers)) from None
    return {"of": identity.subject, "ticket": request.headers.get("x-wsguard-ticket", "hidden")}


@app.websocket("/ws/chat")
async def chat(socket: WebSocket, identity: Annotated[Identity, Depends(wsguard.fastapi.identity)]) -> None:
    await socket.accept()
    await socket.send_text(identity.subject)
    await socket.receive()
