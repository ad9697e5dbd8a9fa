"""For FastAPI apps behind a `WebSocketGuard`: who it is, as dependencies."""

from wsguard.asgi.fastapi import identity, require_scope

__all__ = ["identity", "require_scope"]
