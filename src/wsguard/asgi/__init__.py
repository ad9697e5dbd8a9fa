"""Floor 5: the guard inside an ASGI app, whichever framework and server it has."""

from wsguard.asgi.middleware import WebSocketGuard, session

__all__ = ["WebSocketGuard", "session"]
