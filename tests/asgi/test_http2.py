"""RFC 8441 under hypercorn, with the h2 library as client: WebSockets over HTTP/2 are judged as over HTTP/1.1."""

from __future__ import annotations

import socket
import ssl
import uuid
from collections.abc import Callable, Iterator

import h2.config
import h2.connection
import h2.events
import pytest

from tests.asgi.conftest import faults
from tests.asgi.server_process import Certificates, ServerName, ServerProcess, trusting
from tests.gateway.raw_client import frame

pytestmark = pytest.mark.slow

Head = list[tuple[str, str]]


class H2Client:
    """One HTTP/2 connection over TLS."""

    def __init__(self, server: ServerProcess, context: ssl.SSLContext) -> None:
        self._sock = context.wrap_socket(
            socket.create_connection(server.address, timeout=10), server_hostname="app.test"
        )
        assert self._sock.selected_alpn_protocol() == "h2"
        # what a hostile client sends is not for this library to repair
        config = h2.config.H2Configuration(
            header_encoding="utf-8", validate_outbound_headers=False, normalize_outbound_headers=False
        )
        self._h2 = h2.connection.H2Connection(config)
        self._h2.initiate_connection()
        self.data = bytearray()
        self.ended = False
        self._flush()

    def await_settings(self) -> int:
        """Return the server's SETTINGS_ENABLE_CONNECT_PROTOCOL."""
        self._until(lambda event: isinstance(event, h2.events.RemoteSettingsChanged))
        return self._h2.remote_settings.enable_connect_protocol

    def request(self, head: Head, *, end: bool = False) -> tuple[int, dict[str, str]]:
        """Send a request's head; return status and fields of the answer."""
        self._stream = self._h2.get_next_available_stream_id()
        self._h2.send_headers(self._stream, head, end_stream=end)
        self._flush()
        found = self._until(lambda event: isinstance(event, h2.events.ResponseReceived))
        assert isinstance(found, h2.events.ResponseReceived)
        fields = {str(name): str(value) for name, value in found.headers or []}
        return int(fields.pop(":status")), fields

    def send(self, data: bytes) -> None:
        """Send bytes on the stream."""
        self._h2.send_data(self._stream, data)
        self._flush()

    def receive(self, count: int) -> bytes:
        """Return what came on the stream, at least *count* bytes unless it ends before."""
        while len(self.data) < count and not self.ended:
            self._until(lambda event: isinstance(event, h2.events.DataReceived | h2.events.StreamEnded))
        return bytes(self.data)

    def close(self) -> None:
        """End the connection."""
        self._sock.close()

    def _flush(self) -> None:
        self._sock.sendall(self._h2.data_to_send())

    def _until(self, wanted: Callable[[h2.events.Event], bool]) -> h2.events.Event:
        while True:
            data = self._sock.recv(65536)
            assert data, "the server has ended the connection"
            found = None
            for event in self._h2.receive_data(data):
                if isinstance(event, h2.events.DataReceived):
                    self.data += event.data or b""
                if isinstance(event, h2.events.StreamEnded):
                    self.ended = True
                if found is None and wanted(event):
                    found = event
            self._flush()
            if found is not None:
                return found


def extended_connect(path: str, origin: str = "https://app.test", **fields: str) -> Head:
    """A handshake of RFC 8441 §5."""
    head = [
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "https"),
        (":path", path),
        (":authority", "app.test"),
        ("sec-websocket-version", "13"),
        ("origin", origin),
    ]
    return head + [(name.replace("_", "-"), value) for name, value in fields.items()]


@pytest.fixture
def server(sessions_servers: Callable[[ServerName], ServerProcess]) -> Iterator[ServerProcess]:
    process = sessions_servers("hypercorn")
    before = len(process.output())
    yield process
    assert faults(process, before) == []


@pytest.fixture
def client(server: ServerProcess, certificates: Certificates) -> Iterator[H2Client]:
    context = trusting(certificates.authority)
    context.set_alpn_protocols(["h2"])
    client = H2Client(server, context)
    assert client.await_settings() == 1
    yield client
    client.close()


def test_a_right_handshake_opens_a_socket(client: H2Client, server: ServerProcess) -> None:
    """Over HTTP/2 there is no Key, no Upgrade and no Connection, and the handshake is right all the same."""
    case = uuid.uuid4().hex
    status, fields = client.request(extended_connect(f"/pass/wait?case={case}", x_pass="alice"))
    assert (status, fields.get("x-app")) == (200, "1")
    client.send(frame(1, b"hello"))
    assert client.receive(7)[-5:] == b"hello"
    called = server.record.wait_for("called", case=case)
    assert (called["type"], called["subject"], called["scheme"]) == ("websocket", "alice", "wss")


@pytest.mark.parametrize(
    ("head", "status", "reason"),
    [
        (extended_connect("/plain/wait", "https://evil.test"), 403, "origin.not_allowed"),
        (extended_connect("/pass/wait"), 401, "credential.missing"),
        (extended_connect("/plain/../pass/wait"), 400, "target.ambiguous"),
        (
            [(name, "evil.test" if name == ":authority" else value) for name, value in extended_connect("/plain/wait")],
            421,
            "host.not_allowed",
        ),
    ],
)
def test_a_wrong_handshake_is_refused(
    client: H2Client, server: ServerProcess, head: Head, status: int, reason: str
) -> None:
    """The checks of HTTP/1.1 run over HTTP/2 too, with the same statuses, and the app never runs."""
    reached = server.record.reached()
    got, fields = client.request(head)
    assert got == status
    assert "connection" not in fields, "not allowed in HTTP/2 (RFC 9113 §8.2.2)"
    assert server.reason_of(fields["x-request-id"]) == reason
    assert server.record.reached() == reached


def test_a_page_that_looks_like_a_handshake_is_no_page(client: H2Client, server: ServerProcess) -> None:
    """A GET over HTTP/2 with fields of a handshake is judged as one and refused: no app takes it for either."""
    reached = server.record.reached()
    head = [
        (":method", "GET"),
        (":scheme", "https"),
        (":path", "/plain/page"),
        (":authority", "app.test"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ]
    assert client.request(head, end=True)[0] == 405
    assert server.record.reached() == reached


def test_a_page_is_a_page(client: H2Client, server: ServerProcess) -> None:
    """Pages over HTTP/2 reach the app."""
    head = [(":method", "GET"), (":scheme", "https"), (":path", "/plain/page"), (":authority", "app.test")]
    assert client.request(head, end=True)[0] == 200
    assert client.receive(3) == b"raw"
