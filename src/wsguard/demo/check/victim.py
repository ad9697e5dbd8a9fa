"""What the person in front of the browser does, step by step, and what came of each step."""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING

from playwright.async_api import Error as PlaywrightError

from wsguard.demo.check.findings import (
    BROKEN,
    HIJACKED,
    NOT_LOGGED,
    NOT_STOLEN,
    OUTLIVED,
    REFUSED,
    REVOKED,
    UNDECIDED,
    WORKS,
)
from wsguard.demo.observations import Message
from wsguard.demo.places import App, Caller, Case
from wsguard.demo.sites.chat import CORRESPONDENT

if TYPE_CHECKING:
    from playwright.async_api import BrowserContext, Page

    from wsguard.demo.running import Demo

STEP_DEADLINE = 12.0
LOG_DEADLINE = 5.0


class Victim:
    """A person signed in to all apps, in one browser."""

    def __init__(self, demo: Demo, browser: BrowserContext) -> None:
        self._demo = demo
        self._browser = browser
        self._secrets: dict[App, str] = {}

    async def use_own_page(self, app: App) -> str:
        """Sign in, and see on the app's own page a fresh message that nobody else can know."""
        page = await self._browser.new_page()
        try:
            async with asyncio.timeout(STEP_DEADLINE):
                connected = await self._open(page, app)
                planted = await self._plant(app)  # in any case: an attacker may read what the own page cannot
                if not connected:
                    return BROKEN
                await page.get_by_text(planted).wait_for()
        except (PlaywrightError, TimeoutError):
            return BROKEN
        finally:
            await page.close()
        return WORKS

    async def see_revocation(self) -> str:
        """Read the chat that a ticket opened, and be revoked."""
        page = await self._browser.new_page()
        try:
            async with asyncio.timeout(STEP_DEADLINE):
                if not await self._open(page, App.TICKETS):
                    return BROKEN
                await self._demo.revocations.revoke()
                await page.locator("body[data-state=closed][data-code='3000']").wait_for()
        except (PlaywrightError, TimeoutError):
            return OUTLIVED
        finally:
            await page.close()
        return REVOKED

    async def visit_attacker(self, case: Case) -> str:
        """Look at an attacker's page, as people look at pages."""
        page = await self._browser.new_page()
        before = self._demo.observations.cases[case].attempts
        try:
            async with asyncio.timeout(STEP_DEADLINE):
                await page.goto(self._demo.places.page(case))
                outcome = await self._demo.observations.until(lambda: self._outcome(case, before))
        except (PlaywrightError, TimeoutError):
            return UNDECIDED
        finally:
            await page.close()
        return await self._confirmed(case) if outcome == NOT_STOLEN else outcome

    async def _open(self, page: Page, app: App) -> bool:
        """Open *app*'s own page and say whether its socket is open."""
        await page.goto(self._demo.places.page(Case(Caller.OWN, app)))
        await page.locator("body[data-state]").wait_for()
        return await page.locator("body").get_attribute("data-state") == "connected"

    async def _plant(self, app: App) -> str:
        text = f"Only for you: {secrets.token_hex(8)}"
        self._secrets[app] = text
        session = self._demo.chats[app].newest_session
        if session is not None:
            await self._demo.chats[app].say(session, Message(CORRESPONDENT, text))
        return text

    def _outcome(self, case: Case, attempts_before: int) -> str | None:
        """Hijacked means: the attacker's server received the planted message, of this attempt."""
        seen = self._demo.observations.cases[case]
        if seen.attempts == attempts_before:
            return None
        if any(message.text == self._secrets.get(case.app) for message in seen.received):
            return HIJACKED
        return NOT_STOLEN if seen.ended else None

    async def _confirmed(self, case: Case) -> str:
        """Refused means more than nothing stolen: the decision log holds the refusal of that origin."""
        if case.app is App.OPEN:
            return NOT_STOLEN
        try:
            async with asyncio.timeout(LOG_DEADLINE):
                await self._demo.observations.until(lambda: self._demo.observations.cases[case].refusal)
        except TimeoutError:
            return NOT_LOGGED
        return REFUSED
