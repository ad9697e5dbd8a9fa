"""`handshake` sends what a browser sends, to the Host that the app serves, and tells all that comes back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from litestar import Litestar
from litestar.middleware import DefineMiddleware
from starlette.applications import Starlette
from starlette.middleware import Middleware

from tests.testing.apps import EVIL, ORIGIN, Echo, GuardedEcho
from wsguard import ConfigurationError, FileList, Guard, Policy
from wsguard.asgi import WebSocketGuard
from wsguard.testing import assert_accepted, assert_refused, handshake
from wsguard.testing.served_policy import host_for

POLICY = Policy(origins=[ORIGIN], hosts=["chat.example.com"])


class Wrapped:
    """Any other middleware, outside the guard."""

    def __init__(self, app: Any) -> None:
        self.app = app


def fastapi_app(**arguments: Any) -> FastAPI:
    app = FastAPI()
    app.add_middleware(WebSocketGuard, **arguments)
    return app


class TestTheHostThatIsSent:
    @pytest.mark.parametrize(
        "app",
        [
            pytest.param(WebSocketGuard(Echo(), policy=POLICY), id="the guard itself"),
            pytest.param(Wrapped(Wrapped(WebSocketGuard(Echo(), guard=Guard(POLICY)))), id="inside other layers"),
            pytest.param(fastapi_app(policy=POLICY), id="add_middleware(policy=)"),
            pytest.param(fastapi_app(guard=Guard(POLICY)), id="add_middleware(guard=)"),
            pytest.param(fastapi_app(routes={"/ws/*": POLICY}), id="add_middleware(routes=)"),
            pytest.param(Starlette(middleware=[Middleware(WebSocketGuard, policy=POLICY)]), id="Starlette"),
            pytest.param(Litestar([], middleware=[DefineMiddleware(WebSocketGuard, policy=POLICY)]), id="Litestar"),
        ],
    )
    def test_the_guard_is_found_where_frameworks_keep_it(self, app: Any) -> None:
        assert host_for(app, "/ws", EVIL) == "chat.example.com"

    @pytest.mark.parametrize(
        ("hosts", "origin", "host"),
        [
            (["a.example", "b.example"], None, "a.example"),
            (["a.example", "b.example"], EVIL, "a.example"),
            (["a.example", "b.example"], "https://b.example", "b.example"),
            (["a.example", "b.example"], "https://b.example:443", "b.example"),
            (["a.example"], "https://a.example:8443", "a.example:8443"),
            (["a.example:8443"], "https://a.example", "a.example:8443"),
            (["*.example.com"], EVIL, "test.example.com"),
            (["*.example.com"], "https://x.example.com", "x.example.com"),
            (["[::1]"], EVIL, "[::1]"),
            (["a.example"], "null", "a.example"),
            (["a.example"], "https://ä.example", "a.example"),
        ],
    )
    def test_it_is_the_origins_own_where_that_is_served(self, hosts: list[str], origin: str, host: str) -> None:
        """So that "same origin" can be tested without writing the host twice."""
        assert host_for(GuardedEcho(Policy(hosts=hosts)), "/ws", origin) == host

    def test_it_is_that_of_the_route(self) -> None:
        app = GuardedEcho(routes={"/a/*": Policy(hosts=["a.example"]), "/*": Policy(hosts=["b.example"])})
        assert host_for(app, "/a/ws?room=1", None) == "a.example"
        assert host_for(app, "/ws", None) == "b.example"

    @pytest.mark.parametrize("app", [FastAPI(), Echo(), object()], ids=["FastAPI", "ASGI", "no app"])
    def test_without_a_guard_it_must_be_written(self, app: Any) -> None:
        with pytest.raises(ConfigurationError, match=r'no WebSocketGuard around this .*host="app\.example\.com"'):
            handshake(app, origin=EVIL)

    def test_with_hosts_that_are_kept_elsewhere_it_must_be_written(self, tmp_path: Path) -> None:
        path = tmp_path / "hosts"
        path.write_text("a.example\n")
        app = GuardedEcho(Policy(origins=[ORIGIN], hosts=FileList(path)))
        with pytest.raises(ConfigurationError, match="looks its hosts up elsewhere"):
            handshake(app, origin=ORIGIN)
        assert_accepted(app, origin=ORIGIN, host="a.example")

    def test_an_address_is_no_server_name(self) -> None:
        """RFC 6066 §3; Python's ssl would raise."""
        assert_accepted(GuardedEcho(Policy(hosts=["127.0.0.1", "[::1]"])), origin="https://[::1]")

    def test_a_host_that_is_none_is_sent_all_the_same(self) -> None:
        assert_refused(GuardedEcho(), host="not a host", origin=ORIGIN, status=400, reason="host.malformed")


class TestWhatIsSent:
    def test_the_fields_reach_the_app(self) -> None:
        app = GuardedEcho()
        result = assert_accepted(
            app,
            path="/ws/caf%C3%A9?room=1",
            origin=ORIGIN,
            cookies={"a": "1", "b": "2"},
            headers={"X-Custom": "yes"},
            subprotocols=["chat.v1", "chat.v2"],
        )
        scope = app.echo.scopes[0]
        fields = dict(scope["headers"])
        assert (scope["scheme"], scope["path"], scope["query_string"]) == ("wss", "/ws/café", b"room=1")
        assert fields[b"cookie"] == b"a=1; b=2"
        assert fields[b"x-custom"] == b"yes"
        assert scope["subprotocols"] == ["chat.v1", "chat.v2"]
        assert result.subprotocol == "chat.v1"
        assert result.header("SEC-WEBSOCKET-PROTOCOL") == "chat.v1"
        assert result.header("x-not-there") is None

    def test_a_field_of_the_own_replaces_the_browsers(self) -> None:
        """Also twice, as no browser would: a policy can be tried with what attackers send."""
        app = GuardedEcho()
        assert handshake(app, headers=[("Origin", ORIGIN), ("Origin", EVIL)], origin=ORIGIN).status == 400
        assert_accepted(app, headers={"ORIGIN": ORIGIN}, origin=EVIL)

    @pytest.mark.parametrize(
        "arguments",
        [
            {"origin": "https://app.example.com\r\nX: y"},
            {"headers": {"X": "a\nb"}},
            {"cookies": {"a": "b\0"}},
            {"host": "a\rb"},
            {"path": "/ws\r\n"},
        ],
    )
    def test_a_line_end_is_no_value(self, arguments: dict[str, Any]) -> None:
        """It would be another request than the test says."""
        with pytest.raises(ConfigurationError):
            handshake(GuardedEcho(), **arguments)

    @pytest.mark.parametrize("path", ["ws", "", "/a b", "/ä"])
    def test_a_path_is_written_as_it_is_sent(self, path: str) -> None:
        with pytest.raises(ConfigurationError, match="path"):
            handshake(GuardedEcho(), path=path, origin=ORIGIN)

    def test_what_the_server_refuses_by_itself_is_told(self) -> None:
        result = handshake(GuardedEcho(), origin=ORIGIN, headers={"Sec-WebSocket-Key": "short"})
        assert (result.status, result.accepted, result.refused_by_guard) == (400, False, False)
