"""
docs/guides/tickets.md as its reader has it: the configuration and the JavaScript of the page, in real browsers.

Once before an app by the gateway, once inside an app by its Python guard.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import shlex
import subprocess
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
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
from tests.docs.running import WSGUARD, Running, free_port, running, wait_for_port
from tests.leaks import Kind, secret
from wsguard.demo.check.browsers import CheckedBrowser, Chromium, Firefox
from wsguard.demo.places import Caller

pytestmark = [pytest.mark.browser, pytest.mark.requires_program("chromium", "certutil")]

PAGE = ROOT / "docs" / "guides" / "tickets.md"
ISSUER = "https://id.example.com"
AUDIENCE = "https://app.example.com"
SECRET = secrets.token_hex(32)
DEADLINE_MS = 20_000
(CLOSE,) = (block.text for block in blocks_of(PAGE) if block.text.startswith("wsguard sessions close"))

# What the guide leaves to the reader: where tokens come from, and what the user is told.
AROUND = """<!doctype html><title>chat</title><script type="module">
const token = () => mint();
const login = () => window.told = "login", sayNo = () => window.told = "no", again = () => window.told = "again";
%s
socket.onmessage = ({ data }) => window.heard = data;
socket.onopen = () => window.opened = socket.protocol;
Object.assign(window, { socket, session, ask });
</script>"""

# The Python of the guide, and the app around it.
APP = """
from pathlib import Path

from starlette.applications import Starlette
from starlette.responses import HTMLResponse, JSONResponse
from starlette.routing import Route, WebSocketRoute

from wsguard.asgi import WebSocketGuard, session


async def page(request):
    return HTMLResponse(Path("page.html").read_text(encoding="utf-8"))


async def revoke(request):
    return JSONResponse({"closed": await guard.revoke(subject="alice")})


async def echo(socket):
    await socket.accept("chat")
    async for text in socket.iter_text():
        await socket.send_text(f"{session(socket.scope).identity.subject}: {text}")


app = Starlette(routes=[Route("/", page), Route("/revoke", revoke, methods=["POST"]), WebSocketRoute("/ws/chat", echo)])
app.add_middleware(WebSocketGuard, guard=guard)
"""


class Claims:
    """What the next token of the page holds."""

    def __init__(self) -> None:
        self.lifetime, self.scope, self.age = 3600, "chat", 0

    def mint(self) -> str:
        now = int(time.time())
        issued = now - self.age
        claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "iat": issued, "exp": now + self.lifetime}
        token = jwt.encode({"alg": "HS256", "typ": "JWT"}, claims | {"scope": self.scope}, OctKey.import_key(SECRET))
        return secret(Kind.TOKEN, token)


def replaced(text: str, replacements: dict[str, str]) -> str:
    for written, here in replacements.items():
        assert text.count(written) == 1
        text = text.replace(written, here)
    return text


def configuration(port: int, upstream: int) -> str:
    """The page's file; its issuer signs with a secret here, and addresses are this machine's."""
    (text,) = (block.text for block in blocks_of(PAGE) if block.title == "wsguard.toml")
    replacements = {
        'cert = "app.pem"\nkey = "app.key"\n': f'listen = ["127.0.0.1:{port}"]\npublic_url = "https://localhost:{port}"\n'
        'admin = "unix:admin/admin.sock"\n',
        "http://127.0.0.1:8888": f"http://127.0.0.1:{upstream}",
        'origins = ["https://app.example.com"]': f'origins = ["https://localhost:{port}"]',
        f'audience = ["{AUDIENCE}"]': f'audience = ["{AUDIENCE}"]\nsecret_file = "jwt.secret"',
    }
    return replaced(text, replacements)


def application(port: int) -> str:
    """The page's Python guard, likewise, in an app."""
    (text,) = (block.text for block in blocks_of(PAGE) if block.text.startswith("from wsguard import JWT"))
    replacements = {
        'OURS = ["https://app.example.com"]': f'OURS = ["https://localhost:{port}"]',
        "audience=OURS": f'audience=["{AUDIENCE}"], secret_file="jwt.secret"',
        'ticket=Ticket(sold_for=["bearer"]),': 'ticket=Ticket(sold_for=["bearer"]),\n'
        f'    public_url="https://localhost:{port}",',
    }
    return replaced(text, replacements) + APP


def page_html() -> str:
    (script,) = (block.text for block in blocks_of(PAGE) if block.language == "js")
    return AROUND % script


def html(_: ServerConnection, request: Request) -> Response | None:
    if request.path.startswith("/ws/"):
        return None
    body = page_html().encode()
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


BROWSERS = pytest.mark.parametrize(
    "browser",
    [
        pytest.param(Chromium(Caller.OWN), id="chromium"),
        pytest.param(Firefox(Caller.OWN), id="firefox", marks=pytest.mark.requires_program("firefox-esr")),
    ],
)


@BROWSERS
def test_the_javascript_of_the_guide_before_an_app(browser: CheckedBrowser, place: Path, data_home: Path) -> None:
    """
    A ticket opens the socket, a fresh token renews it, one that lacks the scope ends it; unrenewed it expires.

    A revocation closes it, and an older token buys no other ticket.
    """
    port, upstream = free_port(), free_port()
    (place / "wsguard.toml").write_text(configuration(port, upstream), encoding="utf-8")
    (place / "admin").mkdir(mode=0o700)
    write_secret(place)

    async def revoke(_: Page) -> None:
        command = shlex.split(CLOSE)[1:]
        ended = await asyncio.to_thread(subprocess.run, [WSGUARD, *command], capture_output=True, text=True, check=True)
        assert "1" in ended.stdout

    async def story() -> None:
        async with serve(echo, "127.0.0.1", upstream, process_request=html, subprotocols=[Subprotocol("chat")]):
            await visit(browser, data_home, port, revoke)

    with running([WSGUARD, "gateway", "--config", "wsguard.toml"], place) as gateway:
        gateway.wait_for("gateway.listening")
        asyncio.run(story())
        told_by_log(gateway)


@BROWSERS
def test_the_javascript_of_the_guide_inside_an_app(browser: CheckedBrowser, place: Path, data_home: Path) -> None:
    """The same with the guard of the guide's Python in an ASGI app, which revokes by a call."""
    port = free_port()
    (place / "app.py").write_text(application(port), encoding="utf-8")
    (place / "page.html").write_text(page_html(), encoding="utf-8")
    write_secret(place)

    async def revoke(page: Page) -> None:
        assert await page.evaluate('fetch("/revoke", { method: "POST" }).then((answer) => answer.json())') == {
            "closed": 1
        }

    with running([WSGUARD, "run", "app:app", "--listen", f"127.0.0.1:{port}"], place) as app:
        app.wait_for("run.starting")
        wait_for_port(port)
        asyncio.run(visit(browser, data_home, port, revoke))
        told_by_log(app)


def write_secret(place: Path) -> None:
    (place / "jwt.secret").touch(mode=0o600)
    (place / "jwt.secret").write_text(SECRET, encoding="utf-8")


async def visit(browser: CheckedBrowser, data_home: Path, port: int, revoke: Callable[[Page], Awaitable[None]]) -> None:
    authority = data_home / "wsguard" / "dev-ca" / "ca.pem"
    async with async_playwright() as playwright, browser.opened(playwright, authority) as context:
        await renewed_and_refused(context, port)
        await expired(context, port)
        await revoked(context, port, revoke)


async def renewed_and_refused(context: BrowserContext, port: int) -> None:
    claims = Claims()
    claims.lifetime = 5
    async with visited(context, port, claims) as page:
        assert await page.evaluate("window.opened") == "chat"
        assert await said(page, "hello") == "alice: hello"
        claims.lifetime = 3600
        await asyncio.sleep(6)  # the page's timer renews it; without that it would be closed by now
        assert await said(page, "still here") == "alice: still here"
        claims.scope = "read"
        renewing = 'ask("renew", { session }).catch((status) => status)'
        assert await page.evaluate(renewing) == HTTPStatus.FORBIDDEN
        assert await told(page) == "no"


async def expired(context: BrowserContext, port: int) -> None:
    claims = Claims()
    claims.lifetime = 4
    async with visited(context, port, claims) as page:
        claims.lifetime = -1  # from now on tokens have ended already, so that nothing renews it
        assert await told(page) == "again"


async def revoked(context: BrowserContext, port: int, revoke: Callable[[Page], Awaitable[None]]) -> None:
    claims = Claims()
    async with visited(context, port, claims) as page:
        assert await said(page, "hello") == "alice: hello"
        await revoke(page)
        assert await told(page) == "login"
        claims.age = 30  # an older token, good but for the revocation
        buying = 'ask("ticket", { path: "/ws/chat" }).catch((status) => status)'
        assert await page.evaluate(buying) == HTTPStatus.UNAUTHORIZED


def told_by_log(guard: Running) -> None:
    assert "subject=alice" in guard.wait_for("ticket.sold")
    assert "subject=alice" in guard.wait_for("session.renewed")
    guard.wait_for("reason=authorization.scope")
    guard.wait_for("code=3003")
    assert "reason=credential.expired" in guard.wait_for("code=3000")
    assert "closed=1" in guard.wait_for(" session.revoked ")
    assert guard.stop() == 0
    assert "Traceback" not in guard.errors  # uvicorn says there that it starts and ends
