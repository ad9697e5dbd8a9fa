"""
A cookie buys a ticket on its own site only, in real browsers: the page, a listed sibling, and a listed page elsewhere.

`docs/guides/tickets.md`, "Cookie mode", tells people what these tests do.
"""

from __future__ import annotations

import asyncio
import json
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import BrowserContext, async_playwright
from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from tests.gateway.gateway_process import GatewayProcess
from wsguard.demo.check.browsers import CheckedBrowser, Chromium, Firefox
from wsguard.demo.loopback import free_port
from wsguard.demo.places import Caller
from wsguard.dev_ca import DevelopmentAuthority

pytestmark = [pytest.mark.story, pytest.mark.browser, pytest.mark.requires_program("chromium", "certutil")]

OWN, SIBLING, ELSEWHERE = "app.localhost", "blog.app.localhost", "other.localhost"
COOKIE = "sid=alices-session"
CONFIGURATION = """
listen = ["127.0.0.1:{port}"]
upstream = "http://127.0.0.1:{upstream}"
origins = ["https://app.localhost:{port}", "https://blog.app.localhost:{port}", "https://other.localhost:{port}"]
hosts = ["app.localhost", "blog.app.localhost", "other.localhost"]
public_url = "https://app.localhost:{port}"

[ask]
url = "http://127.0.0.1:{upstream}/me"
cookies = ["sid"]
subject = "name"

[ticket]
sold_for = ["ask"]

[[route]]
path = "/ws/*"
auth = ["ticket"]

[[route]]
path = "/*"
anonymous = true
"""
BUY = """async ([origin, marker]) => {
    const headers = { "Content-Type": "application/json", ...(marker ? { "X-WSGuard": "1" } : {}) };
    const body = JSON.stringify({ path: "/ws/chat" });
    try {
        const answer = await fetch(`${origin}/.wsguard/ticket`, { method: "POST", credentials: "include", headers, body });
        return [answer.status, answer.ok ? (await answer.json()).protocols : null];
    } catch (error) {
        return [0, null];
    }
}"""
OPEN = """([url, protocols]) => new Promise(resolve => {
    const socket = new WebSocket(url, protocols);
    socket.onmessage = ({ data }) => resolve(data);
    socket.onclose = ({ code }) => resolve(code);
})"""


def page_or_answer(_: ServerConnection, request: Request) -> Response | None:
    """An app that signs its visitors in by a cookie, and knows whose it is."""
    if request.path.startswith("/ws/"):
        return None
    if request.path == "/me":
        known = request.headers.get("Cookie") == COOKIE
        return answer(HTTPStatus.OK if known else HTTPStatus.UNAUTHORIZED, json.dumps({"name": "alice"}))
    cookie = {"Set-Cookie": f"{COOKIE}; Path=/; HttpOnly; SameSite=Lax"} if request.path == "/login" else {}
    return answer(HTTPStatus.OK, "<!doctype html><title>page</title>", **cookie)


def answer(status: HTTPStatus, body: str, **fields: str) -> Response:
    sent = {"Content-Type": "text/html", "Content-Length": str(len(body)), "Connection": "close", **fields}
    return Response(status, status.phrase, Headers(sent), body.encode())


async def greet(socket: ServerConnection) -> None:
    assert socket.request is not None
    await socket.send(f"hello {socket.request.headers['X-WSGuard-Subject']}")


@pytest.mark.parametrize(
    "browser",
    [
        pytest.param(Chromium(Caller.OWN), id="chromium"),
        pytest.param(Firefox(Caller.OWN), id="firefox", marks=pytest.mark.requires_program("firefox-esr")),
    ],
)
def test_a_cookie_sells_on_its_own_site_alone(browser: CheckedBrowser, tmp_path: Path) -> None:
    """
    The own page buys and opens; so does a listed sibling, as the user, which is why a bearer token is better; a listed
    page of another site is refused, for its browser holds the cookie back. Without the marker nobody buys.
    """
    port, upstream = free_port(), free_port()
    file = tmp_path / "wsguard.toml"
    file.write_text(CONFIGURATION.format(port=port, upstream=upstream))
    gateway = GatewayProcess(file, {"XDG_DATA_HOME": str(tmp_path)})
    try:
        asyncio.run(story(browser, tmp_path / "wsguard" / "dev-ca", port, upstream))
        assert gateway.wait_for("session.opened")["method"] == "ask"
    finally:
        assert gateway.stop() == 0
    assert gateway.stderr() == ""
    assert "alices-session" not in json.dumps(gateway.log)


async def story(browser: CheckedBrowser, authority: Path, port: int, upstream: int) -> None:
    certificate = DevelopmentAuthority.open(authority).certificate_path
    async with (
        serve(greet, "127.0.0.1", upstream, process_request=page_or_answer),
        async_playwright() as playwright,
        browser.opened(playwright, certificate) as context,
    ):
        app = f"https://{OWN}:{port}"
        await visit(context, f"{app}/login", app, marker=True)  # signs in
        status, protocols = await visit(context, f"{app}/", app, marker=True)
        assert status == HTTPStatus.OK
        page = await context.new_page()
        await page.goto(f"{app}/")
        assert await page.evaluate(OPEN, [f"wss://{OWN}:{port}/ws/chat", protocols]) == "hello alice"
        assert (await visit(context, f"{app}/", app, marker=False))[0] == HTTPStatus.FORBIDDEN
        assert (await visit(context, f"https://{SIBLING}:{port}/", app, marker=True))[0] == HTTPStatus.OK
        assert (await visit(context, f"https://{ELSEWHERE}:{port}/", app, marker=True))[0] == HTTPStatus.UNAUTHORIZED
        # A ticket of the sibling's opens nothing for a page without the cookie, and nothing from another origin.
        status, stolen = await visit(context, f"https://{SIBLING}:{port}/", app, marker=True)
        await page.goto(f"{app}/")
        assert await page.evaluate(OPEN, [f"wss://{OWN}:{port}/ws/chat", stolen]) == 1006


async def visit(context: BrowserContext, url: str, origin: str, *, marker: bool) -> tuple[int, Any]:
    """Let the page at *url* buy at *origin*; return the status that its script sees, and what it got."""
    page = await context.new_page()
    try:
        await page.goto(url)
        status, protocols = await page.evaluate(BUY, [origin, marker])
        return status, protocols
    finally:
        await page.close()
