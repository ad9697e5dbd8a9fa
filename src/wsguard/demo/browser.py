"""
An installed Chromium in a throw-away profile, so that nobody clicks through a certificate warning for each name.

It trusts one thing more than usual: the public key of the demo's own leaf. Nothing of the user's own profile is read
or changed. Third-party cookies are allowed, as in stock Chrome (Debian's build blocks them and hides half of the demo).
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import AsyncGenerator

PROGRAMS = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
)
QUIET_FLAGS = (
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
)
WINDOW_SIZE = "--window-size=1340,1000"
STOP_DEADLINE = 5.0


def installed_chromium() -> str | None:
    """Return the path of an installed Chromium or Chrome, if there is one."""
    return next((found for found in map(shutil.which, PROGRAMS) if found), None)


def chromium_flags() -> list[str]:
    """Return the flags for a Chromium that talks to nobody but us; root cannot use its sandbox."""
    return [*QUIET_FLAGS, "--no-sandbox"] if os.geteuid() == 0 else [*QUIET_FLAGS]


def allow_third_party_cookies(profile: Path) -> None:
    """Give a new Chromium *profile* the cookie setting of stock Chrome."""
    preferences = profile / "Default" / "Preferences"
    preferences.parent.mkdir(parents=True, exist_ok=True)
    preferences.write_text(json.dumps({"profile": {"cookie_controls_mode": 0}}), encoding="utf-8")


@asynccontextmanager
async def throw_away_chromium(program: str, spki_sha256_base64: str, url: str) -> AsyncGenerator[Process]:
    """Open *url* in *program* with a new profile that accepts the leaf of that key; close it at the end."""
    with TemporaryDirectory(prefix="wsguard-chromium-", ignore_cleanup_errors=True) as folder:
        allow_third_party_cookies(Path(folder))
        process = await asyncio.create_subprocess_exec(
            program,
            f"--user-data-dir={folder}",
            f"--ignore-certificate-errors-spki-list={spki_sha256_base64}",
            *chromium_flags(),
            WINDOW_SIZE,
            "--new-window",
            url,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            await _end(process)


async def _end(process: Process) -> None:
    if process.returncode is None:
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), STOP_DEADLINE)
    except TimeoutError:
        process.kill()
        await process.wait()
