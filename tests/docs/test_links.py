"""What README, ARCHITECTURE and the other pages of the clone point at is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT

PAGES = ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md")
LINK = re.compile(r"\]\((?!https?://|#)([^)#]+)")
PATH = re.compile(r"`((?:src|tests|docs|scripts|benchmarks|newsfragments)/[^`<*]*)`")


@pytest.mark.parametrize("name", PAGES)
def test_links_and_paths_exist(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    named = LINK.findall(text) + PATH.findall(text)
    assert [path for path in named if not (ROOT / path.partition(":")[0]).exists()] == []


def test_architecture_names_every_room() -> None:
    """A folder of src/wsguard that ARCHITECTURE.md does not place is one that nobody finds."""
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    folders = [path.name for path in (ROOT / "src" / "wsguard").iterdir() if (path / "__init__.py").exists()]
    assert [name for name in folders if f"`{name}/`" not in text] == []


def test_architecture_names_every_check() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    checks = [path for path in (ROOT / "src/wsguard/engine/checks").glob("*.py") if path.name != "__init__.py"]
    assert [path.name for path in checks if str(path.relative_to(ROOT)) not in text] == []
    assert all(isinstance(path, Path) for path in checks)
