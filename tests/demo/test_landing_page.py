"""The landing page in a real Chromium: one press of its button, and it shows what happened in every case."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from playwright.async_api import async_playwright

from wsguard.demo.check.browsers import Chromium
from wsguard.demo.loopback import free_port
from wsguard.demo.observations import Message
from wsguard.demo.places import App, Caller, Places
from wsguard.demo.running import running_demo

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.async_api import Page

    from wsguard.demo.running import Demo

pytestmark = [pytest.mark.browser, pytest.mark.requires_program("chromium", "certutil")]

SHOWN = {
    ("own", "open"): "Works",
    ("own", "guarded"): "Works",
    ("sibling", "open"): "Hijacked",
    ("sibling", "guarded"): "Refused",
    ("cross-site", "open"): "Hijacked",
    ("cross-site", "guarded"): "Refused",
}
STRICT, NONE = "__Host-session", "session_none"
RODE = {"own": [STRICT, NONE], "sibling": [STRICT, NONE], "cross-site": [NONE]}
MARKUP = '<img src=x onerror="document.title=1">'


def test_one_press_shows_every_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    asyncio.run(_press_and_look())


async def _press_and_look() -> None:
    places = Places(free_port(), free_port())
    chromium = Chromium(Caller.CROSS_SITE, third_party_cookies=True)
    async with (
        running_demo(places) as demo,
        async_playwright() as playwright,
        chromium.opened(playwright, demo.identity.authority_certificate) as browser,
    ):
        page = await browser.new_page()
        complaints: list[str] = []
        page.on("console", lambda message: complaints.append(message.text))
        await page.goto(places.landing)
        await page.get_by_text("live", exact=True).wait_for()
        await page.get_by_role("button", name="Run the attack").click()
        await page.locator("body[data-tour=done]").wait_for()
        await _every_case_is_shown(page)
        await _new_messages_are_stolen_live_and_shown_as_text(page, demo)
        await _it_fits(page)
        assert complaints == []  # above all nothing that its Content-Security-Policy stopped


async def _every_case_is_shown(page: Page) -> None:
    for (caller, app), outcome in SHOWN.items():
        card = page.locator(f"[data-caller={caller}] [data-app={app}]")
        assert await card.locator(".outcome").inner_text() == outcome
        assert await card.locator(".cookie[data-sent]").all_inner_texts() == RODE[caller]
    log = await page.locator("#log li").all_inner_texts()
    refused = [line for line in log if "403 origin.not_allowed" in line]
    assert len(refused) == 2


async def _new_messages_are_stolen_live_and_shown_as_text(page: Page, demo: Demo) -> None:
    chat = demo.chats[App.OPEN]
    session = chat.newest_session
    assert session is not None
    await chat.say(session, Message("Ben", MARKUP))
    await page.locator("[data-caller=sibling] [data-app=open] .stolen").get_by_text(MARKUP).wait_for()
    assert await page.title() == "wsguard demo: cross-site WebSocket hijacking"


async def _it_fits(page: Page) -> None:
    for width in (1280, 400, 320):
        await page.set_viewport_size({"width": width, "height": 800})
        assert await page.evaluate("document.documentElement.scrollWidth") == width
