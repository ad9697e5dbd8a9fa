"""Fenced code blocks of the documentation: found by a scan of the Markdown, told apart by their info string."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

_FENCE = re.compile(r"( *)(`{3,})\s*(.*)")
_ATTRIBUTE = re.compile(r'([a-z_-]+)="([^"]*)"')


@dataclass(frozen=True)
class Block:
    """One block. *attributes* are those of its info string: ``title``, ``data-untested``, ``data-tested``, …"""

    page: Path
    line: int
    language: str
    attributes: dict[str, str]
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def title(self) -> str:
        return self.attributes.get("title", "")


def pages() -> list[Path]:
    """Every Markdown page whose examples a reader may copy."""
    return sorted([ROOT / "README.md", ROOT / "ARCHITECTURE.md", *(ROOT / "docs").rglob("*.md")])


def blocks(*languages: str) -> list[Block]:
    """Every block of all pages, or those in *languages*."""
    return [block for page in pages() for block in blocks_of(page) if not languages or block.language in languages]


def blocks_of(page: Path) -> list[Block]:
    """The fenced blocks of one page, in order. An info string is ``toml title="x"`` or ``{ .toml title="x" }``."""
    found: list[Block] = []
    lines = page.read_text(encoding="utf-8").splitlines()
    number = 0
    while number < len(lines):
        begin = _FENCE.fullmatch(lines[number])
        number += 1
        if begin is None:
            continue
        indent, fence, info = begin.groups()
        start = number
        while lines[number].strip() != fence:
            number += 1
        text = "\n".join(line.removeprefix(indent) for line in lines[start:number]) + "\n"
        words = info.strip("{} ").split()
        language = words[0].lstrip(".") if words else ""
        found.append(Block(page, start, language, dict(_ATTRIBUTE.findall(info)), text))
        number += 1
    return found


def commands(block: Block) -> list[str]:
    """The commands of a console block (behind ``$``) or of a shell block (every line)."""
    if block.language == "console":
        return [line.removeprefix("$ ") for line in block.text.splitlines() if line.startswith("$ ")]
    return [line for line in block.text.splitlines() if line and not line.startswith("#")]
