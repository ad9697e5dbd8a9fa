"""docs/testing.md as its reader has it: the files of the page in one folder, and pytest run there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT, Block, blocks_of

PAGE = ROOT / "docs" / "testing.md"
VARYING = {r"peer=127\.0\.0\.1:\d+": "peer=…", r"request_id=[0-9a-f]{16}": "request_id=…"}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The page's files."""
    for block in page_blocks():
        if block.title:
            (tmp_path / block.title).write_text(block.text, encoding="utf-8")
    return tmp_path


def page_blocks() -> list[Block]:
    return [block for block in blocks_of(PAGE) if block.attributes.get("data-tested") == "test_testing_page.py"]


def run(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-W", "error", *arguments]
    return subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=90, check=False)


def test_every_test_of_the_page_passes(project: Path) -> None:
    files = [block.title for block in page_blocks() if block.title.startswith("test_")]
    assert files == ["test_policy.py", "test_details.py", "test_chat.py"]
    ended = run(project, "-q", *files)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "5 passed" in ended.stdout


def test_a_failure_reads_as_the_page_shows(project: Path) -> None:
    path = project / "test_policy.py"
    path.write_text(path.read_text().replace("https://app.example.com", "https://www.example.com"))
    ended = run(project, path.name)
    assert ended.returncode == 1
    printed = [line.removeprefix("E       ") for line in ended.stdout.splitlines() if line.startswith("E       ")]
    (shown,) = (block.text for block in page_blocks() if block.language == "text")
    assert steady(printed) == steady(shown.splitlines())


def steady(lines: list[str]) -> list[str]:
    """The lines without what differs from run to run."""
    for pattern, mark in VARYING.items():
        lines = [re.sub(pattern, mark, line) for line in lines]
    return lines
