"""What came of each guide under each server: measured when first asked for, printed at the end of the run."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, get_args

from tests.asgi.server_process import ServerName
from tests.ci_rules import ROOT
from tests.guides.servers import serving
from tests.guides.visits import PATHS, VISITS, Tally

if TYPE_CHECKING:
    from tests.guides.servers import Place, RunningGuide

GUIDES = tuple(VISITS)
SERVERS: tuple[ServerName, ...] = get_args(ServerName)
ALONE, PROXIED = "daphne", "daphne behind nginx"
COLUMNS = ("uvicorn", "hypercorn", "granian", PROXIED, ALONE)
CANNOT = ROOT / "docs" / "guides" / "servers.md"

Cell = tuple[str, str]


@dataclass
class Matrix:
    """The cells so far, by guide and column."""

    place: Place
    cells: dict[Cell, Tally] = field(default_factory=dict)

    def measure(self, guide: str, server: ServerName) -> None:
        """Visit *guide* under *server*, once a run. Under Daphne that makes two cells."""
        if (guide, _column(server)) in self.cells:
            return
        with serving(guide, server, self.place) as running:
            tally = asyncio.run(VISITS[guide](running.visitor, self.place.files.authority))
            if server == "daphne":
                self.cells[guide, ALONE] = _refused_without_scheme(running, guide)
            assert "Traceback" not in running.output(), running.output()
        self.cells[guide, _column(server)] = tally

    def lines(self) -> list[str]:
        """The table, as it stands in CI's log."""
        rows = [["guide", *COLUMNS]]
        for guide in GUIDES:
            tallies = [self.cells.get((guide, column)) for column in COLUMNS]
            rows.append([guide, *("not run" if tally is None else str(tally) for tally in tallies)])
        widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
        return ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _refused_without_scheme(running: RunningGuide, guide: str) -> Tally:
    """Show that Daphne with TLS of its own does not say so of a socket: the right page is refused, and that is why."""
    secure, _ = running.processes
    assert replace(running.visitor, port=secure.port).status(PATHS[guide]) == 403
    assert "reason=transport.insecure" in secure.wait_for("handshake.refused")
    return Tally(refused=1)


def _column(server: ServerName) -> str:
    return PROXIED if server == "daphne" else server


def documented_gaps() -> set[Cell]:
    """The cells of the docs' table of what a server cannot do: first column the server, second the guides, or `all`."""
    section = CANNOT.read_text("utf-8").partition("## What a server cannot do")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:1] == "|"]
    found: set[Cell] = set()
    for server, guides, *_ in rows[2:]:  # behind its head
        named = GUIDES if guides == "all" else tuple(re.split(r",\s*", guides))
        found |= {(guide, server) for guide in named}
    return found
