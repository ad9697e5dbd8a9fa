"""
A real server for an app under test: uvicorn with TLS in a thread of this process, on a free port of 127.0.0.1.

In this process, so that the app's objects, its database fixtures and its log are the test's own. One server an app;
the one that was used least lately ends when there are too many.
"""

from __future__ import annotations

import atexit
import logging
import socket
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from wsguard.testing.certificate import loopback_certificate
from wsguard.vocabulary.errors import ConfigurationError, WSGuardError

if TYPE_CHECKING:
    import uvicorn

MOST_SERVERS = 16
_START_SECONDS = 20.0
_STOP_SECONDS = 10.0
_GRACE_SECONDS = 1


class ServerStartError(WSGuardError):
    """The app under test did not start: its lifespan failed or took too long."""


class LoopbackServer:
    """One running server with *app*. Raises ServerStartError."""

    def __init__(self, app: Any) -> None:
        self._server = _uvicorn_server(app)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._settled = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"wsguard.testing:{self.port}", daemon=True)
        self._thread.start()
        self._await_start()

    def stop(self) -> None:
        """End it, its app's lifespan too."""
        self._server.should_exit = True
        self._thread.join(_STOP_SECONDS)
        self._listener.close()

    def _run(self) -> None:
        startup = self._server.startup

        async def startup_then_tell(sockets: list[socket.socket] | None = None) -> None:
            await startup(sockets)
            self._settled.set()

        self._server.startup = startup_then_tell
        try:
            self._server.run(sockets=[self._listener])
        except SystemExit:
            pass  # so uvicorn ends where the lifespan fails; `_await_start` tells it
        finally:
            self._settled.set()

    def _await_start(self) -> None:
        in_time = self._settled.wait(_START_SECONDS)
        if not in_time or not self._server.started:
            self.stop()
            why = "its lifespan failed" if in_time else f"its lifespan took more than {_START_SECONDS:.0f} s"
            raise ServerStartError(f"the app did not start: {why}; the log of uvicorn.error says more")


_lock = threading.Lock()
# The app stands beside its server, so that its id stays its own.
_servers: OrderedDict[int, tuple[Any, LoopbackServer]] = OrderedDict()


def server_of(app: Any) -> LoopbackServer:
    """Return the server of *app*, started if there is none yet."""
    with _lock:
        known = _servers.get(id(app))
        if known is not None:
            _servers.move_to_end(id(app))
            return known[1]
        server = LoopbackServer(app)
        if not _servers:
            atexit.register(stop_servers)
        _servers[id(app)] = (app, server)
        if len(_servers) > MOST_SERVERS:
            _, (_, oldest) = _servers.popitem(last=False)
            oldest.stop()
        return server


def stop_servers() -> None:
    """End every server. One that is asked for afterwards is started anew."""
    with _lock:
        while _servers:
            _, (_, server) = _servers.popitem()
            server.stop()
    atexit.unregister(stop_servers)


def _uvicorn_server(app: Any) -> uvicorn.Server:
    try:
        import uvicorn
        import websockets  # noqa: F401  # pyright: ignore[reportUnusedImport] - uvicorn opens no WebSocket without it

        from wsguard.asgi.uvicorn_socket import MendedWebSocketProtocol

        certificate = loopback_certificate()
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            "wsguard.testing", f"{error.name} not installed", "pip install 'wsguard[testing]'"
        ) from None
    with certificate.files() as (certfile, keyfile):
        config = uvicorn.Config(
            app,
            loop="asyncio",
            ws=MendedWebSocketProtocol,
            lifespan="auto",
            ssl_certfile=certfile,
            ssl_keyfile=keyfile,
            proxy_headers=False,
            access_log=False,
            log_config=None,
            timeout_graceful_shutdown=_GRACE_SECONDS,
        )
        config.load()
    logging.getLogger("uvicorn.error").addFilter(_is_a_fault)
    return uvicorn.Server(config)


def _is_a_fault(record: logging.LogRecord) -> bool:
    # uvicorn reports each refusal that has a status as the app's error, though the app did all it must.
    return not str(record.msg).startswith("ASGI callable returned without completing handshake")
