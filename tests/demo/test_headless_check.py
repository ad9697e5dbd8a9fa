"""The check in real browsers: it passes, and it fails where it must."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.browser, pytest.mark.requires_program("chromium", "firefox-esr", "certutil")]

DEADLINE = 100


def headless_check(home: Path, *arguments: str) -> tuple[int, list[str]]:
    """Run it in an empty HOME; return its exit code and its lines."""
    finished = subprocess.run(
        [sys.executable, "-m", "wsguard", "demo", "--headless-check", *arguments],
        env={**os.environ, "HOME": str(home), "XDG_DATA_HOME": str(home / "data")},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert finished.stderr == ""
    return finished.returncode, finished.stdout.splitlines()


def test_every_hijack_works_without_the_guard_in_front_and_none_with_it(tmp_path: Path) -> None:
    code, lines = headless_check(tmp_path)
    assert code == 0, lines
    assert [line.split()[0] for line in lines[:-1]] == ["ok"] * 21
    assert lines[-1].startswith("PASSED ")


def test_without_the_guard_it_fails_because_the_guarded_app_is_hijacked(tmp_path: Path) -> None:
    code, lines = headless_check(tmp_path, "--without-guard")
    assert code == 1, lines
    assert lines[-1].startswith("FAILED ")
    assert "guarded.localhost was hijacked by the sibling attacker (Chromium, Firefox)" in lines[-1]
    assert "guarded.localhost was hijacked by the cross-site attacker (Chromium with third-party cookies)" in lines[-1]
    assert "tickets.localhost was hijacked by the sibling attacker (Chromium, Firefox)" in lines[-1]
    assert "open.localhost" not in lines[-1]


def test_with_the_victim_signed_out_it_fails_because_there_was_nothing_to_steal(tmp_path: Path) -> None:
    code, lines = headless_check(tmp_path, "--logged-out")
    assert code == 1, lines
    assert lines[-1].startswith("FAILED ")
    assert "the sibling attacker stole nothing on open.localhost" in lines[-1]
    assert "the cross-site attacker stole nothing on open.localhost" in lines[-1]
    assert "hijacked" not in lines[-1]
