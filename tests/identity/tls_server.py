"""A real server on loopback, over TLS or in the clear, that answers as the test says and remembers what it was asked."""

from __future__ import annotations

import contextlib
import socketserver
import ssl
import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import AF_INET, AF_UNIX, socket
from typing import Any

import trustme

Address = tuple[str, int]


@dataclass(frozen=True)
class Asked:
    """One request as it arrived."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    connection: Address


@dataclass
class Answer:
    """What the server answers: the body in *parts*, each after *wait* seconds or the server's end."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict[str, str])
    parts: tuple[bytes, ...] = (b"",)
    wait: float = 0


@dataclass
class Server:
    """A running server: where it is, what it was asked, and what it answers."""

    port: int
    answer: Callable[[Asked], Answer]
    asked: list[Asked] = field(default_factory=list[Asked])
    names: list[str | None] = field(default_factory=list[str | None])
    arrived: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    ended: threading.Event = field(default_factory=threading.Event)

    def url(self, path: str = "/list", host: str = "localhost") -> str:
        return f"https://{host}:{self.port}{path}"

    def says(self, answer: Answer) -> None:
        """Answer this from now on."""
        self.answer = lambda asked: answer


class Listener(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, address: Address | str, context: ssl.SSLContext | None) -> None:
        self.address_family = AF_UNIX if isinstance(address, str) else AF_INET
        super().__init__(address, BaseHTTPRequestHandler)  # type: ignore[arg-type]  # a Unix socket has a path
        self.context = context

    def server_bind(self) -> None:
        # Not HTTPServer's, which looks the name of its address up.
        socketserver.TCPServer.server_bind(self)

    def get_request(self) -> tuple[socket, Any]:
        # The handshake is left to the call's own thread: a client who breaks it off must not end the listener.
        sock, address = super().get_request()
        if self.context is None:
            return sock, address
        return self.context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False), address

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client who refuses the certificate or goes away is what some tests are about."""


def handler_of(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            length = int(self.headers.get("Content-Length", "0"))
            headers = {name.lower(): value for name, value in self.headers.items()}
            asked = Asked(self.command, self.path, headers, self.rfile.read(length), self.client_address)
            server.asked.append(asked)
            answer = server.answer(asked)
            server.arrived.release()
            self.send_response_only(answer.status)
            bodiless = answer.status in (101, 204, 304)
            if not bodiless and "Transfer-Encoding" not in answer.headers:
                self.send_header("Content-Length", str(sum(map(len, answer.parts))))
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.end_headers()
            for part in () if bodiless else answer.parts:
                if answer.wait:
                    server.ended.wait(answer.wait)
                self.wfile.write(part)

        do_POST = do_GET  # noqa: N815 - the name that http.server looks for

    return Handler


@contextlib.contextmanager
def serving(
    authority: trustme.CA, *names: str, answer: Answer | None = None, address: str = "127.0.0.1", port: int = 0
) -> Generator[Server]:
    """Serve with a certificate of *authority* for *names* at *port* of *address*, by default any that is free."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*(names or ("localhost",))).configure_cert(context)
    with _serving(Listener((address, port), context), answer) as server:

        def note_name(sock: ssl.SSLObject | ssl.SSLSocket, name: str | None, context: ssl.SSLContext) -> None:
            server.names.append(name)

        context.sni_callback = note_name
        yield server


@contextlib.contextmanager
def serving_in_the_clear(answer: Answer | None = None, *, place: Address | str = ("127.0.0.1", 0)) -> Generator[Server]:
    """Serve plain HTTP at *place*, an address or the path of a Unix socket."""
    with _serving(Listener(place, None), answer) as server:
        yield server


@contextlib.contextmanager
def _serving(listener: Listener, answer: Answer | None) -> Generator[Server]:
    said = Answer() if answer is None else answer
    port = listener.server_address[1] if listener.address_family == AF_INET else 0
    server = Server(int(port), lambda asked: said)
    listener.RequestHandlerClass = handler_of(server)
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.ended.set()
        listener.shutdown()
        thread.join()
        listener.server_close()
