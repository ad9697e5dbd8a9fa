"""`browser_headers` keeps a suite on Starlette's TestClient alive; nothing else makes it pass."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi import FastAPI, WebSocket
from starlette.testclient import TestClient, WebSocketDenialResponse

from tests.testing.apps import EVIL, ORIGIN
from wsguard import Policy
from wsguard.asgi import WebSocketGuard
from wsguard.testing import browser_headers

URL = "wss://app.example.com/ws"


@pytest.fixture
def client() -> Iterator[TestClient]:
    app = FastAPI()
    app.add_middleware(WebSocketGuard, policy=Policy(origins=[ORIGIN]))

    @app.websocket("/ws")
    async def echo(socket: WebSocket) -> None:
        await socket.accept(subprotocol=next(iter(socket.scope["subprotocols"]), None))
        await socket.send_json({"peer": socket.scope["client"], "text": await socket.receive_text()})

    @app.get("/")
    async def page() -> dict[str, str]:
        return {"page": "open"}

    with TestClient(app) as client:
        yield client


def test_a_full_url_and_a_browsers_fields_open_the_socket(client: TestClient) -> None:
    with client.websocket_connect(URL, headers=browser_headers(origin=ORIGIN)) as socket:
        socket.send_text("hello")
        assert socket.receive_json()["text"] == "hello"


def test_a_peer_that_is_no_address_is_unknown_and_no_error(client: TestClient) -> None:
    """TestClient calls itself "testclient"; the app sees that, the caps and the log see nobody."""
    with client.websocket_connect(URL, headers=browser_headers(ORIGIN)) as socket:
        socket.send_text("hello")
        assert socket.receive_json()["peer"] == ["testclient", 50000]


def test_subprotocols_are_offered_as_ever(client: TestClient) -> None:
    with client.websocket_connect(URL, ["chat.v1"], headers=browser_headers(ORIGIN)) as socket:
        assert socket.accepted_subprotocol == "chat.v1"
        socket.send_text("bye")


def test_pages_need_nothing(client: TestClient) -> None:
    assert client.get("https://app.example.com/").json() == {"page": "open"}


@pytest.mark.parametrize(
    ("url", "headers", "status"),
    [
        pytest.param("/ws", {}, 400, id="nothing"),
        pytest.param(URL, {}, 400, id="no fields"),
        pytest.param(URL, {"origin": ORIGIN}, 400, id="origin only"),
        pytest.param("/ws", browser_headers(ORIGIN), 403, id="no full URL"),
        pytest.param("ws://app.example.com/ws", browser_headers(ORIGIN), 403, id="ws"),
        pytest.param("wss://testserver/ws", browser_headers(ORIGIN), 421, id="another host"),
        pytest.param(URL, browser_headers(EVIL), 403, id="another origin"),
    ],
)
def test_anything_less_is_refused(client: TestClient, url: str, headers: dict[str, str], status: int) -> None:
    with pytest.raises(WebSocketDenialResponse) as refused, client.websocket_connect(url, headers=dict(headers)):
        pass
    assert refused.value.status_code == status


def test_each_call_has_a_key_of_its_own() -> None:
    """RFC 6455 §4.1: selected randomly for each connection. And a dict that TestClient may change."""
    first, second = browser_headers(ORIGIN), browser_headers(ORIGIN)
    assert first["sec-websocket-key"] != second["sec-websocket-key"]
    assert len(first["sec-websocket-key"]) == 24
