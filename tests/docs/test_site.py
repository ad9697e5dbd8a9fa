"""The site builds without a warning, its links lead somewhere, and no page loads anything from another host."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.docs.blocks import ROOT

# What a browser fetches by itself, by element and attribute. A link that a person follows (`a href`) is none of it.
LOADS = {
    "script": ("src",),
    "link": ("href",),
    "img": ("src", "srcset"),
    "source": ("src", "srcset"),
    "iframe": ("src",),
    "video": ("src", "poster"),
    "audio": ("src",),
    "object": ("data",),
    "embed": ("src",),
    "input": ("src",),
}
ELSEWHERE = re.compile(r"(?:[a-z][a-z0-9+.-]*:)?//", re.IGNORECASE)
CSS_LOADS = re.compile(r"""(?:url\(|@import)\s*["']?(?!data:)((?:[a-z]+:)?//[^"')\s]+)""", re.IGNORECASE)


@dataclass
class Page(HTMLParser):
    """What one built page loads, links to, and can be linked at."""

    path: Path
    loads: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    anchors: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.loads += [values[name] for name in LOADS.get(tag, ()) if name in values]
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if "id" in values:
            self.anchors.add(values["id"])


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    shutil.copy(ROOT / "mkdocs.yml", folder)
    shutil.copytree(ROOT / "docs", folder / "docs")
    built = subprocess.run(
        [str(Path(sys.executable).with_name("zensical")), "build", "--strict", "--clean"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return folder / "site"


@pytest.fixture(scope="session")
def built_pages(site: Path) -> dict[Path, Page]:
    return {path.resolve(): Page(path) for path in site.rglob("*.html")}


def test_every_page_is_built_and_stands_in_the_navigation(site: Path) -> None:
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for page in (ROOT / "docs").rglob("*.md"):
        name = page.relative_to(ROOT / "docs")
        assert f": {name.as_posix()}\n" in navigation, f"{name} is not in mkdocs.yml"
        built = site / name.with_suffix("") / "index.html" if name.stem != "index" else site / name.with_suffix(".html")
        assert built.exists()


def test_nothing_loads_from_elsewhere(site: Path, built_pages: dict[Path, Page]) -> None:
    loads = [load for page in built_pages.values() for load in page.loads]
    assert len(loads) > len(built_pages), "the pages load a style sheet and a script each, or this test is blind"
    assert [load for load in loads if ELSEWHERE.match(load.strip())] == []
    styles = [*site.rglob("*.css"), *site.rglob("*.html")]
    assert [found for path in styles for found in CSS_LOADS.findall(path.read_text(encoding="utf-8"))] == []


def test_links_between_pages_lead_somewhere(built_pages: dict[Path, Page]) -> None:
    broken: list[str] = []
    for path, page in built_pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or path.name == "404.html":
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            found = built_pages.get(target)
            if found is None and not target.exists():
                broken.append(f"{path}: {link}")
            elif found is not None and parts.fragment and unquote(parts.fragment) not in found.anchors:
                broken.append(f"{path}: {link} (no such heading)")
    assert broken == []


def test_pictures_say_what_they_show(built_pages: dict[Path, Page]) -> None:
    for page in (ROOT / "docs").rglob("*.md"):
        assert "![](" not in page.read_text(encoding="utf-8"), f"{page} has a picture without words"
    assert built_pages
