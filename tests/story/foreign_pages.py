"""Pages of other origins, over TLS with certificates that the browser trusts: nothing but their origin is wrong."""

from __future__ import annotations

import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wsguard.dev_ca import DevelopmentAuthority

PAGE = b"<!doctype html><title>You have won a prize</title>"


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(PAGE)))
        self.end_headers()
        self.wfile.write(PAGE)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name in the standard library
        """Stay silent."""


class ForeignPages:
    """The same page at every one of *names*, until `close`."""

    def __init__(self, authority: DevelopmentAuthority, *names: str) -> None:
        certificate, key = authority.write_leaf(names)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        # The handshake is done by the connection's own thread, at its first read: browsers open spare connections.
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self.origins = [f"https://{name}:{self._server.server_port}" for name in names]
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Serve no more."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
