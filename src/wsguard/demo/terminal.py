"""What the demo says on the terminal: where to look, which names to accept, and how it ended."""

from __future__ import annotations

import getpass
import os
import socket
import sys
from typing import TYPE_CHECKING

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

if TYPE_CHECKING:
    from wsguard.demo.places import Places


class Terminal:
    """The demo's terminal output."""

    def __init__(self) -> None:
        self._console = Console(highlight=False, soft_wrap=True)

    def started(self, places: Places) -> None:
        """Say where the demo is."""
        self._console.print()
        self._console.print(Text.assemble(("  wsguard demo  ", "bold reverse"), "  ", (places.landing, "bold cyan")))
        self._console.print()

    def offer(self, program: str) -> None:
        """Offer to open an installed Chromium."""
        name = program.rpartition("/")[2]
        self._paragraph(f"[bold]Enter[/] opens it in {name}, in a throw-away profile without certificate warnings.")
        self._paragraph("[dim]For a browser of your own: `wsguard demo --no-browser`. Ctrl-C ends it.[/]")

    def how_to_get_there(self, places: Places) -> None:
        """Say how to reach the demo with a browser of one's own."""
        if not has_display():
            forwards = " ".join(f"-L {port}:127.0.0.1:{port}" for port in (places.port, places.gateway_port))
            self._paragraph("No display here. From a machine that has one:")
            self._paragraph(f"  [bold]ssh {forwards} {getpass.getuser()}@{socket.gethostname()}[/]")
        self._paragraph("In your browser, accept the certificate of each of these once, then go back to the first:")
        self._paragraph("\n".join(f"  [cyan]{origin}[/]" for origin in places.origins))
        self._paragraph("[dim]Or trust the development CA: `wsguard dev-ca show` says how. Ctrl-C ends it.[/]")

    def _paragraph(self, markup: str) -> None:
        self._console.print(Padding(Text.from_markup(markup), (0, 2, 1, 2)))


def has_display() -> bool:
    """Say whether a browser could show a window here."""
    return sys.platform == "darwin" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def has_keyboard() -> bool:
    """Say whether somebody could press Enter."""
    return sys.stdin is not None and sys.stdin.isatty()
