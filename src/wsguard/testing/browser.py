"""The fields of a handshake as a browser sends them (RFC 6455 §4.1)."""

from __future__ import annotations

import secrets
from base64 import b64encode

_KEY_BYTES = 16


def browser_headers(origin: str) -> dict[str, str]:
    """
    Return what a browser adds to a handshake of a page from *origin*, for a client that does not: TestClient.

    Give a full URL beside it: ``websocket_connect("wss://app.example.com/ws", headers=browser_headers(origin=…))``. By
    itself Starlette's TestClient says scheme ``ws``, Host ``testserver``, a key of 7 bytes, no Upgrade and no Origin.
    """
    return {"origin": origin, **upgrade_headers()}


def upgrade_headers() -> dict[str, str]:
    """Return the fields that make a handshake, with a new key."""
    return {
        "connection": "Upgrade",
        "upgrade": "websocket",
        "sec-websocket-version": "13",
        "sec-websocket-key": b64encode(secrets.token_bytes(_KEY_BYTES)).decode("ascii"),
    }
