"""
The file of `docs/guides/jupyter.md` before a real JupyterLab: only addresses and files are changed.

JupyterLab's own login cookie opens its kernels' WebSockets, under a name that is not localhost, in a real Chromium.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from playwright.async_api import async_playwright, expect

from tests.ci_rules import require_program
from tests.credentials import Place
from tests.docs.blocks import ROOT, blocks_of
from tests.gateway.gateway_process import GatewayProcess
from tests.story.jupyter_lab import PROGRAM, JupyterLab
from tests.story.notebook_page import SLOW_MS, new_notebook, run_cell, sign_in
from wsguard.demo.check.browsers import Chromium
from wsguard.demo.loopback import free_port
from wsguard.demo.places import Caller
from wsguard.dev_ca import DevelopmentAuthority

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.async_api import Page

pytestmark = [
    pytest.mark.story,
    pytest.mark.browser,
    pytest.mark.requires_program("chromium", "certutil", PROGRAM),
]

HOST = "lab.localhost"
CONNECT = """url => new Promise(resolve => {
    const socket = new WebSocket(url);
    socket.onopen = () => { window.kept = socket; resolve("open"); };
    socket.onclose = event => { window.ended = [event.code, event.reason]; resolve("closed"); };
})"""
ENDED = "() => new Promise(resolve => { window.kept.onclose = event => resolve([event.code, event.reason]); })"


@dataclass(frozen=True)
class Lab:
    """JupyterLab, the gateway before it, and where its page is."""

    jupyter: JupyterLab
    gateway: GatewayProcess
    authority: DevelopmentAuthority
    folder: Path
    origin: str

    def sessions(self, *words: str) -> Any:
        command = [sys.executable, "-m", "wsguard", "sessions", *words, "--json", "--config"]
        done = subprocess.run(
            [*command, str(self.folder / "jupyter.toml")], capture_output=True, text=True, timeout=60, check=True
        )
        return json.loads(done.stdout)


@pytest.fixture
def password() -> str:
    return secrets.token_urlsafe()


@pytest.fixture
def lab(tmp_path: Path, password: str) -> Iterator[Lab]:
    folder = tmp_path / "jupyter"
    folder.mkdir()
    jupyter = JupyterLab(require_program(PROGRAM), folder, password=password)
    try:
        authority = DevelopmentAuthority.open(tmp_path / "ca")
        port = free_port()
        origin = f"https://{HOST}:{port}"
        Place(tmp_path).add_key("robot", "chat")
        cert, key = authority.write_leaf([HOST])
        (text,) = (
            block.text for block in blocks_of(ROOT / "docs" / "guides" / "jupyter.md") if block.title == "jupyter.toml"
        )
        for written, here in {
            '["0.0.0.0:443", "[::]:443"]': f'["127.0.0.1:{port}"]',
            '"app.pem"': f'"{cert}"',
            '"app.key"': f'"{key}"',
            "http://127.0.0.1:8888": jupyter.url,
            '["https://app.example.com"]\nhosts': f'["{origin}"]\nhosts',
            '"app.example.com"': f'"{HOST}"',
            'public_url = "https://app.example.com"': f'public_url = "{origin}"',
            "unix:/run/wsguard/admin.sock": "unix:run/admin.sock",
        }.items():
            assert written in text
            text = text.replace(written, here)
        (tmp_path / "jupyter.toml").write_text(text)
        gateway = GatewayProcess(tmp_path / "jupyter.toml")
        yield Lab(jupyter, gateway, authority, tmp_path, origin)
        assert (gateway.stop(), gateway.stderr()) == (0, "")
    finally:
        jupyter.stop()


def test_only_who_is_logged_in_reaches_a_kernel(lab: Lab, password: str) -> None:
    """
    Before the login the page's own socket is refused and JupyterLab hears nothing of it; after it a notebook runs; once
    the login is revoked the socket closes with 3000 and no new one opens, while JupyterLab still knows the cookie.
    """
    asyncio.run(_story(lab, password))


async def _story(lab: Lab, password: str) -> None:
    async with (
        async_playwright() as playwright,
        Chromium(Caller.OWN).opened(playwright, lab.authority.certificate_path) as browser,
    ):
        page = await browser.new_page()
        await page.goto(f"{lab.origin}/login", wait_until="domcontentloaded")
        socket = f"wss://{lab.origin.removeprefix('https://')}/api/events/subscribe"
        assert await page.evaluate(CONNECT, socket) == "closed"
        refused = lab.gateway.wait_for("handshake.refused", path="/api/events/subscribe")
        assert (refused["status"], refused["reason"]) == (401, "credential.missing")
        assert not lab.jupyter.lines_with("GET /api/events/subscribe")

        assert (await sign_in(page, f"{lab.origin}/lab", password)).status == 302
        await new_notebook(page)
        await run_cell(page, "print(6*7)", "42")
        await _revoked(lab, page, socket)


async def _revoked(lab: Lab, page: Page, socket: str) -> None:
    assert await page.evaluate(CONNECT, socket) == "open"
    opened = [line for line in lab.gateway.log if line["event"] == "session.opened"]
    (subject,) = {line["subject"] for line in opened}
    assert {(line["method"], line["issuer"], line["origin"]) for line in opened} == {("ask", "app", lab.origin)}
    assert any(line["path"].endswith("/channels") for line in opened)
    listed = await asyncio.to_thread(lab.sessions, "list")
    assert {one["subject"] for one in listed} == {subject}
    ending = asyncio.ensure_future(page.evaluate(ENDED))
    await asyncio.sleep(0)
    revoked = await asyncio.to_thread(lab.sessions, "close", "--subject", subject)
    assert revoked["closed"] >= len(listed)
    assert await ending == [3000, "revoked"]
    assert await page.evaluate(CONNECT, socket) == "closed"
    assert lab.gateway.wait_for("handshake.refused", reason="session.revoked")["subject"] == subject
    # JupyterLab itself would let the cookie in: its pages are open, and still load.
    await page.goto(f"{lab.origin}/lab", wait_until="domcontentloaded")
    await expect(page.locator("#jp-main-dock-panel")).to_be_visible(timeout=SLOW_MS)
