"""
What is done to each guide: somebody may connect, says something and is answered; everybody else is refused.

Each app tells a visitor its number, counted before anything else. So the last visitor of a round, who comes after all
that were refused, shows by its number that the app has heard of none of them.
"""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import PIPE
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from tests.guides.client import FOREIGN, ORIGIN, WRONG_ORIGINS, Visitor, heard
from tests.guides.servers import MEMBER, PASSWORD

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass
class Tally:
    """How many real handshakes of one round were accepted and refused."""

    accepted: int = 0
    refused: int = 0

    def __str__(self) -> str:
        """How it stands in a cell; one without anybody accepted has no numbers."""
        return f"{self.accepted}/{self.refused}" if self.accepted else "-"

    def refuse(self, status: int, *, expected: int = 403) -> None:
        """Count a handshake that must have been refused."""
        assert status == expected
        self.refused += 1


Visit = Callable[[Visitor, Path], Coroutine[object, object, Tally]]


def refuse_foreigners(
    tally: Tally,
    visitor: Visitor,
    path: str,
    *,
    fields: Mapping[str, str] | None = None,
    subprotocols: Sequence[str] = (),
) -> None:
    """Come with every wrong origin, and with the right one in the clear."""
    for origin in WRONG_ORIGINS:
        tally.refuse(visitor.status(path, origin=origin, fields=fields, subprotocols=subprotocols))
    tally.refuse(visitor.status(path, fields=fields, subprotocols=subprotocols, secure=False))


# --- Starlette, Litestar, Quart: a room for everybody -----------------------------------------------------------------


async def visit_room(visitor: Visitor, authority: Path) -> Tally:
    """Two visitors hear what one of them says."""
    tally = Tally()
    async with visitor.socket("/ws") as first, visitor.socket("/ws") as second:
        assert [await heard(first), await heard(second)] == [{"visitor": 1}, {"visitor": 2}]
        await first.send("hello")
        assert await heard(first) == await heard(second) == {"visitor": 1, "says": "hello"}
        tally.accepted += 2
    refuse_foreigners(tally, visitor, "/ws")
    async with visitor.socket("/ws") as last:
        assert await heard(last) == {"visitor": 3}
        tally.accepted += 1
    return tally


# --- FastAPI: a login, two scopes -------------------------------------------------------------------------------------


def log_in_to_chat(visitor: Visitor, name: str, password: str = "", *, origin: str | None = ORIGIN) -> dict[str, str]:
    """Return the Cookie field of somebody who has logged in to FastAPI's chat."""
    body = json.dumps({"name": name, "password": password})
    answer = visitor.page("POST", "/login", origin=origin, body=body, fields={"Content-Type": "application/json"})
    assert answer.status == 204
    return cookie_field(answer.cookies)


def cookie_field(cookies: dict[str, str]) -> dict[str, str]:
    """Return *cookies* as a browser sends them."""
    return {"Cookie": "; ".join(f"{name}={value}" for name, value in cookies.items())}


async def visit_chat(visitor: Visitor, authority: Path) -> Tally:
    """A member speaks, a guest listens; with the member's cookie a foreign page does neither."""
    tally = Tally()
    member, guest = log_in_to_chat(visitor, MEMBER, PASSWORD), log_in_to_chat(visitor, "bob")
    async with (
        visitor.socket("/ws/chat", fields=member) as speaks,
        visitor.socket("/ws/listen", fields=guest) as listens,
    ):
        assert await heard(speaks) == {"visitor": 1, "name": "ada"}
        assert await heard(listens) == {"visitor": 2, "name": "bob (guest)"}
        await listens.send("nobody hears this")
        await speaks.send("hello")
        assert await heard(speaks) == await heard(listens) == {"name": "ada", "says": "hello"}
        tally.accepted += 2
    refuse_foreigners(tally, visitor, "/ws/chat", fields=member)
    tally.refuse(visitor.status("/ws/chat"), expected=visitor.unauthorized)
    tally.refuse(visitor.status("/ws/chat", fields={"Cookie": "__Host-session=guessed"}), expected=visitor.unauthorized)
    twice = {"Cookie": f"__Host-session=planted; {member['Cookie']}"}
    tally.refuse(visitor.status("/ws/chat", fields=twice), expected=visitor.malformed)
    tally.refuse(visitor.status("/ws/chat", fields=guest))  # require_scope
    assert visitor.page("POST", "/login", origin=FOREIGN, body="{}").status == 403
    async with visitor.socket("/ws/chat", fields=member) as last:
        assert await heard(last) == {"visitor": 3, "name": "ada"}
        tally.accepted += 1
        assert visitor.page("POST", "/logout", origin=ORIGIN, fields=member).status == 204
        await last.wait_closed()
        assert last.close_code == 3000
    tally.refuse(visitor.status("/ws/chat", fields=member), expected=visitor.unauthorized)
    return tally


# --- Channels: Django's login -----------------------------------------------------------------------------------------


def log_in_to_django(visitor: Visitor) -> dict[str, str]:
    """Fill in Django's form; return the cookies."""
    form = visitor.page("GET", "/login")
    assert form.status == 200
    token = form.body.decode().partition('name="csrfmiddlewaretoken" value="')[2].partition('"')[0]
    values = {"username": MEMBER, "password": PASSWORD, "csrfmiddlewaretoken": token}
    fields = {**cookie_field(form.cookies), "Content-Type": "application/x-www-form-urlencoded"}
    answer = visitor.page("POST", "/login", origin=ORIGIN, fields=fields, body=urlencode(values))
    assert (answer.status, answer.fields["location"]) == (302, "/")
    return {**form.cookies, **answer.cookies}


async def visit_django(visitor: Visitor, authority: Path) -> Tally:
    """Who has logged in hears and speaks, under the name that Django knows; with that cookie a foreign page does not."""
    tally = Tally()
    cookies = log_in_to_django(visitor)
    member = cookie_field(cookies)
    async with visitor.socket("/ws/room", fields=member) as first, visitor.socket("/ws/room", fields=member) as second:
        assert await heard(first) == {"visitor": 1, "name": "ada"}
        assert await heard(second) == {"visitor": 2, "name": "ada"}
        await first.send(json.dumps("hello"))
        assert await heard(first) == await heard(second) == {"name": "ada", "says": "hello"}
        tally.accepted += 2
    refuse_foreigners(tally, visitor, "/ws/room", fields=member)
    tally.refuse(visitor.status("/ws/room"), expected=visitor.unauthorized)
    guessed = cookie_field({**cookies, "__Host-sessionid": "0" * 32})
    tally.refuse(visitor.status("/ws/room", fields=guessed), expected=visitor.unauthorized)
    twice = {"Cookie": f"__Host-sessionid=planted; {member['Cookie']}"}
    tally.refuse(visitor.status("/ws/room", fields=twice), expected=visitor.malformed)
    async with visitor.socket("/ws/room", fields=member) as last:
        assert await heard(last) == {"visitor": 3, "name": "ada"}
        tally.accepted += 1
    form = urlencode({"csrfmiddlewaretoken": cookies["__Host-csrftoken"]})
    fields = {**member, "Content-Type": "application/x-www-form-urlencoded"}
    assert visitor.page("POST", "/logout", origin=ORIGIN, fields=fields, body=form).status == 302
    tally.refuse(visitor.status("/ws/room", fields=member), expected=visitor.unauthorized)
    return tally


# --- python-socketio: two transports ----------------------------------------------------------------------------------

POLLING = "/socket.io/?EIO=4&transport=polling"
SOCKET = "/socket.io/?EIO=4&transport=websocket"


async def visit_socketio(visitor: Visitor, authority: Path) -> Tally:
    """python-socketio's client comes by either transport; a foreign page by neither."""
    tally = Tally()
    came = await speak_by_socketio(visitor, authority, "websocket", "polling", "polling,websocket")
    assert came == [[1, "websocket"], [2, "polling"], [3, "websocket"]]
    tally.accepted += 3
    refuse_foreigners(tally, visitor, SOCKET)
    for origin in (FOREIGN, "null"):
        tally.refuse(visitor.page("GET", POLLING, origin=origin).status)
        tally.refuse(visitor.page("POST", POLLING, origin=origin, body="40").status)
    tally.refuse(visitor.page("GET", POLLING, fields={"Sec-Fetch-Site": "cross-site"}).status)
    tally.refuse(visitor.page("POST", POLLING, body="40").status)
    tally.refuse(visitor.page("GET", POLLING, origin=ORIGIN, secure=False).status)
    assert await speak_by_socketio(visitor, authority, "polling") == [[4, "polling"]]
    tally.accepted += 1
    return tally


async def speak_by_socketio(visitor: Visitor, authority: Path, *visits: str) -> list[list[object]]:
    """Come once by each list of transports, and speak; return the visitors' numbers and the transports that they had last."""
    url = f"https://localhost:{visitor.port}"
    words = [str(Path(__file__).with_name("socketio_client.py")), url, str(authority), ORIGIN, *visits]
    process = await asyncio.create_subprocess_exec(sys.executable, *words, stdout=PIPE)
    async with asyncio.timeout(60):
        output, _ = await process.communicate()
    assert process.returncode == 0
    return json.loads(output)


# --- Strawberry: graphql-transport-ws ---------------------------------------------------------------------------------

GRAPHQL = ("graphql-transport-ws",)


async def visit_graphql(visitor: Visitor, authority: Path) -> Tally:
    """A subscription is heard to its end; queries over HTTP are asked from the same page."""
    tally = Tally()
    assert await count_down(visitor) == ["visitor 1: 2", "visitor 1: 1"]
    tally.accepted += 1
    refuse_foreigners(tally, visitor, "/graphql/", subprotocols=GRAPHQL)
    query = json.dumps({"query": "{ room }"})
    fields = {"Content-Type": "application/json"}
    assert visitor.page("POST", "/graphql/", origin=ORIGIN, body=query, fields=fields).json == {
        "data": {"room": "lobby"}
    }
    for origin in (FOREIGN, "null", None):
        assert visitor.page("POST", "/graphql/", origin=origin, body=query, fields=fields).status == 403
    assert await count_down(visitor) == ["visitor 2: 2", "visitor 2: 1"]
    tally.accepted += 1
    return tally


async def count_down(visitor: Visitor) -> list[str]:
    """Subscribe, and return what is heard until the end (the protocol of the graphql-ws library)."""
    async with visitor.socket("/graphql/", subprotocols=GRAPHQL) as opened:
        assert opened.subprotocol == "graphql-transport-ws"
        await opened.send(json.dumps({"type": "connection_init"}))
        assert await heard(opened) == {"type": "connection_ack"}
        subscription = {"query": "subscription { countdown(start: 2) }"}
        await opened.send(json.dumps({"id": "1", "type": "subscribe", "payload": subscription}))
        messages: list[str] = []
        while (message := await heard(opened))["type"] == "next":
            messages.append(message["payload"]["data"]["countdown"])
        assert message == {"id": "1", "type": "complete"}
        return messages


VISITS: dict[str, Visit] = {
    "fastapi": visit_chat,
    "starlette": visit_room,
    "channels": visit_django,
    "litestar": visit_room,
    "quart": visit_room,
    "socketio": visit_socketio,
    "strawberry": visit_graphql,
}
# Where each has its sockets.
PATHS = {
    "fastapi": "/ws/chat",
    "starlette": "/ws",
    "channels": "/ws/room",
    "litestar": "/ws",
    "quart": "/ws",
    "socketio": SOCKET,
    "strawberry": "/graphql/",
}
