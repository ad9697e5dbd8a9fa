"""
What a page gets for the subprotocols that it offers beside its ticket, in real browsers, before apps that are particular.

One app selects none, whatever is offered; one refuses every handshake that offers what it does not know. RULES.md §4.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
import time
from collections.abc import Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from joserfc import jwt
from joserfc.jwk import OctKey
from playwright.async_api import Page, async_playwright
from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import NegotiationError
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from tests.docs.running import free_port, running, wait_for_port
from tests.leaks import Kind, secret
from wsguard.demo.check.browsers import CheckedBrowser, Chromium, Firefox
from wsguard.demo.places import Caller

pytestmark = [pytest.mark.story, pytest.mark.browser, pytest.mark.requires_program("chromium", "certutil")]

ISSUER, AUDIENCE = "https://id.test", "https://app.test"
COMPANION, OWN = "wsguard.v1", "chat"
NOTHING_SELECTED = "subprotocol.none_selected"
TOLD = "offer wsguard.v1 too"
DEADLINE_MS = 20_000
CONFIGURATION = """
{place}
origins = ["https://localhost:{port}"]
hosts = ["localhost"]
public_url = "https://localhost:{port}"

[jwt."https://id.test"]
audience = ["https://app.test"]
secret_file = "jwt.secret"
typ = ["JWT"]

[ticket]
sold_for = ["bearer"]

[[route]]
path = "/ws/*"
auth = ["ticket"]

[[route]]
path = "/*"
anonymous = true
"""
APP = """
from starlette.applications import Starlette
from starlette.responses import HTMLResponse
from starlette.routing import Route, WebSocketRoute


async def page(request):
    return HTMLResponse("<!doctype html><title>page</title>")


async def silent(socket):
    await socket.accept()
    await socket.send_json(list(socket.scope["subprotocols"]))
    await socket.receive()


async def strict(socket):
    offered = list(socket.scope["subprotocols"])
    if set(offered) - {"chat"}:
        await socket.close(1008)
        return
    await socket.accept(*offered)
    await socket.send_json(offered)
    await socket.receive()


app = Starlette(
    routes=[Route("/", page), WebSocketRoute("/ws/silent", silent), WebSocketRoute("/ws/strict", strict)]
)
"""
# What the page's script can see: what was selected and what the app says that it was offered, or the code of the close.
OPEN = """async ([path, token, offer]) => {
    const headers = { "Content-Type": "application/json", Authorization: `Bearer ${token}` };
    const answer = await fetch("/.wsguard/ticket", { method: "POST", headers, body: JSON.stringify({ path }) });
    const { url, ticket } = await answer.json();
    window.bought = [...(window.bought ?? []), ticket];
    return new Promise((resolve) => {
        const socket = new WebSocket(url, offer.map((entry) => entry === "TICKET" ? ticket : entry));
        socket.onmessage = ({ data }) => { resolve([socket.protocol, JSON.parse(data)]); socket.close(); };
        socket.onclose = ({ code }) => resolve(code);
    });
}"""


class Case(NamedTuple):
    """What is offered at *path*, and what the script then sees."""

    path: str
    offer: list[str]
    seen: Any


BOTH = [
    Case("/ws/silent", [COMPANION, "TICKET"], [COMPANION, []]),
    Case("/ws/silent", [OWN, COMPANION, "TICKET"], [COMPANION, [OWN]]),
    Case("/ws/strict", [COMPANION, "TICKET"], [COMPANION, []]),
    Case("/ws/strict", [OWN, COMPANION, "TICKET"], [OWN, [OWN]]),
    Case("/ws/strict", ["TICKET", OWN], [OWN, [OWN]]),
    Case("/ws/strict", ["other", COMPANION, "TICKET"], 1006),
    Case("/ws/silent", ["TICKET"], 1006),
]
# Selected is none of the offered: BROWSERS.md §0.10.
CHROMIUM = [*BOTH, Case("/ws/silent", [OWN, "TICKET"], 1006)]
FIREFOX = [*BOTH, Case("/ws/silent", [OWN, "TICKET"], ["", [OWN]])]
BROWSERS = pytest.mark.parametrize(
    ("browser", "cases"),
    [
        pytest.param(Chromium(Caller.OWN), CHROMIUM, id="chromium"),
        pytest.param(Firefox(Caller.OWN), FIREFOX, id="firefox", marks=pytest.mark.requires_program("firefox-esr")),
    ],
)


@pytest.fixture
def shared_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """What the issuer signs with, in its file beside the configuration."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    text = secrets.token_hex(32)
    (tmp_path / "jwt.secret").touch(mode=0o600)
    (tmp_path / "jwt.secret").write_text(text, encoding="utf-8")
    return text


def token(shared_secret: str) -> str:
    now = int(time.time())
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "iat": now, "exp": now + 600}
    return secret(Kind.TOKEN, jwt.encode({"alg": "HS256", "typ": "JWT"}, claims, OctKey.import_key(shared_secret)))


def select(connection: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    assert connection.request is not None
    if connection.request.path == "/ws/silent":
        return None
    if set(offered) - {OWN}:
        raise NegotiationError(f"unknown: {offered}")
    return offered[0] if offered else None


async def tell_offered(socket: ServerConnection) -> None:
    assert socket.request is not None
    values = ",".join(socket.request.headers.get_all("Sec-WebSocket-Protocol"))
    await socket.send(json.dumps([entry.strip() for entry in values.split(",") if entry]))
    await socket.wait_closed()


def page(_: ServerConnection, request: Request) -> Response | None:
    if request.path.startswith("/ws/"):
        return None
    body = b"<!doctype html><title>page</title>"
    fields = {"Content-Type": "text/html", "Content-Length": str(len(body)), "Connection": "close"}
    return Response(HTTPStatus.OK, "OK", Headers(fields), body)


@BROWSERS
def test_subprotocols_before_an_app(
    browser: CheckedBrowser, cases: list[Case], tmp_path: Path, shared_secret: str
) -> None:
    """The gateway, and apps that `websockets` serves."""
    port, upstream = free_port(), free_port()
    place = f'listen = ["127.0.0.1:{port}"]\nupstream = "http://127.0.0.1:{upstream}"'
    (tmp_path / "wsguard.toml").write_text(CONFIGURATION.format(port=port, place=place))

    async def story() -> None:
        async with serve(
            tell_offered, "127.0.0.1", upstream, process_request=page, select_subprotocol=select, subprotocols=[]
        ):
            await seen(browser, cases, tmp_path, port, shared_secret)

    command = [sys.executable, "-m", "wsguard", "gateway", "--config", "wsguard.toml"]
    with running(command, tmp_path) as gateway:
        gateway.wait_for("gateway.listening")
        asyncio.run(story())
        assert TOLD in gateway.wait_for(NOTHING_SELECTED)
        assert gateway.stop() == 0
        assert gateway.errors == ""


@BROWSERS
def test_subprotocols_inside_an_app(
    browser: CheckedBrowser, cases: list[Case], tmp_path: Path, shared_secret: str
) -> None:
    """`wsguard run`, and a Starlette app."""
    port = free_port()
    (tmp_path / "app.py").write_text(APP, encoding="utf-8")
    (tmp_path / "wsguard.toml").write_text(CONFIGURATION.format(port=port, place=f'listen = "127.0.0.1:{port}"'))
    command = [sys.executable, "-m", "wsguard", "run", "app:app", "--config", "wsguard.toml"]
    with running(command, tmp_path) as app:
        app.wait_for("run.starting")
        wait_for_port(port)
        asyncio.run(seen(browser, cases, tmp_path, port, shared_secret))
        assert TOLD in app.wait_for(NOTHING_SELECTED)
        assert app.stop() == 0
        assert "Traceback" not in app.errors


async def seen(browser: CheckedBrowser, cases: list[Case], data_home: Path, port: int, shared_secret: str) -> None:
    authority = data_home / "wsguard" / "dev-ca" / "ca.pem"
    async with async_playwright() as playwright, browser.opened(playwright, authority) as context:
        tab: Page = await context.new_page()
        tab.set_default_timeout(DEADLINE_MS)
        await tab.goto(f"https://localhost:{port}/")
        for case in cases:
            found = await tab.evaluate(OPEN, [case.path, token(shared_secret), case.offer])
            assert found == case.seen, case
        for ticket in await tab.evaluate("bought"):
            secret(Kind.TICKET, ticket)
