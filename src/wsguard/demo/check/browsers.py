"""
Chromium and Firefox in throw-away profiles that trust the development CA.

No TLS error is overridden: the CA stands in the NSS database that the browser reads (Chromium's below its HOME,
Firefox's in the profile), so the certificates of the demo are verified as any other.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from wsguard.demo.browser import allow_third_party_cookies, chromium_flags, installed_chromium
from wsguard.demo.errors import DemoError
from wsguard.demo.places import Caller

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator

    from playwright.async_api import BrowserContext, Playwright

FIREFOX_PROGRAMS = ("firefox-esr", "firefox")
CHROMIUM_NSS = Path(".pki/nssdb")
LAUNCH_DEADLINE_MS = 20_000


@dataclass(frozen=True)
class Chromium:
    """Chromium, with third-party cookies as its build has them, or allowed as stock Chrome ships it."""

    attacker: Caller
    third_party_cookies: bool = False

    @property
    def name(self) -> str:
        """Return its name for the report."""
        return "Chromium with third-party cookies" if self.third_party_cookies else "Chromium"

    @asynccontextmanager
    async def opened(self, playwright: Playwright, authority: Path) -> AsyncGenerator[BrowserContext]:
        """Open it in a new profile that trusts *authority*."""
        program = installed_chromium() or _missing("Chromium", "chromium")
        with _throw_away_home() as home:
            await trust(home / CHROMIUM_NSS, authority)
            profile = home / "profile"
            if self.third_party_cookies:
                allow_third_party_cookies(profile)
            context = await playwright.chromium.launch_persistent_context(
                profile,
                executable_path=program,
                args=chromium_flags(),
                env={**os.environ, "HOME": str(home)},
                timeout=LAUNCH_DEADLINE_MS,
            )
            try:
                yield context
            finally:
                await context.close()


@dataclass(frozen=True)
class Firefox:
    """Firefox as it ships."""

    attacker: Caller
    name: str = "Firefox"

    @asynccontextmanager
    async def opened(self, playwright: Playwright, authority: Path) -> AsyncGenerator[BrowserContext]:
        """Open it in a new profile that trusts *authority*, driven over WebDriver BiDi as distributions build it."""
        program = next(filter(None, map(shutil.which, FIREFOX_PROGRAMS)), None) or _missing("Firefox", "firefox-esr")
        with _throw_away_home() as home:
            profile = home / "profile"
            await trust(profile, authority)
            context = await playwright.firefox.launch_persistent_context(
                profile,
                channel="moz-firefox",
                executable_path=program,
                env={**os.environ, "HOME": str(home)},
                timeout=LAUNCH_DEADLINE_MS,
            )
            try:
                yield context
            finally:
                await context.close()


CheckedBrowser = Chromium | Firefox

# Which attack each must show: the sibling's works in any browser as it ships; the cross-site one wants third-party
# cookies, which stock Chrome sends and Debian's Chromium and Firefox do not.
CHECKED_BROWSERS: tuple[CheckedBrowser, ...] = (
    Chromium(Caller.SIBLING),
    Chromium(Caller.CROSS_SITE, third_party_cookies=True),
    Firefox(Caller.SIBLING),
)


async def trust(database: Path, authority: Path) -> None:
    """Make a new NSS database in the folder *database* that trusts the CA certificate *authority* for TLS servers."""
    program = shutil.which("certutil") or _missing("certutil", "libnss3-tools")
    await asyncio.to_thread(database.mkdir, parents=True)
    where = ("-d", f"sql:{database}")
    await _run(program, "-N", *where, "--empty-password")
    await _run(program, "-A", *where, "-n", "wsguard demo", "-t", "C,,", "-i", str(authority))


async def _run(*command: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    if process.returncode:
        raise DemoError(f"{command[0]} failed: {output.decode(errors='replace').strip()}")


@contextmanager
def _throw_away_home() -> Generator[Path]:
    with TemporaryDirectory(prefix="wsguard-check-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def _missing(program: str, package: str) -> str:
    raise DemoError(f"the check needs {program} (on Debian: apt install {package})")
