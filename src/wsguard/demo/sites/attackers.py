"""
The attackers: a page that opens the victim's chat, and the server that it reports to.

The server speaks first and names the target, so that what happened before the page was there counts for nothing. The
recorder is no attacker: it is knocked at by their pages and notes what this browser sends to an app behind the gateway.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, cast

from wsguard.demo.observations import TEXT_KEPT, Message
from wsguard.demo.places import BEHIND_THE_GATEWAY, App, Caller, Case, Places, websocket_url
from wsguard.demo.sites.assets import asset, plain
from wsguard.demo.sites.chat import SESSION_COOKIES
from wsguard.demo.sites.site import is_handshake, origin_of, path_of, sent_with

if TYPE_CHECKING:
    from websockets.asyncio.server import ServerConnection
    from websockets.http11 import Request, Response

    from wsguard.demo.observations import Observations

ASSETS = {"/attack.css": "attack.css", "/attack.js": "attack.js", "/base.css": "base.css", "/icon.svg": "icon.svg"}
REPORTS_A_SOCKET = 500


class Attacker:
    """One attacker's host: a page for each app it attacks, and where the page reports its loot."""

    def __init__(self, cases: tuple[Case, ...], places: Places, observations: Observations) -> None:
        self._places = places
        self._observations = observations
        self._pages = {f"/attack/{case.app}": case for case in cases}
        self._loot = {f"/loot/{case.app}": case for case in cases}

    def respond(self, request: Request) -> Response | None:
        """Serve the attacking page; take reports from that page only."""
        path = path_of(request)
        if is_handshake(request) and path in self._loot:
            own = origin_of(request) == self._places.caller(self._loot[path])
            return None if own else plain(403, "Reports are taken from this host's own page.")
        if path in self._pages:
            return self._page(self._pages[path])
        return asset(ASSETS[path]) if path in ASSETS else plain(404, "There is nothing here.")

    async def converse(self, socket: ServerConnection) -> None:
        """Name the target to the page, then write down what it reports."""
        case = self._loot[path_of(cast("Request", socket.request))]
        self._observations.begin(case)
        await socket.send(json.dumps(self._orders(case)))
        reports = 0
        async for report in socket:
            self._note(case, report)
            reports += 1
            if reports == REPORTS_A_SOCKET:
                return

    def _page(self, case: Case) -> Response:
        app = self._places.app(case.app)
        reachable = (self._places.caller(case), app, self._places.recorder(case.app))
        return asset("attack.html", app, *(websocket_url(origin, "") for origin in reachable))

    def _orders(self, case: Case) -> dict[str, str | None]:
        app, recorder = self._places.app(case.app), self._places.recorder(case.app)
        return {
            "target": self._places.chat(case.app),
            "recorder": websocket_url(recorder, "/handshake") if case.app in BEHIND_THE_GATEWAY else None,
            "victim": app if case.app is App.TICKETS else None,
        }

    def _note(self, case: Case, report: str | bytes) -> None:
        match _object(report):
            case {"event": "token withheld"}:
                self._observations.token_withheld(case)
            case {"event": "closed"}:
                self._observations.ended(case)
            case {"event": "received", "frame": str(frame)}:
                match _object(frame):
                    case {"kind": "message", "sender": str(sender), "text": str(text)}:
                        self._observations.stolen(case, Message(sender[:TEXT_KEPT], text[:TEXT_KEPT]))
                    case _:
                        pass  # the greeting, or nothing of the chat's
            case _:
                pass  # not our page's report


class Recorder:
    """The host of *app* on the demo's own port: notes what an attacker's handshake carries, and refuses it."""

    def __init__(self, app: App, places: Places, observations: Observations) -> None:
        self._app = app
        self._places = places
        self._observations = observations

    def respond(self, request: Request) -> Response | None:
        """Note the handshake of an attacker's page; nothing is ever let through."""
        case = self._places.case_from(origin_of(request), self._app)
        if is_handshake(request) and case is not None and case.caller is not Caller.OWN:
            self._observations.handshake(case, sent_with(request, SESSION_COOKIES))
        return plain(403, f"This port only notes which cookies a browser sends to {self._app}.localhost.")

    async def converse(self, socket: ServerConnection) -> None:
        """Close: no handshake gets here."""
        await socket.close()


def _object(text: str | bytes) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
