"""
A real JupyterLab behind the gateway, used in a real Chromium that overrides no TLS error.

Not a line of JupyterLab is changed; `docs/guides/jupyter.md` tells people what these tests do.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from playwright.async_api import async_playwright, expect

from tests.ci_rules import require_program
from tests.gateway.gateway_process import GatewayProcess
from tests.story.foreign_pages import ForeignPages
from tests.story.jupyter_lab import PROGRAM, JupyterLab
from tests.story.notebook_page import SLOW_MS, new_notebook, run_cell, save_as, sign_in
from wsguard.config.file import GatewayConfig, render_toml
from wsguard.demo.check.browsers import Chromium
from wsguard.demo.loopback import free_port
from wsguard.demo.places import Caller
from wsguard.dev_ca import DevelopmentAuthority

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator
    from pathlib import Path

    from playwright.async_api import BrowserContext

pytestmark = [
    pytest.mark.story,
    pytest.mark.browser,
    pytest.mark.requires_program("chromium", "certutil", PROGRAM),
]

HOST = "lab.localhost"
# evil.localhost is another site; evil.lab.localhost is the same site, so that the lab's cookie rides along.
FOREIGN_HOSTS = ("evil.localhost", "evil.lab.localhost")

CONNECT = """url => new Promise(resolve => {
    const socket = new WebSocket(url);
    let opened = false;
    socket.onopen = () => { opened = true; socket.close(1000); };
    socket.onclose = event => resolve([opened, event.code]);
})"""
REFUSED = (False, 1006)
OPENED = (True, 1000)
SAVE_WITHOUT_XSRF = """url => fetch(url, {
    method: "PUT",
    body: JSON.stringify({type: "file", format: "text", content: "forged"}),
}).then(answer => answer.status)"""


@dataclass(frozen=True)
class GuardedLab:
    """JupyterLab, and the gateway before it."""

    jupyter: JupyterLab
    gateway: GatewayProcess
    authority: DevelopmentAuthority
    origin: str

    def channels(self, kernel: str, session: str) -> str:
        """Return the address of a kernel's WebSocket, whose *session* is found again in JupyterLab's log."""
        return f"wss://{self.origin.removeprefix('https://')}/api/kernels/{kernel}/channels?session_id={session}"

    @asynccontextmanager
    async def browser(self) -> AsyncGenerator[BrowserContext]:
        """Open Chromium in a new profile that trusts the development CA, as a developer's does."""
        chromium = Chromium(Caller.OWN)
        async with (
            async_playwright() as playwright,
            chromium.opened(playwright, self.authority.certificate_path) as context,
        ):
            yield context


Outcome = tuple[bool, int]
StartLab = Callable[..., GuardedLab]


def development_authority(data_home: Path) -> DevelopmentAuthority:
    """Return the development CA of a gateway whose XDG_DATA_HOME is *data_home*."""
    return DevelopmentAuthority.open(data_home / "wsguard" / "dev-ca")


@pytest.fixture
def start_lab(tmp_path: Path) -> Iterator[StartLab]:
    """Start JupyterLab, with the settings that it takes, behind the gateway with its development certificate."""
    labs: list[JupyterLab] = []
    gateways: list[GatewayProcess] = []

    def start(**settings: str) -> GuardedLab:
        folder = tmp_path / "jupyter"
        folder.mkdir()
        labs.append(JupyterLab(require_program(PROGRAM), folder, **settings))
        port = free_port()
        origin = f"https://{HOST}:{port}"
        config = GatewayConfig(listen=[f"localhost:{port}"], upstream=labs[0].url, origins=[origin], hosts=[HOST])
        file = tmp_path / "wsguard.toml"
        file.write_text(render_toml(config, "wsguard.schema.json"))
        gateways.append(GatewayProcess(file, {"XDG_DATA_HOME": str(tmp_path)}))
        return GuardedLab(labs[0], gateways[0], development_authority(tmp_path), origin)

    yield start
    for gateway in gateways:
        assert (gateway.stop(), gateway.stderr()) == (0, "")
    for lab in labs:
        lab.stop()


def test_a_notebook_is_run_and_saved(start_lab: StartLab) -> None:
    """
    All that JupyterLab needs passes the gateway: pages and scripts, login form, cookies, a kernel's WebSocket, saving.

    With a password JupyterLab demands `_xsrf` of every request that changes something (with a token in the page's
    address it demands none), so here the cookie, the field and the Origin must all arrive as the browser sent them.
    """
    password = secrets.token_urlsafe()
    lab = start_lab(password=password)
    asyncio.run(_run_and_save(lab, password))
    _the_file_holds_the_output(lab.jupyter.notebooks / "answer.ipynb")
    opened = [line for line in lab.gateway.log if line["event"] == "session.opened"]
    assert {line["origin"] for line in opened} == {lab.origin}
    assert any(line["path"].endswith("/channels") for line in opened)
    assert lab.gateway.count("handshake.refused") == 0


async def _run_and_save(lab: GuardedLab, password: str) -> None:
    async with lab.browser() as browser:
        page = await browser.new_page()
        signed_in = await sign_in(page, f"{lab.origin}/lab", password)
        assert signed_in.status == 302
        await new_notebook(page)
        await run_cell(page, "print(6*7)", "42")
        saved = await save_as(page, "answer.ipynb")
        assert saved.status == 200
        assert await saved.request.header_value("X-XSRFToken") == await _cookie(browser, lab.origin, "_xsrf")
        assert await page.evaluate(SAVE_WITHOUT_XSRF, "/api/contents/forged.txt") == 403


async def _cookie(browser: BrowserContext, origin: str, name: str) -> str | None:
    found = [cookie for cookie in await browser.cookies(origin) if cookie.get("name") == name]
    assert [cookie.get("secure") for cookie in found] == [True]  # Jupyter speaks http and does not say so: the gateway
    return found[0].get("value")


def _the_file_holds_the_output(file: Path) -> None:
    cell = json.loads(file.read_text("utf-8"))["cells"][0]
    assert cell["source"] == ["print(6*7)"] or cell["source"] == "print(6*7)"
    (output,) = cell["outputs"]
    assert (output["name"], "".join(output["text"])) == ("stdout", "42\n")
    assert not file.with_name("forged.txt").exists()


@pytest.fixture
def foreign_pages(tmp_path: Path) -> Iterator[ForeignPages]:
    pages = ForeignPages(development_authority(tmp_path), *FOREIGN_HOSTS)
    yield pages
    pages.close()


def test_a_page_of_another_origin_reaches_no_kernel(start_lab: StartLab, foreign_pages: ForeignPages) -> None:
    """
    A kernel's WebSocket runs any code. While somebody is signed in, other pages of the same browser try to open it:
    they are refused and JupyterLab hears nothing of it, while the very same script in the lab's own page gets in.

    JupyterLab's own Origin check is off, as in many recipes, so that nothing but the gateway can have refused them.
    """
    token = secrets.token_urlsafe()
    lab = start_lab(token=token, allow_origin="*")
    kernel = lab.jupyter.ask("POST", "/api/kernels")["id"]
    outcomes = asyncio.run(_try_to_connect(lab, token, kernel, foreign_pages.origins))
    assert outcomes == {**dict.fromkeys(foreign_pages.origins, REFUSED), lab.origin: OPENED}
    _only_the_own_page_was_heard(lab, kernel, foreign_pages.origins)


async def _try_to_connect(lab: GuardedLab, token: str, kernel: str, foreign_origins: list[str]) -> dict[str, Outcome]:
    """Tell for each origin whether the socket opened, and the code it ended with. The lab's own comes last."""
    async with lab.browser() as browser:
        lab_page = await browser.new_page()
        await lab_page.goto(f"{lab.origin}/lab?token={token}", wait_until="domcontentloaded")
        await expect(lab_page.locator(".jp-Launcher")).to_be_visible(timeout=SLOW_MS)
        outcomes: dict[str, Outcome] = {}
        for origin in foreign_origins:
            page = await browser.new_page()
            await page.goto(origin)
            outcomes[origin] = tuple(await page.evaluate(CONNECT, lab.channels(kernel, origin)))
        outcomes[lab.origin] = tuple(await lab_page.evaluate(CONNECT, lab.channels(kernel, lab.origin)))
        return outcomes


def _only_the_own_page_was_heard(lab: GuardedLab, kernel: str, foreign_origins: list[str]) -> None:
    path = f"/api/kernels/{kernel}/channels"
    for origin in foreign_origins:
        refusal = lab.gateway.wait_for("handshake.refused", origin=origin)
        assert (refusal["status"], refusal["reason"], refusal["path"]) == (403, "origin.not_allowed", path)
    lab.gateway.wait_for("session.opened", origin=lab.origin, path=path)
    lab.jupyter.wait_for(f"101 GET {path}?session_id={lab.origin} ")
    assert len(lab.jupyter.lines_with(f"GET {path}")) == 1  # the own one came last, so nothing is still to be logged
