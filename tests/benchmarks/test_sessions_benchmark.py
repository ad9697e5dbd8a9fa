"""The benchmark of live sockets runs, and its figures are of sockets that were really open and really closed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT


@pytest.mark.slow
@pytest.mark.parametrize("mount", ["gateway", "run"])
def test_every_socket_is_opened_and_closed(mount: str, tmp_path: Path) -> None:
    """Two hundred: two of the one subject, the rest of everybody; each heard of its end."""
    path = tmp_path / "report.json"
    command = [sys.executable, "-m", "benchmarks.sessions", "--mount", mount, "--sockets", "200", "--json", str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads(path.read_text())
    assert (figures["one_subject"]["sockets"], figures["everybody"]["sockets"]) == (2, 198)
    for name in ("one_subject", "everybody"):
        assert 0 < figures[name]["median"] <= figures[name]["p99"] <= figures[name]["last"]
    assert figures["with_policy"] > 10_000
