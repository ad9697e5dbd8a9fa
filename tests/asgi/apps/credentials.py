"""The plain app behind a guard that takes tickets, bearer tokens and API keys, from the files of WSGUARD_TEST_FOLDER."""

from __future__ import annotations

import os
from pathlib import Path

from starlette.applications import Starlette
from starlette.routing import Mount

from tests.asgi.apps.plain import bare, bare_without_lifespan
from wsguard import JWT, APIKeys, Guard, Policy, Ticket
from wsguard.asgi import WebSocketGuard

FOLDER = Path(os.environ["WSGUARD_TEST_FOLDER"])

guard = Guard(
    routes={
        "/ws/*": Policy(
            origins=["https://app.test"],
            hosts=["app.test"],
            auth=["ticket", "bearer", "bearer_subprotocol", "api_key"],
            origin_required="unless-header-credential",
            require={"scopes": ["chat"]},
        ),
        "/*": Policy(origins=["https://app.test"], hosts=["app.test"], anonymous=True),
    },
    authenticators=[
        JWT("https://id.test", audience=["https://app.test"], jwks=f"file:{FOLDER / 'jwks.json'}"),
        APIKeys(FOLDER / "keys.toml"),
    ],
    ticket=Ticket(["bearer"]),
    public_url="https://app.test",
)
app = WebSocketGuard(bare, guard=guard)
without_lifespan = WebSocketGuard(bare_without_lifespan, guard=guard)
# Starlette sends no lifespan to what is mounted; the endpoints answer where the guard is reached by their path.
mounted = Starlette(routes=[Mount("/ws", app=app), Mount("/.wsguard", app=app)])
