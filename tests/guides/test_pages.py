"""What the guides' pages show is what the tests run: the examples, the servers' commands, nginx's lines, the test suite."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.asgi.server_process import Files, command
from tests.ci_rules import ROOT
from tests.docs.blocks import Block, blocks_of, commands
from tests.guides.matrix import GUIDES
from tests.guides.servers import EXAMPLES, NGINX

DOCS = ROOT / "docs" / "guides"
PAGES = [DOCS / f"{guide}.md" for guide in GUIDES]
FILES = Files(Path("cert.pem"), Path("key.pem"))


def quotes(page: Path) -> list[Block]:
    """The blocks of *page* that show a file of examples/."""
    return [block for block in blocks_of(page) if block.title.startswith("examples/")]


@pytest.mark.parametrize(
    "block", [pytest.param(block, id=str(block)) for page in sorted(DOCS.glob("*.md")) for block in quotes(page)]
)
def test_a_quoted_example_is_the_file(block: Block) -> None:
    """A reader copies what CI has run, not what it looked like once."""
    assert block.text in (ROOT / block.title).read_text("utf-8")


@pytest.mark.parametrize("guide", GUIDES)
def test_a_guide_shows_its_whole_app(guide: str) -> None:
    """Each guide's page ends with the app as it is run."""
    app = f"examples/{guide}/app.py"
    texts = [block.text for block in quotes(DOCS / f"{guide}.md") if block.title == app]
    assert (ROOT / app).read_text("utf-8") in texts


def test_the_commands_are_those_that_the_tests_run() -> None:
    """A switch that the page forgets, such as uvicorn's for proxy headers, would be a hole."""
    shown = [
        shlex.split(line)
        for block in blocks_of(DOCS / "servers.md")
        if block.language == "sh"
        for line in commands(block)
    ]
    assert shown == [
        command("uvicorn", "app:app", 8443, FILES),
        command("hypercorn", "app:app", 8443, FILES),
        command("granian", "app:app", 8443, FILES),
        command("daphne", "app:app", 8000, None),
    ]


def test_nginx_gets_the_lines_of_the_page() -> None:
    """The headers that the page tells nginx to set are those that the tests' nginx sets."""
    (block,) = [block for block in blocks_of(DOCS / "servers.md") if block.language == "nginx"]
    used = NGINX.replace("{{", "{").replace("}}", "}").replace("{upstream}", "8000").splitlines()
    assert [line for line in block.text.splitlines() if line not in used] == []


@pytest.mark.story
def test_a_suite_on_starlettes_test_client_lives_on(tmp_path: Path) -> None:
    """The fixture of the FastAPI page opens a socket of the guarded example."""
    (block,) = [block for block in blocks_of(DOCS / "fastapi.md") if block.title == "test_chat.py"]
    (tmp_path / "test_chat.py").write_text(block.text, "utf-8")
    finished = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", "--rootdir", str(tmp_path)],
        cwd=tmp_path,
        env={"PYTHONPATH": str(EXAMPLES / "fastapi"), "PYTHONDONTWRITEBYTECODE": "1", "PATH": ""},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (finished.returncode, "1 passed" in finished.stdout) == (0, True), finished.stdout + finished.stderr
