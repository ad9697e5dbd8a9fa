"""The demo for a person: start it, say where it is, offer a browser, and end on Ctrl-C."""

from __future__ import annotations

import asyncio
import signal
import sys
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from wsguard.demo.browser import installed_chromium, throw_away_chromium
from wsguard.demo.running import running_demo
from wsguard.demo.terminal import Terminal, has_display, has_keyboard

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from wsguard.demo.places import Places
    from wsguard.demo.running import Demo

ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


async def run_until_interrupted(places: Places, *, offer_browser: bool) -> None:
    """Run the demo on *places* until Ctrl-C; raise DemoError if the gateway ends before that."""
    terminal = Terminal()
    interrupted = asyncio.Event()
    for number in ENDING_SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, interrupted.set)
    async with running_demo(places) as demo:
        terminal.started(places)
        program = installed_chromium() if offer_browser and has_display() and has_keyboard() else None
        if program is None:
            terminal.how_to_get_there(places)
            await _until(interrupted, demo)
        else:
            terminal.offer(program)
            async with _opening_on_enter(program, demo):
                await _until(interrupted, demo)


async def _until(interrupted: asyncio.Event, demo: Demo) -> None:
    pressed = asyncio.create_task(interrupted.wait())
    await asyncio.wait({pressed, demo.failure}, return_when=asyncio.FIRST_COMPLETED)
    pressed.cancel()
    if demo.failure.done():
        raise demo.failure.result()


@asynccontextmanager
async def _opening_on_enter(program: str, demo: Demo) -> AsyncGenerator[None]:
    task = asyncio.create_task(_open_on_enter(program, demo))
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _open_on_enter(program: str, demo: Demo) -> None:
    """Open *program* whenever Enter is pressed and no window of it is open."""
    while await _enter_pressed():
        async with throw_away_chromium(program, demo.identity.spki_sha256_base64, demo.places.landing) as chromium:
            await chromium.wait()


async def _enter_pressed() -> bool:
    """Wait for a line on the terminal; False when there will be none."""
    loop = asyncio.get_running_loop()
    typed = asyncio.Event()
    loop.add_reader(sys.stdin, typed.set)
    try:
        await typed.wait()
    finally:
        loop.remove_reader(sys.stdin)
    return bool(sys.stdin.readline())
