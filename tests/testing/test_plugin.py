"""The plugin as a project has it: three lines pin a policy, a wrong one fails usefully, and it costs nothing unused."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib.metadata import entry_points
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[2]
APP = """
from fastapi import FastAPI, WebSocket
from wsguard import Policy
from wsguard.asgi import WebSocketGuard

app = FastAPI()
app.add_middleware(WebSocketGuard, policy=Policy(origins=["https://app.example.com"]))

@app.websocket("/ws")
async def chat(socket: WebSocket):
    await socket.accept()
    async for text in socket.iter_text():
        await socket.send_text(text)
"""
RIGHT = """
from chat import app
from wsguard.testing import assert_accepted, assert_refused

def test_only_our_pages_may_connect():
    assert_accepted(app, origin="https://app.example.com")
    assert_refused(app, origin="https://evil.example")
"""


def run(pytester: pytest.Pytester, test: str, *options: str) -> pytest.RunResult:
    """Run a project with this app and this test, in a process of its own."""
    pytester.makepyfile(chat=APP, test_policy=test)
    if not any(entry.name == "wsguard" for entry in entry_points(group="pytest11")):
        options = ("-p", "wsguard.testing.plugin", *options)  # a clone whose environment is older than the entry point
    return pytester.runpytest_subprocess("-p", "no:cacheprovider", "-W", "error", *options, timeout=60)


def test_three_lines_pin_a_policy(pytester: pytest.Pytester) -> None:
    result = run(pytester, RIGHT, "-v")
    result.assert_outcomes(passed=1)
    assert result.stderr.lines == []


def test_a_wrong_policy_fails_with_what_to_write(pytester: pytest.Pytester) -> None:
    """And points at the project's own line, not into wsguard."""
    result = run(pytester, RIGHT.replace("https://app.example.com", "https://www.example.com"))
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            '>*assert_accepted(app, origin="https://www.example.com")',
            "E*AssertionError: expected an open socket, but it was refused with 403 origin.not_allowed",
            "E*sent: GET /ws, Host: app.example.com, Origin: https://www.example.com",
            'E*to allow it, write in the policy: origins += [[]"https://www.example.com"[]]',
            "test_policy.py:5: AssertionError",
        ]
    )
    assert "wsguard/testing" not in result.stdout.str()


def test_the_servers_end_with_the_run(pytester: pytest.Pytester) -> None:
    """The app's lifespan is shut down before the process ends, not torn off."""
    test = """
from contextlib import asynccontextmanager
from pathlib import Path
from chat import app
from wsguard.testing import assert_accepted

@asynccontextmanager
async def lifespan(_):
    yield
    Path("ended").touch()

app.router.lifespan_context = lifespan

def test_it():
    assert_accepted(app, origin="https://app.example.com")
    assert not Path("ended").exists()
"""
    run(pytester, test).assert_outcomes(passed=1)
    assert (pytester.path / "ended").exists()


def test_loading_the_plugin_loads_nothing_heavy() -> None:
    """pytest loads it in every project that has wsguard installed, whether it is used or not."""
    # What an interpreter has loaded by itself does not count: a `.pth` file of coverage's loads socket in CI.
    script = "import sys; before = {*sys.modules}; import wsguard.testing.plugin; print(*{*sys.modules} - before)"
    loaded = set(subprocess.check_output([sys.executable, "-I", "-c", script], text=True).split())
    assert "wsguard.testing.plugin" in loaded
    heavy = {"ssl", "socket", "asyncio", "uvicorn", "cryptography", "websockets", "httptools", "http.client", "logging"}
    assert loaded & heavy == set()
    ours = {name for name in loaded if name.startswith("wsguard")}
    assert ours == {"wsguard", "wsguard.testing", "wsguard.testing.plugin"}


def test_installing_wsguard_installs_the_plugin() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["pytest11"] == {"wsguard": "wsguard.testing.plugin"}


def test_every_public_name_is_there() -> None:
    import wsguard.testing

    assert all(getattr(wsguard.testing, name) for name in wsguard.testing.__all__)
    with pytest.raises(AttributeError, match="no attribute 'assert_refuse'"):
        getattr(wsguard.testing, "assert_refuse")  # noqa: B009 - a type checker knows that it is not there
