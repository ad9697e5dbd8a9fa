"""What a person does in JupyterLab's window, by mouse and keyboard."""

from __future__ import annotations

from typing import TYPE_CHECKING

from playwright.async_api import expect

if TYPE_CHECKING:
    from playwright.async_api import Page, Response

CONTENTS = "/api/contents/"
SLOW_MS = 40_000  # a kernel's or the whole lab's first start on a busy machine


async def sign_in(page: Page, url: str, password: str) -> Response:
    """Go to *url*, fill in the login form that is shown instead, and return the answer to its POST."""
    await page.goto(url, wait_until="domcontentloaded")
    await page.locator("#password_input").fill(password)
    async with page.expect_response(lambda answer: answer.request.method == "POST") as posted:
        await page.locator("#login_submit").click(no_wait_after=True)
    return await posted.value


async def new_notebook(page: Page) -> None:
    """Click the launcher's first kernel and wait until the status bar says that this kernel is ready."""
    await page.locator(".jp-LauncherCard[data-category=Notebook]").first.click(timeout=SLOW_MS)
    # Not the notebook's own indicator, which says idle before there is a kernel; a cell run then is silently not run.
    await page.locator("#jp-main-statusbar").get_by_text("| Idle").wait_for(timeout=SLOW_MS)


async def run_cell(page: Page, code: str, printed: str) -> None:
    """Type *code* into the first cell, run it, and wait until below it stands what it *printed*."""
    cell = page.locator(".jp-NotebookPanel .jp-CodeCell").first
    editor = cell.locator(".cm-content")
    await editor.click()
    await page.keyboard.type(code)
    await expect(editor).to_have_text(code)
    await page.keyboard.press("Shift+Enter")
    await expect(cell.locator(".jp-OutputArea-output")).to_have_text(printed, timeout=SLOW_MS)


async def save_as(page: Page, name: str) -> Response:
    """Save with Ctrl-S, give the notebook its *name* when asked, and return the answer to the PUT that saved it."""
    async with page.expect_response(lambda answer: answer.request.method == "PUT" and CONTENTS in answer.url) as saved:
        await page.keyboard.press("Control+s")
        await page.locator(".jp-Dialog input[type=text]").fill(name)
        await page.locator(".jp-Dialog .jp-mod-accept").click()
    await page.get_by_role("tab", name=name).wait_for()
    return await saved.value
