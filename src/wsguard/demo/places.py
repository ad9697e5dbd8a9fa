"""
Who lives where in the demo.

Three apps (open, guarded, guarded by tickets) and three kinds of page that open a socket to them make nine cases.
Browsers resolve every name under `.localhost` to loopback by themselves; `evil.open.localhost` is one *site* with
`open.localhost` (all of its cookies ride along), `evil.localhost` is another site.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import NamedTuple


class App(StrEnum):
    """The copies of the chat: bare, behind wsguard, and behind wsguard with its sibling listed, for tickets."""

    OPEN = "open"
    GUARDED = "guarded"
    TICKETS = "tickets"


class Caller(StrEnum):
    """The page that opens a WebSocket to an app, by its relation to that app."""

    OWN = "own"
    SIBLING = "sibling"
    CROSS_SITE = "cross-site"


ATTACKERS = (Caller.SIBLING, Caller.CROSS_SITE)


class Case(NamedTuple):
    """One page that opens a WebSocket to one app."""

    caller: Caller
    app: App


BEHIND_THE_GATEWAY = (App.GUARDED, App.TICKETS)
CASES = tuple(Case(caller, app) for caller in Caller for app in App)


# A gateway's routes go by path: the chat that wants a ticket has one of its own.
CHAT_PATHS = {App.OPEN: "/chat", App.GUARDED: "/chat", App.TICKETS: "/ws/chat"}


@dataclass(frozen=True)
class Places:
    """
    Every address of a running demo.

    *port* belongs to the demo itself: landing page, open app, attackers' pages. *gateway_port* is where the guarded
    apps are reached.
    """

    port: int
    gateway_port: int

    @property
    def landing(self) -> str:
        """The origin of the page that explains it all."""
        return f"https://localhost:{self.port}"

    def recorder(self, app: App) -> str:
        """
        Return where the attackers' pages knock to learn what a browser sends to *app*, which is behind the gateway.

        It is that host on the demo's own port. Cookies and sites know no ports, so the same cookies ride as to the
        gateway, whose log rightly does not tell them.
        """
        return f"https://{app}.localhost:{self.port}"

    def app(self, app: App) -> str:
        """Return the origin of *app*."""
        port = self.gateway_port if app in BEHIND_THE_GATEWAY else self.port
        return f"https://{app}.localhost:{port}"

    def chat(self, app: App) -> str:
        """Return the wss address of *app*'s chat."""
        return websocket_url(self.app(app), CHAT_PATHS[app])

    def caller(self, case: Case) -> str:
        """Return the origin of the page that opens the socket in *case*."""
        match case.caller:
            case Caller.OWN:
                return self.app(case.app)
            case Caller.SIBLING:
                return f"https://evil.{case.app}.localhost:{self.port}"
            case Caller.CROSS_SITE:
                return f"https://evil.localhost:{self.port}"

    def page(self, case: Case) -> str:
        """Return the address to open in a browser to see *case* happen."""
        path = "/" if case.caller is Caller.OWN else f"/attack/{case.app}"
        return self.caller(case) + path

    @cached_property
    def origins(self) -> tuple[str, ...]:
        """Every origin that a browser visits, in the order in which a person meets them."""
        met = [self.landing, *(self.caller(case) for case in CASES), *map(self.recorder, BEHIND_THE_GATEWAY)]
        return tuple(dict.fromkeys(met))

    @property
    def host_names(self) -> tuple[str, ...]:
        """The names that the certificate must list (browsers refuse `*.localhost`)."""
        return tuple(dict.fromkeys(host_of(origin).rsplit(":", 1)[0] for origin in self.origins))

    def app_at(self, host: str) -> App | None:
        """Return the app that is reached at the Host field *host*."""
        return next((app for app in App if host_of(self.app(app)) == host), None)

    def case_from(self, origin: str, app: App) -> Case | None:
        """Return the case of a page with *origin* that opens a socket to *app*, or None for a page not ours."""
        return next((case for case in CASES if case.app is app and self.caller(case) == origin), None)


def host_of(origin: str) -> str:
    """Return the Host field (`name:port`) that belongs to an https *origin*."""
    return origin.removeprefix("https://")


def websocket_url(origin: str, path: str) -> str:
    """Return the wss address of *path* at an https *origin*."""
    return f"wss://{host_of(origin)}{path}"
