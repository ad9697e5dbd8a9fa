"""The FastAPI guide as a person uses it: `wsguard run`, a real browser that overrides no TLS error, and foreign pages."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from playwright.async_api import async_playwright, expect

from tests.docs.running import WSGUARD, running, wait_for_port
from tests.guides.servers import EXAMPLES, MEMBER, PASSWORD
from tests.story.foreign_pages import ForeignPages
from wsguard.demo.check.browsers import Chromium, Firefox
from wsguard.demo.loopback import free_port
from wsguard.demo.places import Caller
from wsguard.dev_ca import DevelopmentAuthority

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.async_api import BrowserContext, Page

    from wsguard.demo.check.browsers import CheckedBrowser

pytestmark = [pytest.mark.story, pytest.mark.browser]

CONNECT = """url => new Promise(resolve => {
    const socket = new WebSocket(url);
    let opened = false;
    socket.onopen = () => { opened = true; socket.close(1000); };
    socket.onclose = event => resolve([opened, event.code]);
})"""
# Another site; and the app's own host on another port, which is the same site to a browser: all of its cookies ride along.
FOREIGN_HOSTS = ("evil.localhost", "localhost")
SLOW_MS = 20_000


@pytest.mark.parametrize(
    "browser",
    [
        pytest.param(Chromium(Caller.OWN), id="chromium", marks=pytest.mark.requires_program("chromium", "certutil")),
        pytest.param(Firefox(Caller.OWN), id="firefox", marks=pytest.mark.requires_program("firefox-esr", "certutil")),
    ],
)
def test_the_chat_opens_in_its_own_page_and_in_no_other(
    browser: CheckedBrowser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Somebody logs in to the FastAPI guide's chat and speaks. Meanwhile two other pages of the same browser, one of which
    has the chat's cookie sent along, try to open the same socket: their scripts see nothing but 1006.
    """
    port = free_port()
    origin = f"https://localhost:{port}"
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setenv("APP_ORIGINS", origin)
    monkeypatch.setenv("APP_PASSWORD", PASSWORD)
    with running([WSGUARD, "run", "app:app", "--listen", f"localhost:{port}"], EXAMPLES / "fastapi") as server:
        wait_for_port(port)
        authority = DevelopmentAuthority.open(tmp_path / "wsguard" / "dev-ca")
        foreign = ForeignPages(authority, *FOREIGN_HOSTS)
        try:
            asyncio.run(_use(browser, authority.certificate_path, origin, foreign.origins))
        finally:
            foreign.close()
        for other in foreign.origins:
            assert "reason=origin.not_allowed" in server.wait_for(f"origin={other}")


async def _use(browser: CheckedBrowser, authority: Path, origin: str, foreign_origins: list[str]) -> None:
    async with async_playwright() as playwright, browser.opened(playwright, authority) as context:
        chat = await _log_in(context, origin)
        await chat.get_by_label("Say").fill("hello")
        await chat.get_by_role("button", name="Send").click()
        await expect(chat.locator("#lines")).to_have_text("ada: hello", timeout=SLOW_MS)
        url = f"{origin.replace('https', 'wss')}/ws/chat"
        for other in foreign_origins:
            page = await context.new_page()
            await page.goto(other)
            assert await page.evaluate(CONNECT, url) == [False, 1006]
        assert await chat.evaluate(CONNECT, url) == [True, 1000]
        await chat.get_by_role("button", name="Leave").click()
        await expect(chat.locator("#state")).to_have_text("closed 3000", timeout=SLOW_MS)


async def _log_in(context: BrowserContext, origin: str) -> Page:
    page = await context.new_page()
    await page.goto(origin)
    await page.get_by_label("Name").fill(MEMBER)
    await page.get_by_label("Password").fill(PASSWORD)
    await page.get_by_role("button", name="Enter").click()
    await expect(page.locator("#state")).to_have_text("open", timeout=SLOW_MS)
    return page
