"""The landing page: what happened in each case, side by side, and the decision log as it is written."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING

from websockets.exceptions import ConnectionClosed

from wsguard.demo.observations import TEXT_KEPT, Observation
from wsguard.demo.places import App, Caller, Case, Places, websocket_url
from wsguard.demo.sites.assets import asset, plain
from wsguard.demo.sites.site import is_handshake, origin_of, path_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from websockets.asyncio.server import ServerConnection
    from websockets.http11 import Request, Response

    from wsguard.demo.observations import Observations

ASSETS = {
    "/": "landing.html",
    "/landing.css": "landing.css",
    "/landing.js": "landing.js",
    "/base.css": "base.css",
    "/icon.svg": "icon.svg",
}
LOG_FIELDS = (
    *("number", "event", "time", "origin", "host", "path", "status", "reason", "hint", "code", "by", "seconds"),
    *("subject", "closed"),
)


class Landing:
    """The landing page and its feed; *revoke* is what its button does."""

    def __init__(self, places: Places, observations: Observations, revoke: Callable[[], Awaitable[None]]) -> None:
        self._revoke = revoke
        self._places = places
        self._observations = observations

    def respond(self, request: Request) -> Response | None:
        """Serve the page; open the feed to that page only."""
        path = path_of(request)
        if is_handshake(request) and path == "/feed":
            own = origin_of(request) == self._places.landing
            return None if own else plain(403, "The feed is for this host's own page.")
        if path in ASSETS:
            return asset(ASSETS[path], websocket_url(self._places.landing, ""))
        return plain(404, "There is nothing here.")

    async def converse(self, socket: ServerConnection) -> None:
        """Send the newest state whenever it changed; a slow reader skips states, none is queued for it."""
        closed = asyncio.create_task(self._obey(socket))
        while not closed.done():
            changed = asyncio.create_task(self._observations.changed.wait())
            await socket.send(json.dumps(self._state()))
            await asyncio.wait({changed, closed}, return_when=asyncio.FIRST_COMPLETED)
            changed.cancel()
        await closed

    async def _obey(self, socket: ServerConnection) -> None:
        """Do what the page asks for, one at a time, until it is gone."""
        with suppress(ConnectionClosed):  # the page left
            async for command in socket:
                if command == "revoke":
                    await self._revoke()

    def _state(self) -> dict[str, object]:
        cases = [self._case(case, seen) for case, seen in self._observations.cases.items()]
        log = [_shown(line) for line in self._observations.log]
        return {
            "cases": cases,
            "log": log,
            "origins": {app: self._places.app(app) for app in App},
            "listed_sibling": self._places.caller(Case(Caller.SIBLING, App.TICKETS)),
        }

    def _case(self, case: Case, seen: Observation) -> dict[str, object]:
        return {
            "caller": case.caller,
            "app": case.app,
            "page": self._places.page(case),
            "origin": self._places.caller(case),
            "attempts": seen.attempts,
            "outcome": seen.outcome(case.caller),
            "sent": asdict(seen.sent) if seen.sent else None,
            "received": [asdict(message) for message in seen.received],
            "refusal": asdict(seen.refusal) if seen.refusal else None,
            "token_withheld": seen.token_withheld,
        }


def _shown(line: Mapping[str, object]) -> dict[str, object]:
    shown = {name: line[name] for name in LOG_FIELDS if name in line}
    return {name: value[:TEXT_KEPT] if isinstance(value, str) else value for name, value in shown.items()}
