"""docs/guides/tickets.md as its reader has it: the configuration and the JavaScript of the page, in a real browser."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncGenerator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import OctKey
from playwright.async_api import BrowserContext, Page, async_playwright
from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from tests.docs.blocks import ROOT, blocks_of
from tests.docs.running import WSGUARD, Running, free_port, running
from wsguard.demo.check.browsers import CheckedBrowser, Chromium, Firefox
from wsguard.demo.places import Caller

pytestmark = [pytest.mark.browser, pytest.mark.requires_program("chromium", "certutil")]

PAGE = ROOT / "docs" / "guides" / "tickets.md"
ISSUER = "https://id.example.com"
AUDIENCE = "https://app.example.com"
SECRET = secrets.token_hex(32)
DEADLINE_MS = 20_000

# What the guide leaves to the reader: where tokens come from, and what the user is told.
AROUND = """<!doctype html><title>chat</title><script type="module">
const token = () => mint();
const login = () => window.told = "login", sayNo = () => window.told = "no";
%s
socket.onmessage = ({ data }) => window.heard = data;
socket.onopen = () => window.opened = socket.protocol;
Object.assign(window, { socket, renew });
</script>"""


class Claims:
    """What the next token of the page holds."""

    def __init__(self) -> None:
        self.lifetime, self.scope = 3600, "chat"

    def mint(self) -> str:
        now = int(time.time())
        claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "iat": now, "exp": now + self.lifetime}
        return jwt.encode({"alg": "HS256", "typ": "JWT"}, claims | {"scope": self.scope}, OctKey.import_key(SECRET))


def configuration(port: int, upstream: int) -> str:
    """The page's file; its issuer signs with a secret here, and addresses are this machine's."""
    (text,) = (block.text for block in blocks_of(PAGE) if block.title == "wsguard.toml")
    for written, here in {
        'cert = "app.pem"\nkey = "app.key"\n': f'listen = ["127.0.0.1:{port}"]\npublic_url = "https://localhost:{port}"\n',
        "http://127.0.0.1:8888": f"http://127.0.0.1:{upstream}",
        'origins = ["https://app.example.com"]': f'origins = ["https://localhost:{port}"]',
        f'audience = ["{AUDIENCE}"]': f'audience = ["{AUDIENCE}"]\nsecret_file = "jwt.secret"',
    }.items():
        assert text.count(written) == 1
        text = text.replace(written, here)
    return text


def html(_: ServerConnection, request: Request) -> Response | None:
    if request.path.startswith("/ws/"):
        return None
    (script,) = (block.text for block in blocks_of(PAGE) if block.language == "js")
    body = (AROUND % script).encode()
    headers = Headers({"Content-Type": "text/html", "Content-Length": str(len(body)), "Connection": "close"})
    return Response(HTTPStatus.OK, "OK", headers, body)


async def echo(socket: ServerConnection) -> None:
    assert socket.request is not None
    async for message in socket:
        await socket.send(f"{socket.request.headers['X-WSGuard-Subject']}: {message!s}")


@contextlib.asynccontextmanager
async def visited(context: BrowserContext, port: int, claims: Claims) -> AsyncGenerator[Page]:
    page = await context.new_page()
    page.set_default_timeout(DEADLINE_MS)
    await page.expose_function("mint", claims.mint)
    await page.goto(f"https://localhost:{port}/")
    await page.wait_for_function("window.opened")
    yield page
    await page.close()


async def said(page: Page, text: str) -> Any:
    await page.evaluate("(text) => { delete window.heard; socket.send(text); }", text)
    return await (await page.wait_for_function("window.heard")).json_value()


async def told(page: Page) -> Any:
    return await (await page.wait_for_function("window.told")).json_value()


@pytest.mark.parametrize(
    "browser",
    [
        pytest.param(Chromium(Caller.OWN), id="chromium"),
        pytest.param(Firefox(Caller.OWN), id="firefox", marks=pytest.mark.requires_program("firefox-esr")),
    ],
)
def test_the_javascript_of_the_guide(browser: CheckedBrowser, place: Path, data_home: Path) -> None:
    """A ticket opens the socket, a fresh token renews it, one that lacks the scope ends it; unrenewed it expires."""
    port, upstream = free_port(), free_port()
    (place / "wsguard.toml").write_text(configuration(port, upstream), encoding="utf-8")
    (place / "jwt.secret").write_text(SECRET, encoding="utf-8")
    (place / "jwt.secret").chmod(0o600)
    with running([WSGUARD, "gateway", "--config", "wsguard.toml"], place) as gateway:
        gateway.wait_for("gateway.listening")
        asyncio.run(visit(browser, data_home / "wsguard" / "dev-ca" / "ca.pem", port, upstream))
        told_by_log(gateway)
        assert gateway.stop() == 0
        assert gateway.errors == ""


async def visit(browser: CheckedBrowser, authority: Path, port: int, upstream: int) -> None:
    async with (
        serve(echo, "127.0.0.1", upstream, process_request=html, subprotocols=[Subprotocol("chat")]),
        async_playwright() as playwright,
        browser.opened(playwright, authority) as context,
    ):
        await renewed_and_refused(context, port)
        await expired(context, port)


async def renewed_and_refused(context: BrowserContext, port: int) -> None:
    claims = Claims()
    claims.lifetime = 6
    async with visited(context, port, claims) as page:
        assert await page.evaluate("window.opened") == "chat"
        assert await said(page, "hello") == "alice: hello"
        claims.lifetime = 3600
        await asyncio.sleep(7)  # the page's timer renews it; without that it would be closed by now
        assert await said(page, "still here") == "alice: still here"
        claims.scope = "read"
        assert await page.evaluate("renew().catch((status) => status)") == HTTPStatus.FORBIDDEN
        assert await told(page) == "no"


async def expired(context: BrowserContext, port: int) -> None:
    claims = Claims()
    claims.lifetime = 4
    async with visited(context, port, claims) as page:
        claims.lifetime = -1  # from now on tokens have ended already, so that nothing renews it
        assert await told(page) == "login"


def told_by_log(gateway: Running) -> None:
    assert "subject=alice" in gateway.wait_for("ticket.sold")
    assert "subject=alice" in gateway.wait_for("session.renewed")
    gateway.wait_for("reason=authorization.scope")
    gateway.wait_for("code=3003")
    gateway.wait_for("code=3000")
