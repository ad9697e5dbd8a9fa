"""
Remake the demo's pictures: `.venv/bin/python tests/demo/screenshots.py docs/images`.

Writes demo.png and demo-dark.png (1280 px wide, for the README); with `--all` also the landing page at 400 px, the chat
and the attacker's page. It needs Chromium and certutil (Debian: chromium, libnss3-tools) and looks best with the fonts
Inter and JetBrains Mono (Debian: fonts-inter, fonts-jetbrains-mono).
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from playwright.async_api import async_playwright

from wsguard.demo.check.browsers import Chromium
from wsguard.demo.places import App, Caller, Case, Places
from wsguard.demo.running import running_demo

if TYPE_CHECKING:
    from playwright.async_api import BrowserContext, Page

PLACES = Places(8440, 8441)
WIDE, WINDOW, NARROW = 1280, 560, 400
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
DEADLINE_MS = 30_000
WINDOWS = {
    "chat": (Case(Caller.OWN, App.GUARDED), "body[data-state=connected]"),
    "attack": (Case(Caller.SIBLING, App.OPEN), "[data-result=reading]"),
    "refused": (Case(Caller.SIBLING, App.GUARDED), "[data-result=closed]"),
}


async def take(folder: Path, *, everything: bool) -> None:
    """Run the attacks in Chromium, then photograph the landing page."""
    chromium = Chromium(Caller.CROSS_SITE, third_party_cookies=True)
    async with (
        running_demo(PLACES) as demo,
        async_playwright() as playwright,
        chromium.opened(playwright, demo.identity.authority_certificate) as browser,
    ):
        landing = await toured_landing_page(browser)
        await photograph(landing, folder / "demo", WIDE)
        if everything:
            await photograph(landing, folder / "demo-narrow", NARROW)
            await photograph_windows(browser, folder)


async def toured_landing_page(browser: BrowserContext) -> Page:
    """Open the landing page, press its button and wait until every page was visited."""
    page = await browser.new_page()
    await page.goto(PLACES.landing)
    await page.get_by_text("live", exact=True).wait_for()
    await page.get_by_role("button", name="Run the attack").click()
    await page.locator("body[data-tour=done]").wait_for(timeout=DEADLINE_MS)
    await page.mouse.move(0, 0)
    return page


async def photograph_windows(browser: BrowserContext, folder: Path) -> None:
    for name, (case, ready) in WINDOWS.items():
        page = await browser.new_page()
        await page.goto(PLACES.page(case))
        await page.locator(ready).wait_for()
        await photograph(page, folder / name, WINDOW)


async def photograph(page: Page, stem: Path, width: int) -> None:
    """Write *stem*.png and *stem*-dark.png."""
    await page.set_viewport_size({"width": width, "height": 860})
    for scheme in SCHEMES:
        await page.emulate_media(color_scheme=scheme)
        suffix = "-dark" if scheme == "dark" else ""
        await page.screenshot(path=f"{stem}{suffix}.png", full_page=True)


if __name__ == "__main__":
    asyncio.run(take(Path(sys.argv[1]), everything="--all" in sys.argv))
