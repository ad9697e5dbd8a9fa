"""The tutorial, done: its app, its gateway, its attack, on ports that are free here."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

from tests.docs.blocks import ROOT, Block, blocks_of, commands
from tests.docs.running import WSGUARD, free_port, running, wait_for_port

PAGE = ROOT / "docs" / "tutorial.md"


def test_the_first_five_minutes(place: Path, data_home: Path) -> None:
    """What the reader is told to expect is what comes out."""
    ports = {"8888": str(free_port()), "8443": str(free_port())}
    tested = [block for block in blocks_of(PAGE) if block.attributes.get("data-tested") == "test_tutorial.py"]
    app, start_app, start_gateway, visit, attack = tested
    (place / app.title).write_text(here(app.text, ports), encoding="utf-8")
    (place / visit.title).write_text(here(visit.text, ports), encoding="utf-8")

    with (
        running([sys.executable, *words(start_app, ports)[1:]], place),
        running(
            [WSGUARD, *words(start_gateway, ports)[1:], "--listen", f"127.0.0.1:{ports['8443']}"], place
        ) as gateway,
    ):
        gateway.wait_for("gateway.listening")
        wait_for_port(int(ports["8888"]))
        command = words(attack, ports)
        command[2] = command[2].replace("~/.local/share", str(data_home))
        visited = subprocess.run(
            [sys.executable, *command[1:]], cwd=place, capture_output=True, text=True, timeout=60, check=True
        )
        assert visited.stdout.splitlines() == here(attack.text, ports).splitlines()[1:]
        assert "reason=origin.not_allowed" in gateway.wait_for("handshake.refused")
        assert "code=1000 by=client" in gateway.wait_for("session.closed")


def words(block: Block, ports: dict[str, str]) -> list[str]:
    (command,) = commands(block)
    return shlex.split(here(command, ports))


def here(text: str, ports: dict[str, str]) -> str:
    for written, port in ports.items():
        text = text.replace(written, port)
    return text
