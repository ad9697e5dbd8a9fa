"""A TLS-terminating proxy as an operator puts before a server: says who the client is, and passes every byte on."""

from __future__ import annotations

import contextlib
import selectors
import socket
import ssl
import threading
from typing import Self

from tests.asgi.server_process import Files

CLIENT = "192.0.2.7"


class TLSProxy:
    """
    Listens with *files* on a loopback port and forwards to *upstream*.

    X-Forwarded-For and X-Forwarded-Proto go behind the request line, whatever else the head holds: it judges nothing.
    """

    def __init__(self, files: Files, upstream: tuple[str, int]) -> None:
        self._upstream = upstream
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(files.cert, files.key)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self._listener.getsockname()
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                plain, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(plain,), daemon=True).start()

    def _serve(self, plain: socket.socket) -> None:
        with contextlib.suppress(OSError), plain:
            plain.settimeout(10)
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with (
                self._context.wrap_socket(plain, server_side=True) as client,
                socket.create_connection(self._upstream, timeout=10) as server,
            ):
                server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                first = client.recv(65536)
                while first and b"\n" not in first.lstrip(b"\r\n"):
                    first += client.recv(65536)
                server.sendall(_with_our_fields(first))
                _exchange(client, server)

    def close(self) -> None:
        """Accept no more."""
        # close() alone would not wake the thread that accepts
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _with_our_fields(first: bytes) -> bytes:
    begin = len(first) - len(first.lstrip(b"\r\n"))
    end = first.index(b"\n", begin) + 1
    return first[:end] + f"X-Forwarded-For: {CLIENT}\r\nX-Forwarded-Proto: https\r\n".encode() + first[end:]


def _exchange(client: ssl.SSLSocket, server: socket.socket) -> None:
    """Pass on what comes until one side ends. In one thread: OpenSSL's object must not be read and written in two."""
    with selectors.DefaultSelector() as selector:
        for end in (client, server):
            selector.register(end, selectors.EVENT_READ)
        while True:
            ready = [client] if client.pending() else [key.fileobj for key, _ in selector.select(10)]
            if not ready:
                return  # silent for as long as a test waits for anything
            for source in ready:
                data = client.recv(65536) if source is client else server.recv(65536)
                if not data:
                    return
                (server if source is client else client).sendall(data)
