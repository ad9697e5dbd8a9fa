"""What the tests of this folder do on the wire: open a raw socket under a case, and call the app's control pages."""

from __future__ import annotations

import contextlib
import http.client
import json
import ssl
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from tests.asgi.server_process import ServerProcess
from tests.gateway.raw_client import Frame, RawClient, frame, handshake
from tests.leaks import Sink, saw

CLOSE, TEXT, PING, PONG = 8, 1, 9, 10


@dataclass(frozen=True)
class Client:
    """Opens sockets whose paths name *case*, so that the app's record of them is found."""

    server: ServerProcess
    context: ssl.SSLContext
    case: str
    stack: ExitStack
    proxy: tuple[str, int] | None = None

    @property
    def address(self) -> tuple[str, int]:
        """Where it connects to: the server, or the proxy in front of it."""
        return self.proxy or self.server.address

    def connect(self) -> RawClient:
        """One TLS connection, closed at the end of the test."""
        return self.stack.enter_context(contextlib.closing(RawClient(self.address, self.context)))

    def request(self, path: str, *, origin: str | None = "https://app.test", extra: str = "") -> bytes:
        """A handshake's bytes under this case."""
        joint = "&" if "?" in path else "?"
        return handshake(origin=origin, path=f"{path}{joint}case={self.case}", extra=extra)

    def open(self, path: str, *, extra: str = "X-Pass: alice\r\n", **keys: Any) -> RawClient:
        """An open socket."""
        raw = self.connect()
        raw.open(self.request(path, extra=extra, **keys))
        return raw

    def refused(self, path: str, **keys: Any) -> tuple[int, str, str]:
        """Status, head and request id of a handshake that the guard refuses."""
        raw = self.connect()
        raw.send(self.request(path, **keys))
        head = raw.reader.head().decode("latin-1")
        saw(Sink.REFUSALS, head, self.server.name)
        fields = pairs(head.lower().split("\r\n")[1:], ": ")
        return int(head.split(" ")[1]), head, fields.get("x-request-id", "")

    def events(self, event: str) -> list[dict[str, Any]]:
        """What the app has recorded of this case."""
        return self.server.record.events(event, case=self.case)

    def wait_for(self, event: str) -> dict[str, Any]:
        """The first such event of this case, waited for."""
        return self.server.record.wait_for(event, case=self.case)

    def control(self, method: str, path: str) -> dict[str, Any]:
        """Call a control page."""
        status, _, body = page(self.address, self.context, method, path)
        assert status == 200, body
        return json.loads(body)

    def alone(self) -> dict[str, Any]:
        """
        Wait until the sockets of earlier tests, which share the server, have ended; return what is left.

        Their tasks may take longer where a server holds them (hypercorn waits for the client): at most ten seconds.
        """
        end = time.monotonic() + 10
        while (now := self.control("GET", "/control/tasks"))["live"] or now["tasks"] > 1:  # that of the lifespan
            if time.monotonic() > end:
                break
            time.sleep(0.02)  # a server tells nobody that a socket has ended
        assert not now["live"], now
        return now

    def close(self, code: int, reason: str, *, by: str = "close") -> float:
        """Have this case's session closed from outside; return when `Session.close` was called."""
        public_id = self.wait_for("called")["session"]
        answer = self.control("POST", f"/control/{by}?public_id={public_id}&code={code}&reason={reason}")
        assert answer["found"], (answer, self.server.output()[-2000:])
        return float(answer["at"])


def page(
    address: tuple[str, int],
    context: ssl.SSLContext | None,
    method: str,
    path: str,
    headers: dict[str, str] | None = None,
) -> tuple[int, dict[str, str], bytes]:
    """Ask for a page of app.test; *context* None asks in the clear."""
    host, port = address
    connection = (
        http.client.HTTPConnection(host, port, timeout=20)
        if context is None
        else http.client.HTTPSConnection(host, port, timeout=20, context=context)
    )
    with contextlib.closing(connection):
        connection.request(method, path, headers={"Host": "app.test", **(headers or {})})
        response = connection.getresponse()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()


def pairs(parts: list[str], joint: str) -> dict[str, str]:
    """Each part as name and value."""
    return {name: value for name, _, value in (part.partition(joint) for part in parts)}


def close_frame(raw: RawClient) -> Frame:
    """The next Close frame, whatever pings come before it."""
    while (found := raw.frame()) is not None:
        if found.opcode == CLOSE:
            return found
    raise AssertionError("the stream ended without a Close frame")


def reason_of(close: Frame) -> str:
    """The reason of a Close frame."""
    return close.payload[2:].decode()


def answer(raw: RawClient, close: Frame) -> None:
    """Answer a Close frame as a right client does."""
    raw.send(frame(CLOSE, close.payload[:2]))
