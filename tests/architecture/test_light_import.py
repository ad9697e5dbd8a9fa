"""`import wsguard` costs next to nothing: what is heavy is loaded by the part that uses it."""

import os
import pydoc
import subprocess
import sys

import pytest

import wsguard

HEAVY = {
    "aiofastnet",
    "asyncio",
    "cryptography",
    "cyclopts",
    "httptools",
    "msgspec",
    "playwright",
    "rich",
    "ssl",
    "uvloop",
    "websockets",
}
MEASURE = """
import sys, time
before = set(sys.modules)
start = time.process_time()
import wsguard
seconds = time.process_time() - start
print(seconds, *{name.partition(".")[0] for name in set(sys.modules) - before})
"""


def import_once() -> tuple[float, set[str]]:
    # Coverage would load itself, and be measured too.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    printed = subprocess.run(
        [sys.executable, "-c", MEASURE], env=environment, capture_output=True, text=True, check=True
    ).stdout.split()
    return float(printed[0]), set(printed[1:])


def test_importing_the_package_loads_nothing_heavy() -> None:
    _, loaded = import_once()
    assert "wsguard" in loaded
    assert loaded & HEAVY == set()


def test_importing_the_package_takes_less_than_50_ms() -> None:
    # Processor time, and the best of five: other tests run beside this one.
    assert min(import_once()[0] for _ in range(5)) < 0.050


@pytest.mark.parametrize("name", wsguard.__all__)
def test_help_can_show_every_public_name(name: str) -> None:
    """A Struct's signature resolves its hints, so what they name must be there when the program runs."""
    assert pydoc.render_doc(getattr(wsguard, name))
