"""What a policy bounds of a live socket, on the wire under each server: the code, the log's reason, and what the app gets."""

from __future__ import annotations

import time

import pytest

from tests.asgi.client import TEXT, Client, answer, close_frame, pairs, reason_of
from tests.gateway.raw_client import frame

pytestmark = pytest.mark.slow


def closed(client: Client) -> tuple[int, str]:
    """Code and reason that the log tells of this case's session."""
    line = client.server.wait_for(f"session.closed session={client.wait_for('called')['session']}")
    values = pairs(line.split(" "), "=")
    assert values["by"] == "wsguard"
    return int(values["code"]), values["reason"]


def texts(client: Client) -> list[str]:
    """The messages that reached the app."""
    messages = [event["message"] for event in client.events("received")]
    return [message["text"] for message in messages if message["type"] == "websocket.receive"]


@pytest.mark.parametrize(("fits", "too_large"), [("x" * 125, "x" * 126), ("é" * 62, "é" * 63)], ids=["ascii", "utf-8"])
def test_max_message(client: Client, fits: str, too_large: str) -> None:
    """A message larger than `max_message`, in bytes, never reaches the app: 1009."""
    raw = client.open("/size/wait")
    raw.send(frame(TEXT, fits.encode()))
    echo = raw.frame()
    assert echo is not None
    assert echo.payload == fits.encode()
    raw.send(frame(TEXT, too_large.encode()))
    close = close_frame(raw)
    assert close.close_code == 1009
    answer(raw, close)
    client.wait_for("returned")
    assert texts(client) == [fits]
    assert closed(client) == (1009, "frames.too_large")


def test_messages_per_second(client: Client) -> None:
    """More messages than `messages_per_second` are not worked off by the app: 1008."""
    raw = client.open("/rate/wait")
    raw.send(b"".join(frame(TEXT, b"%d" % number) for number in range(10)))
    assert close_frame(raw).close_code == 1008
    client.wait_for("returned")
    assert texts(client) == ["0", "1", "2"]
    assert closed(client) == (1008, "limits.rate")


def test_idle(client: Client) -> None:
    """A client that says nothing for `idle` does not keep its place: 1001. One that speaks does."""
    raw = client.open("/idle/wait")
    begin = time.monotonic()
    for _ in range(3):
        time.sleep(0.2)  # the silence itself is tried: less than the 0.3 s of the route, and together more
        raw.send(frame(TEXT, b"here"))
        echo = raw.frame()
        assert echo is not None
        assert echo.payload == b"here"
    assert close_frame(raw).close_code == 1001
    assert time.monotonic() - begin > 0.8
    client.wait_for("returned")
    assert closed(client) == (1001, "limits.idle")


def test_max_lifetime(client: Client) -> None:
    """No socket lives longer than `max_lifetime`, however busy it is: 1001."""
    raw = client.open("/life/wait")
    raw.send(frame(TEXT, b"busy"))
    close = close_frame(raw)  # behind the echo
    assert (close.close_code, reason_of(close)) == (1001, "going away")
    client.wait_for("returned")
    assert closed(client) == (1001, "limits.lifetime")


def test_expiry(client: Client) -> None:
    """A socket does not outlive the credential that opened it: 3000 at its last second."""
    begin = time.monotonic()
    raw = client.open("/pass/wait", extra="X-Pass: alice;0.4\r\n")
    close = close_frame(raw)
    assert (close.close_code, reason_of(close)) == (3000, "credential expired")
    assert 0.3 < time.monotonic() - begin < 5
    client.wait_for("returned")
    assert client.events("received")[-1]["message"] == {
        "type": "websocket.disconnect",
        "code": 3000,
        "reason": "credential expired",
    }
    assert closed(client) == (3000, "credential.expired")
