"""
The page's story and the program's, with access tokens of a real provider that changes its keys meanwhile.

A page: token, ticket, socket, renewed in place, revoked, closed with its code. A program: token, socket, expiry, and
renewal by the handle of its 101. Before an app by the gateway, and around one by `wsguard run`.
"""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, async_playwright

from tests.credentials import closed, echoes, echoes_until
from tests.leaks import Kind, secret
from tests.mounts.conftest import Mount, StartMount
from tests.story.oidc_provider import PROGRAM, OIDCProvider, running
from wsguard.demo.check.browsers import CheckedBrowser, Chromium, Firefox
from wsguard.demo.places import Caller

pytestmark = [pytest.mark.story, pytest.mark.requires_program("node", PROGRAM)]

AUDIENCE = "https://app.test"
CONFIGURATION = """
origins = ["https://app.test", "https://localhost:PORT"]
hosts = ["app.test", "localhost"]
public_url = "https://localhost:PORT"
outbound = ["127.0.0.0/8"]
outbound_ca = "issuer-ca.pem"
admin = "unix:admin/admin.sock"

[jwt."ISSUER"]
audience = ["https://app.test"]

[ticket]
sold_for = ["bearer"]

[limits]
issuer_refetch = "1s"

[[route]]
path = "/ws/*"
auth = ["bearer", "ticket"]
require = {scopes = ["chat"]}
origin_required = "unless-header-credential"

[[route]]
path = "/*"
anonymous = true
"""
DEADLINE_MS = 20_000
# What a page does, in its own words; docs/guides/tickets.md has the ten lines.
SCRIPT = """
window.ask = async (what, body) => {
    const headers = { "Content-Type": "application/json", Authorization: `Bearer ${await mint()}` };
    const answer = await fetch(`/.wsguard/${what}`, { method: "POST", headers, body: JSON.stringify(body) });
    if (!answer.ok) throw answer.status;
    return answer.json();
};
window.open_ = async () => {
    const sold = await ask("ticket", { path: "/ws/chat" });
    window.bought = [...(window.bought ?? []), sold];
    window.session = sold.session;
    window.socket = new WebSocket(sold.url, sold.protocols);
    window.ended = new Promise((resolve) => { socket.onclose = ({ code, reason }) => resolve([code, reason]); });
    await new Promise((resolve, reject) => { socket.onopen = resolve; socket.onerror = () => reject("closed"); });
};
window.said = (text) => new Promise((resolve) => {
    socket.onmessage = ({ data }) => resolve(data);
    socket.send(text);
});
"""


@pytest.fixture
def provider(tmp_path: Path, require_program: Callable[[str], str]) -> Iterator[OIDCProvider]:
    (tmp_path / "admin").mkdir(mode=0o700)
    with running(require_program(PROGRAM), tmp_path, client="machine", scopes="chat read") as provider:
        yield provider


def minted(provider: OIDCProvider, scope: str = "chat") -> str:
    return provider.access_token(AUDIENCE, scope)


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


def member_of(token: str, part: int, name: str) -> Any:
    text = token.split(".")[part]
    return json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))[name]


def expiry_of(token: str) -> float:
    return float(member_of(token, 1, "exp"))


def key_of(token: str) -> str:
    return str(member_of(token, 0, "kid"))


def until_known(ask: Callable[[], int], unknown: int, expected: int) -> None:
    """A key that is new is learnt within `issuer_refetch`; the token is refused until then."""
    end = time.monotonic() + 20
    while (status := ask()) == unknown:
        assert time.monotonic() < end, f"still {status}"
        time.sleep(0.1)  # between two questions, within the deadline: a key that is learnt sends no event
    assert status == expected


def revoke(folder: Path, subject: str) -> int:
    """As the operator does it."""
    command = ["sessions", "close", "--subject", subject, "--json", "--config", "wsguard.toml"]
    done = subprocess.run(
        [sys.executable, "-m", "wsguard", *command], cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["closed"]


def test_the_program(provider: OIDCProvider, start_mount: StartMount) -> None:
    """It expires to the second, lives on by a renewal with a token of the new key, and ends without one."""
    mount = start_mount(CONFIGURATION.replace("ISSUER", provider.issuer))
    program = mount.program
    provider.live(6)
    first = minted(provider)
    expires = expiry_of(first)
    ended, _ = program.open(fields=bearer(first))
    kept, fields = program.open(fields=bearer(first))
    assert program.refused(fields=bearer(minted(provider, "read")))[0] == 403
    assert echoes(ended, "hello")

    provider.rotate()
    provider.live(300)
    fresh = minted(provider)
    assert key_of(fresh) != key_of(first)
    handle = fields["x-wsguard-session"]
    until_known(lambda: program.renew(handle, bearer(fresh)).status, unknown=401, expected=200)
    assert time.time() < expires, "this machine is too slow for a token of 6 s"

    echoes_until(ended, expires - 0.3)
    assert closed(ended) == (3000, "credential expired")
    assert expires <= time.time() < expires + 1.5
    assert echoes(kept, "still there")
    assert program.refused(fields=bearer(first))[0] == 401
    provider.forget()
    assert echoes(program.open(fields=bearer(fresh))[0], "hello")
    told = mount.wait_for("session.renewed")
    assert (told["subject"], told["issuer"]) == ("machine", provider.issuer)


@pytest.mark.browser
@pytest.mark.requires_program("chromium", "certutil")
@pytest.mark.parametrize(
    "browser",
    [
        pytest.param(Chromium(Caller.OWN), id="chromium"),
        pytest.param(Firefox(Caller.OWN), id="firefox", marks=pytest.mark.requires_program("firefox-esr")),
    ],
)
def test_the_page(browser: CheckedBrowser, provider: OIDCProvider, start_mount: StartMount, tmp_path: Path) -> None:
    """Its ticket opens the socket; a token of the new key renews it; the operator revokes it; older tokens buy nothing."""
    mount = start_mount(CONFIGURATION.replace("ISSUER", provider.issuer))
    asyncio.run(page_story(browser, provider, mount, tmp_path))


async def page_story(browser: CheckedBrowser, provider: OIDCProvider, mount: Mount, folder: Path) -> None:
    async with (
        async_playwright() as playwright,
        browser.opened(playwright, folder / "authority.pem") as context,
    ):
        page: Page = await context.new_page()
        page.set_default_timeout(DEADLINE_MS)
        token = minted(provider)
        await page.expose_function("mint", lambda: token)
        await page.goto(f"https://localhost:{mount.visitor.address[1]}/page")
        await page.add_script_tag(content=SCRIPT)
        await page.evaluate("open_()")
        assert await page.evaluate("said('hello')") == "hello"

        await asyncio.to_thread(provider.rotate)
        older, token = token, await asyncio.to_thread(minted, provider)
        end = time.monotonic() + 20
        renewing = "ask('renew', { session }).then((answer) => answer.session_expires_at, (status) => -status)"
        while (expires := await page.evaluate(renewing)) == -401:  # until the new key is learnt
            assert time.monotonic() < end
            await asyncio.sleep(0.1)
        assert expires == int(expiry_of(token))
        assert await page.evaluate("said('renewed')") == "renewed"

        await asyncio.sleep(1.1)  # tokens know whole seconds: those that follow are issued after the revocation
        assert await asyncio.to_thread(revoke, folder, "machine") == 1
        assert await page.evaluate("ended") == [3000, "revoked"]
        for old in (older, token):
            token = old
            assert await page.evaluate("open_().catch((status) => status)") == 401
        await asyncio.sleep(1.1)
        token = await asyncio.to_thread(minted, provider)
        await page.evaluate("open_()")
        assert await page.evaluate("said('again')") == "again"
        for sold in await page.evaluate("bought"):
            secret(Kind.TICKET, sold["ticket"])
            secret(Kind.HANDLE, sold["session"])
    told: list[Any] = [line["subject"] for line in mount.events("session.opened")]
    assert told == ["machine", "machine"]
