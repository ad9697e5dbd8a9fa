"""The whole check: every browser in turn, a line for each finding, and one last line with the verdict."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from playwright.async_api import Error as PlaywrightError
from playwright.async_api import async_playwright
from rich.console import Console
from rich.text import Text

from wsguard.demo.check.browsers import CHECKED_BROWSERS
from wsguard.demo.check.findings import HIJACKED, REFUSED, REVOKED, Finding
from wsguard.demo.check.victim import Victim
from wsguard.demo.places import App, Caller, Case
from wsguard.demo.running import running_demo
from wsguard.vocabulary.errors import WSGuardError

if TYPE_CHECKING:
    from playwright.async_api import Playwright

    from wsguard.demo.check.browsers import CheckedBrowser
    from wsguard.demo.places import Places
    from wsguard.demo.running import Demo

WHO = {
    Caller.OWN: "its own page",
    Caller.SIBLING: "attacker, same site",
    Caller.CROSS_SITE: "attacker, cross-site",
}


async def check(places: Places, *, guard: bool = True, signed_in: bool = True) -> bool:
    """
    Run the check on *places* and say whether it passed.

    Without *guard*, or with the victim not *signed_in*, it must fail: these two show that it can.
    """
    report = Report()
    try:
        async with running_demo(places, guard=guard) as demo, async_playwright() as playwright:
            for browser in CHECKED_BROWSERS:
                await _use(browser, playwright, demo, report, signed_in=signed_in)
    except (WSGuardError, PlaywrightError) as error:
        report.broke_off(str(error))
    return report.verdict()


async def _use(browser: CheckedBrowser, playwright: Playwright, demo: Demo, report: Report, *, signed_in: bool) -> None:
    """Use all apps in *browser*, visit the attacker of each, and be revoked where tickets are wanted."""
    async with browser.opened(playwright, demo.identity.authority_certificate) as context:
        victim = Victim(demo, context)
        for app in App:
            report.add(Finding(browser.name, Case(Caller.OWN, app), await victim.use_own_page(app)))
        if not signed_in:
            for chat in demo.chats.values():
                chat.sign_everybody_out()
        for app in App:
            case = Case(browser.attacker, app)
            report.add(Finding(browser.name, case, await victim.visit_attacker(case)))
        own = Case(Caller.OWN, App.TICKETS)
        report.add(Finding(browser.name, own, await victim.see_revocation(), must_be=REVOKED))


class Report:
    """What the check prints."""

    def __init__(self) -> None:
        self._console = Console(highlight=False, markup=False, soft_wrap=True)
        self._started = time.monotonic()
        self._findings: list[Finding] = []
        self._faults: list[str] = []

    def add(self, finding: Finding) -> None:
        """Print *finding*."""
        self._findings.append(finding)
        mark = ("ok  ", "green") if finding.as_expected else ("BAD ", "bold red")
        app = f"{finding.case.app}.localhost"
        self._console.print(
            Text.assemble(mark, f"{finding.browser:<34} {WHO[finding.case.caller]:<22} {app:<18} {finding.found}")
        )

    def broke_off(self, fault: str) -> None:
        """Note that the check could not be finished."""
        self._faults.append(fault.strip().partition("\n")[0])

    def verdict(self) -> bool:
        """Print the one last line, and say whether all is as it must be."""
        faults = [*self._faults, *self._complaints()]
        took = f" in {time.monotonic() - self._started:.0f} s: "
        if faults:
            self._console.print(Text.assemble(("FAILED", "bold red"), took, "; ".join(faults)))
        else:
            self._console.print(Text.assemble(("PASSED", "bold green"), took, self._summary()))
        return not faults

    def _complaints(self) -> list[str]:
        browsers: dict[str, list[str]] = {}
        for finding in self._findings:
            if not finding.as_expected:
                browsers.setdefault(finding.complaint, []).append(finding.browser)
        return [f"{complaint} ({', '.join(names)})" for complaint, names in browsers.items()]

    def _summary(self) -> str:
        attacks = [finding for finding in self._findings if finding.case.caller is not Caller.OWN]
        hijacks = sum(finding.found == HIJACKED for finding in attacks)
        refusals = sum(finding.found == REFUSED for finding in attacks)
        return (
            f"{hijacks} hijacks worked on open.localhost, {refusals} were refused on guarded.localhost and "
            "tickets.localhost, and all apps work on their own pages"
        )
