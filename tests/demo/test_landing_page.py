"""The landing page in a real Chromium: one press of its button, and it shows what happened in every case."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from playwright.async_api import async_playwright

from wsguard.demo.check.browsers import Chromium
from wsguard.demo.check.findings import HIJACKED, REFUSED, WORKS
from wsguard.demo.check.victim import Victim
from wsguard.demo.loopback import free_port
from wsguard.demo.observations import Message
from wsguard.demo.places import App, Caller, Case, Places
from wsguard.demo.running import running_demo
from wsguard.demo.sites.chat import Chat

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.async_api import BrowserContext, Page
    from websockets.http11 import Request, Response

    from wsguard.demo.running import Demo

pytestmark = [pytest.mark.browser, pytest.mark.requires_program("chromium", "certutil")]

SHOWN = {
    ("own", "open"): "Works",
    ("own", "guarded"): "Works",
    ("own", "tickets"): "Works",
    ("sibling", "open"): "Hijacked",
    ("sibling", "guarded"): "Refused",
    ("cross-site", "open"): "Hijacked",
    ("cross-site", "guarded"): "Refused",
    ("cross-site", "tickets"): "Refused",
    ("sibling", "tickets"): "Refused",
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
        await _one_more_press_revokes(page, browser)
        await _new_messages_are_stolen_live_and_shown_as_text(page, browser, demo)
        await _it_fits(page)
        assert complaints == []  # above all nothing that its Content-Security-Policy stopped


async def _every_case_is_shown(page: Page) -> None:
    for (caller, app), outcome in SHOWN.items():
        card = page.locator(f"[data-caller={caller}] [data-app={app}]")
        assert await card.locator(".outcome").inner_text() == outcome
        assert await card.locator(".cookie[data-sent]").all_inner_texts() == RODE[caller]
    log = await page.locator("#log li").all_inner_texts()
    refused = [line for line in log if "403 origin.not_allowed" in line]
    assert len(refused) == 3
    sibling = page.locator("[data-caller=sibling] [data-app=tickets]")
    assert "401 because credential.missing" in await sibling.locator(".facts").inner_text()
    assert "asked for, not readable" in await sibling.locator(".facts").inner_text()


async def _one_more_press_revokes(page: Page, browser: BrowserContext) -> None:
    (window,) = (window for window in browser.pages if "//tickets.localhost" in window.url)
    await page.get_by_role("button", name="Revoke").click()
    await page.locator("[data-caller=own] [data-app=tickets]").get_by_text("Revoked", exact=True).wait_for()
    await window.locator("body[data-code='3000']").wait_for()
    assert await window.evaluate('fetch("/token").then((answer) => answer.status)') == 401  # the login has ended too
    assert await page.get_by_role("button", name="Revoke").count() == 0


async def _new_messages_are_stolen_live_and_shown_as_text(page: Page, browser: BrowserContext, demo: Demo) -> None:
    attacker = await browser.new_page()
    await attacker.goto(demo.places.page(Case(Caller.SIBLING, App.OPEN)))
    await attacker.locator("[data-result=reading]").wait_for()
    chat = demo.chats[App.OPEN]
    session = chat.newest_session
    assert session is not None
    await chat.say(session, Message("Ben", MARKUP))
    await page.locator("[data-caller=sibling] [data-app=open] .stolen").get_by_text(MARKUP).wait_for()
    assert await page.title() == "wsguard demo: cross-site WebSocket hijacking"


def test_an_app_that_hands_its_token_to_a_listed_sibling_is_hijacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What keeps the sibling out is the Same-Origin Policy around the token, and nothing else of the demo's making."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    places = Places(free_port(), free_port())
    sibling = Case(Caller.SIBLING, App.TICKETS)
    answer = Chat._token

    def careless(chat: Chat, request: Request) -> Response:
        response = answer(chat, request)
        response.headers["Access-Control-Allow-Origin"] = places.caller(sibling)
        response.headers["Access-Control-Allow-Credentials"] = "true"
        return response

    async def visit() -> str:
        async with (
            running_demo(places) as demo,
            async_playwright() as playwright,
            Chromium(Caller.SIBLING).opened(playwright, demo.identity.authority_certificate) as browser,
        ):
            victim = Victim(demo, browser)
            assert await victim.use_own_page(App.TICKETS) == WORKS
            careful = await victim.visit_attacker(sibling)
            monkeypatch.setattr(Chat, "_token", careless)
            return f"{careful}, then {await victim.visit_attacker(sibling)}"

    assert asyncio.run(visit()) == f"{REFUSED}, then {HIJACKED}"


async def _it_fits(page: Page) -> None:
    for width in (1280, 400, 320):
        await page.set_viewport_size({"width": width, "height": 800})
        assert await page.evaluate("document.documentElement.scrollWidth") == width
