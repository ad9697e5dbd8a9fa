"""The servers behind `handshake`: one an app, bounded, ended with the run, and clear about what is missing."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.testing.apps import ORIGIN, GuardedEcho
from wsguard import ConfigurationError
from wsguard.testing import ServerStartError, assert_accepted
from wsguard.testing.loopback_server import MOST_SERVERS, server_of, stop_servers
from wsguard.testing.plugin import pytest_unconfigure


@pytest.fixture(autouse=True)
def _no_servers() -> Iterator[None]:
    stop_servers()
    yield
    stop_servers()


def running() -> int:
    return sum(thread.name.startswith("wsguard.testing:") for thread in threading.enumerate())


def test_an_app_is_started_once_and_ended_with_the_run() -> None:
    """Its lifespan included: what the app opened there it can close."""
    app = GuardedEcho()
    for _ in range(3):
        assert_accepted(app, origin=ORIGIN)
    assert (running(), app.echo.lifespan) == (1, ["lifespan.startup"])
    port = server_of(app).port
    pytest_unconfigure()
    assert (running(), app.echo.lifespan) == (0, ["lifespan.startup", "lifespan.shutdown"])
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=1)


def test_an_app_that_was_ended_is_started_anew() -> None:
    """A run inside a run (pytester) may end the servers of the outer one."""
    app = GuardedEcho()
    assert_accepted(app, origin=ORIGIN)
    stop_servers()
    assert_accepted(app, origin=ORIGIN)
    assert app.echo.lifespan.count("lifespan.startup") == 2


def test_an_app_a_test_does_not_pile_up_servers() -> None:
    """A fixture that makes an app for each of a thousand tests must not end with a thousand threads."""
    apps = [GuardedEcho() for _ in range(MOST_SERVERS + 3)]
    for app in apps:
        server_of(app)
        server_of(apps[0])  # used again and again: it stays
    assert running() == MOST_SERVERS
    assert apps[0].echo.lifespan == ["lifespan.startup"]
    assert apps[1].echo.lifespan == ["lifespan.startup", "lifespan.shutdown"]


def test_a_lifespan_that_fails_is_told() -> None:
    async def app(scope: dict[str, Any], receive: Callable[..., Any], send: Callable[..., Any]) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    with pytest.raises(ServerStartError, match="its lifespan failed"):
        server_of(app)
    assert running() == 0


def test_an_app_without_a_lifespan_is_served() -> None:
    """Plain ASGI apps raise at a scope that they do not know."""

    async def app(scope: dict[str, Any], receive: Callable[..., Any], send: Callable[..., Any]) -> None:
        assert scope["type"] == "websocket"
        await receive()
        await send({"type": "websocket.accept"})
        await receive()

    assert_accepted(app, origin=ORIGIN, host="app.example.com")


@pytest.mark.parametrize("missing", ["uvicorn", "websockets", "cryptography"])
def test_a_missing_extra_is_one_line_that_names_it(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from wsguard.testing.certificate import loopback_certificate

    loopback_certificate.cache_clear()
    for name in [name for name in sys.modules if name == missing or name.startswith(f"{missing}.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ConfigurationError, match=rf"{missing} not installed.*pip install 'wsguard\[testing\]'"):
        server_of(GuardedEcho())
