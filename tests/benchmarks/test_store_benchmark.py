"""The store benchmark runs, and every command's answer was checked. Speed is not asserted here."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_every_command_of_every_store_is_measured(tmp_path: Path) -> None:
    """The figures that the docs hold can be had again."""
    path = tmp_path / "report.json"
    command = [sys.executable, "-m", "benchmarks.store", "--rounds", "1", "--json", str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads(path.read_text())["figures"]
    measured = {(figure["store"], figure["command"], figure["at_once"]) for figure in figures}
    commands = {"put", "peek", "take", "append", "put + take", "peek + take"}
    commands |= {"sell, engine and store", "redeem, engine and store", "redeem, sold by another process"}
    commands |= {"sell by a token, ASGI", "a token's signature"}
    assert measured == {
        (store, command, at_once) for store in ("memory", "sqlite") for command in commands for at_once in (1, 16)
    } | {("sqlite", "thread alone", at_once) for at_once in (1, 16)}
    assert all(figure["low"] <= figure["median"] <= figure["high"] and figure["low"] > 0 for figure in figures)
